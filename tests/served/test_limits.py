"""Rate limits with real workers: exactly as many pass as may, and what befalls Redis lets nobody do without limit."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from typing import NamedTuple

import http_sfv
import psutil
import pytest

from tests.brokers import Broker, valkey
from tests.served.conftest import all_foreseen
from tests.served.crowd import Crowd
from tests.served.service import API, Caller, Service, eventually, served

pytestmark = pytest.mark.served

ME, USERS, LOGIN = f"{API}/me", f"{API}/users", f"{API}/auth/login"
ALLOWED = 40
# By the hour, so that no window ends while a test runs.
LIMITS = {
    "RATE_LIMIT_USER": f"{ALLOWED}/hour",
    "RATE_LIMIT_KEY": f"{ALLOWED}/hour",
    "RATE_LIMIT_ADDRESS": "120/hour",
}
CLIENTS, TIMES = 16, 10  # In all four times as many as may pass.


class Answer(NamedTuple):
    """The status of an answer, and how much it said was left."""

    status: int
    left: int


@pytest.fixture(scope="module")
def limited(make_database: Callable[[str, str], str]) -> Iterator[Service]:
    """Serve the application with low limits by four workers, without Redis."""
    url = make_database("sqlite", "limited")
    with served(url, WEB_CONCURRENCY="4", **LIMITS) as service, all_foreseen(service, but="SIGKILL"):
        yield service


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with valkey() as broker:
        yield broker


@pytest.fixture(scope="module")
def together(make_database: Callable[[str, str], str], broker: Broker) -> Iterator[list[Service]]:
    """Serve the application with low limits as two instances that have a Redis."""
    url = make_database("sqlite", "together")
    with (
        served(url, REDIS_URL=broker.url, **{**LIMITS, "RATE_LIMIT_KEY": "100000/hour"}) as service,
        all_foreseen(service),
        service.another_instance() as other,
        all_foreseen(other),
    ):
        yield [service, other]


def new_token(service: Service) -> str:
    """Return the access token of a new user."""
    return service.sign_in(service.make_user().email)


def new_program(service: Service) -> list[str]:
    """Return the key of a new program, and a token for it."""
    accounts, body = f"{API}/service-accounts", {"name": "Program", "scopes": ["users:read"]}
    account = service.send("POST", accounts, service.admin_token(), json=body).json()
    key = service.send("POST", f"{accounts}/{account['id']}/keys", service.admin_token()).json()["key"]
    form = {"grant_type": "client_credentials", "client_id": account["client_id"], "client_secret": key}
    return [key, service.send("POST", "/oauth/token", data=form).json()["access_token"]]


def ask(caller: Caller, path: str, forged: str = "") -> Answer:
    """Send a request, from another address as it says, and return what is told."""
    headers = {"X-Forwarded-For": forged, "X-Real-IP": forged, "Forwarded": f"for={forged}"} if forged else {}
    answer = caller.get(path, headers=headers)
    states = http_sfv.List()
    states.parse(answer.headers["RateLimit"].encode())
    return Answer(answer.status_code, states[0].params["r"])


def ask_often(number: int, caller: Caller, path: str) -> list[Answer]:
    return [ask(caller, path, f"10.{number}.0.{turn}") for turn in range(TIMES)]


def asked_at_once(services: Sequence[Service], tokens: Sequence[str | None], path: str = ME) -> list[Answer]:
    """Return what is told to many clients that ask at the same moment, spread over instances and credentials."""
    places = [*zip(range(CLIENTS), cycle(services), cycle(tokens * len(services)), strict=False)]
    with ExitStack() as stack:
        callers = [stack.enter_context(service.caller(token)) for _, service, token in places]
        crowd = Crowd(callers, stack.enter_context(ThreadPoolExecutor(CLIENTS)))
        answers = [answer for share in crowd.at_once(ask_often, path) for answer in share]
        for service in services:
            who_answer = [pid for pid in service.server.worker_pids() if psutil.Process(pid).net_connections()]
            assert len(who_answer) > 1
    return answers


def assert_exactly(number: int, answers: Sequence[Answer], passed: int = 200) -> None:
    """Assert that exactly so many passed, each of whom was told another number, and that the rest was refused."""
    through = [answer.left for answer in answers if answer.status == passed]
    assert sorted(through) == [*range(number)]
    assert {answer for answer in answers if answer.status != passed} == {Answer(429, 0)}


# Without Redis


class Callers(NamedTuple):
    """Credentials that nobody has used yet, all made before the address is used up from which they are."""

    person: str
    survivor: str
    program: list[str]


@pytest.fixture(scope="module")
def callers(limited: Service) -> Callers:
    return Callers(new_token(limited), new_token(limited), new_program(limited))


def test_of_many_requests_of_a_user_exactly_as_many_pass_as_may(limited: Service, callers: Callers) -> None:
    assert_exactly(ALLOWED, asked_at_once([limited], [callers.person]))


def test_of_many_requests_with_a_key_and_its_token_exactly_as_many_pass_as_may(
    limited: Service, callers: Callers
) -> None:
    answers = asked_at_once([limited], callers.program, USERS)

    assert_exactly(ALLOWED - 1, answers)  # The first was when the token was made.


@pytest.mark.usefixtures("callers")
def test_forged_addresses_make_no_difference(limited: Service) -> None:
    with limited.caller() as stranger:
        left = ask(stranger, ME).left

    answers = asked_at_once([limited], [None])

    assert 0 < left < len(answers)
    assert_exactly(left, answers, passed=401)


def test_what_was_counted_outlives_the_workers_and_those_killed_hold_nobody_up(
    limited: Service, callers: Callers
) -> None:
    former = limited.server.worker_pids()
    with limited.caller(callers.survivor) as person:
        begun = [ask(person, ME) for _ in range(5)]

    for pid in former:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len({*limited.server.worker_pids()} - {*former}) == len(former))

    assert begun[-1] == Answer(200, ALLOWED - 5)
    assert_exactly(ALLOWED - 5, asked_at_once([limited], [callers.survivor]))


# With Redis


def count_together(services: Sequence[Service], key: str) -> bool:
    """Tell whether all workers count together: after each request, of either instance, one less is left."""
    left = []
    for service in [*services] * 6:
        with service.caller(key) as caller:  # On a connection of its own, and so to any worker.
            left.append(ask(caller, USERS).left)
    return left == [*range(left[0], left[0] - len(left), -1)]


def test_two_instances_let_exactly_as_many_pass_as_one(together: list[Service]) -> None:
    token = new_token(together[0])

    assert_exactly(ALLOWED, asked_at_once(together, [token]))


@pytest.mark.parametrize(
    ("disturb", "mend"), [(Broker.kill, Broker.start), (Broker.pause, Broker.go_on)], ids=["killed", "frozen"]
)
def test_while_redis_is_away_each_instance_counts_for_itself(
    together: list[Service], broker: Broker, disturb: Callable[[Broker], None], mend: Callable[[Broker], None]
) -> None:
    token, (key, _) = new_token(together[0]), new_program(together[0])
    assert count_together(together, key)
    with together[0].caller(token) as one, together[1].caller(token) as other:
        answers = [ask(caller, ME) for _ in range(5) for caller in (one, other)]
    assert answers[-1] == Answer(200, ALLOWED - 10)

    disturb(broker)
    try:
        answers += asked_at_once(together, [token])
    finally:
        mend(broker)

    assert {answer.status for answer in answers} == {200, 429}
    assert ALLOWED <= sum(answer.status == 200 for answer in answers) <= ALLOWED * len(together)
    eventually(lambda: count_together(together, key))
