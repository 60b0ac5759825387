"""Whoever is erased is gone: nothing that was theirs stands anywhere in the database."""

from random import randrange
from secrets import token_hex
from typing import Any

import pytest

from tests.served.letters import letter_to
from tests.served.service import API, Caller, Service, eventually

pytestmark = pytest.mark.served

PASSWORD, NEW_PASSWORD = "correct horse battery staple", "quite another pass phrase"
TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
    "postgresql": "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
}


def dump(service: Service) -> str:
    """Return every value of every row of every table, in lower case."""
    kind = service.database_url.partition(":")[0]
    tables = [name for (name,) in service.rows(TABLES[kind])]
    assert {"users", "events", "jobs", "one_time_tokens", "throttles"} <= {*tables}
    return "\n".join(str(row) for table in tables for row in service.rows(f"SELECT * FROM {table}")).lower()


class Life:
    """Somebody who leaves a mark of their own in everything that can hold one."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.mark = f"canary{token_hex(6)}"
        self.first, self.second, self.third = (f"{self.mark}.{name}@example.com" for name in ("one", "two", "three"))
        self.address = f"2001:db8:{randrange(0x1000, 0xFFFF):x}:{randrange(0x1000, 0xFFFF):x}:1111:2222:3333:4444"
        self.network = self.address.rpartition(":1111")[0]
        self.headers = {"X-Forwarded-For": self.address, "User-Agent": f"{self.mark}/1.0 (a device)"}
        self.password_hash = ""

    def live(self) -> int:
        """Register, sign in, write, move to another address, forget the password; return the id."""
        self._register()
        me = self._sign_in(self.first, PASSWORD)
        with self.service.caller(me["access_token"]) as own, self.service.caller(self.service.admin_token()) as admin:
            own.headers.update(self.headers)
            path = f"{API}/users/{me['user']['id']}"
            own.patch(f"{API}/me", json={"metadata": {self.mark: [self.mark]}}).raise_for_status()
            own.post(f"{path}/posts", json={"title": self.mark, "content": self.mark}).raise_for_status()
            own.post(f"{API}/auth/refresh", json={"refresh_token": me["refresh_token"]}).raise_for_status()
            private: dict[str, Any] = {"external_id": self.mark, "private_metadata": {"note": self.mark}}
            admin.patch(path, json=private).raise_for_status()
            self._send("/auth/login", {"email": self.first, "password": "a wrong pass phrase"}, status=401)
            self._move(own, self.first, self.second)
        self._forget()
        me = self._sign_in(self.second, NEW_PASSWORD)
        with self.service.caller(me["access_token"]) as own:
            own.headers.update(self.headers)
            body = {"current_password": NEW_PASSWORD, "email": self.third}
            own.post(f"{API}/me/email", json=body).raise_for_status()
            letter_to(self.service, self.third, "Confirm your new e-mail address")
        self._send("/auth/password/forgot", {"email": self.second}, status=202)
        return int(me["user"]["id"])

    def _register(self) -> None:
        body = {"email": self.first.title(), "name": f"{self.mark} Person", "password": PASSWORD}
        self._send("/users", body, status=202)
        letter = letter_to(self.service, self.first.title(), "Confirm your new account")
        self._send("/auth/email/verify", {"email": self.first, "code": letter.code}, status=204)

    def _move(self, own: Caller, old: str, new: str) -> None:
        own.post(f"{API}/me/email", json={"current_password": PASSWORD, "email": new}).raise_for_status()
        letter = letter_to(self.service, new, "Confirm your new e-mail address")
        self._send("/auth/email/verify", {"email": new, "code": letter.code}, status=204)
        letter_to(self.service, old.title(), "Your e-mail address was changed")

    def _forget(self) -> None:
        self._send("/auth/password/forgot", {"email": self.second}, status=202)
        letter = letter_to(self.service, self.second, "Set a new password")
        body = {"email": self.second, "code": letter.code, "password": NEW_PASSWORD}
        self._send("/auth/password/reset", body, status=204)

    def _sign_in(self, email: str, password: str) -> dict[str, Any]:
        return self.service.grant(email, password, headers=self.headers)

    def _send(self, path: str, body: dict[str, str], *, status: int) -> None:
        answer = self.service.send("POST", f"{API}{path}", json=body, headers=self.headers)
        assert answer.status_code == status, answer.text


def test_dump_of_the_database_holds_nothing_of_an_erased_person(proxied: Service) -> None:
    life = Life(proxied)
    user_id = life.live()
    ((password_hash,),) = proxied.rows("SELECT password_hash FROM users WHERE id = %s", user_id)
    eventually(lambda: proxied.rows("SELECT id FROM jobs") == [])
    traces = [life.mark, life.network, password_hash.lower()]
    before = dump(proxied)
    assert all(trace in before for trace in traces)
    path, admin_token = f"{API}/users/{user_id}", proxied.admin_token()

    assert proxied.send("DELETE", path, admin_token).status_code == 204
    assert proxied.send("POST", f"{path}/erase", admin_token).status_code == 204

    after = dump(proxied)
    left = [line for line in after.splitlines() if any(trace in line for trace in traces)]
    assert not left, "\n".join(left)
    assert proxied.rows("SELECT id, email, name FROM users WHERE id = %s", user_id) == [(user_id, "", "")]
