"""Me: one's own account, with no more rights than anybody has over their own."""

import pytest

from tests.factories.user import PASSWORD, UserFactory
from tests.resources.answers import pointers

ME = "/api/v1/me"
LOGIN = "/api/v1/auth/login"


def test_me_is_the_one_who_asks(as_member, member):
    response = as_member.get(ME)

    assert response.status_code == 200
    assert (response.json["id"], response.json["email"]) == (member.id, member.email)
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert "private_metadata" not in response.json


def test_me_is_the_user_under_their_id(as_admin, admin):
    assert as_admin.get(ME).json == as_admin.get(f"/api/v1/users/{admin.id}").json


def test_me_that_is_known_is_not_sent_again(as_member):
    response = as_member.get(ME, headers={"If-None-Match": '"1"'})

    assert response.status_code == 304


def test_head_says_what_get_says_without_a_body(as_member):
    head = as_member.head(ME)

    assert head.status_code == 200 and head.data == b""
    assert head.headers["ETag"] == '"1"'


def test_part_of_me_has_no_etag(as_member, member):
    response = as_member.get(f"{ME}?fields=name")

    assert response.json == {"name": member.name}
    assert "ETag" not in response.headers


@pytest.mark.parametrize("query", ["fields=password_hash", "fields=", "user_id=1", "id=1", "access_token=x"])
def test_bad_parameter_is_named(as_member, query):
    response = as_member.get(f"{ME}?{query}")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == [f"/query/{query.partition('=')[0]}"]


def test_private_metadata_is_not_shown_to_whom_it_is_about(client):
    user = UserFactory(private_metadata={"note": "secret"})
    own = client.as_(user)

    assert b"secret" not in own.get(ME).data
    assert own.get(f"{ME}?fields=private_metadata").problem == (403, "permission_denied")


def test_header_does_not_make_me_another(as_member, member, other):
    response = as_member.get(ME, headers={"X-User-Id": str(other.id), "X-Original-URL": f"/api/v1/users/{other.id}"})

    assert response.json["id"] == member.id


@pytest.mark.parametrize("who", ["member", "support", "admin"])
def test_everybody_changes_their_own_name_and_metadata(client, request, who):
    own = client.as_(request.getfixturevalue(who))

    response = own.patch(ME, json={"name": "New Name", "metadata": {"theme": "dark"}})

    assert response.status_code == 200
    assert (response.json["name"], response.json["metadata"]) == ("New Name", {"theme": "dark"})
    assert response.headers["ETag"] == '"2"'
    assert own.get(ME).json == response.json


def test_own_metadata_is_merged(client):
    own = client.as_(UserFactory(public_metadata={"a": 1, "b": {"c": 2}}))

    response = own.patch(ME, json={"metadata": {"a": None, "b": {"d": 3}}})

    assert response.json["metadata"] == {"b": {"c": 2, "d": 3}}


@pytest.mark.parametrize("who", ["member", "support", "admin"])
@pytest.mark.parametrize(
    "body",
    [
        {"role": "admin"},
        {"role": "member"},
        {"is_active": True},
        {"is_active": False},
        {"name": "Allowed", "role": "support", "is_active": True},
    ],
    ids=str,
)
def test_nobody_changes_their_own_rights(client, request, nothing_changes, who, body):
    own = client.as_(request.getfixturevalue(who))

    with nothing_changes():
        response = own.patch(ME, json=body)

    assert response.problem == (403, "permission_denied")
    assert {*pointers(response)} == {f"/json/{name}" for name in body if name != "name"}


@pytest.mark.parametrize(
    "name", ["email", "external_id", "private_metadata", "id", "version", "email_verified", "password", "permissions"]
)
def test_unknown_field_is_named(as_admin, nothing_changes, name):
    with nothing_changes():
        response = as_admin.patch(ME, json={name: "x"})

    assert response.problem == (422, "invalid")
    assert pointers(response) == [f"/json/{name}"]


@pytest.mark.parametrize("body", [{"name": None}, {"metadata": None}, {"role": None}, {"is_active": None}], ids=str)
def test_nothing_of_mine_may_be_null(as_member, nothing_changes, body):
    with nothing_changes():
        response = as_member.patch(ME, json=body)

    assert response.problem == (422, "invalid")


@pytest.mark.parametrize("body", [{}, {"name": "Mia Member"}, {"metadata": {}}, {"metadata": {"no": None}}], ids=str)
def test_change_that_changes_nothing_keeps_the_version(as_member, nothing_changes, body):
    with nothing_changes():
        response = as_member.patch(ME, json=body)

    assert response.status_code == 200
    assert response.headers["ETag"] == '"1"'


def test_stale_etag_stops_a_change(as_member, nothing_changes):
    with nothing_changes():
        patched = as_member.patch(ME, json={"name": "New"}, headers={"If-Match": '"2"'})
        deleted = as_member.delete(ME, headers={"If-Match": '"2"'})

    assert patched.problem == deleted.problem == (412, "version_mismatch")


def test_if_match_is_demanded_where_it_is_required(app, as_member, nothing_changes):
    app.config["REQUIRE_IF_MATCH"] = True

    with nothing_changes():
        answers = [as_member.patch(ME, json={"name": "New"}), as_member.delete(ME)]

    assert [response.problem for response in answers] == [(428, "precondition_required")] * 2


def test_member_deletes_themself_and_all_their_sessions(client, as_member, member):
    second_session = client.as_(member)

    response = as_member.delete(ME)

    assert response.status_code == 204
    assert as_member.get(ME).problem == second_session.delete(ME).problem == (401, "invalid_token")
    assert client.post(LOGIN, json={"email": member.email, "password": PASSWORD}).problem == (
        401,
        "invalid_credentials",
    )


def test_last_admin_cannot_delete_themself(as_admin, nothing_changes):
    with nothing_changes():
        response = as_admin.delete(ME)

    assert response.problem == (409, "last_admin")


def test_one_of_two_admins_can_delete_themself(as_admin):
    UserFactory(admin=True)

    assert as_admin.delete(ME).status_code == 204


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_me_is_neither_made_nor_replaced(as_member, nothing_changes, method):
    with nothing_changes():
        response = as_member.send(method, ME, json={})

    assert response.problem == (405, "method_not_allowed")
    assert {*response.headers["Allow"].split(", ")} == {"GET", "HEAD", "OPTIONS", "PATCH", "DELETE"}
