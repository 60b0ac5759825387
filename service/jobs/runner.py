"""What runs the jobs: each by its kind, one after another, in a thread beside the requests or by `flask jobs run`."""

import logging
import os
import threading
from collections.abc import Callable

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from models.statements import Record
from service import letters
from service.jobs import queue
from service.jobs.queue import JobFailed

log = logging.getLogger("rollcall.jobs")

LONGEST_PAUSE = 60.0  # Seconds until the table is looked at again without being asked to.
JOBS: dict[str, Callable[[Record], None]] = {
    "confirm_registration": letters.confirm_registration,
    "verify_email": letters.verify_email,
    "verify_again": letters.verify_again,
    "change_email": letters.change_email,
    "reset_password": letters.reset_password,
    "notice": letters.notice,
}


def run_next() -> bool:
    """Run the job that is due longest; tell whether there was one."""
    job = queue.claim()
    if job is None:
        return False
    try:
        JOBS[job.kind](job)
    except JobFailed as failure:
        _put_back(job, str(failure), for_good=failure.for_good)
    except Exception as error:  # Whatever one job does, the next must have its turn.
        log.exception("job broke off", extra={"job": job.id, "kind": job.kind})
        _put_back(job, type(error).__name__)
    else:
        queue.done(job)
    return True


def drain() -> int:
    """Run all jobs that are due, and return how many there were."""
    count = 0
    while run_next():
        count += 1
    return count


def _put_back(job: Record, reason: str, *, for_good: bool = False) -> None:
    log.warning("job failed", extra={"job": job.id, "kind": job.kind, "attempt": job.attempts, "reason": reason})
    queue.failed(job, reason, for_good=for_good)


class Runner:
    """A thread that runs jobs beside the requests of this process; it starts when the first is asked for."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self._pid = 0
        self._awake = threading.Event()
        self._lock = threading.Lock()

    def wake(self) -> None:
        """Say that there is something to do; a thread that was started before a fork does not run in the child."""
        self._awake.set()
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="jobs", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._awake.clear()
            with self.app.app_context():
                pause = self._work()
            self._awake.wait(pause)

    def _work(self) -> float:
        """Run all that is due, and return the seconds until something else is."""
        try:
            drain()
            soon = queue.seconds_to_next()
        except SQLAlchemyError as error:
            log.warning("jobs cannot be read", extra={"error": type(error).__name__})
            return 5
        return LONGEST_PAUSE if soon is None else min(soon, LONGEST_PAUSE)
