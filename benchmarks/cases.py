"""What is asked: each case makes its requests for a contestant, with cursors and tags that are the contestant's own."""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from secrets import token_urlsafe
from typing import Any
from urllib.parse import quote

import jwt
import requests

from benchmarks.contestants import ISSUER, Running
from benchmarks.database import ADMINS, ORDINARY, PASSWORD, SIGNERS, SUPPORT
from benchmarks.load import NUMBER, Request
from service.tokens import AUDIENCE, LIFETIME, KeyRing

USERS, LOGIN = "/api/v1/users", "/api/v1/auth/login"
ROWS = 100_000
CURSORS = 16
COLD_TOKENS = 20_000  # More than anybody remembers, and more than a run sends.


class Tokens:
    """Access tokens such as a sign-in gives, for the sessions that the templates hold."""

    def __init__(self, signing_key: str) -> None:
        self._key = KeyRing([signing_key], issuer=ISSUER).current

    def issue(self, user_id: int, session_id: int) -> str:
        issued = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(user_id), "sid": str(session_id)}
        times = {"iat": issued, "exp": issued + int(LIFETIME.total_seconds()), "jti": token_urlsafe(12)}
        return jwt.encode(claims | times, self._key.private, algorithm="ES256", headers=self._key.headers)

    def bearers(self, people: Sequence[int]) -> Iterator[dict[str, str]]:
        """Yield the headers of these people in turn, for ever; a session has the id of its user."""
        return cycle([{"Authorization": f"Bearer {self.issue(person, person)}"} for person in people])


