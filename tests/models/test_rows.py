"""Rows: what is added has its defaults, what is changed is another version, and what is stale is refused."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from models import Event, Job, OneTimeToken, Post, RefreshToken, Session, Throttle, User
from models.base import now
from models.rows import delete_row, insert_row, update_row
from models.statements import Record, execute, fetch_all, fetch_one, unit_of_work
from tests.factories.event import EventFactory
from tests.factories.job import JobFactory
from tests.factories.one_time_token import OneTimeTokenFactory
from tests.factories.post import PostFactory
from tests.factories.refresh_token import RefreshTokenFactory
from tests.factories.session import SessionFactory
from tests.factories.throttle import ThrottleFactory
from tests.factories.user import UserFactory

INDIA = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2026, 3, 1, 4, 59, 59, 123456, INDIA)
ADA = {"email": "Ada@example.com", "email_key": "ada@example.com", "name": "Ada", "name_key": "ada"}
EVERYTHING = {
    **ADA,
    "role": "support",
    "is_active": False,
    "email_verified": True,
    "external_id": "7",
    "public_metadata": {"z": 1.0, "a": [True, None, "é"]},
    "private_metadata": {"b": {}},
    "password_hash": "$argon2id$",
    "version": 3,
    "created_at": MOMENT,
    "updated_at": MOMENT + timedelta(days=1),
    "deleted_at": MOMENT + timedelta(days=2),
}


def inserted(app: Flask, table: Any, **values: Any) -> Record:
    with app.app_context(), unit_of_work():
        return insert_row(table, **values)


def updated(app: Flask, table: Any, row: Any, **values: Any) -> Record:
    with app.app_context(), unit_of_work():
        return update_row(table, row, **values)


def kept(app: Flask, table: Any) -> Record:
    """Return the only row of a table."""
    with app.app_context():
        (found,) = fetch_all(select(table))
    return found


def differences(before: Any, after: Any) -> set[str]:
    """Name the columns in which two rows of a table differ, JSON being compared as it is written."""
    return {name for name in after._fields if repr(getattr(before, name)) != repr(getattr(after, name))}


# Adding


def test_a_new_row_has_every_default(app):
    before = now()
    row = inserted(app, User, **ADA)

    assert {name: getattr(row, name) for name in ADA} == ADA
    assert (row.role, row.is_active, row.email_verified, row.version) == ("member", True, False, 1)
    assert (row.public_metadata, row.private_metadata) == ({}, {})
    assert (row.external_id, row.password_hash, row.deleted_at) == (None, None, None)
    assert before <= row.created_at <= row.updated_at <= now() and row.created_at.tzinfo is UTC
    assert differences(kept(app, User), row) == set()


def test_a_new_row_has_what_it_was_given_instead_of_every_default(app):
    row = inserted(app, User, **EVERYTHING)

    assert {name: getattr(row, name) for name in EVERYTHING} == EVERYTHING
    assert repr(row.public_metadata) == repr(EVERYTHING["public_metadata"])
    assert row.created_at.tzinfo is UTC
    assert differences(kept(app, User), row) == set()


def test_a_default_that_can_be_changed_is_made_anew_for_each_row(app):
    first = inserted(app, User, **ADA)
    second = inserted(app, User, **{**ADA, "email_key": "b@example.com"})

    assert first.public_metadata == second.public_metadata and second.id > first.id
    assert first.public_metadata is not second.public_metadata and second.created_at > first.created_at


def test_every_table_takes_a_new_row(app, member):
    post = inserted(app, Post, user_id=member.id, title="A title", content="")
    session = inserted(app, Session, user_id=member.id, idle_expires_at=MOMENT, expires_at=MOMENT)
    refresh_token = inserted(app, RefreshToken, session_id=session.id, token_hash="a hash")
    letter = {"purpose": "register", "email": "A@example.com", "email_key": "a@example.com", "expires_at": MOMENT}
    one_time_token = inserted(app, OneTimeToken, **letter)
    throttle = inserted(app, Throttle, key="a mark", seen_at=MOMENT)
    job = inserted(app, Job, kind="notice")
    event = inserted(app, Event, type="user.created")

    assert (post.user_id, post.title, post.content, post.version) == (member.id, "A title", "", 1)
    assert (session.user_id, session.expires_at, session.ended_at) == (member.id, MOMENT, None)
    assert (session.amr, session.transport, session.remember) == ([], "body", False)
    assert session.created_at == session.last_used_at
    assert (session.address, session.network, session.user_agent) == (None, None, None)
    assert (refresh_token.session_id, refresh_token.used_at) == (session.id, None)
    assert {name: getattr(one_time_token, name) for name in letter} == letter
    assert (one_time_token.user_id, one_time_token.details) == (None, None)
    assert (one_time_token.token_hash, one_time_token.code_hash) == (None, None)
    assert (throttle.attempts, throttle.refused_until, throttle.seen_at) == (0, None, MOMENT)
    assert (job.arguments, job.attempts, job.last_error, job.failed_at) == ({}, 0, None, None)
    assert (job.lane, job.leased) == (None, False) and job.created_at == job.run_at
    assert (event.user_id, event.actor_id, event.session_id, event.data) == (None, None, None, {})
    assert (event.position, event.subject_id, event.version) == (None, None, None)
    made = {Post: post, Session: session, RefreshToken: refresh_token, OneTimeToken: one_time_token}
    for table, row in {**made, Throttle: throttle, Job: job, Event: event}.items():
        assert kept(app, table) == row


def test_a_new_row_lacks_nothing_that_must_be_there(app, nothing_changes):
    with nothing_changes(), pytest.raises(IntegrityError, match=r"(?i)not.null"):
        inserted(app, User, **{**ADA, "name": None})


@pytest.mark.parametrize("values", [{"nick": "ada"}, {"user_id": 1}])
def test_a_column_that_is_none_is_refused(app, member, nothing_changes, values):
    with nothing_changes():
        with pytest.raises(TypeError):
            inserted(app, User, **ADA, **values)
        with pytest.raises(KeyError):
            updated(app, User, member, **values)


# Changing


def test_a_changed_row_is_the_next_version_of_now_and_the_same_otherwise(app, member):
    before = kept(app, User)

    row = updated(app, User, member, name="Ödön", external_id="7", public_metadata={"a": [1]}, deleted_at=MOMENT)

    changed = {"name", "external_id", "public_metadata", "deleted_at"}
    assert differences(before, row) == {*changed, "version", "updated_at"}
    assert (row.name, row.external_id, row.public_metadata, row.deleted_at) == ("Ödön", "7", {"a": [1]}, MOMENT)
    assert row.version == before.version + 1 and before.updated_at < row.updated_at <= now()
    assert differences(kept(app, User), row) == set()


def test_a_row_can_be_changed_again_as_it_was_returned(app, member):
    row = updated(app, User, updated(app, User, member, name="Once"), name="Twice")

    assert (row.name, row.version) == ("Twice", member.version + 2)


def test_no_other_row_is_changed(app, member, other):
    updated(app, User, member, name="Changed")

    with app.app_context():
        found = fetch_all(select(User.name, User.version).order_by(User.id))
    assert found == [("Changed", member.version + 1), (other.name, other.version)]


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"name": "Ada"},
        {"external_id": None, "deleted_at": None},
        {"is_active": True, "role": "member"},
        {"public_metadata": {"n": 1, "f": [True, {"x": 1.0}]}},
        {"created_at": MOMENT},
        {"created_at": MOMENT.astimezone(UTC)},
    ],
)
def test_what_does_not_differ_is_not_written(app, queries, nothing_changes, same):
    inserted(app, User, **ADA, created_at=MOMENT, public_metadata={"n": 1, "f": [True, {"x": 1.0}]})
    before = kept(app, User)

    with nothing_changes(), queries(with_transactions=True) as statements:
        row = updated(app, User, before, **same)

    assert row is before and statements == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": True}, {"a": 1}),
        ({"a": 0}, {"a": False}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": None}, {}),
        ({"a": [1, {"b": 0}]}, {"a": [1, {"b": False}]}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_what_differs_only_as_json_is_written(app, before, after):
    user = UserFactory(public_metadata=before)

    row = updated(app, User, user, public_metadata=after)

    assert row.version == user.version + 1
    assert repr(row.public_metadata) == repr(kept(app, User).public_metadata) == repr(after)


def test_only_what_differs_is_written(app, member, queries):
    with queries() as statements:
        updated(app, User, member, name="Changed", email=member.email, is_active=True, public_metadata={})

    (statement,) = map(str, statements)
    written = statement.partition(" SET ")[2].partition(" WHERE ")[0]
    assert {part.partition("=")[0] for part in written.split(", ")} == {"name", "version", "updated_at"}


@pytest.mark.parametrize(
    "meanwhile",
    [update(User).values(version=User.version + 1), update(User).values(version=0), delete(User)],
    ids=["changed", "set back", "deleted"],
)
def test_a_stale_row_is_refused(app, member, snapshot, meanwhile):
    with app.app_context(), unit_of_work():
        execute(meanwhile)
    before = snapshot()

    with pytest.raises(StaleDataError):
        updated(app, User, member, name="Changed")

    assert snapshot() == before


def test_a_row_is_stale_after_its_own_change(app, member, snapshot):
    updated(app, User, member, name="Changed")
    before = snapshot()

    for values in ({"name": "Changed"}, {"is_active": False}):
        with pytest.raises(StaleDataError):
            updated(app, User, member, **values)

    assert snapshot() == before


def test_a_stale_row_undoes_the_whole_unit_of_work(app, member, other, nothing_changes):
    def change_twice() -> None:
        with unit_of_work():
            update_row(User, other, name="Changed")
            update_row(User, member, name="Changed")
            update_row(User, member, name="Changed again")

    with nothing_changes(), pytest.raises(StaleDataError), app.app_context():
        change_twice()


def test_a_table_without_versions_takes_the_last_change(app):
    session = SessionFactory()
    before = kept(app, Session)

    first = updated(app, Session, session, ended_at=MOMENT)
    second = updated(app, Session, session, ended_at=MOMENT + timedelta(days=1), expires_at=MOMENT)

    assert differences(before, first) == {"ended_at"} and first.ended_at == MOMENT
    assert (second.ended_at, second.expires_at) == (MOMENT + timedelta(days=1), MOMENT)
    assert kept(app, Session) == second


def test_a_row_of_a_table_without_versions_that_is_gone_is_refused(app, nothing_changes):
    session = SessionFactory()
    with app.app_context(), unit_of_work():
        delete_row(Session, session)

    with nothing_changes(), pytest.raises(StaleDataError):
        updated(app, Session, session, ended_at=MOMENT)


# Removing


@pytest.mark.parametrize(
    "factory",
    [
        *(UserFactory, PostFactory, SessionFactory, RefreshTokenFactory, OneTimeTokenFactory),
        *(ThrottleFactory, JobFactory, EventFactory),
    ],
)
def test_a_removed_row_is_gone_and_no_other(app, factory):
    row, other = factory(), factory()
    table = type(row)

    with app.app_context(), unit_of_work():
        delete_row(table, row)

    assert kept(app, table).id == other.id


def test_what_was_removed_in_a_unit_of_work_that_is_undone_is_still_there(app, member, nothing_changes):
    def remove_and_fail() -> None:
        with unit_of_work():
            delete_row(User, member)
            assert fetch_one(select(User.id)) is None
            raise ZeroDivisionError

    with nothing_changes(), app.app_context(), pytest.raises(ZeroDivisionError):
        remove_and_fail()
