"""What is round every request: its id, the headers, malformed addresses, the log, and answers when all goes wrong."""

import contextlib
import logging

import orjson
import pytest
from flask import abort, request
from sqlalchemy import text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from werkzeug.test import EnvironBuilder, run_wsgi_app

from config.logging import JsonLine
from models.base import db
from service.errors import Refusal
from tests.client import Client
from tests.factories.user import PASSWORD, UserFactory
from tests.refusals import refusal_of_kind
from tests.servers import free_port

ME = "/api/v1/me"
USERS = "/api/v1/users"
LOGIN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"

# One request for each kind of answer.
KINDS = {
    "200": ("GET", ME, {}),
    "201": ("POST", USERS, {"json": {"email": "a@example.com", "name": "Ann", "password": PASSWORD}}),
    "204": ("DELETE", ME, {}),
    "204 options": ("OPTIONS", ME, {}),
    "304": ("GET", ME, {"headers": {"If-None-Match": '"1"'}}),
    "400": ("GET", f"{ME}?x=1", {}),
    "400 address": ("GET", f"{USERS}?q=%ff", {}),
    "400 host": ("GET", ME, {"headers": {"Host": "evil.example"}}),
    "401": ("GET", ME, {"headers": {"Authorization": "Bearer x"}}),
    "403": ("GET", USERS, {}),
    "404": ("GET", f"{USERS}/999999", {}),
    "404 address": ("GET", "/nothing/here", {}),
    "405": ("PUT", ME, {}),
    "406": ("GET", ME, {"headers": {"Accept": "text/html"}}),
    "412": ("PATCH", ME, {"json": {"name": "New"}, "headers": {"If-Match": '"9"'}}),
    "413": ("PATCH", ME, {"data": b"x" * 1_048_577}),
    "415": ("PATCH", ME, {"data": b"x"}),
    "422": ("PATCH", ME, {"json": []}),
    "page": ("GET", "/", {}),
    "health": ("GET", "/health", {}),
    "docs": ("GET", "/docs", {}),
    "openapi": ("GET", "/api/v1/openapi.json", {}),
    "problems": ("GET", "/problems/not-found", {}),
    "static": ("GET", "/static/page.css", {"buffered": True}),
    "asset": ("GET", "/docs/assets/swagger-ui.css", {"buffered": True}),
    "jwks": ("GET", "/.well-known/jwks.json", {}),
}
EVERY_KIND = pytest.mark.parametrize(("method", "path", "sent"), KINDS.values(), ids=KINDS)


def with_headers(sent, **headers):
    return {**sent, "headers": {**sent.get("headers", {}), **headers}}


# The request's id


@EVERY_KIND
def test_plain_request_id_is_kept(as_member, method, path, sent):
    response = as_member.send(method, path, **with_headers(sent, **{"X-Request-ID": "plain-REQUEST_id-01"}))

    assert response.headers.getlist("X-Request-ID") == ["plain-REQUEST_id-01"]
    if response.problem:
        assert response.json["request_id"] == "plain-REQUEST_id-01"


@pytest.mark.parametrize("length", [8, 64])
def test_request_id_may_be_short_or_long(client, length):
    assert client.get("/health", headers={"X-Request-ID": "a" * length}).headers["X-Request-ID"] == "a" * length


@pytest.mark.parametrize(
    "given",
    [
        "",
        "short",
        "a" * 65,
        "with a space",
        "with.a.dot",
        "d\xe4monisch",
        "tab\there!",
        "12345678\x1b",
        "<script>1</script>",
        "\xef\xbc\x91" * 8,
        "{12345678}",
        "a,12345678",
    ],
)
def test_other_request_id_is_replaced(client, given):
    answers = [client.get("/nothing", headers={"X-Request-ID": given}) for _ in range(2)]
    ids = [response.headers["X-Request-ID"] for response in answers]

    assert ids[0] != ids[1]
    for response, request_id in zip(answers, ids, strict=True):
        assert request_id.isalnum() and request_id.isascii() and len(request_id) >= 16
        assert response.json["request_id"] == request_id


# Headers


@EVERY_KIND
def test_every_answer_has_the_headers_of_safety(as_member, method, path, sent):
    response = as_member.send(method, path, **sent)

    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"]
    assert "Origin" in response.headers["Vary"]
    assert "Strict-Transport-Security" not in response.headers
    assert "Server" not in response.headers and "X-Powered-By" not in response.headers
    assert "Set-Cookie" not in response.headers
    assert "Location" not in response.headers or response.status_code == 201


