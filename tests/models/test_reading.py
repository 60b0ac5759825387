"""Reads: the same rows inside a unit of work and outside, where they begin no transaction and keep no connection."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import Integer, Select, bindparam, func, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError, StatementError

from models import Post, Session, User
from models.base import db, unit_of_work
from models.reading import fetch_all, fetch_one
from tests.databases import application, new_database
from tests.factories.post import PostFactory
from tests.factories.session import SessionFactory
from tests.factories.user import UserFactory

INDIA = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2026, 3, 1, 4, 59, 59, 123456, INDIA)
ODD = "%s %(x)s :x ? \\ ' \" é\U0001f600"


@pytest.fixture
def narrow(app: Flask, settings_for) -> Iterator[Flask]:
    """Return an application on the same database that has a single connection."""
    with application(settings_for(app.config["DATABASE_URL"], THREADS="1"), migrated=False) as narrow:
        yield narrow


def columns_of(table: Any) -> list[Any]:
    return [attribute.class_attribute for attribute in table.__mapper__.column_attrs]


def in_both_ways(app: Flask, statement: Select[Any], **parameters: Any) -> list[list[tuple[Any, ...]]]:
    """Return the rows of a statement as read outside a unit of work, and inside one."""
    with app.app_context():
        outside = fetch_all(statement, **parameters)
        with unit_of_work():
            db.session.execute(select(1))
            inside = fetch_all(statement, **parameters)
    return [[tuple(row) for row in rows] for rows in (outside, inside)]


# What is read


@pytest.mark.parametrize("table", [User, Post, Session])
def test_every_column_is_read_alike_inside_and_outside(app, table):
    full = {"external_id": "7", "public_metadata": {"z": 1.0, "a": [True, None, "é"]}, "deleted_at": MOMENT}
    user = UserFactory(name=ODD, email_verified=True, suspended=True, **full)
    UserFactory(password_hash=None)
    PostFactory(author=None, user_id=user.id, title=ODD, content="")
    SessionFactory(user=None, user_id=user.id, ended_at=MOMENT)
    SessionFactory(user=None, user_id=user.id, expires_at=datetime.max.replace(tzinfo=UTC))

    outside, inside = in_both_ways(app, select(*columns_of(table)).order_by(table.id))

    assert repr(outside) == repr(inside) and outside
    with app.app_context():
        kept = db.session.scalars(select(table).order_by(table.id)).all()
        assert outside == [tuple(getattr(row, column.key) for column in columns_of(table)) for row in kept]
        db.session.rollback()


@pytest.mark.parametrize(
    ("condition", "parameters"),
    [
        (Session.expires_at == MOMENT, {}),
        (Session.expires_at == MOMENT.astimezone(UTC), {}),
        (Session.expires_at > MOMENT - timedelta(microseconds=1), {}),
        (Session.expires_at == bindparam("moment"), {"moment": MOMENT}),
        (Session.expires_at.between(bindparam("first"), bindparam("last")), {"first": MOMENT, "last": MOMENT}),
        (Session.ended_at.is_(None), {}),
        (User.is_active.is_(True), {}),
        (User.is_active == bindparam("flag"), {"flag": True}),
        (User.email_verified == False, {}),  # noqa: E712 (it is a column)
        (User.name == ODD, {}),
        (User.name == bindparam("name"), {"name": ODD}),
        (User.name.contains("%(x)s", autoescape=True), {}),
        (Session.id + bindparam("more", type_=Integer) > Session.id, {"more": 1}),
    ],
)
def test_a_condition_means_the_same_inside_and_outside(app, condition, parameters):
    user = UserFactory(name=ODD)
    session = SessionFactory(user=None, user_id=user.id, expires_at=MOMENT)
    statement = select(Session.id).join(User).where(condition)

    assert in_both_ways(app, statement, **parameters) == [[(session.id,)], [(session.id,)]]


def test_a_statement_may_be_run_with_other_parameters(app, member, other):
    statement = select(User.name, User.created_at).where(User.created_at == bindparam("moment"))

    with app.app_context():
        for user in (member, other, member):
            found = fetch_one(statement, moment=user.created_at)
            assert (found.name, found.created_at) == (user.name, user.created_at)


def test_a_parameter_that_was_forgotten_is_not_taken_for_null(app, member):
    statement = select(User.id).where(User.id == bindparam("user_id"))

    with app.app_context(), pytest.raises((StatementError, KeyError, TypeError)):
        fetch_all(statement)


def test_a_time_without_a_zone_is_refused(app):
    statement = select(Session.id).where(Session.expires_at > bindparam("moment"))

    with app.app_context(), pytest.raises((StatementError, ValueError), match="without a zone"):
        fetch_all(statement, moment=MOMENT.replace(tzinfo=None))


def test_no_row_is_none(app):
    with app.app_context():
        assert fetch_one(select(User.id)) is None
        assert fetch_all(select(User.id)) == []


def test_a_count_has_the_name_it_was_given(app, member):
    with app.app_context():
        assert fetch_one(select(func.count().label("total")).select_from(User)).total == 1


# How it is read


def test_outside_a_unit_of_work_none_is_begun_and_no_connection_kept(narrow, member):
    with narrow.app_context():
        found = fetch_one(select(User.id))

        assert found.id == member.id
        assert not db.session().in_transaction()
        assert db.engine.pool.checkedout() == 0


def test_outside_a_unit_of_work_a_read_is_one_statement_without_a_transaction(narrow, queries):
    with narrow.app_context(), queries(narrow) as statements:
        fetch_all(select(User.id))
        connection = db.engine.raw_connection()
        driver = connection.dbapi_connection

        is_sqlite = db.engine.dialect.name == "sqlite"
        assert not (driver.in_transaction if is_sqlite else driver.info.transaction_status)
        assert driver.isolation_level is None if is_sqlite else driver.autocommit
        connection.close()

    assert len(statements) == 1 and statements[0].startswith("SELECT users.id")


def test_inside_a_unit_of_work_its_changes_are_seen_and_no_second_connection_is_taken(narrow, member):
    with narrow.app_context(), unit_of_work():
        db.session.get(User, member.id).name = "Not yet committed"

        assert fetch_one(select(User.name)).name == "Not yet committed"
        assert fetch_all(select(User.id))[0].id == member.id
        assert db.engine.pool.checkedout() == 1


def test_reading_before_the_first_change_leaves_the_connection_to_the_unit_of_work(narrow, member):
    with narrow.app_context(), unit_of_work():
        fetch_one(select(User.id))
        db.session.execute(update(User).values(name="Changed"))

    with narrow.app_context():
        assert fetch_one(select(User.name)).name == "Changed"


def test_reading_after_a_unit_of_work_is_outside_again(narrow, member):
    with narrow.app_context():
        with unit_of_work():
            db.session.get(User, member.id).name = "Changed"

        assert fetch_one(select(User.name)).name == "Changed"
        assert not db.session().in_transaction() and db.engine.pool.checkedout() == 0


# What goes wrong


def test_an_error_gives_the_connection_back(narrow):
    with narrow.app_context():
        for _ in range(3):
            with pytest.raises(DBAPIError):
                fetch_all(select(func.no_such_function(User.id)))
        assert db.engine.pool.checkedout() == 0

        assert fetch_all(select(User.id)) == []


@pytest.fixture
def postgresql(make_database, settings_for) -> Iterator[tuple[Flask, Any]]:
    """Return an application on a PostgreSQL database of its own, and a connection from outside."""
    url = new_database(make_database, "postgresql")
    with application(settings_for(url)) as app, psycopg.connect(url, autocommit=True) as outside:
        yield app, outside


def end_connection(outside: Any) -> int:
    """End the connection that the application has, from outside, and return its number."""
    pid = db.session.scalar(text("SELECT pg_backend_pid()"))
    db.session.rollback()
    assert outside.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)
    return pid


def test_a_connection_that_died_while_it_lay_idle_is_not_used(postgresql, monkeypatch):
    monkeypatch.setattr("models.base.IDLE_SECONDS", -1)  # So that every connection counts as long idle.
    app, outside = postgresql
    with app.app_context():
        died = end_connection(outside)

        assert fetch_all(select(User.id)) == []
        assert db.session.scalar(text("SELECT pg_backend_pid()")) != died
        db.session.rollback()


def test_a_connection_that_died_just_now_is_an_error_once(postgresql):
    app, outside = postgresql
    with app.app_context():
        end_connection(outside)

        with pytest.raises(OperationalError) as lost:
            fetch_all(select(User.id))

        assert lost.value.connection_invalidated
        assert fetch_all(select(User.id)) == []
        assert db.engine.pool.checkedout() == 0


def test_after_one_connection_died_the_others_are_not_tried(postgresql):
    app, outside = postgresql
    with app.app_context():
        several = [db.engine.raw_connection() for _ in range(3)]
        for connection in several:
            connection.close()
        outside.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        with pytest.raises(OperationalError):
            fetch_all(select(User.id))

        assert [fetch_all(select(User.id)) for _ in range(3)] == [[], [], []]
