"""Jobs: asked for with their cause or not at all, run at least once, and none in the way of another."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import OperationalError

from models import Job
from models.base import now
from models.statements import execute, fetch_all, unit_of_work
from service.jobs import queue, runner
from service.jobs.queue import JobFailed, enqueue
from tests.factories.user import PASSWORD, UserFactory
from tests.letters import Mailbox

USERS = "/api/v1/users"
FORGOT = "/api/v1/auth/password/forgot"
ADA = "ada@example.com"
EVERY = select(Job).order_by(Job.id)
PUT_FORWARD = update(Job).values(run_at=bindparam("moment"))
OFTEN_TRIED = update(Job).values(attempts=30)


class Trouble(Exception):
    """What a job may run into."""


@pytest.fixture
def ran(monkeypatch):
    """Return the numbers of the jobs of the kind `note` that were run."""
    numbers = []
    monkeypatch.setitem(runner.JOBS, "note", lambda job: numbers.append(job.arguments["number"]))
    return numbers


@pytest.fixture
def fails(monkeypatch):
    """Let every job of the kind `fail` fail."""

    def fail(job):
        raise JobFailed("it would not do")

    monkeypatch.setitem(runner.JOBS, "fail", fail)


@pytest.fixture
def context(app):
    with app.app_context():
        yield


@pytest.fixture
def running(app, monkeypatch):
    """Return the thread's runner as a server has it; it ends with the test."""
    app.extensions["jobs"] = made = runner.Runner(app)
    yield made

    def stop():
        raise Ended

    hook = threading.excepthook
    monkeypatch.setattr(threading, "excepthook", lambda said: None if said.exc_type is Ended else hook(said))
    monkeypatch.setattr(runner, "drain", stop)
    made.wake()
    for thread in threading.enumerate():
        if thread.name == "jobs":
            thread.join(10)
    del app.extensions["jobs"]


class Ended(BaseException):
    """The end of a runner's thread."""


def ask(kind, count=1, *, then=None):
    """Ask for some jobs in one unit of work, which may then meet an error."""
    with unit_of_work():
        for number in range(count):
            enqueue(kind, number=number)
        if then:
            raise then


def all_jobs():
    return [*fetch_all(EVERY)]


def let_waits_be_over():
    with unit_of_work():
        execute(PUT_FORWARD, moment=now() - timedelta(seconds=1))


