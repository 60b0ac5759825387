"""Refreshing: each token is exchanged once, a lost answer signs nobody out, and a stolen token ends its family."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256

import jwt
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from models import Event, Job, RefreshToken, Session
from models.base import db, now
from models.statements import Work
from service import refresh
from tests.factories.session import SessionFactory
from tests.factories.user import PASSWORD
from tests.resources.answers import pointers

LOGIN = "/api/v1/auth/login"
LOGOUT = "/api/v1/auth/logout"
REFRESH = "/api/v1/auth/refresh"
ME = "/api/v1/me"
INVALID = (401, "invalid_token")
REUSED = (401, "reused_token")


def sign_in(client, user, **more):
    """Return the grant of a new session."""
    response = client.post(LOGIN, json={"email": user.email, "password": PASSWORD, **more})
    assert response.status_code == 200
    return response.json


def show(client, token):
    return client.post(REFRESH, json={"refresh_token": token})


def successor(client, token):
    """Return what a token is exchanged for."""
    response = show(client, token)
    assert response.status_code == 200
    return response.json["refresh_token"]


def rows(app, model, **values):
    with app.app_context():
        return list(db.session.scalars(select(model).filter_by(**values).order_by(model.id)))


def session_of(grant):
    return int(jwt.decode(grant["access_token"], options={"verify_signature": False})["sid"])


def row_of(app, token):
    (row,) = rows(app, RefreshToken, token_hash=sha256(token.encode()).hexdigest())
    return row


@pytest.fixture
def change(app):
    """Return a function that writes values into a row behind the application's back."""

    def write(row, **values):
        with app.app_context():
            found = db.session.get(type(row), row.id)
            for name, value in values.items():
                setattr(found, name, value)
            db.session.commit()

    return write


@pytest.fixture
def used_ago(app, change):
    """Return a function that makes a token one that was exchanged some time ago."""
    return lambda token, **ago: change(row_of(app, token), used_at=now() - timedelta(**ago))


@pytest.fixture
def token(client, member):
    """Return the refresh token of a new session of the member."""
    return sign_in(client, member)["refresh_token"]


# Exchanging


def test_signing_in_gives_a_refresh_token(client, member):
    grant = sign_in(client, member)

    assert grant["refresh_token"].startswith("rr_") and len(grant["refresh_token"]) == 46
    assert grant["csrf_token"] is None


def test_token_is_exchanged_for_its_successor_and_an_access_token_that_works(client, member):
    grant = sign_in(client, member)

    response = show(client, grant["refresh_token"])

    assert response.status_code == 200
    assert (response.json["token_type"], response.json["expires_in"]) == ("Bearer", 900)
    assert response.json["user"] == grant["user"]
    assert response.json["refresh_token"] not in (None, grant["refresh_token"])
    assert response.json["csrf_token"] is None
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers
    assert client.with_token(response.json["access_token"]).get(ME).json["id"] == member.id


def test_refreshed_session_is_the_same_one(app, client, member):
    grant = sign_in(client, member)

    refreshed = show(client, grant["refresh_token"]).json

    assert session_of(refreshed) == session_of(grant)
    assert refreshed["access_token"] != grant["access_token"]
    assert len(rows(app, Session)) == 1
    assert client.with_token(grant["access_token"]).get(ME).status_code == 200


def test_every_successor_is_another(client, token):
    family = [token]
    for _ in range(5):
        family.append(successor(client, family[-1]))

    assert len(set(family)) == 6


def test_refreshing_sees_what_changed_meanwhile(client, as_admin, member, token):
    as_admin.patch(f"/api/v1/users/{member.id}", json={"name": "New Name"})

    assert show(client, token).json["user"]["name"] == "New Name"


def test_credential_that_is_sent_along_is_not_looked_at(client, token):
    assert show(client.with_token("garbage"), token).status_code == 200


# The same token again


def test_same_token_within_the_grace_gives_the_same_successor(app, client, token, nothing_changes):
    first = successor(client, token)

    with nothing_changes():
        again = [show(client, token) for _ in range(3)]

    assert [response.json["refresh_token"] for response in again] == [first] * 3
    assert all(client.with_token(response.json["access_token"]).get(ME).status_code == 200 for response in again)
    assert len(rows(app, RefreshToken, used_at=None)) == 1


