"""Load as three kinds of client make it: a browser's page, a phone, a partner's program. It fails on a broken promise.

    ADMIN_EMAIL=… ADMIN_PASSWORD=… python dev.py load-test --host http://127.0.0.1:8000

All of it comes from one address, so start that server with RATE_LIMIT_KEY, RATE_LIMIT_USER, RATE_LIMIT_ADDRESS and
RATE_LIMIT_COSTLY set to nothing.
Further variables: LOAD_P99_MS (default 500), the time in which 99 of 100 reads must be answered.
The users it works with are its own, and are deleted when it ends.
"""

import logging
import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
from gevent.lock import Semaphore
from locust import HttpUser, between, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.stats import StatsEntry

API = "/api/v1"
READ_P99_MS = int(os.environ.get("LOAD_P99_MS", "500"))
WRITE_P99_MS = 1000
LEAST_PER_SECOND = 50
SHARED_USERS = 5  # Whom several pages change at the same time, so that some find their ETag out of date.

log = logging.getLogger("rollcall.load")
shared: list[int] = []
admin_tokens: list[tuple[str, float]] = []
one_at_a_time = Semaphore()


@events.init.add_listener
def need_an_admin(environment: Environment, **_: Any) -> None:
    if not (os.environ.get("ADMIN_EMAIL") and os.environ.get("ADMIN_PASSWORD")):
        sys.exit("rollcall: set ADMIN_EMAIL and ADMIN_PASSWORD: the load test signs in as an admin.")


