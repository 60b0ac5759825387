"""Webhooks: whatever one endpoint does, the others are told everything, once, in order and soon.

`pytest --log-cli-level INFO tests/served/test_webhooks.py` tells how soon; with `ROLLCALL_SLOW_SECONDS=10`, besides
an endpoint that takes as long for each call.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from secrets import token_hex
from statistics import quantiles
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from tests.receivers import Listener, Receiver, Talk, listening, read_request, written
from tests.served.conftest import all_foreseen
from tests.served.letters import letter_to
from tests.served.service import ADMIN_EMAIL, API, Caller, Person, Service, eventually, served
from tests.servers import free_port

pytestmark = pytest.mark.served

log = logging.getLogger("rollcall.webhooks")

SLOW_SECONDS = float(os.environ.get("ROLLCALL_SLOW_SECONDS", "2"))
EVENTS = 12
KILLS = 3
REQUESTS = 300
UNTRIED = ("pending", None, None)
INSIDE = "inside.example.com"  # Where it leads, nobody may be called.
# What the resolver finds, in the processes that are served: they read this when they start.
NAMES = """
import socket

look_up = socket.getaddrinfo


def found(host, port, *args, **options):
    if host == "{host}":
        host, port = "127.0.0.1", {port}
    return look_up(host, port, *args, **options)


socket.getaddrinfo = found
"""


class Endpoint:
    """A webhook; `path` is where the API has it."""

    def __init__(self, service: Service, url: str, event_types: list[str]) -> None:
        self._service = service
        made = service.send(
            "POST", f"{API}/webhooks", service.admin_token(), json={"url": url, "event_types": event_types}
        )
        assert made.status_code == 201, made.text
        self.path, self.secret = f"{API}/webhooks/{made.json()['id']}", made.json()["secret"]

    def shown(self) -> dict[str, Any]:
        """Return what the API shows of it."""
        return dict(self._service.send("GET", self.path, self._service.admin_token()).json())

    def deliveries(self) -> list[dict[str, Any]]:
        """Return its deliveries, the oldest first."""
        listed = self._service.send("GET", f"{self.path}/deliveries?per_page=100", self._service.admin_token())
        return list(listed.json()["deliveries"])

    def outcomes(self) -> set[tuple[str, int | None, str | None]]:
        """Return how its deliveries stand: state, status, and error."""
        return {(each["state"], each["response_status"], each["error"]) for each in self.deliveries()}

    def delete(self) -> None:
        """Remove it."""
        assert self._service.send("DELETE", self.path, self._service.admin_token()).status_code == 204


class Punctual(Receiver):
    """A receiver that knows when each request came."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[float] = []

    def talk(self, connection: socket.socket, stopped: threading.Event) -> None:
        """Take a request and answer it."""
        super().talk(connection, stopped)
        self.moments.append(time.monotonic())

    def ids(self) -> list[str]:
        """Return the ids of what it was told."""
        return [request.headers["webhook-id"] for request in self.requests]


@pytest.fixture(scope="module")
def canary() -> Iterator[Listener]:
    """Return a receiver that nobody may call."""
    with listening(lambda connection, stopped: None) as listener:
        yield listener


@pytest.fixture(scope="module")
def hooked(
    database_kind: str,
    make_database: Callable[[str, str], str],
    tmp_path_factory: pytest.TempPathFactory,
    canary: Listener,
) -> Iterator[Service]:
    """Serve the application, which may call receivers on this machine, and for which a name leads to the canary."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "sitecustomize.py").write_text(NAMES.format(host=INSIDE, port=canary.port))
    variables = {"APP_ENV": "development", "WEBHOOK_ALLOWED_HOSTS": "127.0.0.1", "PYTHONPATH": str(folder)}
    with served(make_database(database_kind, "hooked"), **variables) as service, all_foreseen(service):
        yield service


@pytest.fixture
def person(hooked: Service) -> Person:
    """Return somebody to whom things happen."""
    return hooked.make_user(password=None)


@pytest.fixture
def serve() -> Iterator[Callable[[Talk], str]]:
    """Return a function that starts a receiver for the rest of the test, and returns its URL."""
    with ExitStack() as stack:
        yield lambda talk: stack.enter_context(listening(talk)).url


@pytest.fixture
def add(hooked: Service) -> Iterator[Callable[..., Endpoint]]:
    """Return a function that adds a webhook for the rest of the test."""
    made: list[Endpoint] = []

    def add(url: str, event_types: tuple[str, ...] = ("user.updated",)) -> Endpoint:
        made.append(Endpoint(hooked, url, [*event_types]))
        return made[-1]

    yield add
    for endpoint in made:
        endpoint.delete()


def rename(caller: Caller, person: Person) -> float:
    """Let something happen to a person, and return when the answer came."""
    answer = caller.patch(person.path, json={"name": f"Name {token_hex(6)}"})
    assert answer.status_code == 200, answer.text
    return time.monotonic()


def slow(connection: socket.socket, stopped: threading.Event) -> None:
    read_request(connection)
    stopped.wait(SLOW_SECONDS)
    connection.sendall(written(204))


def answering(*answer: Any) -> Talk:
    """Return how a receiver talks that always answers the same."""

    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        read_request(connection)
        connection.sendall(written(*answer))

    return talk


def ids_in_feed(service: Service, person: Person) -> list[str]:
    """Return under which ids a webhook is told of what happened to a person, in their order."""
    path = f"{API}/events?type=user.updated&user_id={person.id}&per_page=100"
    return [f"evt_{event['id']}" for event in service.send("GET", path, service.admin_token()).json()["events"]]


def assert_outcomes(endpoint: Endpoint, *expected: tuple[str, int | None, str | None]) -> None:
    """Wait until the deliveries of an endpoint stand like this."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: endpoint.outcomes() == {*expected})
    assert endpoint.outcomes() == {*expected}


