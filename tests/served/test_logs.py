"""The log: a JSON object a line, enough to find a request again, and nothing that anybody told us in confidence."""

import json
from secrets import token_hex
from urllib.parse import quote

import pytest

from tests.served.service import API, Service, eventually
from tests.served.wire import exchange

pytestmark = pytest.mark.served

FACTS = {"request_id", "method", "route", "status", "ms", "actor"}
ENVELOPE = {"level", "logger", "message", "time"}


def lines_of(service: Service, request_id: str) -> list[dict[str, object]]:
    """Return the lines about a request, which may come a moment after its answer."""
    eventually(lambda: request_id in service.server.log())
    return [line for line in service.log_lines() if line.get("request_id") == request_id]


def test_request_writes_one_line_by_which_it_is_found(service: Service) -> None:
    person = service.make_user()
    token = service.sign_in(person.email)

    answer = service.send("GET", f"{person.path}?fields=name", token)

    (line,) = lines_of(service, answer.headers["X-Request-ID"])
    assert line.keys() == FACTS | ENVELOPE
    assert (line["level"], line["method"], line["status"]) == ("INFO", "GET", 200)
    assert line["route"] == f"{API}/users/<int:user_id>"  # The template, so that lines can be counted by it.
    assert line["actor"] == person.id
    assert isinstance(line["ms"], float) and line["ms"] > 0


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        (f"{API}/users", 401, f"{API}/users"),
        (f"{API}/me?nonsense=1", 401, f"{API}/me"),
        ("/nowhere", 404, None),
        ("/problems/not-found", 200, "/problems/<name>"),
    ],
)
def test_refused_request_writes_its_line_too(service: Service, path: str, status: int, route: str | None) -> None:
    request_id = token_hex(12)

    service.send("GET", path, headers={"X-Request-ID": request_id})

    (line,) = lines_of(service, request_id)
    assert (line["status"], line["route"], line["actor"]) == (status, route, None)


def test_health_checks_write_nothing(service: Service) -> None:
    quiet, loud = token_hex(12), token_hex(12)

    service.send("GET", "/health", headers={"X-Request-ID": quiet})
    service.send("GET", "/", headers={"X-Request-ID": loud})

    assert lines_of(service, loud)
    assert quiet not in service.server.log()


def test_line_breaks_that_somebody_sends_make_no_line(service: Service) -> None:
    mark = token_hex(8)

    for text in (f"{mark}\n{mark}", f"{mark}\r\n{mark}", f"{mark}\u2028{mark}", f"\x1b[31m{mark}"):
        service.send("GET", f"/{quote(text)}")
        service.send("GET", f"{API}/users?q={quote(text)}", service.admin_token())
        service.send("GET", "/", headers={"User-Agent": text.encode("unicode_escape").decode()})
    answer = service.send("GET", "/")

    assert lines_of(service, answer.headers["X-Request-ID"])
    assert mark not in service.server.log()


def test_nothing_told_in_confidence_is_written(service: Service) -> None:
    canary = f"canary{token_hex(8)}"
    email, password = f"{canary}.mail@example.com", f"{canary} pass word"
    person = service.make_user(email=email, password=password)
    token = service.sign_in(email, password)
    admin_token = service.admin_token()
    login = f"{API}/auth/login"

    with service.caller(token) as own, service.caller(admin_token) as admin:
        # As wrong as people type it, and as clients put it where it does not belong.
        own.post(login, json={"email": email, "password": f"{password}!"})
        own.post(login, json={"email": [email], "password": {"is": password}})
        own.post(login, json={email: password})
        own.post(
            login, data=f'{{"email": "{email}", "password": "{password}"', headers={"Content-Type": "application/json"}
        )
        own.post(login, data={"email": email, "password": password})
        own.post(f"{login}?email={quote(email)}&password={quote(password)}", json={})
        own.post(f"{API}/users", json={"email": email, "name": canary, "password": password})
        own.get(f"{API}/{token}")
        own.get(f"{API}/users/{quote(email)}")
        own.get(f"{API}/me", headers={"X-Request-ID": email, "User-Agent": email, "Referer": f"https://x/?t={token}"})
        own.get(f"{API}/me", headers={"Authorization": f"Basic {password.encode().hex()}"})
        own.get(f"{API}/me", headers={"Authorization": f"Bearer {token}x"})
        own.get(f"{API}/me", headers={"Cookie": f"token={token}"})
        admin.get(f"{API}/users", params={"email": email})
        admin.get(f"{API}/users", params={"q": canary, "sort": canary})
        admin.patch(person.path, json={"name": f"{canary} name", "metadata": {canary: canary}, "external_id": canary})
        admin.patch(person.path, json={"private_metadata": {canary: canary}}, headers={"If-Match": f'"{canary}"'})
    secret_body = json.dumps({"email": email, "password": password}).encode()
    head = f"POST {login} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n".encode()
    exchange(service.port, head + b"Content-Length: 500\r\n\r\n" + secret_body)
    exchange(service.port, head + b"Transfer-Encoding: chunked\r\n\r\n1000\n" + secret_body + b"\n0\n\n\r\n")
    exchange(service.port, head + canary.encode() + b"\r\n\r\n")
    exchange(service.port, f"GET {API}/users?token={canary}".encode() + b"\xff HTTP/1.1\r\n\r\n")
    exchange(service.port, f"GET /{canary} {canary}\r\nHost: {canary}\r\n\r\n".encode())
    end = service.send("GET", "/").headers["X-Request-ID"]

    assert lines_of(service, end)
    log = service.log()
    assert canary not in log
    assert password.encode().hex() not in log
    assert not [secret for secret in (token, admin_token) if secret in log or secret.rpartition(".")[2] in log]
