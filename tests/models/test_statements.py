"""Statements and the unit of work: reads are the same inside and outside, and changes are made once or not at all."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import Integer, Select, bindparam, column, delete, event, func, insert, select, table, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models import Event, Job, OneTimeToken, Post, RefreshToken, Session, Throttle, User
from models.base import db
from models.rows import insert_row, update_row
from models.statements import after_commit, execute, fetch_all, fetch_one, serialise, unit_of_work
from tests.databases import application, new_database
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
ODD = "%s %(x)s :x ? \\ ' \" é\U0001f600"
LOCK = select(User.id).with_for_update()
LOCK_FOR_READING = select(User.id).with_for_update(read=True)
RENAME = update(User).values(name="Changed")
RENAME_ONE = RENAME.where(User.id == bindparam("user_id"))
NAMES = select(User.name).order_by(User.id)
PID = select(func.pg_backend_pid().label("pid"))


class Refused(Exception):
    """An error that undoes what was done."""


class Counted(Exception):
    """An error that keeps what was done."""

    keeps_changes = True


def columns_of(table: Any) -> list[Any]:
    return [attribute.class_attribute for attribute in table.__mapper__.column_attrs]


def in_both_ways(app: Flask, statement: Select[Any], **parameters: Any) -> list[list[tuple[Any, ...]]]:
    """Return the rows of a statement as read outside a transaction, and inside one."""
    with app.app_context():
        outside = fetch_all(statement, **parameters)
        with unit_of_work():
            execute(LOCK)
            inside = fetch_all(statement, **parameters)
    return [[tuple(row) for row in rows] for rows in (outside, inside)]


def in_a_thread(app: Flask, work: Callable[[], Any]) -> Any:
    """Do some work in another thread, and return what it returned or raised."""
    answers = []

    def run() -> None:
        with app.app_context():
            try:
                answers.append(work())
            except BaseException as error:
                answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return answers[0]


def all_at_once(*works: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def change_everything_and(end: Callable[[], object]) -> None:
    """Do some work of which nothing or all is to be seen, depending on how it ends."""
    with unit_of_work():
        user = fetch_one(select(User).limit(1))
        update_row(User, user, name="Changed")
        insert_row(Post, user_id=user.id, title="A title", content="")
        execute(update(User).values(is_active=False))
        end()


def end_with(error: type[BaseException]) -> Callable[[], object]:
    def end() -> None:
        raise error

    return end


def is_in_transaction(driver: Any) -> bool:
    return bool(driver.in_transaction if db.engine.dialect.name == "sqlite" else driver.info.transaction_status)


def drivers_of(app: Flask) -> list[Any]:
    """Return the driver's connections in the order in which they are taken from now on."""
    taken: list[Any] = []
    with app.app_context():
        event.listen(db.engine, "checkout", lambda connection, *_: taken.append(connection))
    return taken


# What is read


@pytest.mark.parametrize("table", [User, Post, Session, RefreshToken, OneTimeToken, Throttle, Job, Event])
def test_every_column_is_read_alike_inside_and_outside(app, table):
    full = {"external_id": "7", "public_metadata": {"z": 1.0, "a": [True, None, "é"]}, "deleted_at": MOMENT}
    user = UserFactory(name=ODD, email_verified=True, suspended=True, **full)
    UserFactory(password_hash=None)
    PostFactory(author=None, user_id=user.id, title=ODD, content="")
    session = SessionFactory(user=user, ended_at=MOMENT, remember=True, address="2001:db8::1", user_agent=ODD)
    SessionFactory(user=user, amr=[], expires_at=datetime.max.replace(tzinfo=UTC))
    RefreshTokenFactory(session=session)
    RefreshTokenFactory(session=session, used_at=MOMENT)
    OneTimeTokenFactory(user=user, email=ODD, details={"session_id": session.id, "é": [1.0]})
    OneTimeTokenFactory(user=None, user_id=None, purpose="register", email="", email_key="", token_hash=None)
    ThrottleFactory(refused_until=MOMENT)
    JobFactory(arguments={"token_id": 1}, last_error=ODD, failed=True)
    EventFactory(user=user, data={"fields": [ODD]})
    EventFactory(user=None, user_id=None, actor_id=None, request_id=None, address=None, data={})

    outside, inside = in_both_ways(app, select(*columns_of(table)).order_by(table.id))

    assert repr(outside) == repr(inside) and outside
    with app.app_context():
        kept = db.session.scalars(select(table).order_by(table.id)).all()
        assert outside == [tuple(getattr(row, column.key) for column in columns_of(table)) for row in kept]


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


