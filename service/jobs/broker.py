"""The broker: Celery, which tells its workers of jobs; needs the extra `celery`, and is imported only with one set."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from celery import Celery, Task
from celery.schedules import crontab
from celery.signals import setup_logging
from flask import Flask
from kombu.connection import Connection
from kombu.exceptions import KombuError
from sqlalchemy.exc import SQLAlchemyError

from service import upkeep
from service.jobs import queue, runner
from service.jobs.relay import BrokerAway

log = logging.getLogger("rollcall.broker")

QUEUE = "rollcall"
MOST_WAITING = 1000  # Messages; what is due beyond that waits in the table.
PATIENCE = 2  # Seconds for connecting, and for each step after that.
BOUNDS: dict[str, dict[str, Any]] = {
    "redis": {"socket_connect_timeout": PATIENCE, "socket_timeout": PATIENCE, "max_retries": 0},
    "amqp": {"read_timeout": PATIENCE, "write_timeout": PATIENCE, "confirm_publish": True, "max_retries": 0},
}
OPTIONS = {
    "CELERY_TASK_DEFAULT_QUEUE": QUEUE,
    "CELERY_TASK_IGNORE_RESULT": True,  # How it went stands in the table.
    "CELERY_TASK_ACKS_LATE": False,  # What is lost is sent again, so the broker need not keep it until it is done.
    "CELERY_WORKER_PREFETCH_MULTIPLIER": 1,
    "CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS": True,  # Only those not acknowledged: here, none.
    "CELERY_WORKER_HIJACK_ROOT_LOGGER": False,
    "CELERY_WORKER_REDIRECT_STDOUTS": False,
    "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP": True,
    "CELERY_BROKER_CONNECTION_MAX_RETRIES": None,  # That is, try for ever.
    # By the clock: an interval would begin anew whenever beat is started without what it noted before.
    "CELERY_BEAT_SCHEDULE": {"upkeep": {"task": "rollcall.upkeep", "schedule": crontab(minute="17")}},
}


class Broker:
    """The Celery application over ours: its tasks, and the way to its workers."""

    def __init__(self, app: Flask) -> None:
        self.celery = Celery(app.name, set_as_current=False)
        self.celery.config_from_object({**app.config, **OPTIONS}, namespace="CELERY")
        self._bounds = BOUNDS[urlsplit(app.config["CELERY_BROKER_URL"]).scheme]
        self._run = _add_tasks(self.celery, app)

    @contextmanager
    def connected(self) -> Iterator["Sender"]:
        """Return a connection of its own, since one that lay idle may be dead; raises BrokerAway."""
        connection = self.celery.connection_for_write(connect_timeout=PATIENCE, transport_options=self._bounds)
        with connection:
            with _translated(connection):
                connection.ensure_connection(max_retries=0)
            yield Sender(connection, self._run)

    def check(self) -> None:
        """Return quietly when the broker answers; raises BrokerAway."""
        with self.connected() as sender:
            sender.room()


class Sender:
    """A connection to the broker, for one thread; raises BrokerAway."""

    def __init__(self, connection: Connection, task: Task) -> None:
        self._connection, self._task = connection, task

    def room(self) -> int:
        """Return how many more messages may wait there."""
        with _translated(self._connection):
            waiting = self._task.app.amqp.queues[QUEUE](self._connection.default_channel)
            return max(0, MOST_WAITING - int(waiting.queue_declare().message_count))

    def send(self, job_id: int, attempt: int) -> None:
        """Leave a message that a job is to be taken."""
        with _translated(self._connection):
            self._task.apply_async((job_id, attempt), connection=self._connection, retry=False)


@contextmanager
def _translated(connection: Connection) -> Iterator[None]:
    """Raise one kind of error, whatever the broker; its name is enough to tell, and holds no password."""
    try:
        yield
    except (KombuError, *connection.connection_errors, *connection.channel_errors) as error:
        raise BrokerAway(type(error.__cause__ or error).__name__) from None


def _add_tasks(celery: Celery, app: Flask) -> Task:
    """Add what the workers of Celery do, and return the task that runs a job."""

    def run(job_id: int, attempt: int) -> None:
        with app.app_context(), _patience_with_the_database():
            if job := queue.take(job_id, attempt):
                runner.run(job)

    def run_upkeep() -> None:
        with app.app_context(), _patience_with_the_database():
            log.info("upkeep is done", extra={"removed": upkeep.run()})

    celery.task(run_upkeep, name="rollcall.upkeep", shared=False)
    return celery.task(run, name="rollcall.run", shared=False)


@contextmanager
def _patience_with_the_database() -> Iterator[None]:
    """Leave for later what the database could not be asked: the job is handed over again, the upkeep is due again."""
    try:
        yield
    except SQLAlchemyError as error:
        log.warning("the database does not answer", extra={"error": type(error).__name__})


def _leave_logging_alone(**_: object) -> None:
    """Keep Celery from setting up logging, as it does where nobody listens to this signal: the application has."""


setup_logging.connect(_leave_logging_alone)
