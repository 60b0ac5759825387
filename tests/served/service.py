"""A served application with its database, and what a test needs to talk to both."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import count
from secrets import token_hex, token_urlsafe
from typing import Any, NamedTuple

import psycopg
import requests

from config.development import new_signing_key
from tests.servers import ROOT, Gunicorn, Kept, gunicorn, inherited, start_process

API = "/api/v1"
PASSWORD = "correct horse battery staple"
ADMIN_EMAIL = "first-admin@example.com"
WORKERS = 2
TOKEN_SECONDS = 600  # Less than the lifetime of a token.
TIMEOUT = 30  # Seconds; only so that a test that fails also ends.
NO_LIMITS = dict.fromkeys(("RATE_LIMIT_KEY", "RATE_LIMIT_USER", "RATE_LIMIT_ADDRESS", "RATE_LIMIT_COSTLY"), "")
_networks = count(1)


class Person(NamedTuple):
    """A user made for a test; `path` is where the API has them."""

    id: int
    email: str
    path: str


class Caller(requests.Session):
    """A client with connections of its own; addresses are given without the host. Use it in a `with`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        super().__init__()
        self.url = url
        self.trust_env = False  # No proxy of the developer's.
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def request(self, method: str, url: str, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", TIMEOUT)
        return super().request(method, self.url + url, **kwargs)

    def patiently(self, method: str, url: str, **kwargs: Any) -> requests.Response:
        """Send a request, and again after the time in `Retry-After` or a little more, until it is not told `busy`."""
        deadline = time.monotonic() + TIMEOUT
        while (answer := self.request(method, url, **kwargs)).status_code == 503 and answer.json()["code"] == "busy":
            assert time.monotonic() < deadline, "there has never been a place"
            time.sleep(int(answer.headers["Retry-After"]) * random.uniform(1, 2))
        return answer


class Service:
    """The application on a port, over a database of its own."""

    def __init__(self, server: Gunicorn, database_url: str, environment: dict[str, str]) -> None:
        self.server, self.url, self.port = server, server.url, server.port
        self.database_url, self.environment = database_url, environment
        self.staff: list[Kept] = []
        self._former_staff: list[Kept] = []
        self._admin_token, self._signed_in_at = "", 0.0

    def caller(self, token: str | None = None) -> Caller:
        """Return a client, signed in if a token is given."""
        return Caller(self.url, token)

    def send(self, method: str, path: str, token: str | None = None, **kwargs: Any) -> requests.Response:
        """Send one request on a connection of its own."""
        with self.caller(token) as caller:
            return caller.request(method, path, **kwargs)

    def grant(self, email: str, password: str = PASSWORD, **kwargs: Any) -> dict[str, Any]:
        """Begin a session, and return its tokens and whose they are."""
        answer = self.send("POST", f"{API}/auth/login", json={"email": email, "password": password}, **kwargs)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def sign_in(self, email: str, password: str = PASSWORD) -> str:
        """Return the access token of a new session."""
        return str(self.grant(email, password)["access_token"])

    def admin_token(self) -> str:
        """Return an access token of the first admin, who stays signed in; tests end the sessions of others only."""
        if not self._admin_token or time.monotonic() > self._signed_in_at + TOKEN_SECONDS:
            self._admin_token, self._signed_in_at = self.sign_in(ADMIN_EMAIL), time.monotonic()
        return self._admin_token

    def make_user(self, *, password: str | None = PASSWORD, **fields: Any) -> Person:
        """Create a user; without a password, one who cannot sign in."""
        mark = token_hex(6)
        body = {"email": f"person-{mark}@example.com", "name": f"Person {mark}", **fields}
        if password is not None:
            body["password"] = password
        answer = self.send("POST", f"{API}/users", self.admin_token(), json=body)
        assert answer.status_code == 201, answer.text
        user_id = answer.json()["id"]
        return Person(user_id, body["email"], f"{API}/users/{user_id}")

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return what a SELECT finds, past the application; %s stands for a value."""
        with self._cursor() as (cursor, placed):
            cursor.execute(placed(statement), values)
            return list(cursor.fetchall())

    def execute(self, statement: str, *values: Any) -> None:
        """Run a statement past the application, and commit."""
        with self._cursor() as (cursor, placed):
            cursor.execute(placed(statement), values)

    def insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows past the application, all at once."""
        names, places = ", ".join(rows[0]), ", ".join("%s" for _ in rows[0])
        with self._cursor() as (cursor, placed):
            statement = placed(f"INSERT INTO {table} ({names}) VALUES ({places})")
            cursor.executemany(statement, [tuple(row.values()) for row in rows])

    def wait_until_set(self, statement: str, *values: Any) -> None:
        """Return at the very moment when the only value that a SELECT finds is no longer null."""
        deadline = time.monotonic() + TIMEOUT
        with self._cursor() as (cursor, placed):
            while cursor.execute(placed(statement), values).fetchone()[0] is None:
                assert time.monotonic() < deadline, "it has not come about"

    def kill(self, *pids: int) -> None:
        """Kill workers, at once, and wait until others have taken their place."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(set(self.server.worker_pids()) - {*pids}) == WORKERS)

    def employ(self) -> Kept:
        """Start a worker."""
        worker = start_process("worker", ("flask", "--app", "wsgi", "worker"), self.environment)
        self.staff.append(worker)
        return worker

    def kill_staff(self) -> None:
        """Kill the workers, all at once."""
        for worker in self.staff:
            os.kill(worker.pid, signal.SIGKILL)
        self.dismiss_staff()

    def dismiss_staff(self) -> None:
        """Tell the workers to finish what they have begun, and wait for their end."""
        for worker in self.staff:
            worker.stop()
        self._former_staff += self.staff
        self.staff.clear()

    def kept(self, moment: datetime) -> Any:
        """Return a moment in UTC as the database keeps it."""
        return f"{moment:%Y-%m-%d %H:%M:%S.%f}" if self.database_url.startswith("sqlite") else moment

    @contextlib.contextmanager
    def another_instance(self) -> Iterator["Service"]:
        """Serve the same database a second time, as another machine would, until the block ends."""
        with _serving(self.environment) as server:
            yield Service(server, self.database_url, self.environment)

    def log(self) -> str:
        """Return what the server and the workers have written."""
        return "".join(process.log() for process in (self.server, *self._former_staff, *self.staff))

    def log_lines(self) -> list[dict[str, Any]]:
        """Return what the server and the workers have written, each line of which is a JSON object."""
        return [json.loads(line) for line in self.log().splitlines()]

    def unforeseen(self) -> list[str]:
        """Return what was written of errors that nobody foresaw: message, and last line of the trace."""
        errors = [line for line in self.log_lines() if line["level"] in {"ERROR", "CRITICAL"}]
        return [f"{line['message']}: {line.get('exc_info', '').rpartition(chr(10))[2]}" for line in errors]

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[tuple[Any, Callable[[str], str]]]:
        if self.database_url.startswith("sqlite"):
            path = self.database_url.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(path, timeout=TIMEOUT)) as connection, connection:
                yield connection.cursor(), lambda statement: statement.replace("%s", "?")
        else:
            with psycopg.connect(self.database_url) as connection, connection.cursor() as cursor:
                yield cursor, str


@contextlib.contextmanager
def served(database_url: str, **variables: str) -> Iterator[Service]:
    """Migrate an empty database, make the first admin, and serve the application with a worker until the block ends."""
    folder = tempfile.TemporaryDirectory
    with folder(prefix="rollcall-mail-") as mail, folder(prefix="rollcall-files-") as files:
        environment = {
            "APP_ENV": "production",
            "DATABASE_URL": database_url,
            "SECRET_KEY": token_urlsafe(48),
            "SIGNING_KEYS": new_signing_key(),
            "PUBLIC_URL": "https://users.example.com",
            "REGISTRATION": "open",
            "MAIL_URL": f"file://{mail}",
            "STORAGE_URL": f"file://{files}",
            "ALLOWED_HOSTS": "127.0.0.1",
            "CORS_ORIGINS": "https://app.example.com",
            "LOG_LEVEL": "INFO",
            "ADMIN_EMAIL": ADMIN_EMAIL,
            "ADMIN_PASSWORD": PASSWORD,
            **NO_LIMITS,
            **variables,
        }
        run_flask(environment, "migrate-on-start")
        run_flask(environment, "users", "first-admin")
        with _serving(environment) as server:
            service = Service(server, database_url, environment)
            service.employ()
            try:
                yield service
            finally:
                service.dismiss_staff()


@contextlib.contextmanager
def _serving(environment: dict[str, str]) -> Iterator[Gunicorn]:
    workers = int(environment.get("WEB_CONCURRENCY", WORKERS))
    with gunicorn(environment, workers=workers) as server:
        eventually(lambda: len(server.worker_pids()) == workers)
        yield server


def somewhere() -> dict[str, str]:
    """Return the headers of a client on a network that no other has; only a server that trusts a proxy believes it."""
    number = next(_networks)
    return {"X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}


def eventually(condition: Callable[[], bool], *, within: float = TIMEOUT) -> None:
    """Wait until something is so; raise AssertionError when it takes far too long."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.02)


def run_flask(environment: dict[str, str], *arguments: str) -> str:
    """Run one of the application's commands, and return what it says."""
    command = [sys.executable, "-m", "flask", "--app", "wsgi", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=inherited() | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
