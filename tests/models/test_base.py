"""The base: times, JSON, the unit of work, and what each database is told."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.exc import OperationalError, StatementError

from config.checks import refusals_of
from models import Post, Session, User
from models.base import db, serialise, unit_of_work
from models.reading import fetch_all, fetch_one
from tests.databases import application, new_database
from tests.factories.post import PostFactory
from tests.factories.session import SessionFactory
from tests.factories.user import UserFactory

INDIA = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2026, 3, 1, 4, 59, 59, 123456, INDIA)


class Refused(Exception):
    """An error that undoes what was done."""


class Counted(Exception):
    """An error that keeps what was done."""

    keeps_changes = True


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
        db.session.get(User, member.id).public_metadata = before
    with app.app_context(), unit_of_work():
        user = db.session.get(User, member.id)
        version = user.version
        user.public_metadata = after

    with app.app_context():
        found = db.session.get(User, member.id)
        assert (found.version != version) == differs
        assert repr(found.public_metadata) == repr(after)


# The unit of work


def test_a_unit_of_work_commits(app):
    with app.app_context(), unit_of_work():
        db.session.add(User(email="a@b.example", email_key="a@b.example", name="Ada", name_key="ada"))

    with app.app_context():
        assert fetch_one(select(func.count()).select_from(User))[0] == 1


def change_everything_and(end: Callable[[], object]) -> None:
    """Do some work of which nothing or all is to be seen, depending on how it ends."""
    with unit_of_work():
        user = db.session.scalar(select(User).limit(1))
        user.name = "Changed"
        db.session.add(Post(user_id=user.id, title="A title", content=""))
        db.session.flush()
        db.session.execute(update(User).values(is_active=False))
        end()


def end_with(error: type[BaseException]) -> Callable[[], object]:
    def end() -> None:
        raise error

    return end


@pytest.mark.parametrize("error", [Refused, KeyError, ZeroDivisionError, SystemExit])
def test_an_error_undoes_the_whole_unit_of_work(app, member, nothing_changes, error):
    with nothing_changes(), app.app_context(), pytest.raises(error):
        change_everything_and(end_with(error))


def test_a_commit_that_fails_undoes_the_whole_unit_of_work(app, member, nothing_changes):
    naive = Session(user_id=member.id, expires_at=MOMENT.replace(tzinfo=None))

    with nothing_changes(), app.app_context(), pytest.raises(StatementError, match="without a zone"):
        change_everything_and(lambda: db.session.add(naive))


def test_an_error_that_keeps_changes_commits_and_goes_on_up(app, member):
    with app.app_context(), pytest.raises(Counted):
        change_everything_and(end_with(Counted))

    with app.app_context():
        assert fetch_one(select(User.name, User.is_active)) == ("Changed", False)
        assert fetch_one(select(func.count()).select_from(Post)) == (1,)


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
        db.session.execute(text("DELETE FROM users WHERE id = :id"), {"id": member.id})

    with app.app_context():
        assert fetch_all(select(Post.id)) == [(kept_post.id,)]
        assert fetch_all(select(Session.id)) == [(kept_session.id,)]


@pytest.mark.parametrize("table", ["posts", "sessions"])
def test_nothing_can_belong_to_nobody(app, nothing_changes, table):
    values = {
        "posts": insert(Post).values(user_id=1, title="A title", content=""),
        "sessions": insert(Session).values(user_id=1, expires_at=MOMENT),
    }

    with nothing_changes(), pytest.raises(StatementError, match=r"(?i)foreign key"), app.app_context(), unit_of_work():
        db.session.execute(values[table])


# Several at once


def test_no_update_is_lost_among_threads(app, member):
    def add_one_often() -> None:
        for _ in range(10):
            with app.app_context(), unit_of_work():
                user = db.session.get(User, member.id, with_for_update=True)
                user.public_metadata = {"count": user.public_metadata.get("count", 0) + 1}

    threads = [threading.Thread(target=add_one_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with app.app_context():
        assert fetch_one(select(User.public_metadata))[0] == {"count": 40}


def test_one_unit_of_work_at_a_time_goes_past_serialise(app):
    inside, most = [], []

    def pass_by() -> None:
        for _ in range(5):
            with app.app_context(), unit_of_work():
                serialise("a purpose")
                db.session.execute(text("SELECT 1"))
                inside.append(1)
                most.append(len(inside))
                db.session.execute(text("SELECT 1"))
                inside.pop()

    threads = [threading.Thread(target=pass_by) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1] * 20


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
def test_sqlite_locks_out_other_writers_from_the_first_statement_and_no_readers(lite, used_by_reader):
    with sqlite3.connect(file_of(lite), timeout=0, isolation_level=None) as outside, lite.app_context():
        if used_by_reader:
            fetch_all(select(User.id))
        with unit_of_work():
            db.session.execute(select(User.id))

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
        event.listen(db.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))

        wait.start()
        with unit_of_work():
            db.session.execute(update(User).values(name="Changed"))
        wait.join()
    outside.close()

    assert statements[0] == "BEGIN IMMEDIATE"


def test_the_service_never_makes_a_missing_sqlite_file(tmp_path, settings_for):
    with application(settings_for(f"sqlite:///{tmp_path}/lost.db"), migrated=False) as app, app.app_context():
        for attempt in (lambda: fetch_all(select(User.id)), lambda: db.session.execute(update(User).values(name="x"))):
            with pytest.raises(OperationalError, match="unable to open"):
                attempt()

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
