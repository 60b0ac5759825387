"""The base: times, JSON, foreign keys, and what each database is told."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import bindparam, delete, event, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError

from config.checks import refusals_of
from models import OneTimeToken, Post, RefreshToken, Session, User
from models.base import db
from models.rows import insert_row, update_row
from models.statements import execute, fetch_all, fetch_one, unit_of_work
from tests.databases import application, new_database
from tests.factories.post import PostFactory
from tests.factories.session import SessionFactory
from tests.factories.user import UserFactory

INDIA = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2026, 3, 1, 4, 59, 59, 123456, INDIA)
RENAME = update(User).values(name="Changed")


# Times


def test_a_time_comes_back_as_the_same_instant_in_utc(app):
    session = SessionFactory(expires_at=MOMENT)

    assert session.expires_at == MOMENT
    assert session.expires_at.tzinfo is UTC
    with app.app_context():
        assert fetch_one(select(Session.expires_at)).expires_at == MOMENT


def test_a_time_without_a_zone_is_refused(app, nothing_changes):
    with nothing_changes(), pytest.raises(StatementError, match="without a zone"):
        SessionFactory(user=None, user_id=1, expires_at=MOMENT.replace(tzinfo=None))


def test_no_time_stays_no_time(app):
    assert SessionFactory(ended_at=None).ended_at is None


# JSON


def test_json_keeps_its_numbers_types_and_order(app):
    content = {"z": 1.0, "a": [1, True, None, "é\U0001f600"], "m": {"big": 2**53 - 1, "small": 5e-324}, "": {}}

    kept = UserFactory(public_metadata=content).public_metadata

    assert repr(kept) == repr(content)


@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        ({"a": 1}, {"a": True}, True),
        ({"a": 0}, {"a": False}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": "1"}, True),
        ({"a": None}, {}, True),
        ({"a": 1}, {"a": 1}, False),
        ({"a": [{"b": True}]}, {"a": [{"b": True}]}, False),
    ],
)
def test_json_objects_are_equal_when_their_json_is(member, app, before, after, differs):
    with app.app_context(), unit_of_work():
        user = update_row(User, member, public_metadata=before)
    with app.app_context(), unit_of_work():
        update_row(User, user, public_metadata=after)

    with app.app_context():
        found = fetch_one(select(User.version, User.public_metadata))
        assert (found.version != user.version) == differs
        assert repr(found.public_metadata) == repr(after)


# Processes


def test_a_child_process_begins_without_its_parents_connections(app):
    with app.app_context():
        fetch_all(select(User.id))
        pool = db.engine.pool
        assert pool.checkedin() > 0

        child = os.fork()
        if not child:
            os._exit(db.engine.pool.checkedin())

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert db.engine.pool is pool and fetch_all(select(User.id)) == []


# Foreign keys


def test_posts_and_sessions_go_with_their_user(app, member, other):
    PostFactory(author=None, user_id=member.id)
    SessionFactory(user=None, user_id=member.id)
    kept_post, kept_session = PostFactory(author=None, user_id=other.id), SessionFactory(user=None, user_id=other.id)

    with app.app_context(), unit_of_work():
        execute(delete(User).where(User.id == bindparam("user_id")), user_id=member.id)

    with app.app_context():
        assert fetch_all(select(Post.id)) == [(kept_post.id,)]
        assert fetch_all(select(Session.id)) == [(kept_session.id,)]


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (Post, {"user_id": 1, "title": "A title", "content": ""}),
        (Session, {"user_id": 1, "idle_expires_at": MOMENT, "expires_at": MOMENT}),
        (RefreshToken, {"session_id": 1, "token_hash": "a hash"}),
        (OneTimeToken, {"user_id": 1, "purpose": "verify_email", "email": "", "email_key": "", "expires_at": MOMENT}),
    ],
)
def test_nothing_can_belong_to_nobody(app, nothing_changes, table, values):
    with nothing_changes(), pytest.raises(IntegrityError, match=r"(?i)foreign key"), app.app_context(), unit_of_work():
        insert_row(table, **values)


# SQLite


@pytest.fixture
def lite(make_database, settings_for) -> Iterator[Flask]:
    """Return an application on a SQLite database of its own."""
    with application(settings_for(new_database(make_database, "sqlite"))) as lite:
        yield lite


def file_of(app: Flask) -> Path:
    """Return the file of an application's SQLite database."""
    return Path(app.config["DATABASE_URL"].removeprefix("sqlite:///"))


