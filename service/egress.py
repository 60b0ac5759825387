"""Egress: the one way by which the service calls others, to public addresses only and within limits.

A name is looked up once, every address that is found is checked, and one of these is called: nothing can change in
between. Redirects are not followed, no cookies are kept, and no proxy of the environment is used.
"""

import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

import httpcore

from service.addresses import Place, Refused, Target, places_of, target_of

# Seconds.
CONNECT = 5.0
STEP = 10.0  # Each reading or writing, and the handshake of TLS.
TOTAL = 15.0
FIRST_PAUSE = 30.0
LONGEST_PAUSE = 600.0

MOST_BYTES = 64 * 1024  # Of an answer, its head included.
MOST_PLACES = 4  # Of a host, that are tried.
MOST_FAILURES = 5  # In a row.
MOST_CIRCUITS = 1000
LONGEST_RETRY = timedelta(days=1)

clock = time.monotonic
_REASONS: dict[type[Exception], str] = {  # The first that fits.
    TimeoutError: "time_out",
    socket.gaierror: "no_such_host",
    ssl.SSLError: "tls_failed",
    OSError: "connection_failed",
    httpcore.RemoteProtocolError: "invalid_answer",
}


class Answer(NamedTuple):
    """What matters of an answer; its body does not."""

    status: int
    retry_after: timedelta | None
    seconds: float


class CallFailed(Exception):
    """There is no answer; the reason tells nothing of the network. With `retry_in` nothing was tried."""

    def __init__(self, reason: str, retry_in: timedelta | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_in = retry_in


def check_url(url: str, *, allowed_hosts: Collection[str] = ()) -> str | None:
    """Return why a URL may not be called, as a sentence for its author.

    `allowed_hosts`, each `host` or `host:port`, may be called without TLS, on any port, and need not be public.
    """
    try:
        target_of(url, allowed_hosts)
    except Refused as refusal:
        return str(refusal)
    return None


def post(url: str, *, content: bytes, headers: Mapping[str, str], allowed_hosts: Collection[str] = ()) -> Answer:
    """Send something, and return the answer whatever its status; raises CallFailed."""
    began = clock()
    try:
        target = target_of(url, allowed_hosts)
        place = f"{target.host}:{target.port}"
        failures = circuits.admit(place)
        status, retry_after = _exchange(target, content, headers, until=began + TOTAL)
    except Refused:
        raise CallFailed("address_refused") from None
    except tuple(_REASONS) as error:
        circuits.failed(place, failures)
        raise CallFailed(next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))) from None
    circuits.succeeded(place)
    return Answer(status, retry_after, clock() - began)


# A call


def _exchange(
    target: Target, content: bytes, headers: Mapping[str, str], *, until: float
) -> tuple[int, timedelta | None]:
    """Send a request on a connection of its own; return the status of the answer, and when to come again."""
    lines = {
        "host": target.authority,
        "user-agent": "Rollcall-Webhooks",
        "accept-encoding": "identity",
        "connection": "close",
        # 01, as if we kept the trace: to a receiver, 00 would say that it need not keep its own.
        "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
    } | {name.lower(): value for name, value in headers.items()}
    origin = httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port)
    url = httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target.path)
    stream = _Stream(_dial(places_of(target)[:MOST_PLACES], until), until)
    with httpcore.HTTP11Connection(origin, stream) as connection:
        if target.scheme == "https":
            stream.secure(target.name)
        with connection.stream("POST", url, headers=[*lines.items()], content=content) as response:
            _read_to_the_end(response)
            return response.status, _retry_after(response)


def _read_to_the_end(response: httpcore.Response) -> None:
    """Throw the body away: the status is known, and of the rest it matters only that it ends in time, not how."""
    try:
        for _ in response.iter_stream():
            pass
    except TimeoutError:
        raise
    except (OSError, httpcore.RemoteProtocolError):
        return


def _retry_after(response: httpcore.Response) -> timedelta | None:
    """Return what Retry-After says, in seconds or as a date (RFC 9110 §10.2.3), within bounds."""
    value = next((value.decode("latin-1") for name, value in response.headers if name.lower() == b"retry-after"), "")
    try:
        if re.fullmatch("[0-9]{1,9}", value):
            wait = timedelta(seconds=int(value))
        else:
            wait = datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC) - datetime.now(UTC)
    except ValueError:
        return None
    return max(timedelta(0), min(wait, LONGEST_RETRY))


class _Stream(httpcore.NetworkStream):
    """A connection that ends in time, however slow the other side, and gives no more than MOST_BYTES."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection = connection
        self._until = until
        self._bytes_left = MOST_BYTES

    def secure(self, name: str) -> None:
        """Go on with TLS, by which the other side proves to be whom the name names."""
        self._wait_no_longer()
        self._connection = _context().wrap_socket(self._connection, server_hostname=name)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._wait_no_longer()
        data = self._connection.recv(min(max_bytes, self._bytes_left))  # In the end nothing, as if it were closed.
        if not data and self._bytes_left == MOST_BYTES:
            raise ConnectionError  # Closed without a word: there is no answer, rather than an invalid one.
        self._bytes_left -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            while buffer:
                self._wait_no_longer()
                buffer = buffer[self._connection.send(buffer) :]
        except OSError as error:
            raise httpcore.WriteError from error  # There may be an answer all the same, so httpcore reads on.

    def close(self) -> None:
        self._connection.close()

    def _wait_no_longer(self) -> None:
        self._connection.settimeout(min(STEP, _left(self._until)))


def _dial(places: list[Place], until: float) -> socket.socket:
    """Connect to the first place that answers, each within its share of the time; raises OSError."""
    until = min(until, clock() + CONNECT)
    for others, (family, address) in zip(reversed(range(len(places))), places, strict=True):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(_left(until) / (others + 1))
            connection.connect(address)
        except OSError:
            connection.close()
            if not others:
                raise
        else:
            return connection
    raise socket.gaierror


def _left(until: float) -> float:
    """Return the seconds until a moment; raises TimeoutError after it."""
    left = until - clock()
    if left <= 0:
        raise TimeoutError
    return left


@cache
def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


# Hosts that fail


class _Circuit(NamedTuple):
    failures: int
    until: float


class Circuits:
    """The hosts that fail: after MOST_FAILURES in a row, one is left alone for a while, then tried by a single call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: dict[str, _Circuit] = {}

    def admit(self, place: str) -> int:
        """Let a call through, and return how many failed before it; raises CallFailed."""
        with self._lock:
            failures, until = self._failing.get(place, _Circuit(0, 0))
            if failures < MOST_FAILURES:
                return failures
            moment = clock()
            if moment < until:
                raise CallFailed("circuit_open", timedelta(seconds=until - moment))
            # The others wait for this one, but no longer than it may take.
            self._failing[place] = _Circuit(failures, moment + TOTAL)
            return failures

    def failed(self, place: str, failures_before: int) -> None:
        """Count a failure, but for those of calls that were on their way when the circuit opened."""
        with self._lock:
            failures, until = self._failing.pop(place, _Circuit(0, 0))
            if failures < MOST_FAILURES or failures == failures_before:
                failures += 1
                doublings = min(failures - MOST_FAILURES, 30)
                until = clock() + min(FIRST_PAUSE * 2**doublings, LONGEST_PAUSE)
            self._failing[place] = _Circuit(failures, until)
            if len(self._failing) > MOST_CIRCUITS:
                del self._failing[next(iter(self._failing))]  # The one that failed longest ago.

    def succeeded(self, place: str) -> None:
        """Forget the failures of a host."""
        with self._lock:
            self._failing.pop(place, None)


circuits = Circuits()
