"""Cookies: a refresh token that no script can read, the page that may use it, and the mark of a known device."""

from typing import NamedTuple

import jwt
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from models import RefreshToken, Session
from models.base import db
from models.statements import Work
from tests.client import Client
from tests.factories.user import PASSWORD

LOGIN = "/api/v1/auth/login"
LOGOUT = "/api/v1/auth/logout"
REFRESH = "/api/v1/auth/refresh"
ME = "/api/v1/me"
PAGE = "https://app.example.com"
COOKIE, DEVICE = "rollcall-refresh", "rollcall-device"
UNTRUSTED = (403, "untrusted_page")
INVALID = (401, "invalid_token")
NOBODY = (401, "authentication_required")
DAY = 86_400
BAD_ORIGINS = [
    None,
    "null",
    "",
    "*",
    "https://evil.example",
    f"{PAGE}.evil.example",
    "https://evil.example/https://app.example.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://APP.example.com",
    "https://app.example.com/",
    "https://sub.app.example.com",
    f"{PAGE}, https://evil.example",
    "http://localhost:3000",
]
every_bad_origin = pytest.mark.parametrize("origin", BAD_ORIGINS, ids=repr)


class Cookie(NamedTuple):
    """A cookie that an answer sets, and its attributes."""

    value: str
    attributes: dict[str, str]


def cookies_of(response):
    """Return the cookies that an answer sets by their names."""
    found = {}
    for line in response.headers.getlist("Set-Cookie"):
        (name, value), *attributes = [part.partition("=")[::2] for part in line.split("; ")]
        assert name not in found, f"{name} is set twice"
        found[name] = Cookie(value, {name.lower(): value for name, value in attributes})
    return found


def sign_in(client, user, *, origin=PAGE, headers=None, **more):
    headers = dict(headers or {}) | ({} if origin is None else {"Origin": origin})
    body = {"email": user.email, "password": PASSWORD, "transport": "cookie", **more}
    return client.post(LOGIN, json=body, headers=headers)


class Page:
    """A page in a browser: it keeps the cookie that an answer sets, and sends it with what else is needed."""

    def __init__(self, client, response, name=COOKIE):
        assert response.status_code == 200
        self.client, self.name = client, name
        self.access, self.csrf = response.json["access_token"], response.json["csrf_token"]
        self.cookie = cookies_of(response)[name].value

    def headers(self, **changed):
        """Return what the page sends; None leaves a header out."""
        sent = {"Cookie": f"{self.name}={self.cookie}", "Origin": PAGE, "X-CSRF-Token": self.csrf}
        named = {name.replace("_", "-"): value for name, value in changed.items()}
        return {name: value for name, value in {**sent, **named}.items() if value is not None}

    def refresh(self, **changed):
        return self.client.post(REFRESH, headers=self.headers(**changed))

    def logout(self, **changed):
        return self.client.post(LOGOUT, headers=self.headers(**changed))


def session_of(access_token):
    return int(jwt.decode(access_token, options={"verify_signature": False})["sid"])


@pytest.fixture
def browser(another_app, contract):
    """Return a client of an application that one origin may call."""
    return Client(another_app(CORS_ORIGINS=PAGE), contract)


@pytest.fixture
def secure(another_app, contract):
    """Return a client of the same over https."""
    return Client(another_app(CORS_ORIGINS=PAGE, PUBLIC_URL="https://users.example.com"), contract)


@pytest.fixture
def page(browser, member):
    """Return a page on which the member has signed in."""
    return Page(browser, sign_in(browser, member))


@pytest.fixture
def sessions(app):
    """Return a function that reads all sessions."""

    def read():
        with app.app_context():
            return list(db.session.scalars(select(Session).order_by(Session.id)))

    return read


@pytest.fixture
def only_counted(snapshot):
    """Return a function that reads every row but those that count attempts."""
    return lambda: {name: rows for name, rows in snapshot().items() if name != "throttles"}


# Signing in


def test_refresh_token_comes_as_a_cookie_that_no_script_can_read(browser, member, sessions):
    response = sign_in(browser, member)

    cookie = cookies_of(response)[COOKIE]
    assert response.json["refresh_token"] is None
    assert cookie.value.startswith("rr_") and cookie.value.encode() not in response.data
    assert cookie.attributes == {"httponly": "", "path": "/", "samesite": "Lax"}
    assert response.json["csrf_token"] and response.json["csrf_token"] not in cookie.value
    assert response.headers["Cache-Control"] == "no-store"
    assert browser.with_token(response.json["access_token"]).get(ME).status_code == 200
    assert [session.transport for session in sessions()] == ["cookie"]


