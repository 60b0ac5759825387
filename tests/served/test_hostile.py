"""Whatever is sent, the answer is a problem of the catalogue, nothing is written, and the next request is answered."""

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from secrets import token_hex
from typing import Any, NamedTuple

import pytest

import resources.app  # noqa: F401 - Every kind of problem is known once this is imported.
from resources.http.problems import catalogue, status_of
from tests.served.service import API, TIMEOUT, Service

pytestmark = pytest.mark.served

LIMIT = 1_048_576
JSON = "application/json"
STATUS_OF_CODE = {kind.code: status_of(kind) for kind in catalogue()}


class Sent(NamedTuple):
    """What a hostile client puts into a request."""

    body: bytes | Iterator[bytes] | None = None
    content_type: str | None = JSON
    query: str = ""
    headers: dict[str, str] = {}


def in_chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


HOSTILE: dict[str, Callable[[], Sent]] = {
    "no body": lambda: Sent(None, None),
    "an empty body": lambda: Sent(b""),
    "a list": lambda: Sent(b"[1, 2]"),
    "a string": lambda: Sent(b'"text"'),
    "a number": lambda: Sent(b"1"),
    "null": lambda: Sent(b"null"),
    "5 MB": lambda: Sent(b'{"name": "' + b"x" * 5_000_000 + b'"}'),
    "5 MB in chunks": lambda: Sent(in_chunks(b'{"name": "' + b"x" * 5_000_000 + b'"}')),
    "spaces past the limit, in chunks": lambda: Sent(in_chunks(b'{"name": "Grace"}' + b" " * LIMIT)),
    "100 000 levels": lambda: Sent(b"[" * 100_000 + b"]" * 100_000),
    "50 000 objects in each other": lambda: Sent(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "17 levels": lambda: Sent(b'{"metadata":' * 17 + b"{}" + b"}" * 17),
    "plain text": lambda: Sent(b'{"name": "Grace"}', "text/plain"),
    "a form": lambda: Sent(b"name=Grace", "application/x-www-form-urlencoded"),
    "a multipart form": lambda: Sent(b"--x\r\n\r\nGrace\r\n--x--", "multipart/form-data; boundary=x"),
    "UTF-16": lambda: Sent('{"name": "Grace"}'.encode("utf-16"), "application/json; charset=utf-16"),
    "no type": lambda: Sent(b'{"name": "Grace"}', None),
    "pretended compression": lambda: Sent(b'{"name": "Grace"}', headers={"Content-Encoding": "gzip"}),
    "bytes that are not UTF-8": lambda: Sent(b'{"name": "Gr\xff\xfece"}'),
    "a lone surrogate": lambda: Sent(b'{"name": "Gr\\ud800ce"}'),
    "a NUL": lambda: Sent(b'{"name": "Gr\\u0000ce", "title": "a\\u0000b", "email": "a\\u0000@example.com"}'),
    "a huge integer": lambda: Sent(b'{"name": ' + b"9" * 5_000 + b"}"),
    "an integer of 65 bits": lambda: Sent(b'{"name": 36893488147419103232, "metadata": {"n": 36893488147419103232}}'),
    "not a number": lambda: Sent(b'{"name": NaN}'),
    "an unknown field": lambda: Sent(b'{"nonsense": true}'),
    "1000 unknown fields": lambda: Sent(json.dumps({f"field{number}": 1 for number in range(1000)}).encode()),
    "an unknown parameter": lambda: Sent(b"{}", query="?nonsense=1"),
    "a parameter that is not UTF-8": lambda: Sent(b"{}", query="?q=%ff"),
    "a parameter with a NUL": lambda: Sent(b"{}", query="?q=%00"),
    "a parameter with a huge number": lambda: Sent(b"{}", query="?page=" + "9" * 5_000),
    "a name twice": lambda: Sent(b'{"name": "Grace", "name": "Ada"}'),
    "a name twice, once escaped": lambda: Sent(b'{"name": "Grace", "n\\u0061me": "Ada"}'),
}


WITHOUT_BODY = ("/auth/logout", "/keys", "/ping", "/redeliver", "/secret")  # What can be posted with none.


class Attacker:
    """A client with an admin's token, on one connection."""

    connection: http.client.HTTPConnection

    def __init__(self, service: Service) -> None:
        self.service = service
        self.token = ""
        self.renew()

    def renew(self) -> None:
        """Make what the paths name, and whose token is sent, anew if it has gone."""
        if self.service.send("GET", f"{API}/me", self.token).status_code == 401:
            self.token = self.service.sign_in(self.service.make_user(role="admin").email)
        target = self.service.make_user(password=None)
        post = self.service.send("POST", f"{target.path}/posts", self.token, json={"title": "A", "content": "B"})
        self.ids = {"user_id": target.id, "post_id": post.json()["id"], "session_id": self._other_session()}
        account = {"name": "A program", "scopes": ["users:read"]}
        self.ids["service_account_id"] = self._made("service-accounts", account)
        self.ids["key_id"] = self._made(f"service-accounts/{self.ids['service_account_id']}/keys", {})
        hook = self._made("webhooks", {"url": "https://partner.example/hook"})
        self.service.execute("DELETE FROM webhooks WHERE id < %s", hook)  # There can be twenty.
        self.ids |= {"webhook_id": hook, "delivery_id": 1}

    def _made(self, noun: str, body: dict[str, Any]) -> int:
        answer = self.service.send("POST", f"{API}/{noun}", self.token, json=body)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def _other_session(self) -> int:
        """Return a session of the admin that is not the one in use, so that it can be ended."""
        email = self.service.send("GET", f"{API}/me", self.token).json()["email"]
        other = self.service.sign_in(email)
        sessions = self.service.send("GET", f"{API}/me/sessions", other).json()["sessions"]
        return int(next(session["id"] for session in sessions if session["is_current"]))

    def attack(self, method: str, path: str, kind: str) -> int:
        """Send one request, judge the answer, and return its status."""
        request_id = token_hex(12)
        try:
            answer, body = self._exchange(method, path, kind, request_id)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # The server ended the connection after the last answer, rather than read what it did not want of that.
            self.connection.close()
            answer, body = self._exchange(method, path, kind, request_id)
        assert answer.headers["X-Request-ID"] == request_id  # It is the answer to this request, not to a part of it.
        assert answer.status < 500, body
        if answer.status >= 400 and method != "HEAD":
            assert answer.headers["Content-Type"] == "application/problem+json"
            problem = json.loads(body)
            assert STATUS_OF_CODE[problem["code"]] == problem["status"] == answer.status
        return answer.status

    def _exchange(self, method: str, path: str, kind: str, request_id: str) -> tuple[http.client.HTTPResponse, bytes]:
        sent = HOSTILE[kind]()
        headers = {"Authorization": f"Bearer {self.token}", "X-Request-ID": request_id, **sent.headers}
        if sent.content_type:
            headers["Content-Type"] = sent.content_type
        # When it breaks, the server did not want all of it, and has answered.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.request(method, path.format(**self.ids) + sent.query, sent.body, headers)
        answer = self.connection.getresponse()
        try:
            return answer, answer.read()
        except (http.client.IncompleteRead, ConnectionResetError):
            # A long answer is cut where the server ends the connection because of what it did not want to read.
            self.connection.close()
            return answer, b""


@pytest.fixture(scope="session")
def rested_attacker(service: Service) -> Attacker:
    return Attacker(service)


@pytest.fixture
def attacker(rested_attacker: Attacker) -> Iterator[Attacker]:
    port = rested_attacker.service.port
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    ) as rested_attacker.connection:
        yield rested_attacker


