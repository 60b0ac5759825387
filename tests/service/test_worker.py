"""The worker: does what is due until it is told to stop, whatever jobs, database and parent do meanwhile."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import bindparam, event, select, update

from models import Event, Job
from models.base import db, now
from models.statements import execute, fetch_all, unit_of_work
from service.jobs import queue, runner, worker
from service.jobs.queue import JobFailed, enqueue
from service.jobs.worker import Worker
from tests.factories.event import EventFactory
from tests.factories.user import UserFactory
from tests.letters import Mailbox

FORGOT = "/api/v1/auth/password/forgot"
ADA = "ada@example.com"
KINDS = select(Job.kind).order_by(Job.id)
PUT_FORWARD = update(Job).values(run_at=bindparam("moment"))
POSITIONS = select(Event.position).order_by(Event.id)


@pytest.fixture(autouse=True)
def hasty(app, monkeypatch):
    """Let a worker have two threads, of which one leaves lanes alone, and look often."""
    app.config["THREADS"] = 2
    monkeypatch.setattr(worker, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(worker, "AFTER_TROUBLE", 0.05)


@pytest.fixture
def ran(monkeypatch):
    """Return the numbers of the jobs of the kind `note` that were run."""
    numbers = []
    monkeypatch.setitem(runner.JOBS, "note", lambda job: numbers.append(job.arguments["number"]))
    return numbers


@pytest.fixture
def context(app):
    with app.app_context():
        yield


class Held:
    """Jobs of the kind `hold`, each of which goes on until the test lets it."""

    def __init__(self):
        self.begun, self.may_end, self.ended = [], threading.Event(), []

    def __call__(self, job):
        self.begun.append(job.lane)
        self.may_end.wait(10)
        self.ended.append(job.lane)


@pytest.fixture
def held(monkeypatch):
    held = Held()
    monkeypatch.setitem(runner.JOBS, "hold", held)
    yield held
    held.may_end.set()


@contextmanager
def working(app, **more):
    """Let a worker work, and at the end stop it."""
    made = Worker(app, **more)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(10)
        assert not thread.is_alive()
        assert names_of_threads() == []


def names_of_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("jobs")]


def ask(kind, count=1, **more):
    with unit_of_work():
        for number in range(count):
            enqueue(kind, number=number, **more)


def waiting():
    return [row.kind for row in fetch_all(KINDS)]


def let_leases_end():
    with unit_of_work():
        execute(PUT_FORWARD, moment=now() - timedelta(seconds=1))


def soon(condition):
    """Wait for something that is about to happen."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


# What it does


def test_a_letter_leaves_soon_after_the_answer(app, client, tmp_path):
    mailbox = Mailbox(app, tmp_path)
    UserFactory(email=ADA)

    with working(app):
        client.post(FORGOT, json={"email": ADA})
        assert soon(lambda: [*tmp_path.glob("[!.]*")])

    assert [letter.subject for letter in mailbox.arrived()] == ["Set a new password"]


def test_events_are_published_although_nobody_reads(app, context):
    EventFactory()

    with working(app):
        assert soon(lambda: fetch_all(POSITIONS) == [(1,)])
        EventFactory()
        assert soon(lambda: fetch_all(POSITIONS) == [(1,), (2,)])


def test_what_was_left_from_before_is_done(app, context, ran):
    ask("note", 5)

    with working(app):
        assert soon(lambda: waiting() == [])

    assert sorted(ran) == [0, 1, 2, 3, 4]


def test_it_goes_on_after_jobs_that_fail(app, context, ran, monkeypatch):
    def fail(job):
        raise JobFailed("it would not do")

    monkeypatch.setitem(runner.JOBS, "fail", fail)

    with working(app):
        ask("fail")
        ask("no such kind")
        ask("note")
        assert soon(lambda: ran == [0])
        ask("note")
        assert soon(lambda: ran == [0, 0])
        assert soon(lambda: waiting() == ["fail", "no such kind"])


def test_a_job_that_failed_is_tried_again_by_itself(app, context, monkeypatch):
    monkeypatch.setattr(queue, "FIRST_RETRY", 0.05)
    attempts = []

    def fail_once(job):
        attempts.append(job.attempts)
        if len(attempts) == 1:
            raise JobFailed("not yet")

    monkeypatch.setitem(runner.JOBS, "fail once", fail_once)
    ask("fail once")

    with working(app):
        assert soon(lambda: attempts == [1, 2])


# Lanes