def test_token_is_in_its_grace_to_the_last_seconds(client, token, used_ago):
    first = successor(client, token)
    used_ago(token, seconds=57)

    assert successor(client, token) == first


def test_old_token_within_the_grace_gives_the_newest_of_the_family(client, token, nothing_changes):
    second = successor(client, token)
    third = successor(client, second)

    with nothing_changes():
        shown = [successor(client, old) for old in (token, second, token)]

    assert shown == [third] * 3
    assert successor(client, third) not in {token, second, third}


def test_newest_of_a_long_family_is_found(client, token):
    newest = token
    for _ in range(10):
        newest = successor(client, newest)

    assert successor(client, token) == newest


def test_answer_that_was_lost_costs_nothing(client, token, monkeypatch, nothing_changes):
    def fail(work):
        if work.connection is not None:
            raise OperationalError("COMMIT", {}, Exception("the connection is lost"))

    with monkeypatch.context() as patch, nothing_changes():
        patch.setattr(Work, "commit", fail)
        lost = show(client, token)

    assert lost.problem == (503, "unavailable")
    assert successor(client, successor(client, token))


def test_parallel_refreshes_give_one_successor(app, client, token):
    count = 12
    start = threading.Barrier(count)

    def go(_):
        start.wait()
        return show(client, token)

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(go, range(count)))

    assert [response.status_code for response in answers] == [200] * count
    (found,) = {response.json["refresh_token"] for response in answers}
    assert [row.token_hash for row in rows(app, RefreshToken, used_at=None)] == [sha256(found.encode()).hexdigest()]
    assert len(rows(app, RefreshToken)) == 2
    assert all(client.with_token(response.json["access_token"]).get(ME).status_code == 200 for response in answers)


@pytest.mark.parametrize("again", ["first", "successor"])
def test_new_secret_key_within_the_grace_signs_nobody_out(app, client, token, again):
    before = successor(client, token)
    app.config["SECRET_KEY"] = "another secret key: 9876543210 zyxwvutsrqponmlkjihgfedcba"

    shown = token if again == "first" else before
    after = successor(client, shown)

    assert after not in {token, before}
    assert successor(client, shown) == after
    assert successor(client, successor(client, after))
    assert not rows(app, Event, type="session.refresh_token_reused")


def test_both_branches_of_a_new_secret_key_live_on(app, client, token):
    before = successor(client, token)
    app.config["SECRET_KEY"] = "another secret key: 9876543210 zyxwvutsrqponmlkjihgfedcba"
    after = successor(client, token)

    assert show(client, before).status_code == show(client, after).status_code == 200


# A token that was stolen


def test_reuse_after_the_grace_ends_the_family(client, token, used_ago):
    grant = show(client, token).json
    used_ago(token, seconds=61)

    response = show(client, token)

    assert response.problem == REUSED
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]
    assert "Set-Cookie" not in response.headers
    assert client.with_token(grant["access_token"]).get(ME).problem == INVALID
    assert show(client, grant["refresh_token"]).problem == INVALID


def test_grace_is_what_decides(client, token, monkeypatch):
    successor(client, token)
    monkeypatch.setattr(refresh, "GRACE", timedelta(0))

    assert show(client, token).problem == REUSED


def test_reuse_is_noted_and_the_person_told(app, client, member, token, used_ago):
    session = session_of(show(client, token).json)
    used_ago(token, minutes=2)

    show(client, token)

    (event,) = rows(app, Event, type="session.refresh_token_reused")
    assert (event.user_id, event.subject_id, event.data, event.address) == (member.id, session, {}, "127.0.0.1")
    (job,) = rows(app, Job)
    assert (job.kind, job.user_id) == ("notice", member.id)
    assert job.arguments == {"about": "token_reused", "to": member.email}