@pytest.fixture(scope="session")
def paths(service: Service) -> list[str]:
    """Return every path of the API, and those round it."""
    document = service.send("GET", f"{API}/openapi.json").json()
    round_it = ["/", "/health", "/health/ready", "/docs", "/problems", "/.well-known/jwks.json", "/nowhere"]
    return [*document["paths"], f"{API}/openapi.json", *round_it]


def content_of(service: Service) -> Any:
    """Return what any change of a user or post would change."""
    users = service.rows("SELECT count(*), sum(version), count(deleted_at) FROM users")
    return users, service.rows("SELECT count(*), sum(version) FROM posts")


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_body_changes_nothing(service: Service, attacker: Attacker, paths: list[str], kind: str) -> None:
    before = content_of(service)

    for path in paths:
        for method in ("POST", "PUT", "PATCH"):
            if not path.endswith(WITHOUT_BODY):
                assert attacker.attack(method, path, kind) >= 400

    assert content_of(service) == before


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_body_where_none_is_read_does_no_harm(attacker: Attacker, paths: list[str], kind: str) -> None:
    for path in paths:
        for method in ("GET", "HEAD", "OPTIONS"):
            attacker.attack(method, path, kind)
    for path in paths:
        for method in ("DELETE", "POST") if path == f"{API}/auth/logout" else ("DELETE",):
            if attacker.attack(method, path, kind) < 300:
                attacker.renew()


def test_name_that_stands_twice_is_found_among_very_many(service: Service) -> None:
    members = [*(f'"name{number}":1' for number in range(40_000)), '"name39999":2']

    answer = service.send(
        "POST", f"{API}/auth/login", data="{" + ",".join(members) + "}", headers={"Content-Type": JSON}
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