@EVERY_KIND
def test_no_header_is_there_twice(as_member, method, path, sent):
    response = as_member.send(method, path, **sent)

    names = [name.lower() for name, _ in response.headers]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", ["/", "/health", ME, "/nothing", "/docs"])
def test_https_is_insisted_on_where_it_is_used(another_app, contract, path):
    client = Client(another_app(PUBLIC_URL="https://users.example.com"), contract)

    response = client.get(path)

    assert "max-age=63072000" in response.headers["Strict-Transport-Security"]


@pytest.mark.parametrize("kind", ["401", "403", "404", "422", "400"])
def test_refusals_are_kept_by_no_cache(as_member, kind):
    method, path, sent = KINDS[kind]

    assert as_member.send(method, path, **sent).headers["Cache-Control"] == "no-store"


# Methods and addresses


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (USERS, {"GET", "HEAD", "OPTIONS", "POST"}),
        (f"{USERS}/1", {"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"}),
        (f"{USERS}/1/posts", {"GET", "HEAD", "OPTIONS", "POST"}),
        (f"{USERS}/999999", {"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"}),
        (ME, {"GET", "HEAD", "OPTIONS", "PATCH", "DELETE"}),
        (LOGIN, {"OPTIONS", "POST"}),
        ("/health", {"GET", "HEAD", "OPTIONS"}),
        ("/", {"GET", "HEAD", "OPTIONS"}),
        ("/docs", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_method_that_is_not_offered_is_refused_with_those_that_are(as_admin, nothing_changes, path, allowed):
    others = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "FOO", "PROPFIND"} - allowed

    with nothing_changes():
        answers = [as_admin.send(method, path, headers={"X-HTTP-Method-Override": "GET"}) for method in sorted(others)]
        options = as_admin.send("OPTIONS", path)

    for response in answers:
        assert response.status_code == 405
        assert {*response.headers["Allow"].split(", ")} == allowed
    assert options.status_code == 204
    assert {*options.headers["Allow"].split(", ")} == allowed


def test_trace_echoes_nothing(as_member):
    response = as_member.send("TRACE", ME, headers={"X-Secret": "canary"})

    assert response.problem == (405, "method_not_allowed")
    assert b"canary" not in response.data and as_member.token.encode() not in response.data


@pytest.mark.parametrize("path", ["/nothing", f"{USERS}/999999", "/docs/assets/nothing", f"{ME}?x=1"])
def test_head_of_a_refusal_has_no_body(as_admin, path):
    got = as_admin.get(path)

    head = as_admin.head(path)

    assert head.status_code == got.status_code and head.data == b""
    assert head.mimetype == "application/problem+json"
    assert head.headers["Content-Length"] == got.headers["Content-Length"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/users",
        f"{USERS}/",
        f"{ME}/",
        "/api//v1/me",
        "/api/v1//me",
        "/api/v1/me//",
        "/api%2fv1/me",
        "/api%2Fv1%2Fme",
        "/api/v1%5cme",
        "/api/v1/%2e%2e/v1/me",
        "/api/v1/../v1/me",
        "/api/v1/./me",
        "/API/V1/ME",
        "/api/v1/me;x=1",
        "/api/v1/me.json",
        "/api/v1/me%20",
        "/api/v1/me%00",
        "/api/v1/me%0d%0aX-Injected:%201",
        "/health/",
        "/docs/",
        "/docs/assets/",
        "/docs/assets/../../app.py",
        "/docs/assets/%2e%2e/%2e%2e/app.py",
        "/docs/assets/..%2f..%2fapp.py",
        "/docs/assets//etc/passwd",
        "/docs/assets/%00",
        "/static/../templates/base.html",
        "/static/%2e%2e/templates/base.html",
        "/static/%00",
        f"/static/{'a' * 5000}",
        "/problems/../health",
        "/problems/nothing",
        "/problems/not_found",
        "/problems/%00",
        "/.env",
        "/.git/config",
        "/metrics",
        "/debug",
        "/console",
        "/%F0%9F%98%80",
    ],
)
def test_address_of_nothing_is_not_found(as_admin, path):
    response = as_admin.get(path)

    assert response.problem == (404, "not_found")
    assert "Location" not in response.headers and "X-Injected" not in response.headers


