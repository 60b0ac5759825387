"""Which pages in a browser may call: those of the origins that are spelled out, and no others."""

import pytest

from tests.client import Client

ME = "/api/v1/me"
USERS = "/api/v1/users"
ALLOWED = ["https://app.example.com", "http://localhost:3000", "http://[::1]:3000"]
CORS = "Access-Control-"


@pytest.fixture
def browser(another_app, contract):
    """Return a client of an application that some origins may call."""
    return Client(another_app(CORS_ORIGINS=", ".join(ALLOWED)), contract)


def granted(response):
    return {name: value for name, value in response.headers if name.startswith(CORS)}


def preflight(client, path, origin=ALLOWED[0], method="PATCH", headers="authorization,content-type", **more):
    asked = {"Origin": origin, f"{CORS}Request-Method": method, f"{CORS}Request-Headers": headers, **more}
    return client.send("OPTIONS", path, headers=asked)


def words(response, name):
    return {word.strip().lower() for word in response.headers[f"{CORS}{name}"].split(",")}


# A request for each kind of answer, errors among them.
ANSWERS = {
    "200": ("GET", ME, {}),
    "304": ("GET", ME, {"If-None-Match": '"1"'}),
    "400": ("GET", f"{ME}?x=1", {}),
    "400 address": ("GET", "/%ff", {}),
    "400 host": ("GET", ME, {"Host": "evil.example"}),
    "401": ("GET", ME, {"Authorization": "Bearer x"}),
    "403": ("GET", USERS, {}),
    "404": ("GET", f"{USERS}/999999", {}),
    "404 address": ("GET", "/nothing", {}),
    "405": ("PUT", ME, {}),
    "406": ("GET", ME, {"Accept": "text/html"}),
    "415": ("POST", "/api/v1/auth/login", {"Content-Type": "text/plain"}),
    "204": ("DELETE", ME, {}),
}
EVERY_ANSWER = pytest.mark.parametrize(("method", "path", "headers"), ANSWERS.values(), ids=ANSWERS)


@pytest.mark.parametrize("origin", ALLOWED)
@EVERY_ANSWER
def test_listed_origin_may_read_every_answer(browser, member, method, path, headers, origin):
    response = browser.as_(member).send(method, path, headers={**headers, "Origin": origin})

    assert response.headers.getlist(f"{CORS}Allow-Origin") == [origin]
    assert response.headers.getlist(f"{CORS}Allow-Credentials") == ["true"]
    assert {"etag", "link", "location", "retry-after", "x-request-id"} <= words(response, "Expose-Headers")
    assert {"set-cookie", "authorization", "*"}.isdisjoint(words(response, "Expose-Headers"))


EVIL = [
    "https://evil.example",
    "null",
    "*",
    "",
    "https://app.example.com.evil.test",
    "https://evil.test/https://app.example.com",
    "https://evilapp.example.com",
    "https://appXexample.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com:443",
    "https://user@app.example.com",
    "https://app.example.com@evil.test",
    "https://sub.app.example.com",
    "https://example.com",
    "https://app.example.com%60.evil.test",
    "https://app.example.com`.evil.test",
    "https://app.example.com/",
    "https://app.example.com?",
    "https://app.example.com, https://evil.test",
    "https://app.example.com https://evil.test",
    "HTTPS://APP.EXAMPLE.COM",
    "https://App.example.com",
    "https://app.example.co",
    "http://localhost",
    "http://localhost:30000",
    "http://localhost:3000.evil.test",
    "http://127.0.0.1:3000",
    "http://1:3000",
    "http://::3000",
    "http://1:3000.evil.test",
    "http://:::3000",
    "http://[::1]:3000.evil.test",
    "http://[::1]:30000",
    "file://",
    "chrome-extension://abcdef",
]


@pytest.mark.parametrize("origin", EVIL)
def test_other_origin_may_read_nothing(browser, member, origin):
    signed_in = browser.as_(member)

    answers = [
        signed_in.get(ME, headers={"Origin": origin}),
        signed_in.get("/nothing", headers={"Origin": origin}),
        browser.get(ME, headers={"Origin": origin}),
        preflight(browser, ME, origin),
    ]

    for response in answers:
        assert granted(response) == {}
        assert "Origin" in response.headers["Vary"]


def test_request_without_an_origin_is_told_nothing(browser, member):
    response = browser.as_(member).get(ME)

    assert response.status_code == 200
    assert granted(response) == {}
    assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize("origin", [*ALLOWED, "null", "https://evil.example"])
@EVERY_ANSWER
def test_no_origin_may_read_anything_where_none_is_listed(as_member, method, path, headers, origin):
    response = as_member.send(method, path, headers={**headers, "Origin": origin})

    assert granted(response) == {}
    assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", [USERS, f"{USERS}/1", ME, "/api/v1/auth/login", "/api/v1/auth/refresh"])
def test_preflight_is_answered_and_kept(browser, method, path):
    asked = "authorization, content-type, if-match, if-none-match, x-csrf-token, x-request-id"

    response = preflight(browser, path, method=method, headers=asked)

    assert response.status_code == 204
    assert response.headers[f"{CORS}Allow-Origin"] == ALLOWED[0]
    assert {"get", "post", "put", "patch", "delete"} <= words(response, "Allow-Methods")
    assert words(response, "Allow-Headers") == {name.strip() for name in asked.split(",")}
    assert int(response.headers[f"{CORS}Max-Age"]) >= 600
    assert response.headers.getlist(f"{CORS}Allow-Credentials") == ["true"]
    assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FOO", "*"])
def test_preflight_for_another_method_does_not_allow_it(browser, method):
    response = preflight(browser, ME, method=method)

    assert method not in granted(response).get(f"{CORS}Allow-Methods", "")


def test_preflight_for_another_header_does_not_allow_it(browser):
    response = preflight(browser, ME, headers="authorization,x-evil,cookie,x-user-id")

    assert words(response, "Allow-Headers") == {"authorization"}


def test_preflight_from_a_public_page_into_a_private_network_is_not_allowed(browser):
    response = preflight(browser, ME, **{f"{CORS}Request-Private-Network": "true"})

    assert response.headers.get(f"{CORS}Allow-Private-Network") != "true"


def test_preflight_needs_no_token_and_touches_no_database(browser, queries, nothing_changes):
    with queries() as statements:
        response = preflight(browser, f"{USERS}/1", method="DELETE")

    assert response.status_code == 204
    assert statements == []


def test_script_of_another_page_gets_json_that_is_not_run(browser, member):
    response = browser.as_(member).get(f"{ME}?callback=evil", headers={"Origin": ALLOWED[0]})

    assert response.problem == (400, "invalid_parameter")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_answer_to_what_nobody_foresaw_can_be_read_too(another_app, contract):
    app = another_app(CORS_ORIGINS=ALLOWED[0])
    app.config.update(TESTING=False, PROPAGATE_EXCEPTIONS=False)
    app.add_url_rule("/broken", view_func=lambda: 1 / 0)

    response = Client(app, contract).get("/broken", headers={"Origin": ALLOWED[0]})

    assert response.problem == (500, "internal_error")
    assert response.headers[f"{CORS}Allow-Origin"] == ALLOWED[0]