def tell(what: str, seconds: list[float]) -> None:
    """Say in the log how long something took."""
    cuts = quantiles(seconds, n=100)
    text = "%s: median %.0f ms, p95 %.0f ms, p99 %.0f ms, longest %.0f ms (%d)"
    log.info(text, what, *(1000 * value for value in (cuts[49], cuts[94], cuts[98], max(seconds))), len(seconds))


def test_healthy_endpoint_is_told_everything_once_and_in_order_whatever_others_do(
    hooked: Service, person: Person, canary: Listener, serve: Callable[[Talk], str], add: Callable[..., Endpoint]
) -> None:
    receiver, reader = Punctual(), hooked.make_user()
    bad = {
        "down": add(f"http://127.0.0.1:{free_port()}/hook"),
        "slow": add(serve(slow)),
        "broken": add(serve(answering(500))),
        "gone": add(serve(answering(410))),
        "elsewhere": add(serve(answering((302, {"Location": canary.url})))),
        "inside": add(f"https://{INSIDE}/hook"),
    }
    healthy = add(serve(receiver.talk))

    with hooked.caller(hooked.admin_token()) as caller:
        happened = [rename(caller, person) for _ in range(EVENTS)]
        asked = caller.post(f"{API}/auth/password/forgot", json={"email": reader.email})

    assert_outcomes(healthy, ("delivered", 204, None))
    assert_outcomes(bad["down"], ("pending", None, "connection_failed"), UNTRIED)
    assert_outcomes(bad["slow"], ("delivered", 204, None), UNTRIED)
    assert_outcomes(bad["broken"], ("pending", 500, None))
    assert_outcomes(bad["gone"], ("failed", 410, None), ("failed", None, "webhook_disabled"))
    assert_outcomes(bad["elsewhere"], ("pending", 302, None))
    assert_outcomes(bad["inside"], ("pending", None, "address_refused"))
    assert bad["slow"].deliveries()[0]["duration_ms"] >= SLOW_SECONDS * 1000
    assert bad["gone"].shown()["disabled_reason"] == "gone"
    assert letter_to(hooked, ADMIN_EMAIL, "A webhook gets no more deliveries")
    assert canary.connections == 0
    assert asked.status_code == 202 and letter_to(hooked, reader.email, "Set a new password").code
    assert receiver.ids() == ids_in_feed(hooked, person)
    for request in receiver.requests:
        assert Verifier(healthy.secret).verify(request.body, request.headers)["type"] == "user.updated"
    tell("until a healthy endpoint is told", [b - a for a, b in zip(happened, receiver.moments, strict=True)])


def test_worker_that_is_killed_while_it_delivers_loses_nothing(
    hooked: Service, person: Person, serve: Callable[[Talk], str], add: Callable[..., Endpoint]
) -> None:
    receivers = [Punctual() for _ in range(3)]
    endpoints = [add(serve(receiver.talk)) for receiver in receivers]

    with hooked.caller(hooked.admin_token()) as caller:
        for round_ in range(KILLS):
            for _ in range(EVENTS):
                rename(caller, person)
            eventually(lambda so_far=round_: any(len(receiver.requests) > so_far * EVENTS for receiver in receivers))
            hooked.kill_staff()
            hooked.execute("UPDATE jobs SET run_at = created_at WHERE leased")  # The leases of who was killed are over.
            hooked.employ()
    eventually(lambda: all(len(endpoint.deliveries()) == KILLS * EVENTS for endpoint in endpoints))
    for endpoint in endpoints:
        assert_outcomes(endpoint, ("delivered", 204, None))

    told = [Counter(receiver.ids()) for receiver in receivers]
    assert [counted.keys() for counted in told] == [{*ids_in_feed(hooked, person)}] * 3
    assert sum(counted.total() - len(counted) for counted in told) <= KILLS * len(receivers)


def test_dead_endpoint_costs_those_who_register_nothing(hooked: Service, add: Callable[..., Endpoint]) -> None:
    """Only tells: what registering costs without a webhook, and with one whose host is down."""
    for what in ("without a webhook", "with a dead one"):
        if what == "with a dead one":
            add(f"http://127.0.0.1:{free_port()}/hook", ("*",))
        seconds = []
        with hooked.caller(hooked.admin_token()) as caller:
            for _ in range(REQUESTS):
                mark = token_hex(6)
                began = time.monotonic()
                made = caller.post(f"{API}/users", json={"email": f"{mark}@example.com", "name": f"Person {mark}"})
                seconds.append(time.monotonic() - began)
                assert made.status_code == 201, made.text
        tell(f"adding a user {what}", seconds)
