"""Sessions: signing in, who a session belongs to, and ending it."""

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import bindparam, select, update

from models import Session, User
from models.base import now
from models.rows import insert_row
from models.statements import Record, execute, fetch_one
from service import normal, passwords, tokens
from service.errors import AccountSuspended, Invalid, InvalidCredentials, InvalidToken
from service.identity import Identity
from service.permissions import ROLES

LIFETIME = timedelta(days=90)
_CREDENTIALS = select(User.id, User.password_hash).where(
    User.email_key == bindparam("email_key"), User.deleted_at.is_(None)
)
_SIGNING_IN = select(User).where(User.id == bindparam("user_id"), User.deleted_at.is_(None)).with_for_update()
_REHASH = update(User).where(User.id == bindparam("user_id")).values(password_hash=bindparam("new_hash"))
_END = update(Session).where(Session.ended_at.is_(None)).values(ended_at=bindparam("now"))
_END_ONE = _END.where(Session.id == bindparam("session_id"))
_END_ALL = _END.where(Session.user_id == bindparam("user_id"))
_HOLDER = (
    select(User.id, User.role)
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


class Grant(NamedTuple):
    """What a sign-in gives: a token, its lifetime in seconds, and the user."""

    access_token: str
    token_type: str
    expires_in: int
    user: Record


def sign_in(*, email: str, password: str) -> Grant:
    """Begin a session for an address and its password; raises InvalidCredentials, AccountSuspended or Busy.

    The password is checked before any transaction begins, so that nobody waits for the 20 ms it takes.
    """
    found = _credentials(email)
    if not passwords.matches(password, found.password_hash if found else None) or found is None:
        raise InvalidCredentials
    new_hash = passwords.hash_of(password) if passwords.is_outdated(found.password_hash) else None

    user = fetch_one(_SIGNING_IN, user_id=found.id)
    if user is None or user.password_hash != found.password_hash:
        raise InvalidCredentials  # It changed while the password was being checked.
    if not user.is_active:
        raise AccountSuspended
    if new_hash:
        execute(_REHASH, user_id=user.id, new_hash=new_hash)
    session = insert_row(Session, user_id=user.id, expires_at=now() + LIFETIME)
    token = tokens.issue(user_id=user.id, session_id=session.id)
    return Grant(token, "Bearer", int(tokens.LIFETIME.total_seconds()), user)


def _credentials(email: str) -> Record | None:
    try:
        email_key = normal.email_key(email)
    except Invalid:
        return None  # Nobody has an address that is none, and it must take as long to say so.
    return fetch_one(_CREDENTIALS, email_key=email_key)


def identify(access_token: str) -> Identity:
    """Return who holds an access token, as the database sees them now; raises InvalidToken."""
    claims = tokens.read(access_token)
    row = fetch_one(_HOLDER, session_id=claims.session_id, user_id=claims.user_id, now=now())
    if row is None:
        raise InvalidToken
    return Identity(user_id=row.id, permissions=ROLES[row.role], session_id=claims.session_id)


def sign_out(*, actor: Identity) -> None:
    """End the caller's session."""
    execute(_END_ONE, session_id=actor.session_id, now=now())


def end_all(user_id: int) -> None:
    """End every session of a user, in the running unit of work."""
    execute(_END_ALL, user_id=user_id, now=now())