def test_over_https_the_cookies_are_bound_to_the_host(secure, member):
    found = cookies_of(sign_in(secure, member))

    assert found.keys() == {f"__Host-{COOKIE}", f"__Host-{DEVICE}"}
    for cookie in found.values():
        assert {"secure", "httponly"} <= cookie.attributes.keys()
        assert (cookie.attributes["path"], cookie.attributes["samesite"]) == ("/", "Lax")
        assert "domain" not in cookie.attributes


@pytest.mark.parametrize("transport", [{}, {"transport": "body"}], ids=["nothing said", "body"])
def test_transport_body_sets_no_refresh_cookie(browser, member, transport):
    body = {"email": member.email, "password": PASSWORD, **transport}

    response = browser.post(LOGIN, json=body, headers={"Origin": PAGE})

    assert response.json["refresh_token"] and response.json["csrf_token"] is None
    assert cookies_of(response).keys() == {DEVICE}


@pytest.mark.parametrize("transport", [None, "", "Cookie", "header", 1, True, ["cookie"]], ids=repr)
def test_other_transport_is_refused(browser, member, nothing_changes, transport):
    with nothing_changes():
        response = sign_in(browser, member, transport=transport)

    assert response.problem == (422, "invalid")


@pytest.mark.parametrize(("remember", "age"), [(None, None), (False, None), (True, 90 * DAY)])
def test_remembering_decides_how_long_a_browser_keeps_the_cookie(browser, member, remember, age):
    signed_in = sign_in(browser, member, **({} if remember is None else {"remember": remember}))
    refreshed = Page(browser, signed_in).refresh()

    for response in (signed_in, refreshed):
        attributes = cookies_of(response)[COOKIE].attributes
        assert attributes.get("max-age") == (str(age) if age else None)
        assert ("expires" in attributes) is bool(age)


@every_bad_origin
def test_page_that_is_not_listed_cannot_sign_in_with_a_cookie(browser, member, sessions, only_counted, origin):
    before = only_counted()

    response = sign_in(browser, member, origin=origin)

    assert response.problem == UNTRUSTED
    assert cookies_of(response) == {}
    assert only_counted() == before
    assert sessions() == []


def test_our_own_origin_is_trusted(browser, secure, member):
    assert sign_in(browser, member, origin="http://localhost").status_code == 200
    assert sign_in(secure, member, origin="https://users.example.com").status_code == 200
    assert sign_in(secure, member, origin="http://users.example.com").problem == UNTRUSTED


def test_page_that_is_not_listed_may_sign_in_without_a_cookie(browser, member):
    response = sign_in(browser, member, origin="https://evil.example", transport="body")

    assert response.status_code == 200
    assert "Access-Control-Allow-Origin" not in response.headers


def test_wrong_password_sets_no_cookie(browser, member, only_counted):
    before = only_counted()

    response = sign_in(browser, member, password="a wrong password")

    assert response.problem == (401, "invalid_credentials")
    assert cookies_of(response) == {}
    assert only_counted() == before


def test_session_before_the_sign_in_is_not_taken_over(browser, page, other, sessions):
    """A cookie that somebody planted is never what one is signed in with afterwards."""
    planted = page.cookie

    response = sign_in(browser, other, headers={"Cookie": f"{COOKIE}={planted}"})

    assert cookies_of(response)[COOKIE].value != planted
    assert len(sessions()) == 2


# Refreshing


def test_cookie_is_exchanged_for_its_successor(browser, page, member, sessions):
    response = page.refresh()

    cookie = cookies_of(response)[COOKIE]
    assert response.status_code == 200
    assert cookie.value.startswith("rr_") and cookie.value != page.cookie
    assert cookie.attributes == {"httponly": "", "path": "/", "samesite": "Lax"}
    assert (response.json["refresh_token"], response.json["csrf_token"]) == (None, page.csrf)
    assert cookies_of(response).keys() == {COOKIE}
    assert cookie.value.encode() not in response.data
    assert session_of(response.json["access_token"]) == session_of(page.access)
    assert browser.with_token(response.json["access_token"]).get(ME).json["id"] == member.id
    assert Page(browser, response).refresh().status_code == 200


