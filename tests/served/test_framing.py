"""Requests that are framed wrongly, or never end: refused, nothing written, and others are served all the while."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from secrets import token_hex

import psutil
import pytest

from tests.served.service import Service, eventually, served
from tests.served.wire import Answer, connected, exchange, first_answer

pytestmark = pytest.mark.served

# What an attacker hides behind a request whose end two servers see in different places.
HIDDEN = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Wire:
    """An admin who writes requests by hand: `body` would create a user if it were ever read as one."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.email = f"smuggled-{token_hex(6)}@example.com"
        self.body = b'{"email": "%s", "name": "Sam"}' % self.email.encode()
        self.host = b"Host: 127.0.0.1\r\n"
        self.authorization = f"Authorization: Bearer {service.admin_token()}\r\n".encode()

    def get(self, *headers: bytes, line: bytes = b"GET /api/v1/me HTTP/1.1", host: bytes | None = None) -> bytes:
        """Return a request without a body."""
        host = self.host if host is None else host
        return b"\r\n".join([line, host + self.authorization + b"".join(header + b"\r\n" for header in headers), b""])

    def post(self, *headers: bytes, body: bytes | None = None) -> bytes:
        """Return a request to create a user, without the headers that say how long it is."""
        line, typed = b"POST /api/v1/users HTTP/1.1", b"Content-Type: application/json"
        return self.get(typed, *headers, line=line) + (self.body if body is None else body)

    def chunked(self, size: bytes | None = None, *, end: bytes = b"\r\n", last: bytes = b"0\r\n\r\n") -> bytes:
        """Return the request to create a user with its body in one chunk."""
        size = b"%x" % len(self.body) if size is None else size
        return self.post(b"Transfer-Encoding: chunked", body=size + end + self.body + end + last)

    def exchange(self, request: bytes) -> list[Answer]:
        return exchange(self.service.port, request)

    def has_written(self) -> bool:
        return bool(self.service.rows("SELECT id FROM users WHERE email_key = %s", self.email))


@pytest.fixture
def wire(service: Service) -> Wire:
    return Wire(service)


def test_request_whose_variations_follow_is_good(wire: Wire) -> None:
    answers = wire.exchange(wire.chunked() + HIDDEN)

    assert [answer.status for answer in answers] == [201, 200]
    assert wire.has_written()


LENGTH = b"Content-Length: %d"
FRAMING: dict[str, Callable[[Wire], bytes]] = {
    "length and chunks": lambda wire: wire.post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunked, then identity": lambda wire: wire.post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    "chunked twice": lambda wire: wire.post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "an unknown coding": lambda wire: wire.post(b"Transfer-Encoding: xchunked", b"Content-Length: 0"),
    "a coding after a control character": lambda wire: wire.post(b"Transfer-Encoding: \x0bchunked"),
    "a coding on a folded line": lambda wire: wire.post(b"Transfer-Encoding:\r\n chunked"),
    "chunks in HTTP/1.0": lambda wire: wire.chunked().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "two lengths": lambda wire: wire.post(LENGTH % len(wire.body), LENGTH % (len(wire.body) + 1)),
    "one length twice": lambda wire: wire.post(LENGTH % len(wire.body), LENGTH % len(wire.body)),
    "a list of lengths": lambda wire: wire.post(b"Content-Length: 0, 0"),
    "a length with a plus": lambda wire: wire.post(b"Content-Length: +%d" % len(wire.body)),
    "a negative length": lambda wire: wire.post(b"Content-Length: -1"),
    "a hexadecimal length": lambda wire: wire.post(b"Content-Length: 0x%x" % len(wire.body)),
    "a length with an underscore": lambda wire: wire.post(b"Content-Length: %d_%d" % divmod(len(wire.body), 10)),
    "a space before the colon": lambda wire: wire.post(b"Content-Length : %d" % len(wire.body)),
    "no length": lambda wire: wire.post(),
    "a chunk of size 0x…": lambda wire: wire.chunked(b"0x%x" % len(wire.body)),
    "a chunk of negative size": lambda wire: wire.chunked(b"-2"),
    "a chunk size with a plus": lambda wire: wire.chunked(b"+%x" % len(wire.body)),
    "a chunk size with an underscore": lambda wire: wire.chunked(b"%d_%d" % divmod(len(wire.body), 16)),
    "a chunk size after a space": lambda wire: wire.chunked(b" %x" % len(wire.body)),
    "no chunk size": lambda wire: wire.chunked(b""),
    "a chunk size that is none": lambda wire: wire.chunked(b"g"),
    "a chunk size beyond all bounds": lambda wire: wire.chunked(b"f" * 17),
    "a chunk shorter than its size": lambda wire: wire.chunked(b"%x" % (len(wire.body) + 1)),
    "a chunk longer than its size": lambda wire: wire.chunked(b"%x" % (len(wire.body) - 1)),
    "a chunk extension with a bare CR": lambda wire: wire.chunked(b"%x;a=\rb" % len(wire.body)),
    "chunk lines that end in LF": lambda wire: wire.chunked(end=b"\n", last=b"0\n\n"),
    "a trailer that names the host": lambda wire: wire.chunked(last=b"0\r\nHost: evil.example\r\n\r\n"),
    "a trailer with a length": lambda wire: wire.chunked(last=b"0\r\nContent-Length: 5\r\n\r\n"),
}


