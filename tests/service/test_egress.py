"""Egress: calls to real servers, and to an internet in which nothing private can be reached and nothing lasts."""

import re
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from service import addresses, egress
from service.egress import Answer, CallFailed
from tests.receivers import Authority, Internet, Listener, Receiver, Talk, listening, self_signed_context

HOST = "hooks.example.com"
PUBLIC, ALSO_PUBLIC, PRIVATE = "93.184.216.34", "93.184.216.35", "10.0.0.7"
HEAD = b"HTTP/1.1 200 OK\r\n"


class Clock:
    """A clock that stands still but when it is put forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def circuits(monkeypatch: pytest.MonkeyPatch) -> egress.Circuits:
    """Forget every failure of other tests."""
    fresh = egress.Circuits()
    monkeypatch.setattr(egress, "circuits", fresh)
    return fresh


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(egress, "clock", found)
    return found


@pytest.fixture
def serve() -> Iterator[Callable[..., Listener]]:
    """Return a function that starts a server for the rest of the test."""
    with ExitStack() as stack:
        yield lambda talk, context=None: stack.enter_context(listening(talk, context=context))


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def url(serve: Callable[..., Listener], receiver: Receiver) -> str:
    """Return the URL of a receiver."""
    return serve(receiver.talk).url


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Return the authority whom calls trust."""
    found = Authority()
    context = found.client_context()
    monkeypatch.setattr(egress, "_context", lambda: context)
    return found


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(monkeypatch)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every time short."""
    for name, seconds in {"CONNECT": 0.2, "STEP": 0.3, "TOTAL": 0.6}.items():
        monkeypatch.setattr(egress, name, seconds)
    monkeypatch.setattr(addresses, "LOOK_UP", 0.2)


def post(url: str, *, content: bytes = b"{}", allowed: str = "127.0.0.1", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return egress.post(url, content=content, headers=named, allowed_hosts=[allowed])


def reason(url: str, **options) -> str:
    """Return why a call fails."""
    with pytest.raises(CallFailed) as failure:
        post(url, **options)
    return failure.value.reason


def saying(*words: bytes, pause: float = 0.0, forever: bytes = b"") -> Talk:
    """Return what reads a request, says some words, and then one and the same word for ever."""

    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        connection.recv(65536)
        for word in words:
            connection.sendall(word)
        while forever and not stopped.wait(pause):
            connection.sendall(forever)

    return talk


def silent(connection: socket.socket, stopped: threading.Event) -> None:
    stopped.wait()


# What is sent


def test_a_call_arrives_as_it_was_meant(url, receiver):
    answer = post(url + "?to=a%20b", content=b'{"id": 1}', content_type="application/json", webhook_id="msg_1")

    (request,) = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook?to=a%20b", b'{"id": 1}')
    assert (answer.status, answer.retry_after) == (204, None) and 0 < answer.seconds < 2
    traceparent = request.headers.pop("traceparent")
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", traceparent)
    assert request.headers == {
        "host": url.split("/")[2],
        "user-agent": "Rollcall-Webhooks",
        "accept-encoding": "identity",
        "connection": "close",
        "content-length": "9",
        "content-type": "application/json",
        "webhook-id": "msg_1",
    }


@pytest.mark.parametrize(("end", "path"), [("", "/"), ("/", "/"), ("?a=b", "/?a=b"), ("/a/../b//c?", "/a/../b//c?")])
def test_the_path_is_sent_as_it_is_written(url, receiver, end, path):
    post(url.removesuffix("/hook") + end)

    assert [request.path for request in receiver.requests] == [path]


def test_each_call_is_a_trace_of_its_own_unless_it_belongs_to_one(url, receiver):
    given = f"00-{'a' * 32}-{'b' * 16}-00"

    for headers in ({}, {}, {"Traceparent": given}):
        post(url, **headers)

    first, second, third = (request.headers["traceparent"] for request in receiver.requests)
    assert len({first, second, third}) == 3 and third == given


def test_each_call_is_a_connection_of_its_own(serve, receiver):
    server = serve(receiver.talk)

    assert [post(server.url).status for _ in range(3)] == [204] * 3

    assert server.connections == 3


def test_nothing_that_a_receiver_says_is_sent_to_it_again(url, receiver):
    receiver.answers = [(200, {"Set-Cookie": "a=b", "Alt-Svc": 'h2=":443"', "Strict-Transport-Security": "max-age=9"})]

    post(url)
    post(url)

    assert not {"cookie", "alt-used"} & receiver.requests[1].headers.keys()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"])
def test_a_proxy_of_the_environment_is_not_used(url, receiver, serve, monkeypatch, name):
    proxy = serve(silent)
    monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert post(url).status == 204

    assert (proxy.connections, len(receiver.requests)) == (0, 1)


# What comes back


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299, 304, 400, 401, 404, 410, 413, 429, 500, 503, 599, 999])
def test_every_status_is_an_answer(url, receiver, status):
    receiver.answers = [status]

    assert post(url).status == status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_not_followed(url, receiver, serve, status):
    canary = serve(silent)
    receiver.answers = [(status, {"Location": canary.url})]

    assert post(url).status == status

    assert (canary.connections, len(receiver.requests)) == (0, 1)


def test_what_is_said_before_the_answer_is_passed_over(url, receiver):
    receiver.answers = [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + HEAD + b"\r\n"]

    assert post(url).status == 200


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("86400", 86_400),
        ("999999999", 86_400),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 5000, None),
        ("soon", None),
        ("\u00b2", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +0200", None),
    ],
)
def test_when_to_come_again_is_read_within_bounds(url, receiver, value, seconds):
    receiver.answers = [f"HTTP/1.1 429 \r\nretry-After: {value}\r\n\r\n".encode("latin-1")]

    assert post(url).retry_after == (None if seconds is None else timedelta(seconds=seconds))


def test_when_to_come_again_may_be_a_date(url, receiver):
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    receiver.answers = [(503, {"Retry-After": date})]

    assert timedelta(minutes=9) < post(url).retry_after <= timedelta(minutes=10)


@pytest.mark.parametrize(
    "answer",
    [
        b"hello\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 1000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        HEAD + b"no colon\r\n\r\n",
        HEAD + b"name : value\r\n\r\n",
        HEAD + b" folded: first\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        HEAD + b"content-length: -5\r\n\r\nhello",
        HEAD + b"content-length: " + b"9" * 5000 + b"\r\n\r\n",
        HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n",
        HEAD + b"content-length: 5\r\n",
        HEAD,
    ],
)
def test_what_is_no_http_is_an_invalid_answer(url, receiver, answer):
    receiver.answers = [answer]

    assert reason(url) == "invalid_answer"


@pytest.mark.parametrize(
    "body",
    [
        b"content-length: 5\r\n\r\nhello",
        b"content-length: 50\r\n\r\nhello",
        b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"transfer-encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\nhello",
        b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        b"\r\nhello until the end",
    ],
)
def test_an_answer_counts_however_its_body_ends(url, receiver, body):
    receiver.answers = [HEAD + body]

    assert post(url).status == 200


# Where calls go


@pytest.fixture
def hook(serve, receiver, authority, internet) -> str:
    """Return the URL of a receiver at a public address."""
    internet.names[HOST] = [[PUBLIC]]
    internet.places[PUBLIC, 443] = serve(receiver.talk, authority.server_context(HOST)).port
    return f"https://{HOST}/hook"


def test_a_public_host_is_called_with_tls_under_its_name(hook, receiver, internet):
    assert post(hook).status == 204

    assert receiver.requests[0].headers["host"] == HOST
    assert (internet.lookups, internet.calls) == ([HOST], [(PUBLIC, 443)])


def test_the_name_is_in_the_handshake(serve, receiver, authority, internet):
    asked = []
    context = authority.server_context(HOST)
    context.sni_callback = lambda connection, name, context: asked.append(name)
    internet.names[HOST] = [[PUBLIC]]
    internet.places[PUBLIC, 8443] = serve(receiver.talk, context).port

    post(f"https://{HOST.upper()}:8443/hook")

    assert asked == [HOST]
    assert receiver.requests[0].headers["host"] == f"{HOST}:8443"


@pytest.mark.parametrize("address", [PUBLIC, "2606:4700::1111"])
def test_an_address_proves_itself_too(serve, receiver, authority, internet, address):
    host = f"[{address}]" if ":" in address else address
    internet.places[address, 443] = serve(receiver.talk, authority.server_context(address)).port

    assert post(f"https://{host}/hook").status == 204

    assert receiver.requests[0].headers["host"] == host


@pytest.mark.parametrize(
    "found",
    [
        [PRIVATE],
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["fe80::1%2"],
        [PUBLIC, PRIVATE],
        [PRIVATE, PUBLIC],
        [PUBLIC, "::1"],
        [PUBLIC] * 9 + ["127.0.0.1"],
    ],
)
def test_a_name_that_leads_anywhere_private_is_not_called(hook, receiver, internet, found):
    internet.names[HOST] = [found]

    assert reason(hook) == "address_refused"

    assert (internet.calls, receiver.requests) == ([], [])


def test_a_name_that_changes_its_address_is_called_at_the_one_that_was_checked(hook, receiver, serve, internet):
    canary = serve(silent)
    internet.places["127.0.0.1", 443] = canary.port
    internet.names[HOST] = [[PUBLIC], ["127.0.0.1"]]

    assert post(hook).status == 204
    assert (internet.lookups, internet.calls) == ([HOST], [(PUBLIC, 443)])

    assert reason(hook) == "address_refused"
    assert (internet.lookups, internet.calls, canary.connections) == ([HOST] * 2, [(PUBLIC, 443)], 0)


def test_a_redirect_to_a_private_place_is_not_followed(hook, receiver, serve, internet):
    canary = serve(silent)
    receiver.answers = [(307, {"Location": canary.url})]

    assert post(hook).status == 307

    assert (canary.connections, internet.lookups) == (0, [HOST])


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://[::1]/",
        "https://localhost/",
        "http://x.y/",
    ],
)
def test_a_url_that_may_not_be_called_is_not_even_looked_up(internet, url):
    assert reason(url, allowed="") == "address_refused"

    assert (internet.lookups, internet.calls) == ([], [])


def test_a_name_that_is_allowed_may_lead_anywhere(url, receiver, internet):
    port = int(url.split(":")[2].split("/")[0])
    internet.names["receiver"] = [["127.0.0.1"]]

    assert post(f"http://receiver:{port}/", allowed="receiver").status == 204

    assert receiver.requests[0].headers["host"] == f"receiver:{port}"


def test_the_next_address_is_tried_when_nobody_is_at_the_first(hook, receiver, internet):
    internet.names[HOST] = [[ALSO_PUBLIC, PUBLIC]]

    assert post(hook).status == 204

    assert internet.calls == [(ALSO_PUBLIC, 443), (PUBLIC, 443)]


def test_the_next_address_has_its_share_of_the_time(hook, receiver, internet, monkeypatch):
    monkeypatch.setattr(egress, "CONNECT", 0.4)
    internet.names[HOST] = [[ALSO_PUBLIC, PUBLIC]]
    internet.black_holes = {ALSO_PUBLIC}

    answer = post(hook)

    assert answer.status == 204 and 0.2 <= answer.seconds < 2


def test_of_many_addresses_a_few_are_tried(internet):
    internet.names[HOST] = [[f"93.184.216.{number}" for number in range(200)]]

    assert reason(f"https://{HOST}/") == "connection_failed"

    assert len(internet.calls) == 4


def test_an_unknown_name_is_no_host(internet):
    assert reason("https://nowhere.example/") == "no_such_host"


def test_a_name_without_addresses_is_no_host(internet):
    internet.names[HOST] = [[]]

    assert reason(f"https://{HOST}/") == "no_such_host"


# TLS


@pytest.mark.parametrize("name", [HOST, "other.example.com"])
def test_a_certificate_that_nobody_trusts_fails(serve, receiver, internet, name):
    internet.names[HOST] = [[PUBLIC]]
    internet.places[PUBLIC, 443] = serve(receiver.talk, self_signed_context(name)).port

    assert reason(f"https://{HOST}/") == "tls_failed"

    assert receiver.requests == []


@pytest.mark.parametrize("name", ["other.example.com", "example.com", f"x.{HOST}", PUBLIC])
def test_a_certificate_of_another_host_fails(hook, serve, receiver, authority, internet, name):
    internet.places[PUBLIC, 443] = serve(receiver.talk, authority.server_context(name)).port

    assert reason(hook) == "tls_failed"

    assert receiver.requests == []


def test_who_speaks_no_tls_fails(hook, serve, internet):
    internet.places[PUBLIC, 443] = serve(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")).port

    assert reason(hook) == "tls_failed"


def test_tls_is_that_of_the_system():
    context = egress._context()

    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert egress._context() is context


# Limits


def test_nobody_at_the_address_is_a_failed_connection():
    with socket.socket() as taken:  # It does not listen.
        taken.bind(("127.0.0.1", 0))

        assert reason(f"http://127.0.0.1:{taken.getsockname()[1]}/") == "connection_failed"


def test_hanging_up_without_a_word_is_a_failed_connection(url, receiver):
    receiver.answers = [b""]

    assert reason(url) == "connection_failed"


def test_hanging_up_at_once_is_a_failed_connection(serve):
    server = serve(lambda connection, stopped: None)

    assert reason(server.url, content=b"x" * 1_000_000) == "connection_failed"


@pytest.mark.parametrize("length", [100, 20_000_000])
@pytest.mark.parametrize("lasting", [0.1, 5])
def test_an_answer_before_the_request_is_read_counts(serve, monkeypatch, lasting, length):
    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        stopped.wait(lasting)

    monkeypatch.setattr(egress, "STEP", 0.2)
    server = serve(talk)

    assert post(server.url, content=b"x" * length).status == 413


def test_an_address_that_does_not_answer_is_given_up(internet, quick):
    internet.names[HOST] = [[PUBLIC]]
    internet.black_holes = {PUBLIC}
    began = time.monotonic()

    assert reason(f"https://{HOST}/") == "time_out"

    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "talk",
    [
        silent,
        saying(HEAD),
        saying(HEAD, pause=0.01, forever=b"x"),
        saying(HEAD, pause=0.01, forever=b"x: y\r\n"),
        saying(pause=0.01, forever=b"HTTP/1.1 100 Continue\r\n\r\n"),
        saying(HEAD + b"\r\n", pause=0.01, forever=b"x"),
        saying(HEAD + b"content-length: 1000000000\r\n\r\n", pause=0.01, forever=b"x"),
        saying(HEAD + b"transfer-encoding: chunked\r\n\r\n", pause=0.01, forever=b"1\r\nx\r\n"),
        saying(HEAD + b"transfer-encoding: chunked\r\n\r\n", pause=0.01, forever=b"0"),
        saying(HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", pause=0.01, forever=b"x: y\r\n"),
    ],
    ids=[
        "silence",
        "an open head",
        "a header",
        "headers",
        "news",
        "a body",
        "a body with a length",
        "chunks",
        "a chunk's length",
        "trailers",
    ],
)
@pytest.mark.parametrize("has_tls", [False, True])
def test_a_receiver_that_drips_is_given_up(serve, authority, quick, talk, has_tls):
    def lasting(connection: socket.socket, stopped: threading.Event) -> None:
        talk(connection, stopped)
        stopped.wait()

    server = serve(lasting, authority.server_context("127.0.0.1") if has_tls else None)
    began = time.monotonic()

    assert reason(server.url) == "time_out"

    assert 0.25 < time.monotonic() - began < 2


def test_a_receiver_that_is_silent_is_given_up_before_the_time_is_over(serve, monkeypatch):
    monkeypatch.setattr(egress, "STEP", 0.2)
    began = time.monotonic()

    assert reason(serve(silent).url) == "time_out"

    assert time.monotonic() - began < 2


def test_a_receiver_that_neither_reads_nor_answers_is_given_up(serve, quick):
    assert reason(serve(silent).url, content=b"x" * 20_000_000) == "time_out"


def test_a_handshake_that_drips_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(egress, "STEP", 0.2)
    server = serve(saying(b"\x16\x03\x03\x40\x00", pause=0.01, forever=b"\x00"))
    began = time.monotonic()

    assert reason(server.url.replace("http:", "https:")) == "time_out"

    assert time.monotonic() - began < 2


@pytest.mark.parametrize("has_tls", [False, True])
def test_a_receiver_that_takes_the_request_slowly_is_given_up(serve, authority, quick, has_tls):
    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        while not stopped.wait(0.01) and connection.recv(200_000):
            pass

    server = serve(talk, authority.server_context("127.0.0.1") if has_tls else None)
    began = time.monotonic()

    assert reason(server.url, content=b"x" * 60_000_000) == "time_out"

    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"\r\n", b"x" * 65_536),
        (b"content-length: 1000000000\r\n\r\n", b"x" * 65_536),
        (b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        (b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000),
        (b"transfer-encoding: chunked\r\n\r\n", b"1;" + b"x" * 1000),
        (b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 1000),
    ],
    ids=["without a length", "with a length", "chunks", "little chunks", "a chunk's extension", "trailers"],
)
@pytest.mark.parametrize("has_tls", [False, True])
def test_of_a_huge_body_no_more_is_read_than_a_little(serve, authority, head, part, has_tls):
    sent = []

    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        connection.recv(65_536)
        connection.sendall(HEAD + head)
        while not stopped.is_set() and sum(sent) < 1_000_000_000:
            sent.append(connection.send(part))

    answer = post(serve(talk, authority.server_context("127.0.0.1") if has_tls else None).url)

    assert answer.status == 200 and answer.seconds < 2
    assert sum(sent) < 50_000_000


@pytest.mark.parametrize("part", [b"x" * 1000, b"x: y\r\n" * 100, b": \r\n" * 100, b" x\r\n" * 100], ids=ascii)
def test_a_head_without_an_end_is_an_invalid_answer(serve, part):
    began = time.monotonic()

    assert reason(serve(saying(HEAD + b"a: ", forever=part)).url) == "invalid_answer"

    assert time.monotonic() - began < 2


def test_news_without_an_end_are_an_invalid_answer(serve):
    news = b"HTTP/1.1 100 Continue\r\n\r\n" * 100
    began = time.monotonic()

    assert reason(serve(saying(forever=news)).url) == "invalid_answer"

    assert time.monotonic() - began < 2


def test_a_resolver_that_hangs_is_given_up_and_waited_for_by_few(url, monkeypatch):
    released = threading.Event()
    hanging = []

    def hang(*args, **options):
        hanging.append(threading.current_thread())
        released.wait(5)
        raise socket.gaierror

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", hang)
        patch.setattr(addresses, "LOOK_UP", 0.2)
        with ThreadPoolExecutor(40) as pool:
            began = time.monotonic()
            reasons = {*pool.map(lambda number: reason(f"https://{number}.example.com/"), range(40))}
            lasted = time.monotonic() - began
        waited_for = len(hanging)
        released.set()
        for thread in hanging:
            thread.join()

    assert (reasons, waited_for) == ({"time_out"}, 16) and lasted < 2
    assert post(url).status == 204


# Circuits


@pytest.fixture
def failing(receiver) -> Receiver:
    """Return the receiver, which will hang up on the next five."""
    receiver.answers = [b""] * 5
    return receiver


def open_circuit(url: str) -> None:
    assert [reason(url) for _ in range(5)] == ["connection_failed"] * 5


def pause(url: str) -> float:
    """Return for how long calls are refused at once."""
    with pytest.raises(CallFailed, match="circuit_open") as failure:
        post(url)
    return failure.value.retry_in.total_seconds()


def test_after_five_failures_a_host_is_left_alone(url, failing, clock):
    open_circuit(url)

    assert pause(url) == 30
    clock.now += 12.5
    assert pause(url.replace("/hook", "/other")) == 17.5
    assert len(failing.requests) == 5


def test_one_host_does_not_answer_for_another(url, failing, serve):
    other = serve(Receiver().talk)
    open_circuit(url)

    assert post(other.url).status == 204


def test_a_single_success_begins_the_count_anew(url, failing):
    failing.answers = [*[b""] * 4, 500, *[b""] * 4]

    assert [reason(url) for _ in range(4)] == ["connection_failed"] * 4
    assert post(url).status == 500
    assert [reason(url) for _ in range(4)] == ["connection_failed"] * 4

    assert post(url).status == 204


def test_a_refused_address_is_no_failure(internet):
    internet.names[HOST] = [[PRIVATE]]

    assert {reason(f"https://{HOST}/") for _ in range(10)} == {"address_refused"}


def test_a_host_that_is_back_is_called_as_ever(url, failing, clock):
    open_circuit(url)
    clock.now += 31

    assert [post(url).status for _ in range(3)] == [204] * 3

    failing.answers = [b""] * 4
    assert [reason(url) for _ in range(4)] == ["connection_failed"] * 4
    assert post(url).status == 204


def test_a_host_that_stays_away_is_left_alone_twice_as_long_up_to_ten_minutes(url, failing, clock):
    failing.answers = [b""] * 12
    open_circuit(url)
    pauses = []

    for _ in range(7):
        pauses.append(pause(url))
        clock.now += pauses[-1]
        assert reason(url) == "connection_failed"

    assert pauses == [30, 60, 120, 240, 480, 600, 600]


def test_a_host_may_stay_away_for_ever(circuits, clock):
    for _ in range(5000):
        circuits.failed("away:443", circuits.admit("away:443"))
        clock.now += 601

    assert circuits.admit("away:443") == 5000


def test_only_one_call_tries_a_host_after_the_pause(serve, clock):
    arrived, released = threading.Event(), threading.Event()
    trying = []

    def talk(connection: socket.socket, stopped: threading.Event) -> None:
        if clock.now:
            trying.append(connection)
            arrived.set()
            released.wait(5)
            saying(HEAD + b"content-length: 0\r\n\r\n")(connection, stopped)

    server = serve(talk)
    open_circuit(server.url)
    clock.now += 31
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, server.url)
        arrived.wait(5)
        assert pause(server.url) == egress.TOTAL
        released.set()
        assert first.result().status == 200

    assert len(trying) == 1
    assert post(server.url).status == 200


def test_a_try_that_says_nothing_of_the_host_gives_way_to_another(hook, internet, clock):
    good = internet.places.pop((PUBLIC, 443))
    open_circuit(hook)
    internet.places[PUBLIC, 443] = good
    internet.names[HOST] = [[PRIVATE], [PUBLIC]]
    clock.now += 31

    assert reason(hook) == "address_refused"
    assert pause(hook) == egress.TOTAL
    clock.now += egress.TOTAL

    assert post(hook).status == 204


def test_calls_that_were_on_their_way_when_it_opened_do_not_make_it_longer(circuits, clock):
    turns = [circuits.admit("host:443") for _ in range(20)]

    for turn in turns:
        circuits.failed("host:443", turn)

    with pytest.raises(CallFailed) as failure:
        circuits.admit("host:443")
    assert failure.value.retry_in == timedelta(seconds=30)


def test_the_hosts_that_are_remembered_are_bounded(circuits, monkeypatch):
    monkeypatch.setattr(egress, "MOST_CIRCUITS", 3)
    for host in "abcd":
        for _ in range(5):
            circuits.failed(host, circuits.admit(host))

    assert circuits.admit("a") == 0
    for host in "bcd":
        with pytest.raises(CallFailed):
            circuits.admit(host)


# Many at once


def test_many_threads_call_at_once(url, receiver, hook, internet):
    internet.places.clear()

    def call(number: int) -> int | str:
        return post(url, content=str(number).encode()).status if number % 2 else reason(hook)

    with ThreadPoolExecutor(16) as pool:
        results = [*pool.map(call, range(64))]

    assert results[1::2] == [204] * 32
    assert {*results[::2]} == {"connection_failed", "circuit_open"}
    assert sorted(int(request.body) for request in receiver.requests) == [*range(1, 64, 2)]


def test_many_threads_call_with_tls_at_once(hook, receiver):
    with ThreadPoolExecutor(16) as pool:
        results = [*pool.map(lambda number: post(hook, content=str(number).encode()).status, range(64))]

    assert results == [204] * 64
    assert sorted(int(request.body) for request in receiver.requests) == [*range(64)]


# What a failure tells


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://private.example/", "address_refused"),
        ("https://10.0.0.7/", "address_refused"),
        ("https://nowhere.example/", "no_such_host"),
        ("https://slow.example/", "time_out"),
        ("https://closed.example/", "connection_failed"),
        ("https://tls.example/", "tls_failed"),
        ("http://127.0.0.1:{port}/", "invalid_answer"),
    ],
)
def test_a_failure_tells_nothing_of_the_network(serve, receiver, internet, monkeypatch, url, reason):
    monkeypatch.setattr(egress, "CONNECT", 0.2)
    port = serve(saying(b"SSH-2.0-secret\r\n")).port
    internet.names = {
        "private.example": [[PRIVATE]],
        "slow.example": [[ALSO_PUBLIC]],
        "closed.example": [["93.184.216.36"]],
        "tls.example": [[PUBLIC]],
    }
    internet.black_holes = {ALSO_PUBLIC}
    internet.places[PUBLIC, 443] = serve(receiver.talk, self_signed_context("tls.example")).port

    with pytest.raises(CallFailed) as failure:
        post(url.format(port=port))

    assert (str(failure.value), failure.value.args, failure.value.retry_in) == (reason, (reason,), None)
    said = "".join(traceback.format_exception(failure.value))
    assert not re.search(rf"\d+\.\d+\.\d+|\b{port}\b|secret|Errno|ssl\.c", said)