def test_over_https_only_the_cookie_that_is_bound_to_the_host_counts(secure, member, nothing_changes):
    page = Page(secure, sign_in(secure, member), f"__Host-{COOKIE}")

    with nothing_changes():
        response = page.refresh(Cookie=f"{COOKIE}={page.cookie}")

    assert response.problem == NOBODY
    assert cookies_of(page.refresh()).keys() == {f"__Host-{COOKIE}"}


def test_same_cookie_within_the_grace_gives_the_same_successor(page, nothing_changes):
    first = page.refresh()

    with nothing_changes():
        again = page.refresh()

    assert cookies_of(again)[COOKIE] == cookies_of(first)[COOKIE]


@every_bad_origin
def test_page_that_is_not_listed_cannot_refresh(page, nothing_changes, origin):
    with nothing_changes():
        response = page.refresh(Origin=origin)

    assert response.problem == UNTRUSTED
    assert cookies_of(response) == {}


@pytest.fixture
def bad_csrf(request, browser, page, member):
    """Return a CSRF token that is not the session's."""
    made = {
        "missing": lambda: None,
        "empty": lambda: "",
        "wrong": lambda: page.csrf[:-1] + ("A" if page.csrf[-1] != "A" else "B"),
        "longer": lambda: f"{page.csrf}A",
        "other case": lambda: page.csrf.swapcase(),
        "not ASCII": lambda: "\xe9" * 43,
        "of the cookie": lambda: page.cookie,
        "of another session": lambda: sign_in(browser, member).json["csrf_token"],
    }
    return made[request.param]()


every_bad_csrf = pytest.mark.parametrize(
    "bad_csrf",
    ["missing", "empty", "wrong", "longer", "other case", "not ASCII", "of the cookie", "of another session"],
    indirect=True,
)


@every_bad_csrf
def test_refresh_needs_the_csrf_token_of_the_session(page, nothing_changes, bad_csrf):
    with nothing_changes():
        response = page.refresh(X_CSRF_Token=bad_csrf)

    assert response.problem == UNTRUSTED
    assert cookies_of(response) == {}


def test_csrf_token_is_another_for_each_session(browser, member):
    first, second = (sign_in(browser, member).json["csrf_token"] for _ in range(2))

    assert first != second


@pytest.mark.parametrize("value", ["rr_" + "A" * 43, "x", "", "x" * 4000, "rr_\xff\xfe", '"quoted"'], ids=repr)
def test_unknown_cookie_is_refused(page, nothing_changes, value):
    with nothing_changes():
        response = page.refresh(Cookie=f"{COOKIE}={value}")

    assert response.problem == INVALID


def test_without_a_cookie_nobody_is_known(page, nothing_changes):
    with nothing_changes():
        answers = [page.refresh(Cookie=None), page.refresh(Cookie="other=1"), page.logout(Cookie=None)]

    assert [response.problem for response in answers] == [NOBODY] * 3


def test_access_token_does_not_replace_the_csrf_token(browser, page, nothing_changes):
    with nothing_changes():
        response = page.refresh(X_CSRF_Token=None, Authorization=f"Bearer {page.access}")

    assert response.problem == UNTRUSTED


def test_token_in_the_body_goes_before_the_one_in_the_cookie(browser, page, other):
    grant = sign_in(browser, other, transport="body").json

    response = browser.post(
        REFRESH, json={"refresh_token": grant["refresh_token"]}, headers=page.headers(X_CSRF_Token=None)
    )

    assert response.json["user"]["id"] == other.id
    assert response.json["refresh_token"] and cookies_of(response) == {}
    assert page.refresh().status_code == 200


def test_token_of_a_cookie_in_the_body_comes_back_as_a_cookie(browser, page, nothing_changes):
    with nothing_changes():
        elsewhere = browser.post(REFRESH, json={"refresh_token": page.cookie}, headers={"Origin": "null"})
    response = browser.post(REFRESH, json={"refresh_token": page.cookie}, headers={"Origin": PAGE})

    assert elsewhere.problem == UNTRUSTED
    assert response.json["refresh_token"] is None
    assert cookies_of(response).keys() == {COOKIE}


def test_stolen_cookie_ends_the_session(app, page, browser):
    refreshed = Page(browser, page.refresh())
    with app.app_context():
        used = db.session.scalars(select(RefreshToken).where(RefreshToken.used_at.is_not(None))).one()
        used.used_at = used.created_at.replace(year=used.created_at.year - 1)
        db.session.commit()

    response = page.refresh()

    assert response.problem == (401, "reused_token")
    assert cookies_of(response) == {}
    assert refreshed.refresh().problem == INVALID
    assert browser.with_token(refreshed.access).get(ME).problem == INVALID