def test_person_is_told_once(app, client, token, used_ago, nothing_changes):
    successor(client, token)
    used_ago(token, minutes=2)
    show(client, token)

    with nothing_changes():
        again = show(client, token)

    assert again.problem == INVALID
    assert len(rows(app, Job)) == 1


def test_reuse_deep_in_the_family_ends_it(app, client, token, used_ago):
    newest = token
    for _ in range(3):
        newest = successor(client, newest)
    used_ago(token, days=3)

    assert show(client, token).problem == REUSED
    assert show(client, newest).problem == INVALID


def test_reuse_ends_no_other_session(client, member, other, token, used_ago):
    grants = [sign_in(client, member), sign_in(client, other)]
    successor(client, token)
    used_ago(token, minutes=2)

    assert show(client, token).problem == REUSED

    for grant in grants:
        assert client.with_token(grant["access_token"]).get(ME).status_code == 200
        assert successor(client, grant["refresh_token"])


def test_parallel_reuse_is_noted_once(app, client, token, used_ago):
    successor(client, token)
    used_ago(token, minutes=2)
    start = threading.Barrier(6)

    def go(_):
        start.wait()
        return show(client, token).problem

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(go, range(6)))

    assert sorted(answers) == [INVALID] * 5 + [REUSED]
    assert len(rows(app, Event, type="session.refresh_token_reused")) == len(rows(app, Job)) == 1


# What is no refresh token

