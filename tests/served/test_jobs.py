"""Jobs: each is done, and none twice in effect, whoever is killed, hangs or is away meanwhile."""

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.brokers import rabbitmq, valkey
from tests.served.conftest import all_foreseen
from tests.served.crew import Crew, crew_of, new_email
from tests.served.service import eventually, run_flask

pytestmark = pytest.mark.served

# How those who run jobs are told of them, and in which database they stand.
TRANSPORTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "sqlite": ("sqlite", contextlib.nullcontext),
    "postgresql": ("postgresql", contextlib.nullcontext),
    "valkey": ("postgresql", valkey),
    "rabbitmq": ("postgresql", rabbitmq),
}
BROKERS = pytest.mark.parametrize("crew", ["valkey", "rabbitmq"], indirect=True, scope="module")
WORKERS = pytest.mark.parametrize("crew", ["sqlite", "postgresql"], indirect=True, scope="module")
EVERY = pytest.mark.parametrize("crew", TRANSPORTS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def crew(request: pytest.FixtureRequest, make_database: Callable[[str, str], str]) -> Iterator[Crew]:
    """Return a crew that is told of jobs in some way; one test after another kills it."""
    database_kind, run_broker = TRANSPORTS[request.param]
    wanted = request.config.getoption("--database")
    if wanted not in {database_kind, "both"}:
        pytest.skip(f"--database {wanted}")
    url = make_database(database_kind, f"jobs_{request.param}")
    with run_broker() as broker, crew_of(url, broker) as crew, all_foreseen(crew):
        yield crew


@pytest.fixture(autouse=True)
def complete(crew: Crew) -> None:
    """Begin each test with everybody there."""
    crew.complete()


@EVERY
def test_each_letter_is_sent_once_though_two_run_jobs(crew: Crew) -> None:
    emails = crew.register_many(24)

    crew.finish()

    numbers = [number for email in emails for number in crew.mail.numbers(email)]
    assert len(numbers) == len({*numbers}) == len(emails)
    assert all(crew.mail.numbers(email) for email in emails)


@EVERY
def test_what_somebody_was_doing_when_killed_is_done_by_others(crew: Crew) -> None:
    crew.mail.hold()
    emails = crew.register_many(12)
    eventually(lambda: any(crew.mail.numbers(email) for email in emails))

    crew.kill()
    crew.mail.release()
    crew.let_waits_be_over("leased")
    crew.complete()
    crew.finish(telling_again=True)

    numbers = [crew.mail.numbers(email) for email in emails]
    assert max(map(len, numbers)) == 2  # The mail server has some twice, and can tell by their number.
    assert [len({*of_one}) for of_one in numbers] == [1] * len(emails)


@BROKERS
def test_broker_that_is_killed_loses_no_job_and_disturbs_no_request(crew: Crew) -> None:
    with crew.registering() as emails:
        eventually(lambda: len(emails) > 10)
        crew.broker.kill()
        eventually(lambda: is_ready(crew) == (503, "The broker cannot be reached."))
        eventually(lambda: "the broker does not answer" in crew.service.staff[0].log())
        crew.broker.start()
        eventually(lambda: is_ready(crew) == (200, None))
    crew.finish(telling_again=True)

    assert {len(crew.mail.numbers(email)) for email in emails} == {1}
    assert crew.service.staff[0].log().count("the broker does not answer") <= 3  # And not once for each job.


@BROKERS
def test_broker_that_hangs_disturbs_no_request(crew: Crew) -> None:
    crew.broker.pause()
    try:
        emails = crew.register_many(10)
        assert is_ready(crew) == (503, "The broker cannot be reached.")
    finally:
        crew.broker.go_on()
    crew.finish(telling_again=True)

    assert {len(crew.mail.numbers(email)) for email in emails} == {1}


def is_ready(crew: Crew) -> tuple[int, str | None]:
    answer = crew.service.send("GET", "/health/ready")
    return answer.status_code, answer.json().get("detail")


@WORKERS
def test_letter_that_is_put_off_arrives_once(crew: Crew) -> None:
    email = new_email()
    crew.mail.answer(email, "451 Try again later")

    crew.register(email)
    eventually(lambda: "message refused: 451" in last_errors(crew))
    crew.let_waits_be_over("NOT leased")
    crew.finish()

    assert len(crew.mail.numbers(email)) == 1


@WORKERS
def test_letter_that_is_refused_is_seen_and_can_be_tried_again(crew: Crew) -> None:
    email = new_email()
    crew.mail.answer(email, "550 No such person")

    crew.register(email)
    crew.finish()
    listed = run_flask(crew.service.environment, "jobs", "list", "--failed")
    ((job_id,),) = crew.service.rows("SELECT id FROM jobs")
    assert re.fullmatch(rf" *{job_id}  verify_email +1  failed +message refused: 550\n", listed)
    assert crew.mail.numbers(email) == []

    assert run_flask(crew.service.environment, "jobs", "retry", str(job_id)) == f"Job {job_id} is due.\n"
    crew.finish()
    assert len(crew.mail.numbers(email)) == 1


@WORKERS
def test_mail_server_that_is_away_disturbs_no_request(crew: Crew) -> None:
    crew.mail.stop()
    try:
        emails = crew.register_many(5)
        eventually(lambda: last_errors(crew) == ["ConnectionRefusedError"] * 5)
    finally:
        crew.mail.start()
    crew.let_waits_be_over("NOT leased")
    crew.finish()

    assert [len(crew.mail.numbers(email)) for email in emails] == [1] * 5


@WORKERS
def test_worker_that_is_told_to_stop_finishes_what_it_has_begun(crew: Crew) -> None:
    workers = [*crew.service.staff]
    eventually(lambda: all("the worker has started" in worker.log() for worker in workers))
    crew.mail.hold()
    email = crew.register(new_email())
    eventually(lambda: bool(crew.mail.numbers(email)))

    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
    crew.mail.release()

    assert [worker.wait() for worker in workers] == [0, 0]
    assert crew.service.rows("SELECT id FROM jobs") == []
    assert len(crew.mail.numbers(email)) == 1
    crew.service.dismiss_staff()


def last_errors(crew: Crew) -> list[str]:
    return [error for (error,) in crew.service.rows("SELECT last_error FROM jobs WHERE last_error IS NOT NULL")]