def test_answer_that_was_not_kept_sets_no_cookie(page, monkeypatch, nothing_changes):
    """Else the browser would have a token that nobody knows in place of its good one."""

    def fail(work):
        if work.connection is not None:
            raise OperationalError("COMMIT", {}, Exception("the connection is lost"))

    with monkeypatch.context() as patch, nothing_changes():
        patch.setattr(Work, "commit", fail)
        lost = page.refresh()

    assert lost.problem == (503, "unavailable")
    assert cookies_of(lost) == {}
    assert page.refresh().status_code == 200


def test_sign_out_that_was_not_kept_leaves_the_cookie(page, monkeypatch, nothing_changes):
    def fail(work):
        if work.connection is not None:
            raise OperationalError("COMMIT", {}, Exception("the connection is lost"))

    with monkeypatch.context() as patch, nothing_changes():
        patch.setattr(Work, "commit", fail)
        lost = page.logout()

    assert lost.problem == (503, "unavailable")
    assert cookies_of(lost) == {}


# Signing out


def test_signing_out_ends_the_session_and_removes_the_cookie(browser, page, sessions):
    response = page.logout()

    removed = cookies_of(response)[COOKIE]
    assert response.status_code == 204
    assert (removed.value, removed.attributes["max-age"], removed.attributes["path"]) == ("", "0", "/")
    assert {"httponly", "samesite"} <= removed.attributes.keys()
    assert [session.ended_at is not None for session in sessions()] == [True]
    assert browser.with_token(page.access).get(ME).problem == INVALID
    assert page.refresh().problem == INVALID


def test_over_https_the_cookie_is_removed_as_it_was_set(secure, member):
    page = Page(secure, sign_in(secure, member), f"__Host-{COOKIE}")

    removed = cookies_of(page.logout())[f"__Host-{COOKIE}"]

    assert (removed.value, removed.attributes["max-age"], removed.attributes["path"]) == ("", "0", "/")
    assert "secure" in removed.attributes and "domain" not in removed.attributes


def test_signing_out_by_cookie_leaves_other_sessions(browser, page, member):
    elsewhere = Page(browser, sign_in(browser, member))

    page.logout()

    assert browser.with_token(elsewhere.access).get(ME).status_code == 200
    assert elsewhere.refresh().status_code == 200


@every_bad_origin
def test_page_that_is_not_listed_cannot_sign_out(page, nothing_changes, origin):
    with nothing_changes():
        response = page.logout(Origin=origin)

    assert response.problem == UNTRUSTED
    assert cookies_of(response) == {}


@every_bad_csrf
def test_signing_out_by_cookie_needs_the_csrf_token_of_the_session(page, nothing_changes, bad_csrf):
    with nothing_changes():
        response = page.logout(X_CSRF_Token=bad_csrf)

    assert response.problem == UNTRUSTED
    assert cookies_of(response) == {}


def test_signing_out_by_access_token_needs_neither_origin_nor_csrf_token(browser, page, sessions):
    headers = page.headers(Origin=None, X_CSRF_Token=None, Authorization=f"Bearer {page.access}")

    response = browser.post(LOGOUT, headers=headers)

    assert response.status_code == 204
    assert cookies_of(response)[COOKIE].value == ""
    assert sessions()[0].ended_at is not None


def test_signing_out_by_access_token_alone_sets_no_cookie(client, as_member):
    response = as_member.post(LOGOUT)

    assert response.status_code == 204
    assert cookies_of(response) == {}
    assert as_member.get(ME).problem == INVALID


def test_bad_access_token_is_not_made_good_by_a_cookie(page, nothing_changes):
    with nothing_changes():
        response = page.logout(Authorization="Bearer x")

    assert response.problem == INVALID


def test_signing_out_by_an_older_cookie_ends_the_session_too(browser, page, sessions):
    page.refresh()

    assert page.logout().status_code == 204
    assert sessions()[0].ended_at is not None


# Nothing else


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", ME, None),
        ("PATCH", ME, {"name": "New Name"}),
        ("DELETE", ME, None),
        ("GET", f"{ME}/export", None),
        ("GET", f"{ME}/sessions", None),
        ("DELETE", f"{ME}/sessions", None),
        ("POST", f"{ME}/password", {"current_password": PASSWORD, "password": "another pass phrase"}),
        ("POST", f"{ME}/email", {"current_password": PASSWORD, "email": "new@example.com"}),
        ("GET", "/api/v1/users", None),
        ("DELETE", "/api/v1/users/1", None),
    ],
)
def test_cookie_alone_opens_nothing_else(browser, admin, nothing_changes, method, path, body):
    page = Page(browser, sign_in(browser, admin))
    sent = {} if body is None else {"json": body}

    with nothing_changes():
        response = browser.send(method, path, headers=page.headers(), **sent)

    assert response.problem == NOBODY