BAD = {
    "unknown": lambda token: "rr_" + "A" * 43,
    "short": lambda token: token[:-1],
    "long": lambda token: token + "A",
    "padded": lambda token: token + "=",
    "upper case": lambda token: token.upper(),
    "other case": lambda token: token.swapcase(),
    "prefix only": lambda token: "rr_",
    "no prefix": lambda token: token.removeprefix("rr_"),
    "other prefix": lambda token: token.replace("rr_", "rk_", 1),
    "space before": lambda token: f" {token}",
    "space after": lambda token: f"{token} ",
    "scheme before": lambda token: f"Bearer {token}",
    "hash": lambda token: sha256(token.encode()).hexdigest(),
    "quote": lambda token: "' OR 1=1 --",
    "wildcard": lambda token: "rr_%",
    "full width": lambda token: "ｒｒ_" + token[3:],
    "emoji": lambda token: "rr_" + "😀" * 43,
    "two hundred": lambda token: "x" * 200,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_is_no_token_is_refused(client, token, nothing_changes, bad):
    with nothing_changes():
        response = show(client, bad(token))

    assert response.problem == INVALID
    assert token.encode() not in response.data


@pytest.mark.parametrize("huge", ["x" * 2049, "rr_" + "A" * 100_000], ids=["over the bound", "huge"])
def test_huge_token_is_refused_by_its_length(client, nothing_changes, huge):
    with nothing_changes():
        response = show(client, huge)

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/refresh_token"]
    assert len(response.data) < 1000


def test_access_token_is_no_refresh_token(client, member, nothing_changes):
    grant = sign_in(client, member)

    with nothing_changes():
        response = show(client, grant["access_token"])

    assert response.problem == INVALID


def test_refresh_token_is_no_access_token(client, token, nothing_changes):
    with nothing_changes():
        answers = [client.with_token(token).get(ME), client.with_token(token).post(LOGOUT)]

    assert [response.problem for response in answers] == [INVALID] * 2


@pytest.mark.parametrize("given", [None, "", 1, True, [], {}, ["rr_"], "rr_\x00", "rr_\n", "rr_\u202e"], ids=repr)
def test_what_is_no_text_is_named(client, nothing_changes, given):
    with nothing_changes():
        response = client.post(REFRESH, json={"refresh_token": given})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/refresh_token"]


@pytest.mark.parametrize("name", ["token", "grant_type", "refreshToken", "remember", "transport"])
def test_unknown_field_is_named(client, token, nothing_changes, name):
    with nothing_changes():
        response = client.post(REFRESH, json={"refresh_token": token, name: "x"})

    assert response.problem == (422, "invalid")
    assert pointers(response) == [f"/json/{name}"]


@pytest.mark.parametrize("sent", [{}, {"json": {}}], ids=["no body", "empty object"])
def test_without_a_token_nobody_is_known(client, nothing_changes, sent):
    with nothing_changes():
        response = client.post(REFRESH, **sent)

    assert response.problem == (401, "authentication_required")


def test_token_in_the_query_string_is_refused(client, token, nothing_changes):
    with nothing_changes():
        response = client.post(f"{REFRESH}?refresh_token={token}")

    assert response.problem == (400, "invalid_parameter")


def test_form_is_refused(client, token, nothing_changes):
    with nothing_changes():
        response = client.post(REFRESH, data={"refresh_token": token})

    assert response.problem == (415, "unsupported_media_type")


# How long a session lasts


@pytest.mark.parametrize("limit", ["idle_expires_at", "expires_at"])
def test_session_that_has_lasted_long_enough_is_not_refreshed(app, client, token, change, nothing_changes, limit):
    (session,) = rows(app, Session)
    change(session, **{limit: now() - timedelta(seconds=1)})

    with nothing_changes():
        response = show(client, token)

    assert response.problem == INVALID


@pytest.mark.parametrize("limit", ["idle_expires_at", "expires_at"])
def test_grace_does_not_outlast_the_session(app, client, token, change, nothing_changes, limit):
    successor(client, token)
    (session,) = rows(app, Session)
    change(session, **{limit: now() - timedelta(seconds=1)})

    with nothing_changes():
        response = show(client, token)

    assert response.problem == INVALID


@pytest.mark.parametrize(("remember", "idle", "absolute"), [(None, 1, 14), (False, 1, 14), (True, 90, 365)])
def test_remembering_lengthens_a_session(app, client, member, remember, idle, absolute):
    sign_in(client, member, **({} if remember is None else {"remember": remember}))

    (session,) = rows(app, Session)
    assert session.remember is bool(remember)
    assert session.idle_expires_at - session.created_at == timedelta(days=idle)
    assert session.expires_at - session.created_at == timedelta(days=absolute)


@pytest.mark.parametrize(("remember", "idle"), [(False, 1), (True, 90)])
def test_refreshing_puts_off_the_end_but_not_the_last_one(app, client, member, change, remember, idle):
    grant = sign_in(client, member, remember=remember)
    (session,) = rows(app, Session)
    change(session, idle_expires_at=now() + timedelta(minutes=5), last_used_at=now() - timedelta(hours=23))

    successor(client, grant["refresh_token"])

    (after,) = rows(app, Session)
    assert after.idle_expires_at - after.last_used_at == timedelta(days=idle)
    assert now() - after.last_used_at < timedelta(minutes=1)
    assert (after.expires_at, after.created_at) == (session.expires_at, session.created_at)


# Who may not go on


def admin_sends(method, path="", **kwargs):
    return lambda client, as_admin, user, grant: as_admin.send(method, f"/api/v1/users/{user.id}{path}", **kwargs)


def another_device_changes_the_password(client, as_admin, user, grant):
    elsewhere = client.with_token(sign_in(client, user)["access_token"])
    return elsewhere.post(f"{ME}/password", json={"current_password": PASSWORD, "password": "another pass phrase"})


ENDS = {
    "suspended": admin_sends("PATCH", json={"is_active": False}),
    "role changed": admin_sends("PATCH", json={"role": "support"}),
    "deleted": admin_sends("DELETE"),
    "sessions ended": admin_sends("DELETE", "/sessions"),
    "signed out": lambda client, as_admin, user, grant: client.with_token(grant["access_token"]).post(LOGOUT),
    "password changed": another_device_changes_the_password,
    "themself deleted": lambda client, as_admin, user, grant: client.with_token(grant["access_token"]).delete(ME),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_whose_session_was_ended_is_not_refreshed(client, as_admin, member, nothing_changes, end):
    grant = sign_in(client, member)
    newest = successor(client, grant["refresh_token"])
    assert end(client, as_admin, member, grant).status_code < 300

    with nothing_changes():
        answers = [show(client, newest), show(client, grant["refresh_token"])]

    assert [response.problem for response in answers] == [INVALID] * 2


def test_who_is_restored_or_made_active_again_signs_in_anew(client, as_admin, member, token):
    address = f"/api/v1/users/{member.id}"
    as_admin.patch(address, json={"is_active": False})
    as_admin.patch(address, json={"is_active": True})
    assert show(client, token).problem == INVALID

    second = sign_in(client, member)["refresh_token"]
    as_admin.delete(address)
    assert as_admin.post(f"{address}/restore").status_code == 200

    assert show(client, second).problem == INVALID


@pytest.mark.parametrize("values", [{"is_active": False}, {"deleted_at": now()}], ids=["suspended", "deleted"])
def test_session_that_was_left_open_does_not_help(client, member, token, change, nothing_changes, values):
    change(member, **values)

    with nothing_changes():
        response = show(client, token)

    assert response.problem == INVALID


def test_who_changed_their_password_stays_signed_in_there(client, member):
    grant = sign_in(client, member)
    here = client.with_token(grant["access_token"])

    here.post(f"{ME}/password", json={"current_password": PASSWORD, "password": "another pass phrase"})

    assert here.get(ME).status_code == 200
    assert successor(client, grant["refresh_token"])


# What is kept


def test_database_holds_no_secret(client, member, snapshot, used_ago):
    grants = [sign_in(client, member), sign_in(client, member, remember=True)]
    grants += [show(client, grant["refresh_token"]).json for grant in grants]
    used_ago(grants[0]["refresh_token"], minutes=2)
    show(client, grants[0]["refresh_token"])

    kept = repr(snapshot())

    for grant in grants:
        for secret in (grant["refresh_token"], grant["refresh_token"].removeprefix("rr_"), grant["access_token"]):
            assert secret not in kept
        assert sha256(grant["refresh_token"].encode()).hexdigest() in kept


def test_log_holds_no_secret(client, member, caplog, used_ago):
    caplog.set_level("DEBUG")
    grant = sign_in(client, member)
    newer = show(client, grant["refresh_token"]).json
    used_ago(grant["refresh_token"], minutes=2)
    show(client, grant["refresh_token"])

    said = " ".join(str(record.__dict__) for record in caplog.records if record.name.startswith("rollcall"))

    for secret in (grant["refresh_token"], newer["refresh_token"], newer["access_token"], PASSWORD):
        assert secret not in said


def test_tokens_used_more_than_thirty_days_ago_are_forgotten(app, client, member, used_ago, nothing_changes):
    family = [sign_in(client, member, remember=True)["refresh_token"]]
    for _ in range(3):
        family.append(successor(client, family[-1]))
    used_ago(family[0], days=31)
    used_ago(family[1], days=29)

    family.append(successor(client, family[-1]))

    kept = {row.token_hash for row in rows(app, RefreshToken)}
    assert kept == {sha256(token.encode()).hexdigest() for token in family[1:]}
    with nothing_changes():
        assert show(client, family[0]).problem == INVALID
    assert successor(client, family[-1])


def test_only_this_familys_tokens_are_forgotten(app, client, member, used_ago):
    before, own, after = (sign_in(client, member)["refresh_token"] for _ in range(3))
    for old in (before, after):
        successor(client, old)
        used_ago(old, days=31)

    successor(client, own)

    assert row_of(app, before) and row_of(app, after)


def test_unused_token_is_not_forgotten_however_old(app, client, member, change):
    grant = sign_in(client, member, remember=True)
    change(row_of(app, grant["refresh_token"]), created_at=now() - timedelta(days=80))

    assert successor(client, grant["refresh_token"])


def test_session_without_a_family_is_not_refreshed_by_anothers_token(client, member, other):
    SessionFactory(user=None, user_id=other.id)
    grant = sign_in(client, member)

    assert show(client, grant["refresh_token"]).json["user"]["id"] == member.id


def test_tokens_go_with_the_user(app, client, as_admin, member, token):
    as_admin.delete(f"/api/v1/users/{member.id}")
    as_admin.post(f"/api/v1/users/{member.id}/erase")

    assert rows(app, RefreshToken) == []
    assert show(client, token).problem == INVALID