@pytest.mark.parametrize("case", FRAMING)
def test_wrong_framing_is_refused_and_nothing_behind_it_answered(wire: Wire, case: str) -> None:
    answers = wire.exchange(FRAMING[case](wire) + HIDDEN)

    assert answers
    assert all(400 <= answer.status < 500 or answer.status == 501 for answer in answers), answers
    assert not wire.has_written()


CUT: dict[str, Callable[[Wire], bytes]] = {
    "in the head": lambda wire: wire.post(LENGTH % len(wire.body))[:60],
    "before the body": lambda wire: wire.post(LENGTH % len(wire.body), body=b""),
    "in the body": lambda wire: wire.post(LENGTH % 100),
    "in a chunk": lambda wire: wire.chunked(b"100", last=b""),
    "before the last chunk": lambda wire: wire.chunked(last=b""),
    "in the last chunk": lambda wire: wire.chunked(last=b"0\r\n"),
}


@pytest.mark.parametrize("case", CUT)
def test_request_that_ends_too_soon_writes_nothing(wire: Wire, case: str) -> None:
    answers = wire.exchange(CUT[case](wire))

    assert [answer.status for answer in answers] in ([], [400])
    assert not wire.has_written()


HEADS: dict[str, Callable[[Wire], bytes]] = {
    "two hosts": lambda wire: wire.get(b"Host: 127.0.0.1"),
    "no host": lambda wire: wire.get(host=b""),
    "an empty host": lambda wire: wire.get(host=b"Host:\r\n"),
    "a host that is not ours": lambda wire: wire.get(host=b"Host: evil.example\r\n"),
    "a host that cannot be one": lambda wire: wire.get(host=b"Host: a b<script>\r\n"),
    "a folded length": lambda wire: wire.post(b"Content-Length: %d\r\n 5" % len(wire.body)),
    "a folded line": lambda wire: wire.get(b"X-Folded: a\r\n b"),
    "a folded host": lambda wire: wire.get(host=b"Host: 127.0.0.1\r\n .evil.example\r\n"),
    "a NUL in a value": lambda wire: wire.get(b"X-Odd: a\x00b"),
    "a bell in a value": lambda wire: wire.get(b"X-Odd: a\x07b"),
    "a delete in a value": lambda wire: wire.get(b"X-Odd: a\x7fb"),
    "a bare CR in a value": lambda wire: wire.get(b"X-Odd: a\rb"),
    "a name beyond ASCII": lambda wire: wire.get(b"X-\xc3\xb6dd: a"),
    "a name with a space": lambda wire: wire.get(b"X Odd: a"),
    "an empty name": lambda wire: wire.get(b": a"),
    "no colon": lambda wire: wire.get(b"X-Odd"),
    "1000 headers": lambda wire: wire.get(*(b"X-Odd-%d: a" % number for number in range(1000))),
    "a header of 70 kB": lambda wire: wire.get(b"X-Odd: " + b"a" * 70_000),
    "a path of 20 kB": lambda wire: wire.get(line=b"GET /%s HTTP/1.1" % (b"a" * 20_000)),
    "a request line of 1 MB": lambda wire: wire.get(line=b"GET /%s HTTP/1.1" % (b"a" * 1_000_000)),
    "the address of another server": lambda wire: wire.get(line=b"GET http://evil.example/api/v1/me HTTP/1.1"),
    "two slashes and another server": lambda wire: wire.get(line=b"GET //evil.example/api/v1/me HTTP/1.1"),
    "an asterisk": lambda wire: wire.get(line=b"GET * HTTP/1.1"),
    "no slash": lambda wire: wire.get(line=b"GET api/v1/me HTTP/1.1"),
    "a NUL in the path": lambda wire: wire.get(line=b"GET /api/v1/\x00me HTTP/1.1"),
    "raw bytes in the path": lambda wire: wire.get(line=b"GET /api/v1/\xff HTTP/1.1"),
    "an encoded slash": lambda wire: wire.get(line=b"GET /api/v1%2fme HTTP/1.1"),
    "CONNECT": lambda wire: wire.get(line=b"CONNECT 127.0.0.1:80 HTTP/1.1"),
    "TRACE": lambda wire: wire.get(line=b"TRACE /api/v1/me HTTP/1.1"),
    "an invented method": lambda wire: wire.get(line=b"FOO /api/v1/me HTTP/1.1"),
    "a method in small letters": lambda wire: wire.get(line=b"get /api/v1/me HTTP/1.1"),
    "HTTP/0.9": lambda wire: wire.get(line=b"GET /api/v1/me"),
    "HTTP/9.9": lambda wire: wire.get(line=b"GET /api/v1/me HTTP/9.9"),
    "HTTP/2 with prior knowledge": lambda wire: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a PROXY line": lambda wire: b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + wire.get(),
    "a TLS greeting": lambda wire: bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "nothing but NULs": lambda wire: bytes(1000) + b"\r\n\r\n",
}