class Caller:
    """A client of one contestant, who reads what a case needs to know beforehand."""

    def __init__(self, server: Running, tokens: Tokens, rows: int) -> None:
        self.server, self.tokens, self.rows = server, tokens, rows
        self.random = random.Random(rows)  # The same choices for every contestant.
        self._session = requests.Session()
        self._session.trust_env = False

    def send(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> requests.Response:
        url = f"http://{self.server.host}{path}"
        return self._session.request(method, url, headers=headers, json=body, timeout=30)

    def read(self, path: str) -> requests.Response:
        """Return a good answer to a reader."""
        answer = self.send("GET", path, next(self.tokens.bearers(SUPPORT)))
        answer.raise_for_status()
        return answer

    def page(self, number: int, size: int) -> Any:
        """Return a numbered page."""
        return self.read(f"{USERS}?page={number}&per_page={size}").json()

    def anybody(self) -> int:
        """Return the id of a user who is nobody in particular."""
        return self.random.randrange(ORDINARY, self.rows)

    def signers(self) -> list[str]:
        """Return the addresses of those who can sign in."""
        pages = range(1, -(-SIGNERS.stop // 100) + 1)
        return [user["email"] for page in pages for user in self.page(page, 100)["users"] if user["id"] in SIGNERS]


def _reads(caller: Caller, paths: Sequence[str]) -> list[Request]:
    bearers = caller.tokens.bearers(SUPPORT)
    return [Request("GET", path, next(bearers)) for path in paths]


def get_one(caller: Caller) -> list[Request]:
    return _reads(caller, [f"{USERS}/{caller.anybody()}" for _ in range(1000)])


def get_cold(caller: Caller) -> list[Request]:
    """Show a token that the server has not seen, or has long forgotten, each time."""
    tokens = [caller.tokens.issue(person, person) for _ in range(COLD_TOKENS // len(SUPPORT)) for person in SUPPORT]
    return [Request("GET", f"{USERS}/{caller.anybody()}", {"Authorization": f"Bearer {token}"}) for token in tokens]


def not_modified(caller: Caller) -> list[Request]:
    items = [f"{USERS}/{caller.anybody()}" for _ in range(100)]
    tags = [caller.read(item).headers["ETag"] for item in items]
    bearers = caller.tokens.bearers(SUPPORT)
    return [Request("GET", item, next(bearers) | {"If-None-Match": tag}) for item, tag in zip(items, tags, strict=True)]


def by_cursor(size: int) -> Callable[[Caller], list[Request]]:
    """Ask for pages that begin anywhere."""

    def prepare(caller: Caller) -> list[Request]:
        pages = [caller.random.randrange(1, caller.rows // size - 1) for _ in range(CURSORS)]
        return _after_pages(caller, pages, size)

    return prepare


def deep_cursor(caller: Caller) -> list[Request]:
    return _after_pages(caller, _deep(caller), 20)


def _after_pages(caller: Caller, pages: Sequence[int], size: int) -> list[Request]:
    cursors = [quote(caller.page(page, size)["next_cursor"], safe="") for page in pages]
    return _reads(caller, [f"{USERS}?per_page={size}&cursor={cursor}" for cursor in cursors])


def by_number(size: int) -> Callable[[Caller], list[Request]]:
    """Ask for pages near the front, as people do, with the count of all."""

    def prepare(caller: Caller) -> list[Request]:
        return _reads(caller, [f"{USERS}?per_page={size}&page={number}" for number in range(1, 6)])

    return prepare


def deep_page(caller: Caller) -> list[Request]:
    return _reads(caller, [f"{USERS}?per_page=20&page={number}" for number in _deep(caller)])


def _deep(caller: Caller) -> range:
    """Return pages of 20 nine tenths down: from 4,500 on, of 100,000 rows."""
    page = caller.rows // 20 * 9 // 10
    return range(page, page + CURSORS // 4)


def search(caller: Caller) -> list[Request]:
    names = [user["name"] for page in (3, 5, 7) for user in caller.page(page, 100)["users"]]
    return _reads(caller, [f"{USERS}?q={quote(name)}" for name in names])


NEW_USER = {
    "email": f"new.person.{NUMBER}@example.com",
    "name": "New Person",
    "metadata": {"plan": "free", "seats": 1},
}


def create(caller: Caller) -> list[Request]:
    bearers = caller.tokens.bearers(ADMINS)
    return [Request("POST", USERS, next(bearers), json.dumps(NEW_USER)) for _ in ADMINS]


def patch(caller: Caller) -> list[Request]:
    bearers = caller.tokens.bearers(ADMINS)
    body = json.dumps({"name": f"Person {NUMBER}"})
    return [Request("PATCH", f"{USERS}/{caller.anybody()}", next(bearers), body) for _ in range(1000)]


def login(caller: Caller) -> list[Request]:
    return [
        Request("POST", LOGIN, {}, json.dumps({"email": email, "password": PASSWORD})) for email in caller.signers()
    ]


@dataclass(frozen=True)
class Case:
    """A kind of request, put to a table of so many rows."""

    name: str
    title: str
    prepare: Callable[[Caller], list[Request]]
    rows: int = ROWS
    writes: bool = False
    growth: str = ""  # What is compared as the table grows.


CASES = (
    Case("get", "get one", get_one),
    Case("get-cold", "get one, each with a new token", get_cold),
    Case("list-20", "list 20 by cursor", by_cursor(20), growth="list 20 by cursor"),
    Case("list-100", "list 100 by cursor", by_cursor(100)),
    Case("page-20", "list 20 by page, with total", by_number(20), growth="list 20 by page, with total"),
    Case("page-100", "list 100 by page, with total", by_number(100)),
    Case("deep-page", "page 4,500 of 20", deep_page),
    Case("deep-cursor", "the cursor there", deep_cursor),
    Case("search", "search by name", search, growth="search by name"),
    Case("create", "create", create, writes=True),
    Case("patch", "patch", patch, writes=True),
    Case("login", "login", login, writes=True),
    Case("304", "304, not modified", not_modified),
    Case("list-20-1k", "list 20 by cursor, 1,000 rows", by_cursor(20), 1_000, growth="list 20 by cursor"),
    Case("page-20-1k", "list 20 by page, 1,000 rows", by_number(20), 1_000, growth="list 20 by page, with total"),
    Case("search-1k", "search by name, 1,000 rows", search, 1_000, growth="search by name"),
    Case("list-20-1m", "list 20 by cursor, 1,000,000 rows", by_cursor(20), 1_000_000, growth="list 20 by cursor"),
    Case(
        "page-20-1m", "list 20 by page, 1,000,000 rows", by_number(20), 1_000_000, growth="list 20 by page, with total"
    ),
    Case("search-1m", "search by name, 1,000,000 rows", search, 1_000_000, growth="search by name"),
)
