"""An operation that is to end says so in every answer, and who still calls it is known."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from threading import Semaphore

import pytest
from openapi_spec_validator import validate

from models.base import now
from resources.http.deprecation import deprecated, deprecation_of
from service import upkeep
from tests.client import Client
from tests.contract import Contract
from tests.factories.deprecated_call import DeprecatedCallFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.versions import ENDING, FormerUserItem, version_0

V0, V1 = "/api/v0", "/api/v1"
SINCE, SUNSET = "@1769817600", "Sun, 31 Jan 2027 00:00:00 GMT"
EXPLAINED = '<http://localhost/docs>; rel="deprecation"'
ACCOUNTS = "/api/v1/service-accounts"
HEADERS = {"Deprecation", "Sunset", "Link"}


@pytest.fixture
def old_app(another_app):
    """Return an application with a version that is to end."""
    app = another_app(CORS_ORIGINS="https://app.example.com")
    app.register_blueprint(version_0())
    return app


@pytest.fixture
def old(old_app):
    """Return a client that has not signed in."""
    return Client(old_app, Contract(old_app, "api_v0"))


@pytest.fixture
def as_old_admin(old, admin):
    """Return a client that is signed in as the admin."""
    return old.as_(admin)


@pytest.fixture
def make_key(as_admin):
    """Return a function that makes a key of a new service account."""

    def make(*scopes):
        account = as_admin.post(ACCOUNTS, json={"name": "Payroll", "scopes": [*scopes]}).json
        path = f"{ACCOUNTS}/{account['id']}"
        return path, as_admin.post(f"{path}/keys").json

    return make


@pytest.fixture
def counted(snapshot):
    """Return a function that tells what has been counted: operation, key, user, calls."""

    def read():
        return [(row.operation, row.key_id, row.user_id, row.calls) for row in snapshot()["deprecated_calls"]]

    return read


@pytest.fixture
def listed(old_app):
    """Return a function that runs `flask deprecations` and returns its lines."""

    def run():
        with old_app.app_context():
            result = old_app.test_cli_runner().invoke(args=["deprecations"])
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    return run


# What is said


ANSWERS = {
    "200 list": ("GET", "/users", {}, 200),
    "200 item": ("GET", "/users/{self}", {}, 200),
    "200 head": ("HEAD", "/users/{self}", {}, 200),
    "201": ("POST", "/users", {"json": {"email": "new@example.org", "name": "New Person"}}, 201),
    "204": ("DELETE", "/users/{member}", {}, 204),
    "304": ("GET", "/users/{self}", {"headers": {"If-None-Match": '"1"'}}, 304),
    "400": ("GET", "/users?x=1", {}, 400),
    "400 address": ("GET", "/users?q=%ff", {}, 400),
    "401": ("GET", "/users", {"headers": {"Authorization": "Bearer x"}}, 401),
    "404": ("GET", "/users/999999", {}, 404),
    "406": ("GET", "/users", {"headers": {"Accept": "text/html"}}, 406),
    "409": ("POST", "/users", {"json": {"email": "taken@example.org", "name": "New Person"}}, 409),
    "412": ("PATCH", "/users/{self}", {"json": {"name": "New"}, "headers": {"If-Match": '"9"'}}, 412),
    "413": ("PATCH", "/users/{self}", {"data": b" " * 1_048_577}, 413),
    "415": ("PATCH", "/users/{self}", {"data": "x"}, 415),
    "422": ("PATCH", "/users/{self}", {"json": {"age": 1}}, 422),
}


@pytest.mark.parametrize(("method", "path", "more", "status"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_of_a_deprecated_operation_says_so(as_old_admin, admin, member, method, path, more, status):
    UserFactory(email="taken@example.org")

    response = as_old_admin.send(method, V0 + path.format(self=admin.id, member=member.id), **more)

    assert response.status_code == status
    assert (response.headers.getlist("Deprecation"), response.headers.getlist("Sunset")) == ([SINCE], [SUNSET])
    (link,) = response.headers.getlist("Link")
    assert 'rel="deprecation"' in link


def test_a_refusal_for_want_of_a_permission_says_so(old, member):
    assert old.as_(member).get(f"{V0}/users").headers["Deprecation"] == SINCE


def test_a_fault_of_ours_says_so(old, old_app):
    old_app.config.update(TESTING=False, PROPAGATE_EXCEPTIONS=False)

    response = old.post(f"{V0}/breaking")

    assert response.problem == (500, "internal_error")
    assert (response.headers["Deprecation"], response.headers["Sunset"]) == (SINCE, SUNSET)


def test_an_answer_that_is_repeated_says_so(as_old_admin):
    for _ in range(2):
        body = {"email": "new@example.org", "name": "New Person"}
        response = as_old_admin.post(f"{V0}/users", json=body, headers={"Idempotency-Key": "one"})

    assert response.headers["Idempotency-Replayed"] == "true"
    assert (response.headers["Deprecation"], response.headers["Sunset"]) == (SINCE, SUNSET)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", f"{V1}/users"), ("GET", f"{V1}/users/{{}}"), ("GET", f"{V0}/openapi.json"), ("GET", f"{V0}/nothing")),
        *(("PUT", f"{V0}/users/{{}}"), ("PUT", f"{V0}/users"), ("OPTIONS", f"{V0}/users"), ("GET", "/health")),
    ],
)
def test_nothing_else_says_so(as_old_admin, admin, method, path):
    response = as_old_admin.send(method, path.format(admin.id), headers={"Content-Type": "application/json"})

    assert {"Deprecation", "Sunset"}.isdisjoint(response.headers.keys())
    assert "deprecation" not in response.headers.get("Link", "")


def test_the_links_of_a_page_stay(as_old_admin):
    UserFactory.create_batch(2, password_hash=None)

    links = as_old_admin.get(f"{V0}/users?per_page=1&fields=id").headers["Link"].split(", ")

    assert [link.rpartition("; ")[2] for link in links] == [
        *('rel="first"', 'rel="next"', 'rel="deprecation"', 'rel="successor-version"')
    ]
    assert links[2:] == [EXPLAINED, '<http://localhost/api/v1/users>; rel="successor-version"']


def test_the_successor_of_an_item_is_the_same_item_elsewhere(as_old_admin, admin):
    link = as_old_admin.get(f"{V0}/users/{admin.id}").headers["Link"]

    assert link == f'{EXPLAINED}, <http://localhost{V1}/users/{admin.id}>; rel="successor-version"'
    assert as_old_admin.get(f"{V1}/users/{admin.id}").status_code == 200


def test_without_a_successor_there_is_the_explanation_which_may_be_elsewhere(as_old_admin, admin):
    here = as_old_admin.patch(f"{V0}/users/{admin.id}", json={}).headers["Link"]
    elsewhere = as_old_admin.post(f"{V0}/users", json={}).headers["Link"]

    assert (here, elsewhere) == (EXPLAINED, '<https://example.com/news/1>; rel="deprecation"')


def test_a_page_of_another_origin_may_read_it(as_old_admin):
    response = as_old_admin.get(f"{V0}/users", headers={"Origin": "https://app.example.com"})

    exposed = {name.strip() for name in response.headers["Access-Control-Expose-Headers"].split(",")}
    assert exposed >= HEADERS


# What is declared


def test_the_document_says_so_and_names_the_days(old):
    document = old.get(f"{V0}/openapi.json").json

    validate(document)
    ended = document["paths"][f"{V0}/users/{{user_id}}"]["get"]
    going_on = document["paths"][f"{V0}/users/{{user_id}}"]["put"]
    assert (ended["deprecated"], ended["x-sunset"]) == (True, "2027-01-31")
    assert ended["description"].endswith(
        "Deprecated since 2026-01-31, ends on 2027-01-31. Call `/api/v1/users/{user_id}` instead."
    )
    assert {"deprecated", "x-sunset"}.isdisjoint(going_on)


def test_the_document_declares_the_headers_of_every_answer(old):
    document = old.get(f"{V0}/openapi.json").json
    answers = {
        verb: [
            document["components"]["responses"][answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
            for answer in operation["responses"].values()
        ]
        for verb, operation in document["paths"][f"{V0}/users/{{user_id}}"].items()
        if verb != "parameters"
    }

    assert all(answer["headers"].keys() >= HEADERS for answer in answers["get"] + answers["patch"])
    assert not any(answer["headers"].keys() & HEADERS for answer in answers["put"])


def test_what_does_not_end_is_documented_as_if_nothing_did(client, old):
    document = old.get(f"{V1}/openapi.json")

    assert document.data == client.get(f"{V1}/openapi.json").data
    assert "deprecated" not in document.text.lower()


def test_a_class_that_inherits_a_verb_does_not_inherit_its_end():
    class UserItem(FormerUserItem):
        pass

    assert deprecation_of(FormerUserItem, "get").sunset == ENDING["sunset"]
    assert deprecation_of(UserItem, "get") is None and deprecation_of(FormerUserItem, "put") is None


def test_nothing_can_end_before_that_is_known():
    with pytest.raises(ValueError, match="does not end before"):
        deprecated(since=date(2026, 1, 31), sunset=date(2026, 1, 30))


# Who is counted


def test_a_user_is_counted_by_operation(as_old_admin, admin, counted):
    for path in ("/users", "/users?per_page=1", f"/users/{admin.id}"):
        as_old_admin.get(V0 + path)
    as_old_admin.head(f"{V0}/users")
    as_old_admin.put(f"{V0}/users/{admin.id}", json={})

    assert sorted(counted()) == [
        ("GET /api/v0/users", 0, admin.id, 3),
        ("GET /api/v0/users/{user_id}", 0, admin.id, 1),
    ]


def test_a_key_is_counted_as_itself(old, make_key, counted):
    (_, one), (_, two) = make_key("users:read"), make_key("users:read")
    for key in (one, two, two):
        assert old.with_token(key["key"]).get(f"{V0}/users").status_code == 200

    assert sorted(counted()) == [("GET /api/v0/users", one["id"], 0, 1), ("GET /api/v0/users", two["id"], 0, 2)]


def test_nobody_in_particular_is_counted_together(old, counted):
    old.post(f"{V0}/users", json={"email": "new@example.org", "name": "New Person", "password": PASSWORD})
    for email in ("new@example.org", "nobody@example.org"):
        old.post(f"{V0}/auth/login", json={"email": email, "password": PASSWORD})

    assert sorted(counted()) == [("POST /api/v0/auth/login", 0, 0, 2), ("POST /api/v0/users", 0, 0, 1)]


def test_each_day_is_counted_by_itself(as_old_admin, admin, snapshot):
    yesterday = now() - timedelta(days=1)
    DeprecatedCallFactory(user_id=admin.id, last_at=yesterday, calls=7)

    as_old_admin.get(f"{V0}/users")

    rows = snapshot()["deprecated_calls"]
    assert [row.calls for row in rows] == [7, 1]
    assert rows[0].last_at == yesterday and rows[1].day == rows[1].last_at.date() > rows[0].day


def test_who_is_not_let_in_is_not_counted(old, member, make_key, nothing_changes):
    _, key = make_key("events:read")
    as_member, as_program = old.as_(member), old.with_token(key["key"])
    as_program.get(f"{V1}/users")  # After which its use has been noted.

    with nothing_changes():
        answers = [
            *(caller.get(f"{V0}/users").problem for caller in (old, old.with_token("x"), as_member, as_program)),
            as_member.get(f"{V0}/users", headers={"Accept": "text/html"}).problem,
        ]

    assert answers == [
        *((401, "authentication_required"), (401, "invalid_token"), (403, "permission_denied")),
        *((403, "permission_denied"), (406, "not_acceptable")),
    ]


def test_what_is_refused_to_who_was_let_in_is_counted(as_old_admin, admin, counted):
    as_old_admin.get(f"{V0}/users/999999")
    as_old_admin.patch(f"{V0}/users/{admin.id}", json={"age": 1})

    assert {calls for *_, calls in counted()} == {1} and len(counted()) == 2


def test_who_is_to_come_back_later_is_not_counted(old, old_app, member, counted):
    wrong = {"email": member.email, "password": "not the password"}
    answers = [old.post(f"{V0}/auth/login", json=wrong).problem for _ in range(7)]
    old_app.extensions["password_places"] = Semaphore(0)
    busy = old.post(f"{V0}/auth/login", json={"email": "other@example.org", "password": PASSWORD})

    assert answers == [(401, "invalid_credentials")] * 5 + [(429, "too_many_attempts")] * 2
    assert busy.problem == (503, "busy") and busy.headers["Deprecation"] == SINCE
    assert counted() == [("POST /api/v0/auth/login", 0, 0, 5)]


def test_many_at_once_are_all_counted(as_old_admin, admin, counted):
    with ThreadPoolExecutor(7) as pool:
        answers = list(pool.map(lambda _: as_old_admin.get(f"{V0}/users/{admin.id}"), range(21)))

    assert {answer.status_code for answer in answers} == {200}
    assert counted() == [("GET /api/v0/users/{user_id}", 0, admin.id, 21)]


def test_to_count_costs_one_statement(old_app, as_old_admin, admin, queries):
    with queries(old_app) as statements:
        as_old_admin.get(f"{V0}/users/{admin.id}")

    assert len(statements) == 3 and str(statements[-1]).startswith("INSERT INTO deprecated_calls")


def test_what_cannot_be_counted_is_answered_all_the_same(as_old_admin, admin, outside, counted, caplog):
    outside.execute("ALTER TABLE deprecated_calls RENAME TO elsewhere")
    try:
        response = as_old_admin.get(f"{V0}/users/{admin.id}")
    finally:
        outside.execute("ALTER TABLE elsewhere RENAME TO deprecated_calls")

    assert response.status_code == 200 and response.json["id"] == admin.id
    assert "deprecated call not counted" in caplog.text
    assert counted() == []


# What an operator sees


def test_without_a_deprecated_operation_that_is_said(app):
    with app.app_context():
        result = app.test_cli_runner().invoke(args=["deprecations"])

    assert (result.exit_code, result.output) == (0, "No operation is deprecated.\n")


def test_operator_sees_what_ends_and_whom_to_tell(as_old_admin, old, admin, member, make_key, listed):
    _, key = make_key("users:read")
    for caller in (old.with_token(key["key"]), old.as_(member)):
        caller.get(f"{V0}/users/{member.id}")
    DeprecatedCallFactory(operation="POST /api/v0/users", calls=3)
    yesterday = now() - timedelta(days=1)
    DeprecatedCallFactory(operation="GET /api/v0/users/{user_id}", user_id=member.id, last_at=yesterday, calls=4)

    lines = [line.partition(", last: ")[0] for line in listed()]

    assert lines == [
        "DELETE /api/v0/users/{user_id}  ends on 2027-01-31",
        "GET /api/v0/users  ends on 2027-01-31",
        "GET /api/v0/users/{user_id}  ends on 2027-01-31",
        f"    user {member.id} ({member.email})  calls: 5, days: 2",
        f"    key {key['prefix']} of Payroll (made by {admin.email})  calls: 1, days: 1",
        "PATCH /api/v0/users/{user_id}  ends on 2027-01-31",
        "POST /api/v0/auth/login  ends on 2027-01-31",
        "POST /api/v0/breaking  ends on 2027-01-31",
        "POST /api/v0/users  ends on 2027-01-31",
        "    anonymous  calls: 3, days: 1",
    ]


def test_operator_sees_a_key_that_is_no_longer_there(old, as_admin, make_key, listed):
    path, key = make_key("users:read")
    old.with_token(key["key"]).get(f"{V0}/users")
    as_admin.delete(path)

    (line,) = [line for line in listed() if "key" in line]

    assert line.startswith(f"    key {key['id']} (removed)  calls: 1, days: 1, last: {now():%Y-%m-%dT%H}")


# What is forgotten


def test_upkeep_removes_what_is_older_than_a_year(app, snapshot):
    for days in (367, 366, 364, 0):
        DeprecatedCallFactory(last_at=now() - timedelta(days=days), calls=days)

    with app.app_context():
        removed = upkeep.run()

    assert removed["deprecated calls"] == 2
    assert [row.calls for row in snapshot()["deprecated_calls"]] == [364, 0]


def test_who_is_erased_is_in_no_count(as_admin, member, other, counted):
    for user in (member, other):
        DeprecatedCallFactory(user_id=user.id)
    as_admin.delete(f"{V1}/users/{member.id}")

    as_admin.post(f"{V1}/users/{member.id}/erase")

    assert [user_id for _, _, user_id, _ in counted()] == [other.id]