def soon(condition):
    """Wait for something that is about to happen."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


# Asking


def test_a_job_is_asked_for_with_its_cause_or_not_at_all(context, ran):
    with pytest.raises(Trouble):
        ask("note", then=Trouble)
    assert all_jobs() == []

    ask("note")

    assert len(all_jobs()) == 1 and ran == []
    assert runner.drain() == 1
    assert ran == [0] and all_jobs() == []


def test_a_job_outside_a_unit_of_work_is_refused(context):
    with pytest.raises(RuntimeError):
        enqueue("note", number=1)


def test_the_runner_is_woken_by_the_commit_and_by_nothing_else(app, context, monkeypatch):
    woken = []
    monkeypatch.setitem(app.extensions, "jobs", SimpleNamespace(wake=lambda: woken.append(len(all_jobs()))))

    with pytest.raises(Trouble):
        ask("note", then=Trouble)
    assert woken == []

    ask("note")
    assert woken == [1]


def test_a_request_that_is_refused_asks_for_nothing(client, app, nothing_changes):
    UserFactory(email=ADA)

    with nothing_changes(but="throttles"):
        response = client.post(USERS, json={"email": ADA, "name": "Ada", "password": PASSWORD})

    assert response.problem == (409, "email_taken")


# Running


def test_jobs_run_in_the_order_in_which_they_were_asked_for(context, ran):
    ask("note", 3)
    ask("note", 2)

    assert runner.drain() == 5
    assert ran == [0, 1, 2, 0, 1]
    assert runner.run_next() is False


def test_a_job_that_was_done_but_not_ticked_off_is_done_again(context, ran, monkeypatch):
    ask("note")
    with monkeypatch.context() as patch:
        patch.setattr(queue, "done", lambda job: None)  # The process dies just before.
        runner.run_next()
    assert runner.drain() == 0

    let_waits_be_over()

    assert runner.drain() == 1
    assert ran == [0, 0] and all_jobs() == []


def test_nobody_else_takes_a_job_while_its_lease_lasts(context, ran):
    ask("note")
    job = queue.claim()

    assert queue.claim() is None and runner.drain() == 0
    assert timedelta(minutes=1, seconds=50) < job.run_at - now() <= timedelta(minutes=2)


def test_who_comes_back_after_the_lease_removes_nothing(context):
    ask("note")
    late = queue.claim()
    let_waits_be_over()
    second = queue.claim()
    assert (second.id, late.attempts, second.attempts) == (late.id, 1, 2)

    queue.done(late)
    queue.failed(late, "too late")

    (job,) = all_jobs()
    assert (job.attempts, job.last_error, job.failed_at, job.run_at) == (2, None, None, second.run_at)
    queue.done(second)
    assert all_jobs() == []


def test_the_wait_doubles_and_after_the_tenth_attempt_the_job_stays(context, fails):
    ask("fail")
    waits = []
    for _ in range(9):
        assert runner.drain() == 1
        (job,) = all_jobs()
        waits.append((job.run_at - now()).total_seconds())
        assert (job.last_error, job.failed_at) == ("it would not do", None)
        assert runner.drain() == 0
        let_waits_be_over()

    for attempt, wait in enumerate(waits):
        assert 5 * 2**attempt * 0.8 - 2 <= wait <= 5 * 2**attempt * 1.2
    assert runner.drain() == 1
    let_waits_be_over()
    assert runner.drain() == 0
    (job,) = all_jobs()
    assert (job.attempts, job.last_error) == (10, "it would not do") and job.failed_at is not None
    assert queue.seconds_to_next() is None


def test_no_wait_is_longer_than_an_hour_or_so(context, fails, monkeypatch):
    monkeypatch.setattr(queue, "MOST_ATTEMPTS", 50)
    ask("fail")
    with unit_of_work():
        execute(OFTEN_TRIED)

    runner.drain()

    (job,) = all_jobs()
    assert 0.8 * 3600 - 2 <= (job.run_at - now()).total_seconds() <= 1.2 * 3600


def test_a_job_that_failed_for_good_is_not_tried_again(context, monkeypatch):
    def refuse(job):
        raise JobFailed("x" * 1000, for_good=True)

    monkeypatch.setitem(runner.JOBS, "refuse", refuse)
    ask("refuse")

    assert runner.drain() == 1
    let_waits_be_over()
    assert runner.drain() == 0
    (job,) = all_jobs()
    assert (job.attempts, job.last_error) == (1, "x" * 400) and job.failed_at is not None


def test_neither_an_unknown_kind_nor_an_error_stops_the_next_job(context, ran, monkeypatch, caplog):
    def break_off(job):
        raise Trouble("with a secret in it")

    monkeypatch.setitem(runner.JOBS, "break off", break_off)
    ask("no such kind")
    ask("break off")
    ask("note")

    assert runner.drain() == 3
    assert ran == [0]
    assert [(job.kind, job.last_error, job.failed_at) for job in all_jobs()] == [
        ("no such kind", "KeyError", None),
        ("break off", "Trouble", None),
    ]
    assert "job broke off" in caplog.text


def test_what_a_job_left_half_done_is_undone(context, monkeypatch):
    monkeypatch.setitem(runner.JOBS, "break off", lambda job: ask("note", then=Trouble))
    ask("break off")

    runner.drain()

    assert [job.kind for job in all_jobs()] == ["break off"]


def test_two_runners_run_each_job_once(app, context, ran):
    ask("note", 30)
    start = threading.Barrier(2)

    def run(_):
        start.wait()
        with app.app_context():
            return runner.drain()

    with ThreadPoolExecutor(2) as pool:
        counts = [*pool.map(run, range(2))]

    assert Counter(ran) == dict.fromkeys(range(30), 1)
    assert sum(counts) == 30 and all_jobs() == []


def test_it_is_known_how_long_the_next_job_takes(context):
    assert queue.seconds_to_next() is None
    ask("note")
    assert queue.seconds_to_next() == 0.0

    queue.claim()

    assert 110 < queue.seconds_to_next() <= 120


# The thread beside the requests


def test_a_letter_leaves_soon_after_the_answer(app, client, running, tmp_path):
    mailbox = Mailbox(app, tmp_path)
    UserFactory(email=ADA)

    client.post(FORGOT, json={"email": ADA})

    assert soon(lambda: [*tmp_path.glob("[!.]*")])
    assert mailbox.arrived()[0].subject == "Set a new password"
    assert [thread.name for thread in threading.enumerate()].count("jobs") == 1


def test_the_thread_goes_on_after_jobs_that_fail(context, running, ran, fails):
    ask("fail")
    ask("no such kind")
    ask("note")
    assert soon(lambda: ran == [0])

    ask("note", 2)

    assert soon(lambda: ran == [0, 0, 1])
    assert soon(lambda: [job.kind for job in all_jobs()] == ["fail", "no such kind"])


def test_the_thread_goes_on_after_the_database_was_away(context, running, ran, monkeypatch, caplog):
    claim = queue.claim

    def away():
        monkeypatch.setattr(queue, "claim", claim)
        raise OperationalError("", None, Exception("away"))

    monkeypatch.setattr(queue, "claim", away)
    ask("note")
    assert soon(lambda: "jobs cannot be read" in caplog.text)

    running.wake()

    assert soon(lambda: ran == [0])


def test_many_requests_start_one_thread(context, running, ran):
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda _: running.wake(), range(50))]
    ask("note")

    assert soon(lambda: ran == [0])
    assert [thread.name for thread in threading.enumerate()].count("jobs") == 1


def test_a_job_that_failed_is_tried_again_by_itself(context, running, monkeypatch):
    monkeypatch.setattr(queue, "FIRST_RETRY", 0.2)
    attempts = []

    def fail_once(job):
        attempts.append(job.attempts)
        if len(attempts) == 1:
            raise JobFailed("not yet")

    monkeypatch.setitem(runner.JOBS, "fail once", fail_once)
    ask("fail once")

    assert soon(lambda: attempts == [1, 2])


# By command


def test_the_command_runs_what_is_due(app, client, tmp_path):
    mailbox = Mailbox(app, tmp_path)
    UserFactory(email=ADA)
    client.post(FORGOT, json={"email": ADA})
    client.post(FORGOT, json={"email": "nobody@example.com"})

    with app.app_context():
        first, second = (app.test_cli_runner().invoke(args=("jobs", "run")) for _ in range(2))

    assert (first.exit_code, first.output) == (0, "Ran 2.\n")
    assert (second.exit_code, second.output) == (0, "Ran 0.\n")
    assert [letter.to for letter in mailbox.arrived()] == [ADA]