@pytest.mark.parametrize("parameters", [{}, {"user": 1}, {"user_id": 1, "name": "Ada"}])
@pytest.mark.parametrize(
    "statement", [select(User.id).where(User.id == bindparam("user_id")), RENAME_ONE], ids=["reading", "changing"]
)
def test_a_parameter_that_was_forgotten_is_not_taken_for_null(app, member, nothing_changes, statement, parameters):
    with nothing_changes(), app.app_context(), pytest.raises(TypeError, match="user_id"), unit_of_work():
        execute(statement, **parameters)


def test_a_list_which_would_change_the_statement_is_refused(app):
    with app.app_context(), pytest.raises(TypeError, match="IN"):
        fetch_all(select(User.id).where(User.id.in_([1, 2])))


def test_a_time_without_a_zone_is_refused(app):
    statement = select(Session.id).where(Session.expires_at > bindparam("moment"))

    with app.app_context(), pytest.raises(ValueError, match="without a zone"):
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
    drivers = drivers_of(narrow)
    with narrow.app_context():
        found = fetch_one(select(User.id))

        assert found.id == member.id
        assert not is_in_transaction(drivers[0])
        assert db.engine.pool.checkedout() == 0


def test_outside_a_unit_of_work_a_read_is_one_statement_without_a_transaction(narrow, queries):
    with narrow.app_context(), queries(narrow, with_transactions=True) as statements:
        fetch_all(select(User.id))
        connection = db.engine.raw_connection()
        driver = connection.dbapi_connection

        assert not is_in_transaction(driver)
        assert driver.isolation_level is None if db.engine.dialect.name == "sqlite" else driver.autocommit
        connection.close()

    assert len(statements) == 1 and statements[0].startswith("SELECT users.id")


def test_a_read_has_all_its_rows_before_another_may_use_its_connection(narrow):
    UserFactory.create_batch(3)
    is_next = []

    def use(driver: Any, *_: Any) -> None:
        if not is_next:
            is_next.append(driver)
            driver.execute("DELETE FROM users")

    with narrow.app_context():
        event.listen(db.engine, "checkin", use)

        assert len(fetch_all(select(User.id))) == 3
        assert is_next and fetch_all(select(User.id)) == []


def test_inside_a_unit_of_work_its_changes_are_seen_and_no_second_connection_is_taken(narrow, member):
    with narrow.app_context(), unit_of_work():
        execute(update(User).values(name="Not yet committed"))

        assert fetch_one(select(User.name)).name == "Not yet committed"
        assert fetch_all(select(User.id))[0].id == member.id
        assert db.engine.pool.checkedout() == 1


def test_reading_before_the_first_change_leaves_the_connection_to_the_unit_of_work(narrow, member):
    with narrow.app_context(), unit_of_work():
        fetch_one(select(User.id))
        assert db.engine.pool.checkedout() == 0
        execute(RENAME)

    with narrow.app_context():
        assert fetch_one(select(User.name)).name == "Changed"


def test_reading_after_a_unit_of_work_is_outside_again(narrow, member):
    drivers = drivers_of(narrow)
    with narrow.app_context():
        with unit_of_work():
            execute(RENAME)

        assert fetch_one(select(User.name)).name == "Changed"
        assert not is_in_transaction(drivers[-1]) and db.engine.pool.checkedout() == 0


# The unit of work


