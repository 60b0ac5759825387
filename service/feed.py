"""The feed: every committed event in one order, in which nothing ever appears behind what somebody has read.

A number given when an event is written says little: of two at the same time, the later one may be committed first. So
events get their position when they have been committed, by whoever looks next, one after another.
"""

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from flask import current_app
from sqlalchemy import Integer, bindparam, delete, func, select, update

from models import Event, User
from models.base import now
from models.paging import Page, PageRequest, page_of
from models.rows import SOME
from models.statements import AnySelect, Record, execute, fetch_all, fetch_one, serialise, unit_of_work
from service.errors import NotFound
from service.identity import Identity
from service.permissions import Permission, check

LONGEST_WAIT = 20  # Seconds; less than a server that stops gives to its last answers.
LOOK_EVERY = 0.25  # Seconds.
SORTS = {"id": Event.position}

_UNPUBLISHED = select(Event.id).where(Event.position.is_(None)).limit(1)
_NEXT_ONES = (
    select(Event.id.label("event_id"), func.row_number().over(order_by=Event.id).label("number"))
    .where(Event.position.is_(None))
    .order_by(Event.id)
    .limit(SOME)
    .subquery()
)
_NEWEST = select(Event.position).where(Event.position.is_not(None)).order_by(Event.position.desc()).limit(1)
_LAST = select(func.coalesce(_NEWEST.scalar_subquery(), 0).label("position"))
_PUBLISH = (
    update(Event)
    .where(Event.id == _NEXT_ONES.c.event_id)
    .values(position=_LAST.scalar_subquery() + _NEXT_ONES.c.number)
    .returning(Event.id)
)
_COLUMNS = (
    *(Event.position.label("id"), Event.position, Event.type, Event.user_id, Event.subject_id, Event.version),
    *(
        Event.data,
        Event.actor_id,
        Event.session_id,
        Event.service_account_id,
        Event.key_id,
        Event.request_id,
        Event.address,
        Event.created_at,
    ),
)
_PUBLISHED = select(*_COLUMNS).where(Event.position.is_not(None))
_OF_USER = _PUBLISHED.where(Event.user_id == bindparam("user_id"))
_FILTERS = {
    "type": Event.type == bindparam("type"),
    "user_id": Event.user_id == bindparam("user_id"),
    "actor_id": Event.actor_id == bindparam("actor_id"),
    "created_after": Event.created_at > bindparam("created_after"),
    "created_before": Event.created_at < bindparam("created_before"),
}
_OLDEST = select(Event.id, Event.position, Event.created_at).where(Event.position.is_not(None)).order_by(Event.position)
_oldest = _OLDEST.limit(SOME).subquery()
# The newest event stays, however old: from its position the next one is counted.
_FORGET_OLD = delete(Event).where(
    Event.id.in_(
        select(_oldest.c.id).where(_oldest.c.created_at < bindparam("before"), _oldest.c.position < bindparam("last"))
    )
)
_USER = select(User.id).where(User.id == bindparam("user_id"), User.deleted_at.is_(None))


class Stretch(NamedTuple):
    """A part of the feed, and the position up to which there is nothing else of what was asked for."""

    items: Sequence[Record]
    next_after: int


def publish() -> int:
    """Give the events that were committed since the last time their positions, and return how many there were."""
    count, found = 0, SOME
    while found == SOME and fetch_one(_UNPUBLISHED) is not None:
        with unit_of_work():
            serialise("feed")
            found = len(fetch_all(_PUBLISH))
        count += found
    return count


def last_position() -> int:
    """Return the position of the newest event that has been published, or 0."""
    return int(fetch_all(_LAST)[0].position)


def read(*, after: int = 0, size: int, wait: float = 0, **filters: Any) -> Stretch:
    """Return the events that come after a position; if there are none, wait for some (seconds).

    Filters: `type`, `user_id`, `actor_id` (exactly), `created_after` and `created_before` (aware datetimes,
    exclusive). Only a quarter of a server's threads can be waiting; others get their answer at once.
    """
    found = _stretch(after, size, filters)
    places: threading.BoundedSemaphore = current_app.extensions["feed_places"]
    if found.items or not wait or not places.acquire(blocking=False):
        return found
    try:
        deadline = time.monotonic() + wait
        while not found.items and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
            found = _stretch(found.next_after, size, filters)
    finally:
        places.release()
    return found


def page_of_user(user_id: int, page: PageRequest, *, actor: Identity) -> Page:
    """Return a page of what happened to an account; raises NotFound, Forbidden."""
    check(actor, Permission.EVENTS_READ, owner_id=user_id)
    if fetch_one(_USER, user_id=user_id) is None:
        raise NotFound
    publish()
    return page_of(_OF_USER, page, SORTS, user_id=user_id)


def forget_old() -> int:
    """Remove some of the events that are older than the feed reaches back, and return how many."""
    before = now() - timedelta(days=current_app.config["EVENTS_KEPT_DAYS"])
    return execute(_FORGET_OLD, before=before, last=last_position())


def places(threads: int) -> threading.BoundedSemaphore:
    """Return the places for those who wait for events, of whom each holds a thread."""
    return threading.BoundedSemaphore(max(1, threads // 4))


def _stretch(after: int, size: int, filters: dict[str, Any]) -> Stretch:
    publish()
    last = last_position()
    wanted = {name: value for name, value in filters.items() if value is not None}
    statement = _between(frozenset(wanted))
    items = fetch_all(statement, after=after, last=last, size=size, **wanted) if after < last else []
    return Stretch(items, items[-1].id if len(items) == size else max(after, last))


@lru_cache(maxsize=64)
def _between(names: frozenset[str]) -> AnySelect:
    """Return the statement for what lies between two positions and meets the filters."""
    bounds = (Event.position > bindparam("after"), Event.position <= bindparam("last"))
    statement = select(*_COLUMNS).where(*bounds, *(_FILTERS[name] for name in sorted(names)))
    return (
        statement.order_by(Event.position)
        .limit(bindparam("size", type_=Integer))
        .execution_options(own_plan=bool(names))
    )