def answer_to(app, **environ):
    """Return the status, headers and body of the answer to a WSGI environment, from which None takes something out."""
    whole = EnvironBuilder(path=ME).get_environ() | environ
    body, status, headers = run_wsgi_app(app.wsgi_app, {k: v for k, v in whole.items() if v is not None}, buffered=True)
    return int(status.split()[0]), headers, b"".join(body)


@pytest.mark.parametrize(
    "raw",
    [
        "http://evil.example/api/v1/me",
        "*",
        "evil.example:443",
        "",
        "api/v1/me",
        "//api/v1/me",
        "///api/v1/me",
        "//evil.example/api/v1/me",
        "//evil.example/../api/v1/me",
    ],
)
def test_target_that_is_no_path_of_ours_is_not_found(app, raw):
    status, headers, body = answer_to(app, RAW_URI=raw)

    assert status == 404
    assert headers["Content-Type"] == "application/problem+json"
    assert "Location" not in headers and b"evil" not in body


@pytest.mark.parametrize(
    "path",
    [
        "/%ff",
        "/%c0%af",
        "/api/v1/%ed%a0%80",
        "/api/v1/users/%ff",
        f"{USERS}?q=%ff",
        f"{USERS}?q=%c0%af",
        f"{USERS}?%ff=1",
        f"{ME}?fields=%e2%82",
        f"{USERS}?q=ok&email=%fe",
        "/health?%ff",
    ],
)
def test_address_that_is_not_utf_8_is_malformed(as_admin, path):
    response = as_admin.get(path)

    assert response.problem == (400, "bad_request")


@pytest.mark.parametrize("query", ["q=\xff", "\xff"])
@pytest.mark.parametrize("path", [USERS, ME, "/health"])
def test_raw_bytes_in_a_query_that_are_not_utf_8_do_no_harm(frank_app, as_admin, path, query):
    status, headers, _ = answer_to(
        frank_app,
        PATH_INFO=path,
        QUERY_STRING=query,
        RAW_URI=f"{path}?{query}",
        HTTP_AUTHORIZATION=f"Bearer {as_admin.token}",
    )

    assert status == 400 or path == "/health"
    assert headers["Content-Type"] in ("application/problem+json", "application/json")


@pytest.mark.parametrize("path", ["/\xff", "/api/v1/\xc3", "/api/v1/users/\x80"])
def test_raw_bytes_in_a_path_that_are_not_utf_8_do_no_harm(frank_app, path):
    status, headers, _ = answer_to(frank_app, PATH_INFO=path, RAW_URI=path)

    assert status in (400, 404)
    assert headers["Content-Type"] == "application/problem+json"


def test_plus_and_percent_are_read_as_a_browser_writes_them(as_admin):
    UserFactory(name="A + B & C %")

    found = as_admin.get(f"{USERS}?q=a+%2B+b+%26+c+%25")

    assert len(found.json["users"]) == 1


# Hosts and proxies


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000"]
)
def test_hosts_of_ours_are_answered(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "localhost@evil.example",
        "evil.example#localhost",
        "localhost:80:81",
        "a b<script>",
        "xlocalhost",
        "localhost, evil.example",
        "[::1",
        "127.0.0.1.evil.example",
    ],
)
def test_other_hosts_are_refused(as_admin, nothing_changes, host):
    with nothing_changes():
        response = as_admin.delete(ME, headers={"Host": host})

    assert response.problem == (400, "bad_request")
    assert b"evil" not in response.data


def test_request_without_a_host_is_malformed(app):
    status, _, body = answer_to(app, HTTP_HOST=None, SERVER_PROTOCOL="HTTP/1.1")

    assert status == 400
    assert orjson.loads(body)["code"] == "bad_request"