class Client(HttpUser):
    """A client that can sign in; an answer is a failure unless its status is expected."""

    abstract = True
    email: str
    password: str
    token = ""
    renew_at = 0.0

    def sign_in(self) -> Any:
        """Get a new access token; return the user."""
        body = {"email": self.email, "password": self.password}
        answer = self.call("POST", "/auth/login", json=body)
        if answer.status_code != 200:
            raise StopUser
        self.token = str(answer.json()["access_token"])
        self.renew_at = time.monotonic() + answer.json()["expires_in"] - 60
        return answer.json()["user"]

    def sign_in_as_admin(self) -> None:
        """Take the admin's token; whoever is first gets it."""
        self.email, self.password = os.environ["ADMIN_EMAIL"], os.environ["ADMIN_PASSWORD"]
        with one_at_a_time:
            if not admin_tokens:
                self.sign_in()
                admin_tokens.append((self.token, self.renew_at))
        self.token, self.renew_at = admin_tokens[0]

    def call(
        self,
        method: str,
        path: str,
        *,
        name: str | None = None,
        expected: tuple[int, ...] = (200,),
        headers: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Send a request and return the answer; sign in again shortly before the token expires."""
        if self.token and time.monotonic() > self.renew_at:
            self.token = ""
            self.sign_in()
        headers = {**(headers or {}), **({"Authorization": f"Bearer {self.token}"} if self.token else {})}
        with self.client.request(
            method, API + path, name=API + (name or path), headers=headers, catch_response=True, **kwargs
        ) as answer:
            if answer.status_code in expected:
                answer.success()
            else:
                answer.failure(f"{answer.status_code} {answer.text[:200]}")
            return answer


class Partner(Client):
    """A partner's program: reads everything in pages, creates users, and finds them by its own numbers."""

    wait_time = between(0.05, 0.25)
    weight = 1

    def on_start(self) -> None:
        self.created: list[tuple[int, str]] = []
        self.cursor: str | None = None
        self.sign_in_as_admin()

    def on_stop(self) -> None:
        for user_id, _ in self.created:
            self.call("DELETE", f"/users/{user_id}", name="/users/{id}", expected=(204,))

    @task(4)
    def read_on(self) -> None:
        """Read the next page of everything; after the last, begin again."""
        page = {"per_page": 100, "sort": "id", **({"cursor": self.cursor} if self.cursor else {})}
        answer = self.call("GET", "/users", name="/users?cursor=", params=page)
        if answer.status_code == 200:
            self.cursor = answer.json()["next_cursor"]

    @task(2)
    def create(self) -> None:
        mark = secrets.token_hex(8)
        body = {"email": f"load-{mark}@example.com", "name": f"Load {mark}", "external_id": f"load-{mark}"}
        answer = self.call("POST", "/users", json=body, expected=(201,))
        if answer.status_code == 201:
            self.created.append((answer.json()["id"], mark))

    @task(1)
    def create_again(self) -> None:
        """Send somebody who is there already, as synchronising programs do."""
        if self.created:
            _, mark = random.choice(self.created)
            body = {"email": f"LOAD-{mark}@example.com", "name": f"Load {mark}"}
            self.call("POST", "/users", json=body, expected=(409,))

    @task(3)
    def look_up(self) -> None:
        if self.created:
            user_id, mark = random.choice(self.created)
            answer = self.call("GET", "/users", name="/users?external_id=", params={"external_id": f"load-{mark}"})
            if answer.status_code == 200 and [user["id"] for user in answer.json()["users"]] != [user_id]:
                log.error("external_id load-%s found somebody else", mark)
                self.environment.process_exit_code = 1

    @task(1)
    def search(self) -> None:
        self.call("GET", "/users", name="/users?q=", params={"q": secrets.token_hex(1), "per_page": 20})


class Person(Client):
    """Somebody with an account made for this run."""

    abstract = True
    role = "member"

    def on_start(self) -> None:
        self.user: Any = None
        self.sign_in_as_admin()
        mark = secrets.token_hex(8)
        body = {"email": f"load-{mark}@example.com", "name": f"Load {mark}", "password": mark, "role": self.role}
        answer = self.call("POST", "/users", json=body, expected=(201,))
        if answer.status_code != 201:
            raise StopUser
        self.email, self.password, self.token = body["email"], mark, ""
        self.user = self.sign_in()

    def on_stop(self) -> None:
        if self.user:  # Until then the token is the admin's.
            self.call("DELETE", "/me", expected=(204,))


class Page(Person):
    """A page in a browser: lists, opens somebody, changes them unless somebody else just did."""

    wait_time = between(0.1, 0.5)
    weight = 3
    role = "admin"

    def on_start(self) -> None:
        super().on_start()
        self.known: dict[int, str] = {}
        if len(shared) < SHARED_USERS:
            mark = secrets.token_hex(8)
            body = {"email": f"load-{mark}@example.com", "name": "Load together"}
            answer = self.call("POST", "/users", json=body, expected=(201,))
            if answer.status_code != 201:
                raise StopUser
            shared.append(answer.json()["id"])

    @task(2)
    def leaf_through(self) -> None:
        """List the newest users, two pages of them."""
        first = self.call("GET", "/users", name="/users?sort=", params={"sort": "-created_at"})
        cursor = first.json()["next_cursor"] if first.status_code == 200 else None
        if cursor:
            self.call("GET", "/users", name="/users?cursor=", params={"sort": "-created_at", "cursor": cursor})

    @task(4)
    def open(self) -> None:
        self._read(random.choice(shared))

    @task(2)
    def change(self) -> None:
        """Change somebody as last seen; where they have changed meanwhile, look again and change them then."""
        user_id = random.choice(shared)
        if user_id not in self.known:
            self._read(user_id)
        if self._patch(user_id) == 412:
            self._read(user_id)
            self._patch(user_id)

    def _read(self, user_id: int) -> None:
        headers = {"If-None-Match": self.known[user_id]} if user_id in self.known else {}
        path = f"/users/{user_id}"
        answer = self.call("GET", path, name="/users/{id}", expected=(200, 304), headers=headers)
        self.known[user_id] = answer.headers.get("ETag", "")

    def _patch(self, user_id: int) -> int:
        body, headers = {"metadata": {"seen": secrets.token_hex(4)}}, {"If-Match": self.known[user_id]}
        path = f"/users/{user_id}"
        answer = self.call("PATCH", path, name="/users/{id}", expected=(200, 412), json=body, headers=headers)
        if answer.status_code == 200:
            self.known[user_id] = answer.headers["ETag"]
        return int(answer.status_code)


class Phone(Person):
    """An application on a phone: asks often whether anything is new, writes now and then."""

    wait_time = between(0.1, 0.5)
    weight = 5

    def on_start(self) -> None:
        super().on_start()
        self.etag = ""

    @task(6)
    def me(self) -> None:
        answer = self.call("GET", "/me", expected=(200, 304), headers={"If-None-Match": self.etag} if self.etag else {})
        self.etag = answer.headers.get("ETag", "")

    @task(3)
    def posts(self) -> None:
        self.call("GET", f"/users/{self.user['id']}/posts", name="/users/{id}/posts", params={"sort": "-created_at"})

    @task(2)
    def write(self) -> None:
        body = {"title": "A day", "content": "It rained, and then it did not. " * random.randint(1, 50)}
        path = f"/users/{self.user['id']}/posts"
        self.call("POST", path, name="/users/{id}/posts", json=body, expected=(201,))


@events.test_stop.add_listener
def delete_shared_users(environment: Environment, **_: Any) -> None:
    """Delete them when nobody uses them any more."""
    if not shared:
        return
    api = f"{environment.host}{API}"
    credentials = {"email": os.environ["ADMIN_EMAIL"], "password": os.environ["ADMIN_PASSWORD"]}
    with requests.Session() as session:
        answer = session.post(f"{api}/auth/login", json=credentials, timeout=30)
        session.headers["Authorization"] = f"Bearer {answer.json().get('access_token')}"
        while shared:
            session.delete(f"{api}/users/{shared.pop()}", timeout=30)


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Print which promises were held, and fail the run if one was not."""
    rows = list(promises(environment))
    width = max(len(row[0]) for row in rows)
    lines = [
        f"{promise:<{width}}  {found:>12}  {limit:>14}  {'held' if held else 'BROKEN'}"
        for promise, found, limit, held in rows
    ]
    sys.stdout.write("\n".join(["", *lines, ""]))
    broken = not all(held for *_, held in rows)
    environment.process_exit_code = int(broken or bool(environment.process_exit_code))


def promises(environment: Environment) -> Iterator[tuple[str, str, str, bool]]:
    """Yield each promise, what was found, the limit, and whether it was held."""
    total = environment.stats.total
    reads, writes = together(environment, "GET".__eq__), together(environment, "GET".__ne__)
    yield "failures", f"{total.fail_ratio:.2%}", "none", total.num_failures == 0
    for name, entry, limit in (("reads", reads, READ_P99_MS), ("writes", writes, WRITE_P99_MS)):
        slowest = entry.get_response_time_percentile(0.99)
        yield f"p99 of {entry.num_requests} {name}", f"{slowest:.0f} ms", f"{limit} ms", 0 < slowest <= limit
    yield "requests", f"{total.total_rps:.0f}/s", f"{LEAST_PER_SECOND}/s", total.total_rps >= LEAST_PER_SECOND


def together(environment: Environment, wanted: Callable[[str], bool]) -> StatsEntry:
    """Add up the requests of some methods."""
    whole = StatsEntry(environment.stats, "", "")
    for entry in environment.stats.entries.values():
        if wanted(entry.method):
            whole.extend(entry)
    return whole
