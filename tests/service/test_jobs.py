"""Jobs: asked for with their cause or not at all, run at least once, one of a lane at a time, none in another's way."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import bindparam, select, update

from models import Job
from models.base import now
from models.statements import execute, fetch_all, unit_of_work
from service.errors import NotFound
from service.jobs import queue, runner
from service.jobs.queue import JobFailed, enqueue
from tests.databases import application
from tests.factories.job import JobFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.letters import Mailbox

USERS = "/api/v1/users"
FORGOT = "/api/v1/auth/password/forgot"
ADA = "ada@example.com"
EVERY = select(Job).order_by(Job.id)
PUT_FORWARD = update(Job).where(Job.failed_at.is_(None)).values(run_at=bindparam("moment"))
OFTEN_TRIED = update(Job).values(attempts=bindparam("often"))
WITHIN = timedelta(minutes=1)


class Trouble(Exception):
    """What a job may run into."""


class Killed(BaseException):
    """The end of a process, which no code of ours is told of."""


@pytest.fixture
def ran(monkeypatch):
    """Return the numbers of the jobs of the kind `note` that were run."""
    numbers = []
    monkeypatch.setitem(runner.JOBS, "note", lambda job: numbers.append(job.arguments["number"]))
    return numbers


@pytest.fixture
def fails(monkeypatch):
    """Let every job of the kind `fail` fail, in the way that the test puts in here."""
    failures = {"as": JobFailed("it would not do")}

    def fail(job):
        raise failures["as"]

    monkeypatch.setitem(runner.JOBS, "fail", fail)
    return failures


@pytest.fixture
def context(app):
    with app.app_context():
        yield


@pytest.fixture
def crowded(app, settings_for):
    """Return an application on the same database that has a connection for each of many threads."""
    with application(settings_for(app.config["DATABASE_URL"], THREADS="16"), migrated=False) as crowded:
        yield crowded


def ask(kind, count=1, *, then=None, **more):
    """Ask for some jobs in one unit of work, which may then meet an error; return their ids."""
    with unit_of_work():
        made = [enqueue(kind, number=number, **more).id for number in range(count)]
        if then:
            raise then
    return made


def all_jobs():
    return [*fetch_all(EVERY)]


def let_waits_be_over():
    with unit_of_work():
        execute(PUT_FORWARD, moment=now() - timedelta(seconds=1))


def at_once(count, app, work):
    """Do something in several threads at the same moment, and return what each of them got."""
    start = threading.Barrier(count)

    def run(_):
        start.wait()
        with app.app_context():
            return work()

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(run, range(count))]


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


def test_a_request_that_is_refused_asks_for_nothing(client, app, nothing_changes):
    UserFactory(email=ADA)

    with nothing_changes(but="throttles"):
        response = client.post(USERS, json={"email": ADA, "name": "Ada", "password": PASSWORD})

    assert response.problem == (409, "email_taken")


def test_a_job_for_later_waits_until_then(context, ran):
    ask("note", run_at=now() + timedelta(hours=1))

    assert runner.drain() == 0 and not queue.is_any_ready()
    let_waits_be_over()

    assert queue.is_any_ready() and runner.drain() == 1
    assert ran == [0]


# Running


def test_jobs_run_in_the_order_in_which_they_were_asked_for(context, ran):
    ask("note", 3)
    ask("note", 2)

    assert runner.drain() == 5
    assert ran == [0, 1, 2, 0, 1]
    assert runner.run_next() is False


def test_what_is_due_longest_is_run_first(context, ran):
    ask("note", run_at=now() - timedelta(seconds=1))
    with unit_of_work():
        enqueue("note", number=7, run_at=now() - timedelta(hours=1))

    runner.drain()

    assert ran == [7, 0]


def test_a_job_is_told_whom_it_is_about_and_which_attempt_this_is(context, monkeypatch):
    told = []
    monkeypatch.setitem(runner.JOBS, "tell", told.append)
    with unit_of_work():
        enqueue("tell", user_id=7, email_key=ADA, lane="a lane", number=1, about="it")

    runner.drain()

    (job,) = told
    assert (job.user_id, job.email_key, job.lane, job.arguments) == (7, ADA, "a lane", {"number": 1, "about": "it"})
    assert (job.attempts, job.leased) == (1, True)


def test_a_job_that_was_done_by_a_process_that_then_died_is_done_again(context, monkeypatch):
    done = []

    def die_once(job):
        done.append(job.attempts)
        if len(done) == 1:
            raise Killed

    monkeypatch.setitem(runner.JOBS, "die once", die_once)
    ask("die once")
    with pytest.raises(Killed):
        runner.run_next()
    assert runner.drain() == 0

    let_waits_be_over()

    assert runner.drain() == 1
    assert done == [1, 2] and all_jobs() == []


def test_nobody_else_takes_a_job_while_its_lease_lasts(context):
    ask("note")
    job = queue.claim()

    assert queue.claim() is None and runner.drain() == 0 and not queue.is_any_ready()
    assert queue.hand_over(within=WITHIN) is None
    assert timedelta(seconds=50) < job.run_at - now() <= timedelta(minutes=1)


LATE = {
    "done": queue.done,
    "failed": lambda job: queue.put_back(job, "too late"),
    "failed for good": lambda job: queue.put_back(job, "too late", for_good=True),
    "failed, with a wait": lambda job: queue.put_back(job, "too late", retry_in=timedelta(days=1)),
    "could not be told": lambda job: queue.hand_back(job, retry_in=timedelta(days=1)),
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_who_comes_back_when_another_attempt_has_begun_changes_nothing(context, nothing_changes, late):
    ask("note", lane="a lane")
    first = queue.claim()
    let_waits_be_over()
    second = queue.claim()
    assert (second.id, first.attempts, second.attempts) == (first.id, 1, 2)

    with nothing_changes():
        late(first)

    queue.done(second)
    assert all_jobs() == []


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_who_comes_back_when_the_job_is_gone_changes_nothing(context, nothing_changes, late):
    ask("note", 2)
    first = queue.claim()
    with unit_of_work():
        queue.drop(first.id)

    with nothing_changes():
        late(first)

    assert [job.leased for job in all_jobs()] == [False]


def test_who_comes_back_before_another_has_begun_has_not_lost_the_job(context):
    ask("note")
    slow = queue.claim()
    let_waits_be_over()

    queue.done(slow)

    assert all_jobs() == []


def test_two_runners_run_each_job_once(app, context, ran):
    ask("note", 30)

    counts = at_once(2, app, runner.drain)

    assert Counter(ran) == dict.fromkeys(range(30), 1)
    assert sum(counts) == 30 and all_jobs() == []


# Failing


def test_the_wait_doubles_up_to_an_hour_and_after_the_last_attempt_the_job_stays(context, fails):
    ask("fail")
    waits = []
    for _ in range(queue.MOST_ATTEMPTS - 1):
        assert runner.drain() == 1
        (job,) = all_jobs()
        waits.append((job.run_at - now()).total_seconds())
        assert (job.last_error, job.failed_at, job.leased) == ("it would not do", None, False)
        assert runner.drain() == 0
        let_waits_be_over()

    for attempt, wait in enumerate(waits):
        usual = min(5 * 2**attempt, 3600)
        assert usual * 0.8 - 2 <= wait <= usual * 1.2
    assert runner.drain() == 1
    let_waits_be_over()
    assert runner.drain() == 0 and not queue.is_any_ready()
    (job,) = all_jobs()
    assert (job.attempts, job.last_error, job.leased) == (32, "it would not do", False) and job.failed_at is not None


def test_the_waits_last_about_a_day():
    waits = [min(queue.FIRST_RETRY * 2**attempt, queue.LONGEST_RETRY) for attempt in range(queue.MOST_ATTEMPTS - 1)]

    assert timedelta(hours=20) < timedelta(seconds=sum(waits)) < timedelta(hours=28)


@pytest.mark.parametrize("attempts", [0, 31, 500])
def test_a_job_that_knows_better_says_when_and_is_tried_as_long_as_it_likes(context, fails, attempts):
    fails["as"] = JobFailed("not before tomorrow", retry_in=timedelta(days=1))
    ask("fail")
    with unit_of_work():
        execute(OFTEN_TRIED, often=attempts)

    runner.drain()

    (job,) = all_jobs()
    assert (job.attempts, job.failed_at, job.leased) == (attempts + 1, None, False)
    assert timedelta(hours=23, minutes=59) < job.run_at - now() <= timedelta(days=1)


def test_a_job_that_failed_for_good_is_not_tried_again(context, fails):
    fails["as"] = JobFailed("x" * 1000, for_good=True)
    ask("fail")

    assert runner.drain() == 1
    let_waits_be_over()
    assert runner.drain() == 0
    (job,) = all_jobs()
    assert (job.attempts, job.last_error) == (1, "x" * 400) and job.failed_at is not None


def test_neither_an_unknown_kind_nor_an_error_stops_the_next_job(context, ran, fails, caplog):
    fails["as"] = Trouble("with a secret in it")
    ask("no such kind")
    ask("fail")
    ask("note")

    assert runner.drain() == 3
    assert ran == [0]
    assert [(job.kind, job.last_error, job.failed_at) for job in all_jobs()] == [
        ("no such kind", "KeyError", None),
        ("fail", "Trouble", None),
    ]
    assert "job broke off" in caplog.text


def test_what_a_job_left_half_done_is_undone(context, monkeypatch):
    monkeypatch.setitem(runner.JOBS, "break off", lambda job: ask("note", then=Trouble))
    ask("break off")

    runner.drain()

    assert [job.kind for job in all_jobs()] == ["break off"]


# Lanes


def test_of_the_jobs_in_a_lane_one_runs_at_a_time(context):
    ask("note", 2, lane="a lane")
    first = queue.claim()

    assert queue.claim() is None and not queue.is_any_ready()
    queue.done(first)

    assert queue.claim().arguments == {"number": 1}


def test_a_lane_that_is_taken_holds_up_nobody_else(context):
    ask("note", 3, lane="a lane")
    ask("other", lane="another lane")
    ask("outside")
    queue.claim()

    assert [queue.claim().kind, queue.claim().kind, queue.claim()] == ["other", "outside", None]


END_OF_A_RUN = {
    "done": queue.done,
    "failed": lambda job: queue.put_back(job, "not now"),
    "failed for good": lambda job: queue.put_back(job, "never", for_good=True),
    "failed, with a wait": lambda job: queue.put_back(job, "tomorrow", retry_in=timedelta(days=1)),
}


@pytest.mark.parametrize("end", END_OF_A_RUN.values(), ids=END_OF_A_RUN)
def test_however_a_job_ends_its_lane_goes_on(context, end):
    _, second = ask("note", 2, lane="a lane")

    end(queue.claim())

    assert queue.claim().id == second


def test_a_lane_whose_job_was_dropped_goes_on(context):
    first, second = ask("note", 2, lane="a lane")
    queue.claim()

    with unit_of_work():
        queue.drop(first)

    assert queue.claim().id == second


def test_a_lane_in_which_somebody_died_goes_on_with_the_same_job(context):
    first, _ = ask("note", 2, lane="a lane")
    queue.claim()
    let_waits_be_over()

    again = queue.claim()

    assert (again.id, again.attempts) == (first, 2)
    assert queue.claim() is None


def test_who_leaves_lanes_alone_takes_what_is_in_none(context, ran):
    ask("note", 2, lane="a lane")
    ask("outside")

    assert queue.claim(in_lanes=False).kind == "outside"
    assert queue.claim(in_lanes=False) is None and runner.run_next(in_lanes=False) is False
    assert runner.run_next() is True
    assert ran == [0]


def test_many_runners_never_run_two_of_a_lane_at_once(crowded, monkeypatch):
    lanes = ["north", "south", "west"]
    lock, busy, done, most = threading.Lock(), Counter(), Counter(), Counter()

    def walk(job):
        with lock:
            busy[job.lane] += 1
            most[job.lane] = max(most[job.lane], busy[job.lane])
        time.sleep(0.002)
        with lock:
            busy[job.lane] -= 1
            done[job.lane, job.arguments["number"]] += 1

    def run_all():
        deadline = time.monotonic() + 20
        while len(done) < 8 * len(lanes) + 16 and time.monotonic() < deadline:
            if not runner.run_next():
                time.sleep(0.002)

    monkeypatch.setitem(runner.JOBS, "walk", walk)
    with crowded.app_context():
        for lane in lanes:
            ask("walk", 8, lane=lane)
        ask("walk", 16)

    at_once(8, crowded, run_all)

    assert {lane: most[lane] for lane in lanes} == dict.fromkeys(lanes, 1)
    assert {*done.values()} == {1}
    with crowded.app_context():
        assert all_jobs() == []


def test_a_lane_is_put_off_and_no_other(context):
    first, second, third = ask("note", 3, lane="a lane")
    (other,) = ask("note", lane="another lane")
    (outside,) = ask("note")
    running = queue.claim()
    until = now() + timedelta(hours=1)
    later = JobFactory(lane="a lane", run_at=until + timedelta(hours=1))
    failed = JobFactory(lane="a lane", failed=True)
    before = {job.id: job.run_at for job in all_jobs()}

    with unit_of_work():
        queue.put_off("a lane", until)

    after = {job.id: job.run_at for job in all_jobs()}
    assert running.id == first
    assert [after[number] for number in (second, third)] == [until, until]
    for number in (first, other, outside, later.id, failed.id):
        assert after[number] == before[number]


# Handing over to somebody else


def test_what_is_handed_over_is_taken_and_run(context, ran):
    ask("note")
    told = queue.hand_over(within=WITHIN)

    job = queue.take(told.id, told.attempts)
    runner.run(job)

    assert (told.attempts, told.leased, job.attempts, job.leased) == (0, True, 1, True)
    assert timedelta(seconds=50) < told.run_at - now() <= WITHIN
    assert ran == [0] and all_jobs() == []


def test_what_is_handed_over_is_nobody_elses(context, ran):
    ask("note")
    queue.hand_over(within=WITHIN)

    assert queue.hand_over(within=WITHIN) is None and runner.drain() == 0 and not queue.is_any_ready()
    assert ran == []


def test_what_was_taken_is_not_taken_again(context, nothing_changes):
    ask("note")
    told = queue.hand_over(within=WITHIN)
    queue.take(told.id, told.attempts)

    with nothing_changes():
        assert queue.take(told.id, told.attempts) is None


def test_of_many_who_take_a_job_at_once_one_gets_it(crowded):
    with crowded.app_context():
        ask("note")
        told = queue.hand_over(within=WITHIN)

    taken = at_once(8, crowded, lambda: queue.take(told.id, told.attempts))

    assert [job.attempts for job in taken if job] == [1]


def test_what_nobody_took_in_time_is_handed_over_again_and_was_no_attempt(context):
    ask("note")
    first = queue.hand_over(within=WITHIN)
    let_waits_be_over()

    second = queue.hand_over(within=WITHIN)

    assert (second.id, second.attempts) == (first.id, first.attempts) == (first.id, 0)
    assert queue.take(first.id, first.attempts).attempts == 1
    assert queue.take(second.id, second.attempts) is None


def test_who_is_told_too_late_finds_the_job_taken_by_a_runner(context, ran, nothing_changes):
    ask("note")
    told = queue.hand_over(within=WITHIN)
    let_waits_be_over()
    queue.claim()

    with nothing_changes():
        assert queue.take(told.id, told.attempts) is None


@pytest.mark.parametrize("attempt", [-1, 1, 2])
def test_only_the_attempt_that_was_told_of_is_taken(context, nothing_changes, attempt):
    ask("note")
    told = queue.hand_over(within=WITHIN)

    with nothing_changes():
        assert queue.take(told.id, attempt) is None
        assert queue.take(told.id + 1, told.attempts) is None


def test_what_was_not_handed_over_cannot_be_taken(context, nothing_changes):
    (number,) = ask("note")

    with nothing_changes():
        assert queue.take(number, 0) is None


def test_what_is_handed_over_takes_its_lane(context):
    first, second = ask("note", 2, lane="a lane")
    told = queue.hand_over(within=WITHIN)

    assert queue.hand_over(within=WITHIN) is None and queue.claim() is None
    queue.done(queue.take(told.id, told.attempts))

    assert (told.id, queue.hand_over(within=WITHIN).id) == (first, second)


def test_what_nobody_could_be_told_of_is_due_again_a_little_later(context):
    ask("note", lane="a lane")
    told = queue.hand_over(within=timedelta(hours=1))

    queue.hand_back(told, retry_in=timedelta(seconds=5))

    (job,) = all_jobs()
    assert (job.attempts, job.leased, job.failed_at) == (0, False, None)
    assert timedelta(seconds=3) < job.run_at - now() <= timedelta(seconds=5)


# By command


@pytest.fixture
def command(app):
    """Return a function that runs a command about jobs, and returns its exit status and what it says."""

    def run(*arguments):
        with app.app_context():
            result = app.test_cli_runner().invoke(args=["jobs", *map(str, arguments)])
        return result.exit_code, result.output

    return run


def test_the_command_runs_what_is_due(app, client, command, tmp_path):
    mailbox = Mailbox(app, tmp_path)
    UserFactory(email=ADA)
    client.post(FORGOT, json={"email": ADA})
    client.post(FORGOT, json={"email": "nobody@example.com"})

    assert [command("run"), command("run")] == [(0, "Ran 2.\n"), (0, "Ran 0.\n")]
    assert [letter.to for letter in mailbox.arrived()] == [ADA]


def test_the_jobs_are_listed_with_the_oldest_first(command):
    moment = now().replace(year=2030, month=1, day=2, hour=3, minute=4, second=5)
    waiting = JobFactory(run_at=moment)
    tried = JobFactory(kind="notice", run_at=moment, attempts=3, last_error="message refused: 451")
    failed = JobFactory(failed=True)

    status, output = command("list")

    assert status == 0
    assert [line.split(maxsplit=4) for line in output.splitlines()] == [
        [str(waiting.id), "reset_password", "0", "2030-01-02T03:04:05Z"],
        [str(tried.id), "notice", "3", "2030-01-02T03:04:05Z", "message refused: 451"],
        [str(failed.id), "reset_password", "32", "failed", "OSError"],
    ]


def test_only_those_that_failed_are_listed_where_that_is_asked_for(command):
    JobFactory(), JobFactory(running=True)
    failed = JobFactory.create_batch(2, failed=True)

    status, output = command("list", "--failed")

    assert status == 0
    assert [line.split()[0] for line in output.splitlines()] == [str(job.id) for job in failed]


def test_the_list_says_neither_whom_a_job_is_about_nor_what_it_holds(command):
    JobFactory(email_key="canary@example.com", arguments={"to": "canary@example.com"}, failed=True)

    assert "canary" not in command("list")[1]


def test_where_there_are_no_jobs_nothing_is_listed(command):
    assert command("list") == command("list", "--failed") == (0, "")


def test_a_job_that_failed_is_tried_once_more_by_command(context, command, fails):
    job = JobFactory(kind="fail", failed=True)

    assert command("retry", job.id) == (0, f"Job {job.id} is due.\n")
    assert command("run") == (0, "Ran 1.\n")

    (job,) = all_jobs()
    assert job.attempts == 33 and job.failed_at is not None
    assert command("run") == (0, "Ran 0.\n")


def test_a_job_that_waits_is_tried_at_once_by_command(command, context, ran):
    job = JobFactory(kind="note", arguments={"number": 7}, later=True, attempts=5)
    assert command("run") == (0, "Ran 0.\n")

    command("retry", job.id)

    assert command("run") == (0, "Ran 1.\n")
    assert ran == [7] and all_jobs() == []


def test_a_job_is_dropped_by_command(context, command):
    dropped, kept = JobFactory(failed=True), JobFactory()

    assert command("drop", dropped.id) == (0, f"Job {dropped.id} is gone.\n")
    assert [job.id for job in all_jobs()] == [kept.id]


@pytest.mark.parametrize("name", ["retry", "drop"])
def test_a_job_that_is_not_there_is_told_in_one_line(command, nothing_changes, name):
    JobFactory(failed=True)

    with nothing_changes():
        status, output = command(name, 999999)

    assert status == 1
    assert output.startswith("rollcall: ") and output.count("\n") == 1


@pytest.mark.parametrize("change", [queue.retry, queue.drop])
def test_a_job_that_is_not_there_is_not_found(context, change):
    with unit_of_work(), pytest.raises(NotFound):
        change(999999)