@pytest.mark.parametrize("path", ["/", USERS])
def test_addresses_given_out_are_never_made_from_the_request(as_admin, path):
    forged = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Port": "666",
        "Forwarded": "host=evil.example;proto=https",
        "X-Original-URL": "/evil",
        "X-Rewrite-URL": "/evil",
        "Host": "localhost:666",
    }

    plain = as_admin.get(path)
    response = as_admin.get(path, headers=forged)

    assert response.data == plain.data
    assert response.headers.get("Link") == plain.headers.get("Link")


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        ("0", "203.0.113.7", ("127.0.0.1", "http")),
        ("1", "203.0.113.7", ("203.0.113.7", "https")),
        ("1", "6.6.6.6, 203.0.113.7", ("203.0.113.7", "https")),
        ("2", "6.6.6.6, 203.0.113.7, 10.0.0.1", ("203.0.113.7", "https")),
        ("2", "203.0.113.7", ("127.0.0.1", "http")),
    ],
)
def test_forwarded_headers_count_as_far_as_proxies_are_trusted(another_app, proxies, forwarded, expected):
    app = another_app(TRUSTED_PROXIES=proxies)
    seen = []
    app.before_request(lambda: seen.append((request.remote_addr, request.scheme)))

    headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": ", ".join(["https"] * len(forwarded.split(",")))}
    app.test_client().get("/health", headers=headers)

    assert seen == [expected]


# The log


@contextlib.contextmanager
def logged(level=logging.DEBUG):
    """Collect all that would be logged, as the lines that would be written."""
    lines = []
    handler = logging.Handler()
    handler.setFormatter(JsonLine())
    handler.emit = lambda record: lines.append(handler.format(record))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


@EVERY_KIND
def test_every_request_is_one_line(as_member, member, method, path, sent):
    with logged(logging.INFO) as lines:
        response = as_member.send(method, path, **sent)

    if path == "/health":
        assert lines == []
        return
    (line,) = map(orjson.loads, lines)
    assert line.keys() == {
        "time",
        "level",
        "logger",
        "message",
        "request_id",
        "method",
        "route",
        "status",
        "ms",
        "actor",
    }
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "rollcall.request", "request")
    assert (line["method"], line["status"]) == (method, response.status_code)
    assert line["request_id"] == response.headers["X-Request-ID"]
    assert line["actor"] in (None, member.id)


def test_line_names_the_route_and_not_the_address(as_admin, admin):
    with logged(logging.INFO) as lines:
        for number in range(3):
            as_admin.get(f"{USERS}/{admin.id + number}")
        as_admin.get("/wp-login.php")

    routes = [orjson.loads(line)["route"] for line in lines]
    assert routes == [f"{USERS}/<int:user_id>"] * 3 + [None]
    assert {orjson.loads(line)["actor"] for line in lines[:3]} == {admin.id}


def test_line_breaks_make_no_further_lines(as_member):
    odd = {"User-Agent": "a\u2028b\x1b[2J", "X-Request-ID": "aaaaaaaa\x1b", "Referer": "x"}

    with logged() as lines:
        as_member.get("/a%0d%0ab%E2%80%A8%1b[2J", headers=odd)

    assert len([line for line in lines if "rollcall" in line]) == 1
    assert all(line.isprintable() for line in lines)


def test_secrets_of_a_request_are_in_no_line(client, frank_app, contract, nothing_changes):
    password, email = "canary password 7391", "canary.7391@example.com"
    created = client.post(USERS, json={"email": email, "name": "Canary Bird", "password": password})
    signed_in = client.post(LOGIN, json={"email": email, "password": password})
    token, refresh_token = signed_in.json["access_token"], signed_in.json["refresh_token"]
    device = signed_in.headers["Set-Cookie"].partition(";")[0].partition("=")[2]
    frank = Client(frank_app, contract, token)

    with logged() as lines:
        frank.post(LOGIN, json={"email": email, "password": password})
        frank.post(LOGIN, json={"email": email, "password": f"{password} wrong"})
        frank.post(
            LOGIN, data=f'{{"email":"{email}","password":"{password}"', headers={"Content-Type": "application/json"}
        )
        frank.post(f"{LOGIN}?password={password}&email={email}&access_token={token}", json={})
        frank.post(USERS, json={"email": email, "name": "Canary Bird", "password": password})
        frank.post(REFRESH, json={"refresh_token": refresh_token})
        frank.post(f"{REFRESH}?refresh_token={refresh_token}", json={"token": refresh_token})
        frank.post(REFRESH, headers={"Cookie": f"rollcall-refresh={refresh_token}; rollcall-device={device}"})
        frank.post(f"{ME}/password", json={"current_password": f"{password} wrong", "password": f"{password} new"})
        frank.post("/api/v1/auth/password/reset", json={"token": refresh_token, "password": password})
        frank.post("/account/reset", data={"token": refresh_token, "password": password})
        frank.get(f"/account/confirm?token={refresh_token}")
        frank.get(f"{ME}?email={email}&{token}")
        frank.get(f"/nothing/{email}/{password}/{token}")
        frank.patch(ME, json={"name": "Canary Bird", "metadata": {"password": password, "email": email}})
        frank.get(USERS, query_string={"email": email}, headers={"Cookie": f"session={token}", "X-Key": password})
        frank.get(ME, headers={"Authorization": f"Basic {token}"})
        frank.delete(ME)

    written = "\n".join(lines)
    assert created.status_code == 201 and len(lines) >= 18
    for secret in (
        password,
        "canary+password",
        "canary%20password",
        email,
        "canary.7391",
        token,
        *token.split("."),
        refresh_token.removeprefix("rr_"),
        device,
        "argon2",
    ):
        assert secret not in written