NOT_HTTP = {"a TLS greeting", "nothing but NULs", "HTTP/2 with prior knowledge"}  # These need not be answered.


@pytest.mark.parametrize("case", HEADS)
def test_odd_head_is_refused(wire: Wire, case: str) -> None:
    answers = wire.exchange(HEADS[case](wire))

    assert len(answers) == 1 or (case in NOT_HTTP and not answers)
    assert {answer.status for answer in answers} <= {400, 404, 405, 414, 431, 505}
    assert not any(b"Bearer" in answer.body for answer in answers)  # Nor is the request echoed, as TRACE would.


def test_headers_with_underscores_are_not_those_with_hyphens(wire: Wire) -> None:
    request = wire.post(
        LENGTH % len(wire.body), b"Content_Length: 0", b"Transfer_Encoding: chunked", b"X_Request_ID: a"
    )

    answers = wire.exchange(request + HIDDEN)

    assert [answer.status for answer in answers] == [201, 200]


@pytest.mark.parametrize("length", [2**20 + 1, 10**12])
def test_body_announced_as_too_long_is_refused_before_it_comes(wire: Wire, length: int) -> None:
    answer = first_answer(wire.service.port, wire.post(LENGTH % length, body=b"{"))

    assert answer.status == 413


def test_client_that_waits_to_be_asked_for_a_body_is_told_that_it_is_too_long(wire: Wire) -> None:
    answers = wire.exchange(wire.post(LENGTH % 20_000_000, b"Expect: 100-continue", body=b""))

    assert [answer.status for answer in answers][-1] == 413


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    ids = [f"pipelined-{number:03}".encode() for number in range(100)]

    answers = wire.exchange(b"".join(wire.get(b"X-Request-ID: " + request_id) for request_id in ids))

    assert [answer.status for answer in answers] == [200] * 100
    assert [answer.headers["x-request-id"].encode() for answer in answers] == ids


def test_clients_that_vanish_leave_nothing_open(wire: Wire) -> None:
    service = wire.service
    request = wire.get(line=b"GET /api/v1/users?per_page=100 HTTP/1.1")
    workers = [psutil.Process(pid) for pid in service.server.worker_pids()]
    before = [worker.num_fds() for worker in workers]

    for _ in range(100):
        with connected(service.port) as client:
            client.sendall(request)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # Closing resets.

    assert service.send("GET", "/health").status_code == 200
    # A worker may meanwhile have opened database connections that it keeps, one for each thread.
    eventually(lambda: all(worker.num_fds() <= was + 30 for worker, was in zip(workers, before, strict=True)))


@pytest.fixture(scope="module")
def besieged(make_database: Callable[[str, str], str]) -> Iterator[Service]:
    """Serve the application to clients that nobody else should have to wait for; the database does not matter."""
    with served(make_database("sqlite", "besieged")) as service:
        yield service


def test_requests_that_never_end_do_not_stop_others_for_good(besieged: Service) -> None:
    workers = set(besieged.server.worker_pids())
    wire = Wire(besieged)
    half_sent = [CUT["in the head"](wire), CUT["in the body"](wire)] * 10

    with ExitStack() as stack:
        for part in half_sent:
            stack.enter_context(connected(besieged.port)).sendall(part)
        # They are dropped when they have been silent for too long, and only then are others answered.
        assert besieged.send("GET", "/health").status_code == 200

    assert set(besieged.server.worker_pids()) == workers
    assert not wire.has_written()


def test_clients_that_never_hang_up_do_not_stop_others(besieged: Service) -> None:
    workers = set(besieged.server.worker_pids())

    with ExitStack() as stack:
        for _ in range(8):  # The server waits two seconds for each (docs/decisions/0007-slow-clients.md).
            client = stack.enter_context(connected(besieged.port))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert besieged.send("GET", "/health").status_code == 200

    assert set(besieged.server.worker_pids()) == workers