def test_a_unit_of_work_commits(app):
    with app.app_context(), unit_of_work():
        insert_row(User, email="a@b.example", email_key="a@b.example", name="Ada", name_key="ada")

    with app.app_context():
        assert fetch_one(select(func.count()).select_from(User))[0] == 1


def test_how_many_rows_were_changed_is_told(app, member, other):
    with app.app_context(), unit_of_work():
        assert execute(RENAME_ONE, user_id=member.id) == 1
        assert execute(RENAME) == 2
        assert execute(RENAME_ONE, user_id=0) == 0


def test_a_transaction_begins_with_the_first_change_and_ends_once(narrow, member, queries):
    with narrow.app_context(), queries(narrow, with_transactions=True) as statements, unit_of_work():
        fetch_all(NAMES)
        execute(RENAME)
        fetch_all(NAMES)
        execute(RENAME)

    words = ["SELECT", "BEGIN", "UPDATE", "SELECT", "UPDATE", "COMMIT"]
    assert [str(statement).split()[0] for statement in statements] == words


@pytest.mark.parametrize("statement", [LOCK, LOCK_FOR_READING], ids=["update", "share"])
@pytest.mark.parametrize("run", [fetch_all, fetch_one, execute])
def test_locking_a_row_begins_the_transaction_and_holds_it_to_the_end(narrow, outside, member, statement, run):
    drivers, is_sqlite = drivers_of(narrow), isinstance(outside, sqlite3.Connection)
    lock = "BEGIN IMMEDIATE" if is_sqlite else "SELECT id FROM users FOR UPDATE NOWAIT"
    with narrow.app_context():
        with unit_of_work():
            run(statement)

            assert is_in_transaction(drivers[-1]) and db.engine.pool.checkedout() == 1
            with pytest.raises((sqlite3.OperationalError, psycopg.OperationalError), match="lock"):
                outside.execute(lock)
        assert not is_in_transaction(drivers[-1]) and db.engine.pool.checkedout() == 0
    outside.execute(lock)


@pytest.mark.parametrize("work", [lambda: None, lambda: fetch_all(NAMES)], ids=["nothing", "a read"])
@pytest.mark.parametrize("end", [lambda: None, end_with(Refused), end_with(Counted)], ids=["well", "undone", "kept"])
def test_a_unit_of_work_that_changes_nothing_has_no_transaction(narrow, member, queries, work, end):
    statements_sent = queries(narrow, with_transactions=True)
    with statements_sent as statements, narrow.app_context(), suppress(Refused, Counted), unit_of_work():
        work()
        assert db.engine.pool.checkedout() == 0
        end()

    assert [statement for statement in statements if not statement.startswith("SELECT users.name")] == []