# When all goes wrong


@pytest.fixture
def failing(another_app, contract):
    """Return a client of an application in which something is broken."""
    app = another_app()
    app.config.update(TESTING=False, PROPAGATE_EXCEPTIONS=False)

    @app.get("/broken")
    def broken():
        secret = "canary.7391@example.com"
        raise RuntimeError(f"SELECT password FROM users WHERE email = '{secret}' in /srv/app/secret.py")

    @app.get("/abort/<int:status>")
    def aborting(status):
        abort(status)

    @app.get("/refuse/<code>")
    def refusing(code):
        raise refusal_of_kind(next(kind for kind in kinds() if kind.code == code))

    return Client(app, contract)


def kinds(kind=Refusal):
    for child in kind.__subclasses__():
        yield child
        yield from kinds(child)


def test_what_nobody_foresaw_is_answered_without_a_word_of_it(failing):
    with logged(logging.INFO) as lines:
        response = failing.get("/broken")

    assert response.problem == (500, "internal_error")
    assert response.headers["Cache-Control"] == "no-store"
    for leak in (b"SELECT", b"RuntimeError", b"Traceback", b"canary", b"/srv", b".py"):
        assert leak not in response.data
    request_line, error_line = sorted(map(orjson.loads, lines), key=lambda line: line["level"], reverse=True)
    assert (error_line["level"], request_line["level"]) == ("ERROR", "INFO")
    assert "RuntimeError" in error_line["exc_info"]
    assert "canary" not in "".join(lines)
    assert request_line["status"] == 500


def test_error_can_be_found_in_the_log_by_the_request_id(failing):
    with logged(logging.ERROR) as lines:
        response = failing.get("/broken")

    (line,) = lines
    assert response.json["request_id"] in line


def test_head_of_what_is_broken_has_no_body(failing):
    response = failing.head("/broken")

    assert response.status_code == 500 and response.data == b""


@pytest.mark.parametrize(
    "status",
    [400, 401, 403, 404, 405, 406, 409, 410, 412, 413, 414, 415, 418, 422, 428, 429, 431, 500, 501, 502, 503, 504],
)
def test_every_error_of_the_framework_is_a_problem(failing, status):
    response = failing.get(f"/abort/{status}")

    assert response.problem is not None
    assert response.status_code // 100 == status // 100


@pytest.mark.parametrize("kind", {kind.code: kind for kind in kinds()}.values(), ids=lambda kind: kind.code)
def test_every_refusal_is_a_problem_of_its_code(failing, kind):
    response = failing.get(f"/refuse/{kind.code}")

    assert response.problem[1] == kind.code
    assert response.json["title"] == kind.title
    assert failing.get(response.json["type"].removeprefix("http://localhost")).status_code == 200
    assert "errors" not in response.json or response.json["errors"]


FAULTS = {
    "unknown constraint": (IntegrityError("SELECT 1", {}, Exception("CHECK constraint failed: canary")), 500),
    "value that does not fit": (DataError("SELECT 1", {}, Exception("canary")), 422),
    "connection that is lost": (OperationalError("SELECT 1", {}, Exception("canary")), 503),
    "pool that is empty": (PoolTimeout("canary"), 503),
    "row that has changed": (StaleDataError("canary"), 412),
    "statement of ours that is wrong": (ProgrammingError("SELECT 1", {}, Exception("canary")), 500),
}


