"""The feed: an order in which nothing ever appears behind what was read, however many write and read at once."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from models import Event, User
from models.base import db, now
from models.rows import update_row
from models.statements import Work, fetch_all, unit_of_work
from service import events, feed, lifecycle, upkeep
from service.identity import Identity
from service.permissions import Permission
from tests.databases import application
from tests.factories.event import EventFactory
from tests.factories.user import UserFactory

EVERY = select(Event.id, Event.position, Event.type).order_by(Event.id)
WHENCE = select(Event.address, Event.request_id)
OPERATOR = Identity(user_id=None, permissions=frozenset(Permission))
WRITERS, ROUNDS = 8, 15


class TakenBack(Exception):
    """The end of a unit of work that is undone."""


@pytest.fixture
def crowded(app, settings_for):
    """Return an application on the same database that has a connection for each of many threads."""
    with application(settings_for(app.config["DATABASE_URL"], THREADS="16"), migrated=False) as crowded:
        yield crowded


@pytest.fixture
def context(app):
    with app.app_context():
        yield


def write(user, type_="user.updated", *, then=lambda: None):
    """Write an event in a unit of work, do something before its commit, and return the event's id."""
    with unit_of_work():
        made = events.record(type_, user)
        then()
    return made.id


def take_back():
    raise TakenBack


def positions(**wanted):
    """Return the position of each event, in the order in which they were written."""
    return {row.id: row.position for row in fetch_all(EVERY) if row.type == wanted.get("type", row.type)}


class Reader:
    """Who reads the feed bit by bit, going on where it is told to, or after the last event that it has seen."""

    def __init__(self, *, by_the_last=False, **filters):
        self.by_the_last, self.filters = by_the_last, filters
        self.after, self.seen = 0, []

    def read(self):
        """Read some, and tell whether there was anything."""
        found = feed.read(after=self.after, size=7, **self.filters)
        new = [row.id for row in found.items]
        assert found.next_after >= max([self.after, *new])
        self.seen += new
        self.after = found.next_after if not self.by_the_last else max([self.after, *new])
        return bool(new)


# In one order


def test_positions_are_given_without_a_gap_in_the_order_of_writing(context, member):
    written = [write(member) for _ in range(5)]

    assert feed.publish() == 5
    assert positions() == dict(zip(written, range(1, 6), strict=True))


def test_what_has_a_position_keeps_it(context, member):
    write(member)
    feed.publish()
    before = positions()
    write(member)

    assert [feed.publish(), feed.publish()] == [1, 0]
    assert positions() == before | {max(positions()): 2}


def test_what_was_undone_leaves_no_gap(context, member):
    write(member)
    with suppress(TakenBack):
        write(member, then=take_back)
    write(member)

    feed.publish()

    assert [*positions().values()] == [1, 2]


def test_what_could_not_be_published_is_published_later(context, member, monkeypatch):
    write(member)

    def fail(work):
        raise OperationalError("COMMIT", {}, Exception("the connection is lost"))

    with monkeypatch.context() as patch:
        patch.setattr(Work, "commit", fail)
        with pytest.raises(OperationalError):
            feed.publish()

    assert [*positions().values()] == [None]
    assert feed.publish() == 1 and [*positions().values()] == [1]


def test_a_thousand_are_published_at_a_time_and_a_reader_misses_none(context, app, member):
    with app.app_context():
        db.session.add_all(Event(type="user.updated", user_id=member.id) for _ in range(2100))
        db.session.commit()
    seen, ends = [], []

    while not ends or feed.read(after=ends[-1], size=1).items:
        stretch = feed.read(after=seen[-1] if seen else 0, size=500)
        seen.extend(row.id for row in stretch.items)
        ends.append(stretch.next_after)

    assert seen == [*range(1, 2101)]
    assert ends == [500, 1000, 1500, 2000, 2100]


def test_who_commits_later_stands_later_although_written_before(crowded, member):
    """A reader who went by the number that an event has from its writing would never see the first of these two."""
    if crowded.config["DATABASE_URL"].startswith("sqlite"):
        return  # Its writers queue.

    is_written, may_commit = threading.Event(), threading.Event()
    reader, by_id = Reader(), []

    def slow():
        with crowded.app_context():
            return write(member, then=lambda: (is_written.set(), may_commit.wait(10)))

    def read_by_id():
        after = by_id[-1] if by_id else 0
        by_id.extend(row.id for row in fetch_all(EVERY) if row.id > after)

    with ThreadPoolExecutor(1) as pool, crowded.app_context():
        writing = pool.submit(slow)
        assert is_written.wait(10)
        second = write(member)
        reader.read()
        read_by_id()
        may_commit.set()
        first = writing.result()
        reader.read()
        read_by_id()
        found = positions()

    assert first < second and found == {second: 1, first: 2}
    assert reader.seen == [1, 2]
    assert by_id == [second]


