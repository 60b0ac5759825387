"""Two versions side by side: the same rows, each version with its own names, addresses, keys and document."""

import orjson
import pytest
from flask import Flask
from openapi_spec_validator import validate

from resources.docs import committed_documents
from resources.http.openapi import document
from tests.client import Client
from tests.contract import Contract
from tests.factories.user import UserFactory
from tests.resources.answers import links, pointers
from tests.versions import version_2

V1, V2 = "/api/v1", "/api/v2"
PATHS = {f"{V2}/users", f"{V2}/users/{{user_id}}"}


@pytest.fixture
def both(another_app):
    """Return an application that has both versions."""
    app = another_app()
    app.register_blueprint(version_2())
    return app


@pytest.fixture
def old(both, contract, admin):
    """Return a client of version 1, signed in as the admin."""
    return Client(both, contract).as_(admin)


@pytest.fixture
def new(both, admin):
    """Return a client of version 2, signed in as the admin."""
    return Client(both, Contract(both, "api_v2")).as_(admin)


def renamed(user):
    """Return a user of version 1 as version 2 has it."""
    return {{"name": "display_name"}.get(name, name): value for name, value in user.items()}


def a_person(version, **fields):
    """Return a body that makes a user."""
    name = {V1: "name", V2: "display_name"}[version]
    return {"email": "ada@example.org", name: "Ada", **fields}


# The same rows


def test_what_is_made_in_one_is_read_and_changed_in_the_other(old, new):
    made = new.post(f"{V2}/users", json=a_person(V2)).json
    path = f"/users/{made['id']}"

    assert made == renamed(old.get(V1 + path).json)
    assert old.patch(V1 + path, json={"name": "Ada L."}).json["version"] == 2
    assert new.get(V2 + path).json["display_name"] == "Ada L."
    assert new.patch(V2 + path, json={"display_name": "Countess"}).json["version"] == 3
    assert old.get(V1 + path).json["name"] == "Countess"


def test_lists_hold_the_same_users_in_the_same_order(old, new):
    UserFactory.create_batch(5, password_hash=None)

    for query in ("", "?per_page=2", "?sort=-id&role=member", "?q=person", "?page=2&per_page=3"):
        before, after = old.get(f"{V1}/users{query}").json, new.get(f"{V2}/users{query}").json
        assert [*map(renamed, before["users"])] == after["users"]
        assert {**before, "users": [], "next_cursor": None} == {**after, "users": [], "next_cursor": None}


def test_a_version_of_an_item_is_the_same_in_both(old, new, member):
    etag = old.get(f"{V1}/users/{member.id}").headers["ETag"]

    known = new.get(f"{V2}/users/{member.id}", headers={"If-None-Match": etag})
    changed = new.patch(f"{V2}/users/{member.id}", json={"display_name": "New"}, headers={"If-Match": etag})
    too_late = old.patch(f"{V1}/users/{member.id}", json={"name": "Newer"}, headers={"If-Match": etag})

    assert (known.status_code, changed.status_code, too_late.status_code) == (304, 200, 412)


def test_a_verb_that_has_not_changed_is_there_in_both(old, new, member):
    assert new.delete(f"{V2}/users/{member.id}").status_code == 204

    assert old.get(f"{V1}/users/{member.id}").status_code == 404


# Their own names


def test_each_sorts_and_shows_by_its_own_names(old, new):
    query = "?sort=-{0}&fields={0}&per_page=2"
    UserFactory.create_batch(3, password_hash=None)

    before, after = old.get(f"{V1}/users{query.format('name')}"), new.get(f"{V2}/users{query.format('display_name')}")
    on = new.get(f"{V2}{links(after)['next'].removeprefix(V2)}")

    assert [*map(renamed, before.json["users"])] == after.json["users"]
    assert [user.keys() for user in after.json["users"]] == [{"display_name"}] * 2
    assert max(user["display_name"] for user in on.json["users"]) <= after.json["users"][-1]["display_name"]


@pytest.mark.parametrize("query", ["sort={}", "fields={}"])
def test_neither_takes_a_parameter_of_the_other(old, new, query):
    answers = old.get(f"{V1}/users?{query}".format("display_name")), new.get(f"{V2}/users?{query}".format("name"))

    assert [answer.problem for answer in answers] == [(400, "invalid_parameter")] * 2


def test_neither_takes_a_body_of_the_other(old, new, member, nothing_changes):
    with nothing_changes():
        answers = [
            old.post(f"{V1}/users", json=a_person(V2)),
            new.post(f"{V2}/users", json=a_person(V1)),
            old.patch(f"{V1}/users/{member.id}", json={"display_name": "New"}),
            new.patch(f"{V2}/users/{member.id}", json={"name": "New"}),
        ]

    assert [answer.problem for answer in answers] == [(422, "invalid")] * 4
    assert [sorted(pointers(answer)) for answer in answers] == [
        *[["/json/display_name", "/json/name"]] * 2,
        *(["/json/display_name"], ["/json/name"]),
    ]


# Their own addresses