@pytest.mark.parametrize(("fault", "status"), FAULTS.values(), ids=FAULTS)
def test_fault_of_the_database_is_a_problem_without_a_word_of_it(failing, fault, status):
    def raise_it():
        raise fault

    failing.app.add_url_rule("/fault", view_func=raise_it)

    response = failing.get("/fault")

    assert response.status_code == status
    assert b"canary" not in response.data and b"SELECT" not in response.data


def test_pool_without_a_free_connection_is_said_to_be_busy(another_app, contract, as_member):
    app = another_app(THREADS="1")
    client = Client(app, contract, as_member.token)

    with app.app_context(), db.engine.connect():
        response = client.get(ME)

    assert response.problem == (503, "unavailable")
    assert client.get(ME).status_code == 200


def test_row_that_stays_locked_is_said_to_be_busy(app, database_kind, as_member, member, snapshot):
    if database_kind == "sqlite":
        pytest.skip("SQLite waits for five seconds")

    with app.app_context(), db.engine.connect() as connection, connection.begin():
        connection.execute(text("SELECT 1 FROM users WHERE id = :id FOR UPDATE"), {"id": member.id})
        before = snapshot()
        response = as_member.patch(ME, json={"name": "New"})

    assert response.problem == (503, "unavailable")
    assert snapshot() == before


def test_tests_see_what_nobody_foresaw(failing):
    failing.app.config.update(TESTING=True, PROPAGATE_EXCEPTIONS=None)

    with pytest.raises(RuntimeError):
        failing.get("/broken")


@pytest.fixture(params=["sqlite", "postgresql"])
def without_database(request, another_app, contract, tmp_path):
    """Return a client of an application whose database is away: a file that is gone, or a server that has stopped."""
    away = {
        "sqlite": f"sqlite:///{tmp_path}/gone.db",
        "postgresql": f"postgresql://nobody@127.0.0.1:{free_port()}/none",
    }
    return Client(another_app(away[request.param]), contract)


@pytest.mark.parametrize("testing", [True, False])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", ME, None),
        ("GET", USERS, None),
        ("PATCH", ME, {"name": "New"}),
        ("DELETE", ME, None),
        ("POST", "/api/v1/auth/logout", None),
        ("POST", LOGIN, {"email": "a@example.com", "password": PASSWORD}),
        ("POST", REFRESH, {"refresh_token": f"rr_{'a' * 43}"}),
        ("POST", "/api/v1/auth/password/forgot", {"email": "a@example.com"}),
        ("POST", "/api/v1/auth/email/verify", {"email": "a@example.com", "code": "12345678"}),
        ("POST", f"{ME}/password", {"current_password": PASSWORD, "password": "another pass phrase"}),
        ("GET", f"{ME}/sessions", None),
        ("GET", f"{ME}/export", None),
        ("POST", USERS, {"email": "a@example.com", "name": "Ann", "password": PASSWORD}),
        ("GET", "/health/ready", None),
    ],
)
def test_database_that_is_away_is_said_to_be(without_database, member, testing, method, path, body):
    without_database.app.config["TESTING"] = testing
    is_for_all = path == USERS or (path.startswith("/api/v1/auth/") and not path.endswith("logout"))
    signed_in = without_database if is_for_all and method == "POST" else without_database.as_(member)

    with logged(logging.INFO) as lines:
        response = signed_in.send(method, path, json=body)

    assert response.problem == (503, "unavailable")
    assert response.headers["Retry-After"] == "1"
    for leak in (b"sqlite", b"psycopg", b"127.0.0.1", b"gone.db", b"SELECT", b"Operational", b"/tmp"):
        assert leak not in response.data
    assert not any("Traceback" in line for line in lines)


def test_what_needs_no_database_is_answered_without_one(without_database):
    for path in ("/", "/health", "/docs", "/api/v1/openapi.json", "/problems", "/.well-known/jwks.json"):
        assert without_database.get(path).status_code == 200
    assert without_database.get("/nothing").status_code == 404
    assert without_database.with_token("x").get(ME).status_code == 401


def test_lost_sqlite_file_is_not_made_anew(another_app, contract, tmp_path):
    client = Client(another_app(f"sqlite:///{tmp_path}/gone.db"), contract)

    client.post(LOGIN, json={"email": "a@example.com", "password": PASSWORD})

    assert list(tmp_path.iterdir()) == []