@pytest.mark.parametrize("filters", [{}, {"type": "user.updated"}], ids=["all", "of a type"])
def test_whoever_reads_while_many_write_sees_each_committed_event_once_and_in_order(crowded, filters):
    users = UserFactory.create_batch(WRITERS, password_hash=None)
    ended = threading.Event()

    def pause():
        time.sleep(random.uniform(0, 0.005))

    def hesitate():
        pause()
        if random.random() < 0.3:
            raise TakenBack

    def write_some(user):
        committed = []
        for type_ in ("user.updated", "user.sessions_ended") * ROUNDS:
            with crowded.app_context(), suppress(TakenBack):
                committed.append(write(user, type_, then=hesitate))
            pause()
        return committed

    def read_all(by_the_last):
        reader, is_over = Reader(by_the_last=by_the_last, **filters), False
        with crowded.app_context():
            while reader.read() or not is_over:
                is_over = ended.is_set()
                pause()
        return reader.seen

    with ThreadPoolExecutor(WRITERS + 2) as pool:
        readings = [pool.submit(read_all, by_the_last) for by_the_last in (False, True)]
        try:
            committed = [number for numbers in pool.map(write_some, users) for number in numbers]
        finally:
            ended.set()
        seen = [reading.result() for reading in readings]

    with crowded.app_context():
        found = positions()
        wanted = sorted(positions(**filters).values())
    assert {*found} == {*committed} and len(committed) > ROUNDS
    assert sorted(found.values()) == [*range(1, len(committed) + 1)]
    assert seen == [wanted] * 2


def test_an_accounts_events_keep_the_order_of_its_versions(crowded, member):
    def rename(number):
        with crowded.app_context(), unit_of_work():
            locked = fetch_all(select(User).where(User.id == member.id).with_for_update())[0]
            changed = update_row(User, locked, name=f"Name {number}")
            events.record("user.updated", changed)

    with ThreadPoolExecutor(8) as pool:
        [*pool.map(rename, range(40))]

    with crowded.app_context():
        versions = [row.version for row in feed.read(size=100).items]
    assert versions == [*range(2, 42)]


def test_many_who_publish_at_once_give_each_position_once(crowded, member):
    EventFactory.create_batch(60, user=member)
    start = threading.Barrier(8)

    def publish(_):
        start.wait()
        with crowded.app_context():
            return feed.publish()

    with ThreadPoolExecutor(8) as pool:
        counts = [*pool.map(publish, range(8))]

    with crowded.app_context():
        assert sorted(positions().values()) == [*range(1, 61)]
    assert sum(counts) == 60


# What is forgotten


def days_ago(days):
    return now() - timedelta(days=days)


def test_old_events_are_removed_and_the_rest_keep_their_places(app, context, member):
    app.config["EVENTS_KEPT_DAYS"] = 30
    for days in (40, 31, 29, 1):
        EventFactory(user=member, created_at=days_ago(days))
    feed.publish()

    assert upkeep.run()["events"] == 2

    assert [row.id for row in feed.read(size=10).items] == [3, 4]
    assert [row.id for row in feed.read(after=1, size=10).items] == [3, 4]


def test_the_next_position_is_never_one_that_there_was(app, context, member):
    app.config["EVENTS_KEPT_DAYS"] = 30
    EventFactory.create_batch(3, user=member, created_at=days_ago(31))
    feed.publish()

    assert upkeep.run()["events"] == 2
    write(member)

    assert [row.id for row in feed.read(size=10).items] == [3, 4]
    assert upkeep.run()["events"] == 1


def test_what_nobody_has_published_yet_is_not_removed(app, context, member):
    app.config["EVENTS_KEPT_DAYS"] = 30
    EventFactory.create_batch(2, user=member, created_at=days_ago(31))

    assert upkeep.run()["events"] == 0
    assert [row.id for row in feed.read(size=10).items] == [1, 2]


@contextmanager
def before_each_statement(function):
    """Call a function with each statement before it is sent to PostgreSQL."""

    class Cursor(psycopg.Cursor):
        def execute(self, query, *args, **kwargs):
            function(str(query))
            return super().execute(query, *args, **kwargs)

    def watch(connection, *_):
        connection.cursor_factory = Cursor

    def leave(connection, *_):
        connection.cursor_factory = psycopg.Cursor

    event.listen(db.engine, "checkout", watch)
    event.listen(db.engine, "checkin", leave)
    try:
        yield
    finally:
        event.remove(db.engine, "checkout", watch)
        event.remove(db.engine, "checkin", leave)


def test_what_is_published_while_a_person_is_erased_is_forgotten_as_well(context, outside, member):
    if not isinstance(outside, psycopg.Connection):
        return  # SQLite's writers queue.

    gone = UserFactory(deleted=True)
    made = EventFactory(user=gone)
    outside.execute("SET lock_timeout = '100ms'")
    forgetting = []

    def publish_after_the_first(statement):
        if statement.startswith("UPDATE events"):
            forgetting.append(statement)
            if len(forgetting) == 2:
                # Who has to wait for the one who erases comes too late for this to matter.
                with suppress(psycopg.errors.LockNotAvailable):
                    outside.execute("UPDATE events SET position = 1 WHERE id = %s", [made.id])

    with before_each_statement(publish_after_the_first), unit_of_work():
        lifecycle.erase(gone.id, actor=OPERATOR)

    assert forgetting
    assert [*fetch_all(WHENCE)] == [(None, None), (None, None)]