def test_what_is_in_lanes_holds_up_neither_the_rest_nor_each_other(app, context, held, ran):
    app.config["THREADS"] = 1
    for lane in "abcd":
        ask("hold", lane=lane)

    with working(app):
        assert soon(lambda: len(held.begun) == 4)
        ask("note", 3)
        assert soon(lambda: len(ran) == 3)
        held.may_end.set()
        assert soon(lambda: waiting() == [])

    assert sorted(held.ended) == ["a", "b", "c", "d"]


def test_of_a_lane_one_job_runs_at_a_time_however_many_threads_there_are(app, context, held):
    app.config["THREADS"] = 6
    ask("hold", 3, lane="a")
    ask("hold", lane="b")

    with working(app):
        assert soon(lambda: sorted(held.begun) == ["a", "b"])
        time.sleep(5 * worker.LOOK_EVERY)
        assert sorted(held.begun) == ["a", "b"]
        held.may_end.set()
        assert soon(lambda: sorted(held.ended) == ["a", "a", "a", "b"])


def test_a_single_thread_does_what_is_in_lanes_and_what_is_not(app, context, ran):
    app.config["THREADS"] = 1
    ask("note", lane="a lane")
    ask("note")

    with working(app):
        assert soon(lambda: ran == [0, 0])


# Its end


def test_who_is_told_to_stop_finishes_what_has_begun_and_begins_nothing_more(app, context, held):
    ask("hold", 3)

    with working(app) as running:
        assert soon(lambda: len(held.begun) == 2)
        running.stop()
        assert soon(running._stop.is_set)
        assert soon(lambda: len(names_of_threads()) == 2)
        held.may_end.set()

    assert (held.begun, held.ended) == ([None] * 2, [None] * 2)
    assert waiting() == ["hold"]


def test_who_has_nothing_to_do_ends_at_once(app):
    began = time.monotonic()

    with working(app):
        pass

    assert time.monotonic() - began < 5


def test_it_ends_with_the_process_that_started_it(app):
    made = Worker(app, parent=os.getppid() + 1)

    made.run()

    assert names_of_threads() == []


def test_it_stays_as_long_as_the_process_that_started_it(app, context, ran):
    with working(app, parent=os.getppid()):
        time.sleep(5 * worker.LOOK_EVERY)
        ask("note")
        assert soon(lambda: ran == [0])


@pytest.fixture
def signals():
    """Give back what the signals meant before the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield before
    for number, meaning in before.items():
        signal.signal(number, meaning)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_works_until_a_signal(app, context, ran, signals, number):
    ask("note")

    def tell():
        soon(lambda: ran == [0])
        if signal.getsignal(number) is not signals[number]:  # The command listens; otherwise it would be the end of us.
            os.kill(os.getpid(), number)

    telling = threading.Thread(target=tell)
    telling.start()
    result = app.test_cli_runner().invoke(args=["worker"])
    telling.join()

    assert (result.exit_code, result.output, ran) == (0, "", [0])


def test_the_command_ends_with_the_process_that_it_is_told_of(app, context, signals):
    result = app.test_cli_runner().invoke(args=["worker", "--with-parent", str(os.getppid() + 1)])

    assert (result.exit_code, result.output) == (0, "")


# When the database is away


class Database:
    """The way to the database, which the test can block."""

    def __init__(self, app):
        with app.app_context():
            self.engine = db.engine

    def goes_away(self):
        event.listen(self.engine, "checkout", self._refuse)

    def comes_back(self):
        if event.contains(self.engine, "checkout", self._refuse):
            event.remove(self.engine, "checkout", self._refuse)

    def _refuse(self, *_):
        raise self.engine.dialect.loaded_dbapi.OperationalError("away")


@pytest.fixture
def database(app):
    database = Database(app)
    yield database
    database.comes_back()


def test_it_goes_on_when_the_database_is_there_again(app, context, ran, database, caplog):
    ask("note")
    database.goes_away()

    with working(app):
        assert soon(lambda: "the database does not answer" in caplog.text)
        assert ran == []
        database.comes_back()
        assert soon(lambda: ran == [0])


def test_what_was_done_when_the_database_was_away_is_done_again(app, context, held, database, caplog):
    ask("hold")

    with working(app):
        assert soon(lambda: held.begun == [None])
        database.goes_away()
        held.may_end.set()
        assert soon(lambda: held.ended == [None])
        assert soon(lambda: "the database does not answer" in caplog.text)
        database.comes_back()
        assert waiting() == ["hold"]
        let_leases_end()
        assert soon(lambda: waiting() == [])

    assert held.ended == [None, None]