def test_addresses_that_are_given_out_stay_in_the_version(old, new):
    UserFactory.create_batch(2, password_hash=None)
    for version, client in ((V1, old), (V2, new)):
        page = client.get(f"{version}/users?per_page=1")
        made = client.post(f"{version}/users", json=a_person(version, email=f"new{version[-1]}@example.org"))

        assert all(target.startswith(f"{version}/users") for target in links(page).values())
        assert made.headers["Location"] == f"http://localhost{version}/users/{made.json['id']}"
        assert client.get(links(page)["next"]).status_code == 200


def test_a_cursor_is_good_in_its_version_only(old, new):
    UserFactory.create_batch(3, password_hash=None)
    cursors = {
        version: client.get(f"{version}/users?per_page=1").json["next_cursor"] for version, client in pairs(old, new)
    }

    for version, client in pairs(old, new):
        answers = {
            issuer: client.get(f"{version}/users?per_page=1&cursor={cursor}").problem
            for issuer, cursor in cursors.items()
        }
        assert answers == {issuer: None if issuer == version else (400, "invalid_parameter") for issuer in cursors}


def pairs(old, new):
    return [(V1, old), (V2, new)]


def test_an_idempotency_key_is_one_of_its_version(old, new, snapshot):
    headers = {"Idempotency-Key": "one"}
    emails = {V1: "one@example.org", V2: "two@example.org"}

    for version, client in pairs(old, new):
        first, again = (
            client.post(f"{version}/users", json=a_person(version, email=emails[version]), headers=headers)
            for _ in range(2)
        )
        assert first.status_code == 201 and "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (again.json, again.headers["Location"]) == (first.json, first.headers["Location"])

    assert len(snapshot()["idempotency_keys"]) == 2


# Refusals


@pytest.mark.parametrize(
    ("method", "path", "more", "refusal"),
    [
        ("GET", "/nothing", {}, (404, "not_found")),
        ("GET", "/users/", {}, (404, "not_found")),
        ("GET", "/users/999999", {}, (404, "not_found")),
        ("GET", "/me", {}, (404, "not_found")),
        ("PUT", "/users", {}, (405, "method_not_allowed")),
        ("GET", "/users", {"headers": {"Accept": "text/html"}}, (406, "not_acceptable")),
        ("GET", "/users", {"headers": {"Authorization": "Bearer x"}}, (401, "invalid_token")),
        ("GET", "/users?x=1", {}, (400, "invalid_parameter")),
        ("POST", "/users", {"data": "x"}, (415, "unsupported_media_type")),
        ("POST", "/users", {"data": "{", "content_type": "application/json"}, (400, "malformed_body")),
    ],
)
def test_a_refusal_is_a_problem_under_the_new_root(new, nothing_changes, method, path, more, refusal):
    with nothing_changes():
        response = new.send(method, V2 + path, **more)

    assert response.problem == refusal
    assert response.json["instance"] == (V2 + path).partition("?")[0]
    assert response.json["type"].startswith("http://localhost/problems/")
    if response.status_code == 405:
        assert {*response.headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS", "POST"}


def test_who_has_not_signed_in_is_refused_in_both(both, contract):
    stranger = Client(both, contract)

    answers = [stranger.get(f"{version}/users") for version in (V1, V2)]

    assert [answer.problem for answer in answers] == [(401, "authentication_required")] * 2
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Bearer realm="rollcall"'}


# Their own documents


def test_each_serves_its_document_and_it_is_true(both: Flask, old, new):
    with both.app_context():
        generated = {
            version: orjson.dumps(document(both, blueprint=f"api_v{version[-1]}", version=both.config["VERSION"]))
            for version in (V1, V2)
        }

    for version, client in pairs(old, new):
        served = client.get(f"{version}/openapi.json")
        assert served.data == generated[version]
        validate(served.json)
        assert all(path.startswith(f"{version}/") for path in served.json["paths"])


def test_the_document_of_the_new_one_holds_what_is_served_under_its_own_names(both: Flask, new):
    found = new.get(f"{V2}/openapi.json").json

    assert found["paths"].keys() == PATHS
    verbs = {path: sorted(item.keys() - {"parameters"}) for path, item in found["paths"].items()}
    assert verbs == {f"{V2}/users": ["get", "post"], f"{V2}/users/{{user_id}}": ["delete", "get", "patch", "put"]}
    for name in ("User", "UserPart", "UserCreate", "UserReplacement", "UserPatch"):
        members = found["components"]["schemas"][name]["properties"]
        assert "display_name" in members and "name" not in members
    assert f"`POST {V2}/auth/login`" in found["info"]["description"]


def test_without_the_new_one_the_document_of_the_old_one_is_the_same_to_the_byte(app, both, client, old):
    assert client.get(f"{V1}/openapi.json").data == old.get(f"{V1}/openapi.json").data
    assert client.get(f"{V2}/openapi.json").problem == (404, "not_found")
    with app.app_context():
        alone = committed_documents()
    with both.app_context():
        assert committed_documents() == alone