def test_nobody_registers_with_more_rights_by_cookie(browser, admin, nothing_changes):
    page = Page(browser, sign_in(browser, admin))
    body = {"email": "new@example.com", "name": "New Person", "role": "admin"}

    with nothing_changes():
        response = browser.post("/api/v1/users", json=body, headers=page.headers())

    assert response.status_code in (401, 403, 422)


# The mark of a known device


def device_after(client, user, device=None, **more):
    """Return the mark that a sign-in leaves."""
    headers = {"Cookie": f"{DEVICE}={device}"} if device else {}
    response = sign_in(client, user, origin=None, transport="body", headers=headers, **more)
    assert response.status_code == 200
    return cookies_of(response)[DEVICE]


def test_sign_in_marks_the_device_for_a_year(client, member):
    device = device_after(client, member)

    expires = device.attributes.pop("expires")
    assert expires.endswith("GMT")
    assert device.attributes == {"httponly": "", "path": "/", "samesite": "Lax", "max-age": str(365 * DAY)}
    assert member.email not in device.value and str(member.id) not in device.value.split(".")


def test_known_device_keeps_its_mark(client, member):
    first = device_after(client, member).value

    assert device_after(client, member, first).value == first


def test_every_device_has_a_mark_of_its_own(client, member):
    assert device_after(client, member).value != device_after(client, member).value


@pytest.mark.parametrize("forged", ["x", "x.y", ".", "a.", '"\xff"', "x" * 3000], ids=repr)
def test_forged_mark_is_replaced(client, member, forged):
    assert device_after(client, member, forged).value != forged


def test_mark_of_another_person_is_replaced(client, member, other):
    theirs = device_after(client, other).value

    assert device_after(client, member, theirs).value != theirs


def test_mark_opens_nothing(client, member, nothing_changes):
    headers = {"Cookie": f"{DEVICE}={device_after(client, member).value}", "Origin": "http://localhost"}

    with nothing_changes():
        answers = [client.get(ME, headers=headers), client.post(REFRESH, headers=headers)]

    assert [response.problem for response in answers] == [NOBODY] * 2


def test_mark_is_not_kept_in_the_database(client, member, snapshot):
    device = device_after(client, member).value

    assert not any(part in repr(snapshot()) for part in device.split("."))


# Settings


@pytest.mark.parametrize("same_site", ["None", "Lax", "Strict"])
def test_setting_says_from_which_sites_cookies_are_sent(another_app, contract, member, same_site):
    app = another_app(CORS_ORIGINS=PAGE, PUBLIC_URL="https://users.example.com", COOKIE_SAMESITE=same_site)
    client = Client(app, contract)
    signed_in = sign_in(client, member)

    cookies = [*cookies_of(signed_in).values()]
    cookies += cookies_of(Page(client, signed_in, f"__Host-{COOKIE}").logout()).values()

    assert len(cookies) == 3
    for cookie in cookies:
        assert cookie.attributes["samesite"] == same_site and "secure" in cookie.attributes


# Which origins may read the answers


def test_listed_origin_may_send_cookies_and_read_every_answer(page):
    good, bad = page.refresh(), page.refresh(X_CSRF_Token=None)

    assert (good.status_code, bad.status_code) == (200, 403)
    for response in (good, bad):
        assert response.headers.getlist("Access-Control-Allow-Origin") == [PAGE]
        assert response.headers.getlist("Access-Control-Allow-Credentials") == ["true"]


def test_preflight_of_a_listed_origin_allows_the_csrf_token(browser):
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-csrf-token,content-type",
    }

    response = browser.send("OPTIONS", REFRESH, headers=asked)

    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert "x-csrf-token" in response.headers["Access-Control-Allow-Headers"].lower()


@every_bad_origin
def test_other_origin_is_granted_nothing(browser, page, origin):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-csrf-token"}
    headers = {} if origin is None else {"Origin": origin}

    answers = [page.refresh(Origin=origin), browser.send("OPTIONS", REFRESH, headers={**asked, **headers})]

    for response in answers:
        assert not [name for name, _ in response.headers if name.startswith("Access-Control-")]