CHANGES = {
    "update": lambda: execute(RENAME),
    "delete": lambda: execute(delete(User)),
    "insert": lambda: execute(insert(Post).values(user_id=1, title="A title", content="", version=1)),
    "returning": lambda: fetch_one(RENAME.returning(User.id)),
    "a new row": lambda: insert_row(Session, user_id=1, idle_expires_at=MOMENT, expires_at=MOMENT),
    "a changed row": lambda: update_row(User, fetch_one(select(User)), name="Changed"),
    "for update": lambda: fetch_one(LOCK),
    "for share": lambda: fetch_all(LOCK_FOR_READING),
    "a lock": lambda: serialise("a purpose"),
    "what follows": lambda: after_commit(lambda: None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("after_one", [False, True])
def test_a_change_outside_a_unit_of_work_is_refused_and_nothing_changes(
    narrow, member, nothing_changes, queries, change, after_one
):
    with narrow.app_context():
        if after_one:
            with unit_of_work():
                execute(LOCK)

        refused = pytest.raises(RuntimeError, match="unit of work")
        with nothing_changes(), queries(narrow, with_transactions=True) as statements, refused:
            change()

        assert all(statement.startswith("SELECT users") for statement in statements)
        assert db.engine.pool.checkedout() == 0


ENDS = [Refused, KeyError, ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit]


@pytest.mark.parametrize("error", ENDS)
def test_an_error_undoes_the_whole_unit_of_work(app, member, nothing_changes, error):
    with nothing_changes(), app.app_context(), pytest.raises(error):
        change_everything_and(end_with(error))


def test_a_last_statement_that_fails_undoes_the_whole_unit_of_work(app, member, nothing_changes):
    def naive() -> None:
        insert_row(Session, user_id=member.id, idle_expires_at=MOMENT, expires_at=MOMENT.replace(tzinfo=None))

    with nothing_changes(), app.app_context(), pytest.raises(ValueError, match="without a zone"):
        change_everything_and(naive)


def test_an_error_that_keeps_changes_commits_and_goes_on_up(app, member):
    with app.app_context(), pytest.raises(Counted):
        change_everything_and(end_with(Counted))

    with app.app_context():
        assert fetch_one(select(User.name, User.is_active)) == ("Changed", False)
        assert fetch_one(select(func.count()).select_from(Post)) == (1,)


@pytest.mark.parametrize("error", [*ENDS, Counted])
def test_however_it_ends_the_connection_goes_back_and_holds_no_transaction(narrow, member, error):
    drivers = drivers_of(narrow)
    with narrow.app_context():
        for _ in range(2):
            with pytest.raises(error):
                change_everything_and(end_with(error))

            assert db.engine.pool.checkedout() == 0 and not is_in_transaction(drivers[-1])
            with pytest.raises(RuntimeError):
                execute(RENAME)


def test_a_connection_that_is_to_be_had_for_nobody_leaves_the_pool_as_it_was(narrow, member, nothing_changes):
    with narrow.app_context():
        db.engine.pool._timeout = 0
        with nothing_changes(), closing(db.engine.raw_connection()):
            for work in (lambda: fetch_all(NAMES), lambda: change_everything_and(lambda: None)):
                with pytest.raises(PoolTimeout):
                    work()
            assert db.engine.pool.checkedout() == 1

        assert db.engine.pool.checkedout() == 0
        change_everything_and(lambda: None)


def test_a_transaction_that_cannot_begin_gives_the_connection_back(narrow, outside, member):
    if not narrow.config["DATABASE_URL"].startswith("sqlite"):
        return  # There a transaction begins at once, and a statement waits.

    with narrow.app_context():
        with closing(db.engine.raw_connection()) as connection:
            connection.dbapi_connection.execute("PRAGMA busy_timeout = 0")
        outside.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(OperationalError, match="locked"):
                change_everything_and(lambda: None)
            assert db.engine.pool.checkedout() == 0
        outside.execute("ROLLBACK")

        change_everything_and(lambda: None)
        assert fetch_all(NAMES) == [("Changed",)]


def test_nothing_is_kept_of_what_follows_a_transaction_that_could_not_begin(narrow, outside, member, nothing_changes):
    if not narrow.config["DATABASE_URL"].startswith("sqlite"):
        return

    def go_on_without() -> None:
        with unit_of_work():
            outside.execute("BEGIN IMMEDIATE")
            with suppress(OperationalError):
                execute(RENAME)
            outside.execute("ROLLBACK")
            execute(RENAME)
            raise Refused

    with narrow.app_context():
        with closing(db.engine.raw_connection()) as connection:
            connection.dbapi_connection.execute("PRAGMA busy_timeout = 0")
        with nothing_changes(), pytest.raises((Refused, SQLAlchemyError)):
            go_on_without()


def test_a_unit_of_work_within_another_is_on_its_own(app, member, other):
    with app.app_context(), suppress(Refused), unit_of_work():
        assert fetch_all(NAMES) == [(member.name,), (other.name,)]
        with suppress(Refused), unit_of_work():
            execute(RENAME)
            raise Refused
        with unit_of_work():
            assert fetch_all(NAMES) == [(member.name,), (other.name,)]
            execute(RENAME_ONE, user_id=other.id)
        execute(RENAME_ONE, user_id=member.id)
        assert fetch_all(NAMES) == [("Changed",), ("Changed",)]
        raise Refused

    with app.app_context():
        assert fetch_all(NAMES) == [(member.name,), ("Changed",)]


def test_a_unit_of_work_within_another_that_has_begun_is_refused_and_undoes_it(app, member, nothing_changes):
    def begin_another() -> None:
        with unit_of_work():
            execute(RENAME)

    with nothing_changes(), app.app_context(), pytest.raises(RuntimeError, match="before the first change"):
        change_everything_and(begin_another)


def test_a_unit_of_work_that_was_refused_within_another_leaves_that_as_it_was(app, member):
    with app.app_context(), unit_of_work():
        execute(RENAME)
        with pytest.raises(RuntimeError), unit_of_work():
            pass
        assert fetch_all(NAMES) == [("Changed",)]

    with app.app_context():
        assert fetch_all(NAMES) == [("Changed",)]


# What follows a commit


def test_what_follows_a_commit_is_done_in_order_when_others_can_see_it(app, member):
    seen = []

    with app.app_context(), unit_of_work():
        after_commit(lambda: seen.append(in_a_thread(app, lambda: fetch_all(NAMES))))
        execute(RENAME)
        after_commit(lambda: seen.append(db.engine.pool.checkedout()))
        assert seen == []

    assert seen == [[("Changed",)], 0]


@pytest.mark.parametrize("error", ENDS)
def test_what_follows_a_commit_is_not_done_without_one(app, member, error):
    seen = []

    def end() -> None:
        after_commit(lambda: seen.append("done"))
        raise error

    with app.app_context(), pytest.raises(error):
        change_everything_and(end)

    assert seen == []


def test_what_follows_a_commit_is_done_where_an_error_keeps_the_changes(app, member):
    seen = []

    def end() -> None:
        after_commit(lambda: seen.append("done"))
        raise Counted

    with app.app_context(), pytest.raises(Counted):
        change_everything_and(end)

    assert seen == ["done"]


def test_what_follows_the_commit_of_a_unit_within_another_does_not_wait_for_that(app, member):
    seen = []

    with app.app_context(), suppress(Refused), unit_of_work():
        after_commit(lambda: seen.append("outer"))
        with unit_of_work():
            after_commit(lambda: seen.append("inner"))
        assert seen == ["inner"]
        raise Refused

    assert seen == ["inner"]


# Committing


@pytest.fixture
def late(database_kind, make_database, settings_for) -> Iterator[Flask]:
    """Return an application with a single connection, to a database that looks at notes not before the commit."""
    url = new_database(make_database, database_kind)
    notes = "CREATE TABLE notes (user_id BIGINT NOT NULL REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED)"
    with application(settings_for(url, THREADS="1")) as late, late.app_context():
        with db.engine.begin() as connection:
            connection.execute(text(notes))
        yield late


NOTE = insert(table("notes", column("user_id"))).values(user_id=bindparam("of"))


@pytest.mark.parametrize("error", [None, Counted])
def test_an_error_in_commit_undoes_the_whole_unit_of_work_and_the_connection_goes_back(late, error):
    drivers = drivers_of(late)
    with unit_of_work():
        member = insert_row(User, email="a@b.example", email_key="a@b.example", name="Ada", name_key="ada")

    def end() -> None:
        assert execute(NOTE, of=member.id + 1) == 1
        if error:
            raise error

    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
            change_everything_and(end)

        assert db.engine.pool.checkedout() == 0 and not is_in_transaction(drivers[-1])
        assert fetch_all(select(User.name, User.is_active, User.version)) == [("Ada", True, 1)]
        assert fetch_all(select(Post.id)) == []

    change_everything_and(lambda: execute(NOTE, of=member.id))
    assert fetch_all(NAMES) == [("Changed",)]


def test_a_unit_of_work_that_ends_well_was_committed_even_if_a_statement_had_failed(app, member):
    def go_on_after_an_error() -> bool:
        try:
            with unit_of_work():
                execute(RENAME)
                with suppress(IntegrityError):
                    execute(update(User).values(role="owner"))
        except SQLAlchemyError:
            return False
        return True

    with app.app_context():
        ended_well = go_on_after_an_error()

        assert fetch_all(NAMES) == [("Changed" if ended_well else member.name,)]


# Several at once


def test_a_thread_neither_sees_nor_joins_the_unit_of_work_of_another(app, member):
    with app.app_context(), unit_of_work():
        execute(RENAME)

        assert in_a_thread(app, lambda: fetch_all(NAMES)) == [(member.name,)]
        assert isinstance(in_a_thread(app, lambda: execute(RENAME)), RuntimeError)
        assert fetch_all(NAMES) == [("Changed",)]

    assert in_a_thread(app, lambda: fetch_all(NAMES)) == [("Changed",)]


def test_two_units_of_work_in_two_threads_end_each_in_its_own_way(app, member, other):
    start = threading.Barrier(2)

    def run(user: User, end: Callable[[], object]) -> Callable[[], None]:
        def work() -> None:
            with app.app_context(), suppress(Refused), unit_of_work():
                start.wait()
                execute(RENAME_ONE, user_id=user.id)
                end()

        return work

    for _ in range(10):
        all_at_once(run(member, lambda: None), run(other, end_with(Refused)))

        with app.app_context():
            assert fetch_all(NAMES) == [("Changed",), (other.name,)]
            with unit_of_work():
                execute(update(User).where(User.id == member.id).values(name=member.name))


def test_two_transactions_in_two_threads_are_open_side_by_side(app, member, other):
    if app.config["DATABASE_URL"].startswith("sqlite"):
        return  # Its writers queue.

    both = threading.Barrier(2, timeout=5)
    seen = []

    def work(user: User) -> None:
        with app.app_context(), unit_of_work():
            execute(RENAME_ONE, user_id=user.id)
            both.wait()
            seen.append(sorted(row.name for row in fetch_all(NAMES)))
            both.wait()

    all_at_once(lambda: work(member), lambda: work(other))

    assert sorted(seen) == sorted([["Changed", other.name], ["Changed", member.name]])


def test_no_update_is_lost_among_threads(app, member):
    locked = select(User).where(User.id == bindparam("user_id")).with_for_update()

    def add_one_often() -> None:
        for _ in range(10):
            with app.app_context(), unit_of_work():
                user = fetch_one(locked, user_id=member.id)
                update_row(User, user, public_metadata={"count": user.public_metadata.get("count", 0) + 1})

    all_at_once(*[add_one_often] * 4)

    with app.app_context():
        assert fetch_one(select(User.public_metadata))[0] == {"count": 40}


def test_one_unit_of_work_at_a_time_goes_past_serialise(app):
    inside, most = [], []

    def pass_by() -> None:
        for _ in range(5):
            with app.app_context(), unit_of_work():
                serialise("a purpose")
                fetch_one(select(1))
                inside.append(1)
                most.append(len(inside))
                fetch_one(select(1))
                inside.pop()

    all_at_once(*[pass_by] * 4)

    assert most == [1] * 20


# What goes wrong


def test_an_error_gives_the_connection_back(narrow):
    with narrow.app_context():
        for _ in range(3):
            with pytest.raises(DBAPIError):
                fetch_all(select(func.no_such_function(User.id)))
        assert db.engine.pool.checkedout() == 0

        assert fetch_all(select(User.id)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        select(func.no_such_function(User.id)),
        update(User).values(name=None).returning(User.id),
        update(User).values(role="owner").returning(User.id),
    ],
    ids=["not understood", "missing", "not allowed"],
)
def test_an_error_in_a_unit_of_work_undoes_it_and_gives_the_connection_back(narrow, member, nothing_changes, wrong):
    drivers = drivers_of(narrow)
    with nothing_changes(), narrow.app_context():
        for _ in range(3):
            with pytest.raises(DBAPIError):
                change_everything_and(lambda: fetch_all(wrong))

            assert db.engine.pool.checkedout() == 0 and not is_in_transaction(drivers[-1])


@pytest.mark.parametrize("goes_on", [lambda: execute(RENAME), lambda: fetch_all(NAMES), lambda: None])
def test_a_connection_that_was_lost_stays_lost_to_the_end_of_the_unit_of_work(narrow, member, nothing_changes, goes_on):
    drivers = drivers_of(narrow)

    def lose_it() -> None:
        drivers[-1].close()
        with suppress(DBAPIError):
            execute(RENAME)
        goes_on()

    with nothing_changes(), narrow.app_context(), pytest.raises(DBAPIError):
        change_everything_and(lose_it)


def test_an_error_at_a_later_row_is_an_error_of_the_database(narrow):
    if not narrow.config["DATABASE_URL"].startswith("sqlite"):
        return  # Its rows come all at once.

    UserFactory(name="{}")
    UserFactory(name="malformed")
    with narrow.app_context():
        with pytest.raises(DBAPIError, match="malformed JSON"):
            fetch_all(select(func.json(User.name)).order_by(User.id))
        assert db.engine.pool.checkedout() == 0


@pytest.mark.parametrize(
    "goes_on",
    [lambda: execute(RENAME), lambda: fetch_all(NAMES), lambda: fetch_one(LOCK), lambda: None],
    ids=["with a change", "with a read", "with a lock", "to the commit"],
)
def test_a_connection_lost_in_the_middle_of_a_unit_of_work_leaves_nothing_half_done(
    narrow, member, nothing_changes, goes_on
):
    drivers = drivers_of(narrow)

    def lose_it() -> None:
        drivers[-1].close()
        goes_on()

    with narrow.app_context():
        with nothing_changes(), pytest.raises(DBAPIError) as lost:
            change_everything_and(lose_it)

        assert lost.value.connection_invalidated and db.engine.pool.checkedout() == 0
        change_everything_and(lambda: None)
        assert fetch_all(NAMES) == [("Changed",)]


@pytest.fixture
def postgresql(make_database, settings_for) -> Iterator[tuple[Flask, Any]]:
    """Return an application on a PostgreSQL database of its own, and a connection from outside."""
    url = new_database(make_database, "postgresql")
    with application(settings_for(url)) as app, psycopg.connect(url, autocommit=True) as outside:
        yield app, outside


def end_connection(outside: Any) -> int:
    """End the connection that the application has, or its unit of work, from outside, and return its number."""
    pid = fetch_one(PID).pid
    assert outside.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)
    return pid


