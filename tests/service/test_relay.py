"""The relay: a broker is told of what is due, and the table knows all the same when it is away, full or forgetful."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import bindparam, select, update

from models import Job
from models.base import now
from models.statements import execute, fetch_all, unit_of_work
from service.jobs import queue, relay, runner
from service.jobs.queue import enqueue
from service.jobs.relay import BrokerAway, Relay
from service.jobs.worker import Worker
from tests.brokers import valkey
from tests.databases import application

EVERY = select(Job).order_by(Job.id)
LET_WAITS_BE_OVER = update(Job).values(run_at=bindparam("moment"))
ANSWERS, TAKES_NO_MESSAGE, AWAY = "answers", "takes no message", "away"


class Broker:
    """A broker that may be away, and keeps the messages that it takes."""

    def __init__(self) -> None:
        self.state, self.space = ANSWERS, 100
        self.messages: list[tuple[int, int]] = []

    @contextmanager
    def connected(self) -> Iterator["Broker"]:
        if self.state == AWAY:
            raise BrokerAway("ConnectionRefusedError")
        yield self

    def room(self) -> int:
        return self.space - len(self.messages)

    def send(self, job_id: int, attempt: int) -> None:
        if self.state == TAKES_NO_MESSAGE:
            raise BrokerAway("TimeoutError")
        self.messages.append((job_id, attempt))

    def check(self) -> None:
        with self.connected():
            pass


@pytest.fixture
def context(app):
    with app.app_context():
        yield


@pytest.fixture
def ran(monkeypatch):
    """Return the numbers of the jobs of the kind `note` that were run."""
    numbers = []
    monkeypatch.setitem(runner.JOBS, "note", lambda job: numbers.append(job.arguments["number"]))
    return numbers


def ask(count=1, *, lane=None):
    with unit_of_work():
        for number in range(count):
            enqueue("note", lane=lane, number=number)


def all_jobs():
    return [*fetch_all(EVERY)]


def let_waits_be_over():
    with unit_of_work():
        execute(LET_WAITS_BE_OVER, moment=now() - timedelta(seconds=1))


def run_what_was_sent(broker):
    """Do as those who receive messages do."""
    while broker.messages:
        if job := queue.take(*broker.messages.pop(0)):
            runner.run(job)


def relay_to(broker):
    return Relay(broker).hand_over(lambda: True)


# Handing over


def test_each_job_is_told_of_once_and_run_by_who_hears_of_it(context, ran):
    broker = Broker()
    ask(3)

    assert relay_to(broker) and relay_to(broker)

    assert [attempt for _, attempt in broker.messages] == [0, 0, 0] and ran == []
    run_what_was_sent(broker)
    assert ran == [0, 1, 2] and all_jobs() == []


def test_what_the_broker_lost_is_told_again_and_of_two_messages_one_counts(context, ran):
    broker = Broker()
    ask()
    relay_to(broker)

    let_waits_be_over()
    relay_to(broker)

    assert broker.messages[0] == broker.messages[1]
    run_what_was_sent(broker)
    assert ran == [0] and all_jobs() == []


@pytest.mark.parametrize("state", [TAKES_NO_MESSAGE, AWAY])
def test_broker_that_is_away_takes_nothing_from_a_job(context, ran, state):
    broker = Broker()
    broker.state = state
    ask()

    assert relay_to(broker) is False

    (job,) = all_jobs()
    assert (job.leased, job.attempts, job.last_error, broker.messages) == (False, 0, None, [])
    assert job.run_at <= now() + timedelta(seconds=5)
    broker.state = ANSWERS
    let_waits_be_over()
    assert relay_to(broker)
    run_what_was_sent(broker)
    assert ran == [0] and all_jobs() == []


def test_broker_that_is_away_is_told_of_once(context, caplog):
    broker = Broker()
    relaying = Relay(broker)
    ask(3)

    with caplog.at_level("INFO", "rollcall.relay"):
        for state in (AWAY, TAKES_NO_MESSAGE, AWAY, ANSWERS, ANSWERS):
            broker.state = state
            relaying.hand_over(lambda: True)

    assert [record.message for record in caplog.records] == ["the broker does not answer", "the broker answers again"]


def test_broker_is_given_no_more_than_it_should_hold(context):
    broker = Broker()
    broker.space = 2
    ask(5)

    relay_to(broker)
    relay_to(broker)

    assert len(broker.messages) == 2
    assert [job.leased for job in all_jobs()] == [True, True, False, False, False]


def test_relay_that_is_told_to_stop_hands_over_nothing_more(context):
    broker = Broker()
    ask(5)

    Relay(broker).hand_over(lambda: len(broker.messages) < 2)

    assert len(broker.messages) == 2
    assert sum(job.leased for job in all_jobs()) == 2


def test_late_message_does_not_begin_a_job_whose_lane_is_anothers_by_now(context, ran):
    broker = Broker()
    ask(2, lane="narrow")
    relay_to(broker)
    (late,) = broker.messages
    (job,) = [job for job in all_jobs() if job.id == late[0]]
    queue.hand_back(job, retry_in=timedelta(0))  # So it is not handed over any more.
    with unit_of_work():
        queue.put_off("narrow", now() + timedelta(hours=1))
        execute(LET_WAITS_BE_OVER.where(Job.id != late[0]), moment=now())
    relay_to(broker)
    _, other = broker.messages

    assert queue.take(*late) is None

    assert queue.take(*other).arguments == {"number": 1}


def test_job_that_was_taken_after_all_is_not_handed_back(context):
    ask()
    job = queue.hand_over(within=timedelta(minutes=1))
    taken = queue.take(job.id, job.attempts)

    queue.hand_back(job, retry_in=timedelta(0))

    assert all_jobs() == [taken]


def test_worker_relays_until_it_is_told_to_stop_also_when_the_broker_is_away_at_first(app, ran, monkeypatch):
    monkeypatch.setattr(relay, "AFTER_TROUBLE", 0.01)
    broker = Broker()
    broker.state = AWAY
    monkeypatch.setitem(app.extensions, "broker", broker)
    worker = Worker(app)
    running = threading.Thread(target=worker.run)
    running.start()
    try:
        with app.app_context():
            ask(2)
        broker.state = ANSWERS
        while len(broker.messages) < 2:
            assert running.is_alive()
            time.sleep(0.01)
    finally:
        worker.stop()
        running.join()

    assert ran == [] and [attempt for _, attempt in broker.messages] == [0, 0]


# Whether it is there


def test_service_whose_broker_is_away_is_not_ready(app, client, monkeypatch):
    broker = Broker()
    monkeypatch.setitem(app.extensions, "broker", broker)
    assert client.get("/health/ready").status_code == 200

    broker.state = AWAY

    response = client.get("/health/ready")
    assert (response.status_code, response.json["detail"]) == (503, "The broker cannot be reached.")


# Celery


def test_celery_carries_jobs_to_its_workers(app, settings_for, ran):
    with valkey() as server:
        settings = settings_for(app.config["DATABASE_URL"], CELERY_BROKER_URL=server.url)
        with application(settings, migrated=False) as ours, ours.app_context():
            broker = ours.extensions["broker"]
            ask(2)
            assert relay_to(broker)
            with broker.connected() as sender:
                assert sender.room() == 998

            task = broker.celery.tasks["rollcall.run"]
            for job in all_jobs():
                task(job.id, 0)
                task(job.id, 0)
            broker.celery.tasks["rollcall.upkeep"]()
            assert ran == [0, 1] and all_jobs() == []

            broker.check()
            server.kill()
            ask()
            assert relay_to(broker) is False
            with pytest.raises(BrokerAway):
                broker.check()


def test_database_that_is_away_leaves_a_job_for_later(settings_for, tmp_path, capsys):
    settings = settings_for(f"sqlite:///{tmp_path}/nothing.db", CELERY_BROKER_URL="redis://127.0.0.1:1/")
    with application(settings, migrated=False) as ours:
        ours.extensions["broker"].celery.tasks["rollcall.run"](1, 0)

    assert '"message":"the database does not answer"' in capsys.readouterr().out
