"""Refusals: what each error of a database means, the same on both."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, event, func, literal_column, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from models import Post, User
from models.base import db, now
from models.rows import insert_row, update_row
from models.statements import execute, fetch_all, fetch_one, unit_of_work
from service import database_errors, errors
from service.errors import (
    AccountSuspended,
    EmailTaken,
    ExternalIdTaken,
    Invalid,
    NotFound,
    Refusal,
    ReusedToken,
    TooManyAttempts,
    Unavailable,
    VersionMismatch,
)
from tests.factories.user import UserFactory
from tests.refusals import refusal_of_kind

RENAME = update(User).values(name="Changed")
PID = select(func.pg_backend_pid().label("pid"))


def refusal_of(app: Flask, work: Callable[[], Any]) -> Refusal | None:
    """Run some work that fails in the database, and return what that means."""
    with app.app_context(), pytest.raises(SQLAlchemyError) as caught:
        in_one_unit_of_work(work)
    return database_errors.refusal_from(caught.value)


def in_one_unit_of_work(work: Callable[[], Any]) -> None:
    with unit_of_work():
        work()


def new_user(**columns: Any) -> Callable[[], Any]:
    person = {"email": "new@example.com", "email_key": "new@example.com", "name": "New", "name_key": "new"}
    return lambda: insert_row(User, **{**person, **columns})


@pytest.mark.parametrize(
    ("columns", "refusal", "pointer"),
    [
        ({"email_key": "ada@example.com"}, EmailTaken, "/json/email"),
        ({"external_id": "7"}, ExternalIdTaken, "/json/external_id"),
    ],
)
def test_what_must_be_unique_is_refused_by_name(app, nothing_changes, columns, refusal, pointer):
    UserFactory(email="ada@example.com", external_id="7")

    with nothing_changes():
        found = refusal_of(app, new_user(**columns))

    assert type(found) is refusal
    assert [(fault.pointer, fault.code) for fault in found.faults] == [(pointer, "taken")]


def test_a_post_of_nobody_is_refused(app, nothing_changes):
    if app.config["DATABASE_URL"].startswith("sqlite"):
        return  # It names no foreign key; there the author is looked at while nobody else can write.

    with nothing_changes():
        found = refusal_of(app, lambda: insert_row(Post, user_id=1, title="A title", content=""))

    assert type(found) is NotFound


@pytest.mark.parametrize("end", [update(User).values(version=9), delete(User)], ids=["changed", "deleted"])
def test_a_row_that_changed_meanwhile_is_a_stale_version(app, member, end):
    def work() -> None:
        user = fetch_one(select(User))
        execute(end)
        update_row(User, user, name="Changed")

    assert type(refusal_of(app, work)) is VersionMismatch


def test_a_constraint_that_nobody_knows_is_a_fault_of_ours(app, nothing_changes):
    with nothing_changes():
        assert refusal_of(app, new_user(role="owner")) is None


def test_a_mistake_in_a_statement_is_a_fault_of_ours(app):
    if app.config["DATABASE_URL"].startswith("sqlite"):
        return  # It makes no difference between a mistake and a lock.

    assert refusal_of(app, lambda: fetch_all(select(literal_column("nothing")).select_from(User))) is None


def test_a_value_that_does_not_fit_is_invalid_where_the_database_looks(app, nothing_changes):
    if app.config["DATABASE_URL"].startswith("sqlite"):
        return  # It keeps texts of any length.

    with nothing_changes():
        assert type(refusal_of(app, new_user(name="x" * 81))) is Invalid


# Not just now


def test_a_writer_locked_out_is_told_to_come_back(narrow, outside, member, nothing_changes):
    is_sqlite = isinstance(outside, sqlite3.Connection)
    impatient = "PRAGMA busy_timeout = 0" if is_sqlite else "SET lock_timeout = 1"
    with narrow.app_context(), closing(db.engine.raw_connection()) as connection:
        connection.dbapi_connection.execute(impatient)  # It stays with the only connection.

    with nothing_changes():
        outside.execute("BEGIN EXCLUSIVE" if is_sqlite else "BEGIN")
        if not is_sqlite:
            outside.execute("LOCK TABLE users IN SHARE MODE")
        found = refusal_of(narrow, lambda: execute(RENAME))
        with narrow.app_context():
            assert fetch_all(select(User.name)) == [(member.name,)]
        outside.execute("ROLLBACK")

    assert type(found) is Unavailable


@pytest.mark.parametrize(
    "work", [lambda: fetch_all(select(User.id)), lambda: execute(RENAME)], ids=["reading", "changing"]
)
def test_a_pool_without_a_free_connection_is_not_waited_for_long(narrow, work):
    with narrow.app_context():
        pool = db.engine.pool
        assert isinstance(pool, QueuePool) and pool.timeout() == 1
        pool._timeout = 0
        taken = db.engine.raw_connection()

        found = refusal_of(narrow, work)
        taken.close()

    assert type(found) is Unavailable


def test_a_connection_that_breaks_in_the_middle_is_told_to_come_back(narrow, outside, member, nothing_changes):
    if isinstance(outside, sqlite3.Connection):
        return  # Its connections are files.

    def work() -> None:
        execute(RENAME)
        pid = fetch_one(PID).pid
        assert outside.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)
        fetch_one(select(1))

    with nothing_changes():
        assert type(refusal_of(narrow, work)) is Unavailable


def test_a_transaction_that_idled_too_long_is_told_to_come_back(narrow, outside, member, nothing_changes):
    if isinstance(outside, sqlite3.Connection):
        return

    def work() -> None:
        execute(RENAME)
        pid = fetch_one(PID).pid
        fetch_one(select(func.set_config("idle_in_transaction_session_timeout", "1", False)))
        while outside.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
            pass
        fetch_one(select(1))

    with nothing_changes():
        assert type(refusal_of(narrow, work)) is Unavailable


def test_a_database_that_can_only_be_read_is_not_available_for_writing(narrow, member, nothing_changes):
    def only_read(connection: Any, _record: Any) -> None:
        is_sqlite = isinstance(connection, sqlite3.Connection)
        connection.execute("PRAGMA query_only = ON" if is_sqlite else "SET default_transaction_read_only = on")

    with narrow.app_context():
        event.listen(db.engine, "connect", only_read)

    with nothing_changes():
        assert type(refusal_of(narrow, lambda: execute(update(User).values(updated_at=now())))) is Unavailable


# The catalogue


def kinds(kind: type[Refusal] = Refusal) -> Iterator[type[Refusal]]:
    for child in kind.__subclasses__():
        yield child
        yield from kinds(child)


def test_every_refusal_has_a_code_of_its_own_and_explains_itself():
    found = [kind for kind in kinds() if kind.__module__ == errors.__name__]

    assert len({kind.code for kind in found}) == len(found) > 10
    for kind in found:
        refusal = refusal_of_kind(kind)
        assert kind.__doc__ and kind.title and "code" in vars(kind)
        assert str(refusal) == kind.title and refusal.detail == f"{kind.title}."


def test_what_is_kept_of_a_refusal_is_the_end_of_a_stolen_session_and_that_a_password_was_right():
    assert {kind for kind in kinds() if kind.keeps_changes} == {ReusedToken, AccountSuspended}


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (timedelta(seconds=5), 5),
        (timedelta(seconds=4, microseconds=1), 5),
        (timedelta(microseconds=1), 1),
        (timedelta(0), 1),
        (timedelta(hours=1), 3600),
    ],
)
def test_a_wait_is_told_in_whole_seconds_that_are_enough(wait, seconds):
    assert TooManyAttempts(wait).retry_after == seconds