def test_a_connection_that_died_while_it_lay_idle_is_not_used(postgresql, monkeypatch):
    monkeypatch.setattr("models.base.IDLE_SECONDS", -1)  # So that every connection counts as long idle.
    app, outside = postgresql
    with app.app_context():
        died = end_connection(outside)

        assert fetch_all(select(User.id)) == []
        assert fetch_one(PID).pid != died


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


@pytest.mark.parametrize(
    "goes_on",
    [lambda: execute(RENAME), lambda: fetch_all(NAMES), lambda: fetch_one(LOCK), lambda: None, end_with(Counted)],
    ids=["with a change", "with a read", "with a lock", "to the commit", "to a commit in spite of an error"],
)
def test_a_connection_that_dies_in_the_middle_of_a_unit_of_work_leaves_nothing_half_done(postgresql, goes_on):
    app, outside = postgresql
    with app.app_context():
        with unit_of_work():
            insert_row(User, email="a@b.example", email_key="a@b.example", name="Ada", name_key="ada")

        def die() -> None:
            end_connection(outside)
            goes_on()

        with pytest.raises(DBAPIError) as lost:
            change_everything_and(die)

        assert lost.value.connection_invalidated and db.engine.pool.checkedout() == 0
        assert fetch_all(select(User.name, User.is_active, User.version)) == [("Ada", True, 1)]
        assert fetch_all(select(Post.id)) == []
        change_everything_and(lambda: None)
        assert fetch_all(NAMES) == [("Changed",)]
