"""Sessions: one for each sign-in; whose it is, on which device, and how it ends."""

import logging
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute
from ua_parser import parse

from models import Session, User
from models.base import now
from models.paging import Page, PageRequest, page_of
from models.rows import delete_some, insert_row
from models.statements import Record, execute, fetch_all, fetch_one, unit_of_work
from service import events
from service.errors import InvalidToken, NotFound
from service.identity import Identity, current_client
from service.permissions import ROLES, Permission, check
from service.throttle import network_of
from service.tokens import Claims

log = logging.getLogger("rollcall.sessions")


class Lifetime(NamedTuple):
    """How long a session lasts without being refreshed, and in all."""

    idle: timedelta
    absolute: timedelta


SHORT = Lifetime(idle=timedelta(days=1), absolute=timedelta(days=14))
REMEMBERED = Lifetime(idle=timedelta(days=90), absolute=timedelta(days=365))
MOST_SESSIONS = 50  # Of one user; who signs in once more ends the one used longest ago.
KEPT = timedelta(days=90)
USE_NOTED_EVERY = timedelta(minutes=1)
SORTS: dict[str, InstrumentedAttribute[Any]] = {"id": Session.id}

IS_LIVE = (
    Session.ended_at.is_(None),
    Session.expires_at > bindparam("now"),
    Session.idle_expires_at > bindparam("now"),
)
_HOLDER = (
    select(User.id, User.role, Session.last_used_at)
    .join(Session, Session.user_id == User.id)
    .where(
        Session.id == bindparam("session_id"),
        User.id == bindparam("user_id"),
        Session.ended_at.is_(None),
        Session.expires_at > bindparam("now"),
        User.is_active,
        User.deleted_at.is_(None),
    )
)
_NOTE_USE = (
    update(Session)
    .where(Session.id == bindparam("session_id"), Session.last_used_at < bindparam("noted_before"))
    .values(last_used_at=bindparam("now"))
)
_LIVE = select(Session).where(Session.user_id == bindparam("user_id"), *IS_LIVE)
_BEYOND_MOST = (
    _LIVE.with_only_columns(Session.id)
    .order_by(Session.last_used_at.desc(), Session.id.desc())
    .offset(bindparam("most", type_=Session.id.type))
)
_END = update(Session).where(Session.ended_at.is_(None)).values(ended_at=bindparam("now"))
_END_ONE = _END.where(Session.id == bindparam("session_id"))
_ENDED = (Session.id, Session.user_id)
_SIGN_OUT = _END_ONE.returning(*_ENDED)
_END_OWN = _END_ONE.where(Session.user_id == bindparam("user_id"), *IS_LIVE).returning(*_ENDED)
_END_ALL = _END.where(Session.user_id == bindparam("user_id"), Session.id != bindparam("kept_id"))
_FORGET_OLD = delete_some(Session, Session.expires_at < bindparam("before"))
_USER = select(User.id).where(User.id == bindparam("user_id"), User.deleted_at.is_(None))


def begin(user_id: int, *, amr: list[str], transport: str, remember: bool) -> Record:
    """Begin a session for somebody who has shown who they are; `amr` says how (RFC 8176)."""
    client, moment = current_client(), now()
    lifetime = REMEMBERED if remember else SHORT
    session = insert_row(
        Session,
        user_id=user_id,
        amr=amr,
        transport=transport,
        remember=remember,
        address=client.address,
        network=network_of(client.address) or None,
        user_agent=client.user_agent,
        created_at=moment,
        last_used_at=moment,
        idle_expires_at=moment + lifetime.idle,
        expires_at=moment + lifetime.absolute,
    )
    for row in fetch_all(_BEYOND_MOST, user_id=user_id, now=moment, most=MOST_SESSIONS):
        end(row.id)
    return session


def identify(claims: Claims) -> Identity:
    """Return who holds an access token of a session, as the database sees them now; raises InvalidToken."""
    moment = now()
    row = fetch_one(_HOLDER, session_id=claims.session_id, user_id=claims.user_id, now=moment)
    if row is None:
        raise InvalidToken
    if row.last_used_at < moment - USE_NOTED_EVERY:
        _note_use(claims.session_id)
    return Identity(user_id=row.id, permissions=ROLES[row.role], session_id=claims.session_id)


def page_of_user(user_id: int, page: PageRequest, *, actor: Identity) -> Page:
    """Return a page of a user's live sessions; raises NotFound, Forbidden."""
    _check(user_id, actor)
    return page_of(_LIVE, page, SORTS, user_id=user_id, now=now())


def end_one(user_id: int, session_id: int, *, actor: Identity) -> None:
    """End a session of a user; raises NotFound, Forbidden."""
    _check(user_id, actor)
    ended = fetch_one(_END_OWN, session_id=session_id, user_id=user_id, now=now())
    if ended is None:
        raise NotFound
    events.record("session.ended", ended, actor=actor)


def end_others(*, actor: Identity) -> None:
    """End every session of the caller but the present one."""
    assert actor.user_id is not None
    _end_all_of(actor.user_id, actor, but=actor.session_id)


def end_all_of(user_id: int, *, actor: Identity) -> None:
    """End every session of a user; raises NotFound, Forbidden."""
    _check(user_id, actor)
    _end_all_of(user_id, actor)


def sign_out(session_id: int, *, actor: Identity | None) -> None:
    """End a session at the wish of its person, if it has not ended."""
    if ended := fetch_one(_SIGN_OUT, session_id=session_id, now=now()):
        events.record("session.ended", ended, actor=actor)


def end(session_id: int) -> None:
    """End a session, in the running unit of work; why, the caller says in an event."""
    execute(_END_ONE, session_id=session_id, now=now())


def end_all(user_id: int, *, but: int | None = None) -> int:
    """End every session of a user, but for one if it is named, in the running unit of work; return how many.

    Why, the caller says in an event.
    """
    return execute(_END_ALL, user_id=user_id, kept_id=but or 0, now=now())


def forget_old() -> int:
    """Remove some of the sessions that ran out long ago, and return how many; a network is known for a while yet."""
    return execute(_FORGET_OLD, before=now() - KEPT)


@lru_cache(maxsize=1024)
def device_of(user_agent: str) -> str:
    """Return what a person would call the device, such as Firefox on Linux; or else the program's name."""
    found = parse(user_agent)
    browser = found.user_agent.family if found.user_agent else user_agent.partition("/")[0].strip()[:40]
    return f"{browser} on {found.os.family}" if found.os else browser or "Unknown device"


def _end_all_of(user_id: int, actor: Identity, *, but: int | None = None) -> None:
    if end_all(user_id, but=but):
        events.record("user.sessions_ended", events.Account(user_id), actor=actor)


def _check(user_id: int, actor: Identity) -> None:
    check(actor, Permission.USERS_WRITE, owner_id=user_id)
    if fetch_one(_USER, user_id=user_id) is None:
        raise NotFound


def _note_use(session_id: int) -> None:
    """Note that a session was used, at most once a minute; where that fails, the request goes on all the same."""
    moment = now()
    try:
        with unit_of_work():
            execute(_NOTE_USE, session_id=session_id, noted_before=moment - USE_NOTED_EVERY, now=moment)
    except SQLAlchemyError as error:
        log.warning("use of a session not noted", extra={"error": type(error).__name__})