@pytest.mark.parametrize("used_by_reader", [False, True])
@pytest.mark.parametrize(("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)])
def test_sqlite_is_told_to_lose_nothing(lite, pragma, value, used_by_reader):
    with lite.app_context():
        if used_by_reader:
            fetch_all(select(User.id))

        assert db.session.execute(text(f"PRAGMA {pragma}")).scalar() == value


@pytest.mark.parametrize("used_by_reader", [False, True])
@pytest.mark.parametrize("first", [select(User.id).with_for_update(), RENAME], ids=["locking", "changing"])
def test_sqlite_locks_out_other_writers_from_the_first_lock_or_change_and_no_readers(lite, first, used_by_reader):
    with sqlite3.connect(file_of(lite), timeout=0, isolation_level=None) as outside, lite.app_context():
        if used_by_reader:
            fetch_all(select(User.id))
        with unit_of_work():
            fetch_all(select(User.id))
            outside.execute("BEGIN IMMEDIATE")
            outside.execute("ROLLBACK")
            execute(first)

            with pytest.raises(sqlite3.OperationalError, match="locked"):
                outside.execute("BEGIN IMMEDIATE")
            assert outside.execute("SELECT count(*) FROM users").fetchone() == (0,)

        outside.execute("BEGIN IMMEDIATE")
        assert fetch_all(select(User.id)) == []
        outside.execute("ROLLBACK")
    outside.close()


def test_sqlite_waits_for_another_writer(lite):
    statements = []
    with sqlite3.connect(file_of(lite), isolation_level=None, check_same_thread=False) as outside, lite.app_context():
        outside.execute("BEGIN IMMEDIATE")
        wait = threading.Timer(0.2, outside.execute, ["COMMIT"])
        event.listen(db.engine, "checkout", lambda connection, *_: connection.set_trace_callback(statements.append))

        wait.start()
        with unit_of_work():
            execute(RENAME)
        wait.join()
    outside.close()

    assert (statements[0], statements[-1]) == ("BEGIN IMMEDIATE", "COMMIT")


def test_the_service_never_makes_a_missing_sqlite_file(tmp_path, settings_for):
    with application(settings_for(f"sqlite:///{tmp_path}/lost.db"), migrated=False) as app, app.app_context():
        for attempt in (select(User.id), RENAME):
            with pytest.raises(OperationalError, match="unable to open"), unit_of_work():
                execute(attempt)

    assert list(tmp_path.iterdir()) == []


def test_a_sqlite_file_that_was_lost_is_not_made_anew(lite):
    with lite.app_context():
        db.engine.dispose()
        for file in file_of(lite).parent.iterdir():
            file.unlink()

        with pytest.raises(OperationalError, match="unable to open"):
            fetch_all(select(User.id))

    assert list(file_of(lite).parent.iterdir()) == []


@pytest.mark.parametrize("folder", ["plain", "a space", "50%25", "number #1", "what?", "a&b=c", "é"])
def test_a_sqlite_file_lies_exactly_where_it_should_or_is_refused(tmp_path, settings_for, folder):
    path = tmp_path / folder / "rollcall.db"
    path.parent.mkdir()
    settings = settings_for(f"sqlite:///{path}")
    if any(line.startswith("DATABASE_URL") for line in refusals_of(settings)):
        return

    with application(settings) as app, app.app_context():
        assert fetch_all(select(User.id)) == []

    assert path.is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == [folder]


# PostgreSQL


def test_postgresql_waits_for_nothing_without_end(make_database, settings_for):
    settings = settings_for(new_database(make_database, "postgresql"))
    waits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "timezone")

    with application(settings, migrated=False) as app, app.app_context():
        told = [db.session.scalar(text(f"SHOW {name}")) for name in waits]
        db.session.rollback()

    assert told == ["1500ms", "1s", "5s", "UTC"]
