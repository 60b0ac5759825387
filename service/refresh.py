"""Refreshing: each token is exchanged once for its successor, and nobody is signed out because an answer was lost.

A successor is made from its predecessor under the server's key, so that whoever shows the same token again within the
window is given the same successor again: by any process, also when the one that made it died before it could answer.
The database holds hashes only. Reuse after the window ends the whole family (RFC 9700 §4.14.2).
"""

import re
import secrets
from datetime import timedelta

from sqlalchemy import bindparam, delete, select

from models import RefreshToken, Session, User
from models.base import now
from models.rows import insert_row, update_row
from models.statements import Record, execute, fetch_one
from service import events, sessions
from service.errors import InvalidToken, ReusedToken
from service.grants import Grant, grant
from service.jobs.queue import enqueue
from service.keyed import fingerprint, in_letters, keyed_hash
from service.sessions import IS_LIVE, REMEMBERED, SHORT

GRACE = timedelta(seconds=60)  # As long as apps commonly wait for an answer before they ask again.
KEPT = timedelta(days=30)  # How long a used token is remembered, to know it again.
_FORM = re.compile(r"rr_[A-Za-z0-9_-]{43}")

_BY_HASH = select(RefreshToken).where(RefreshToken.token_hash == bindparam("token_hash"))
# First the session, whose row is the lock of the family; only then the token, as it is when the lock is held.
_FAMILY = select(Session).where(Session.id == bindparam("session_id"), *IS_LIVE).with_for_update()
_PERSON = select(User).where(User.id == bindparam("user_id"), User.is_active, User.deleted_at.is_(None))
_FORGET_OLD = delete(RefreshToken).where(
    RefreshToken.session_id == bindparam("session_id"), RefreshToken.used_at < bindparam("before")
)


def first(session_id: int) -> str:
    """Return the first token of a session's family."""
    token = _token(secrets.token_bytes(32))
    insert_row(RefreshToken, session_id=session_id, token_hash=fingerprint(token))
    return token


def session_of(token: str) -> int | None:
    """Return the session to which a token belongs, used or not."""
    row = fetch_one(_BY_HASH, token_hash=fingerprint(token))
    return row.session_id if row else None


def exchange(token: str) -> Grant:
    """Exchange a token for its successor and a new access token; raises InvalidToken, ReusedToken."""
    moment = now()
    found = fetch_one(_BY_HASH, token_hash=fingerprint(token)) if _FORM.fullmatch(token) else None
    session = fetch_one(_FAMILY, session_id=found.session_id, now=moment) if found else None
    row = fetch_one(_BY_HASH, token_hash=fingerprint(token)) if session else None
    user = fetch_one(_PERSON, user_id=session.user_id) if session else None
    if session is None or row is None or user is None:
        raise InvalidToken
    if row.used_at is None:
        return grant(_extended(session), user, _rotated(row, token))
    if row.used_at + GRACE > moment:
        return grant(session, user, _newest_after(row, token))
    sessions.end(session.id)
    events.record("session.refresh_token_reused", session)
    enqueue("notice", user_id=user.id, about="token_reused", to=user.email)
    raise ReusedToken


def _rotated(row: Record, token: str) -> str:
    """Exchange a token for its successor."""
    moment = now()
    successor = _successor(token)
    insert_row(RefreshToken, session_id=row.session_id, token_hash=fingerprint(successor))
    update_row(RefreshToken, row, used_at=moment)
    execute(_FORGET_OLD, session_id=row.session_id, before=moment - KEPT)
    return successor


def _newest_after(row: Record, token: str) -> str:
    """Return the successor of a token that was just used, or whichever the family has come to since."""
    while True:
        token = _successor(token)
        following = fetch_one(_BY_HASH, token_hash=fingerprint(token))
        if following is None:  # The server's key has changed since: a branch of its own is better than a sign-out.
            insert_row(RefreshToken, session_id=row.session_id, token_hash=fingerprint(token))
            return token
        if following.used_at is None:
            return token


def _extended(session: Record) -> Record:
    lifetime = REMEMBERED if session.remember else SHORT
    moment = now()
    return update_row(Session, session, last_used_at=moment, idle_expires_at=moment + lifetime.idle)


def _successor(token: str) -> str:
    return _token(keyed_hash("refresh", token.encode()))


def _token(secret: bytes) -> str:
    return "rr_" + in_letters(secret)
