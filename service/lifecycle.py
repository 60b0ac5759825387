"""The end of an account, and what can follow: restoring it, erasing it, and giving out all that is held."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, delete, or_, select, update

from models import Avatar, DeprecatedCall, Event, IdempotencyKey, Job, OneTimeToken, Post, Session, User
from models.base import now
from models.rows import update_row
from models.statements import AnySelect, Record, execute, fetch_all, fetch_one
from service import avatars, events, feed
from service.errors import NotDeleted, NotFound
from service.identity import Identity
from service.permissions import Permission, check, check_grant

RESTORABLE_FOR = timedelta(days=30)
NOTHING: dict[str, Any] = {
    "email": "",
    "email_verified": False,
    "name": "",
    "name_key": "",
    "external_id": None,
    "password_hash": None,
    "public_metadata": {},
    "private_metadata": {},
}

_LOCKED = select(User).where(User.id == bindparam("user_id"), User.erased_at.is_(None)).with_for_update()
_EXPIRED = (
    select(User)
    .where(User.erased_at.is_(None), User.deleted_at < bindparam("before"))
    .order_by(User.id)
    .limit(100)
    .with_for_update(skip_locked=True)
)
_DELETE_OWN = [
    delete(table).where(table.user_id == bindparam("user_id"))
    for table in (Post, Session, OneTimeToken, Job, IdempotencyKey, DeprecatedCall)
]
# By the address only what nobody had who may have it by now.
_DELETE_STRAY = [
    delete(table).where(
        table.email_key == bindparam("email_key"),
        table.user_id.is_(None),
        table.created_at <= bindparam("deleted_at"),
    )
    for table in (OneTimeToken, Job)
]
_OWN_EVENT = or_(Event.user_id == bindparam("user_id"), Event.actor_id == bindparam("user_id"))
# Two, because each has indexes of its own; in this order, because what is not published may be in between.
_FORGET_ADDRESSES = [
    update(Event).where(_OWN_EVENT, is_published).values(address=None, request_id=None)
    for is_published in (Event.position.is_(None), Event.position.is_not(None))
]
_ACCOUNT = select(
    *(User.id, User.email, User.name, User.role, User.is_active, User.email_verified, User.external_id),
    *(User.public_metadata, User.version, User.created_at, User.updated_at, User.private_metadata),
).where(User.id == bindparam("user_id"), User.deleted_at.is_(None))
_HELD: dict[str, AnySelect] = {
    "posts": select(Post.id, Post.title, Post.content, Post.version, Post.created_at, Post.updated_at)
    .where(Post.user_id == bindparam("user_id"))
    .order_by(Post.id),
    "sessions": select(
        *(Session.id, Session.amr, Session.transport, Session.remember, Session.address, Session.user_agent),
        *(Session.created_at, Session.last_used_at, Session.expires_at, Session.ended_at),
    )
    .where(Session.user_id == bindparam("user_id"))
    .order_by(Session.id),
    "avatars": select(*(a.class_attribute for a in Avatar.__mapper__.column_attrs)).where(
        Avatar.user_id == bindparam("user_id")
    ),
    "letters": select(OneTimeToken.purpose, OneTimeToken.email, OneTimeToken.created_at, OneTimeToken.expires_at)
    .where(OneTimeToken.user_id == bindparam("user_id"))
    .order_by(OneTimeToken.id),
    "events": select(Event.type, Event.address, Event.data, Event.created_at)
    .where(Event.user_id == bindparam("user_id"), Event.position.is_not(None))
    .order_by(Event.position),
}


def restore(user_id: int, *, actor: Identity) -> Record:
    """Bring a deleted user back, within the time that there is for it.

    Raises NotFound, Forbidden, NotDeleted, and EmailTaken or ExternalIdTaken where another has them by now.
    """
    user = _deleted(user_id, actor)
    if user.deleted_at + RESTORABLE_FOR < now():
        raise NotFound
    restored = update_row(User, user, deleted_at=None)
    events.record("user.restored", restored, actor=actor)
    return restored


def erase(user_id: int, *, actor: Identity) -> None:
    """Remove everything personal of a deleted user, for ever; an empty row remains, so that the id is not given again.

    Raises NotFound, Forbidden, NotDeleted.
    """
    _erase(_deleted(user_id, actor), actor)


def erase_expired() -> int:
    """Erase some of those whose time for restoring is over, and return how many; where there are many, ask again."""
    users = fetch_all(_EXPIRED, before=now() - RESTORABLE_FOR)
    for user in users:
        _erase(user, None)
    return len(users)


def export(*, actor: Identity) -> dict[str, Any]:
    """Return everything that is held about the caller (GDPR article 15) but for secrets; raises NotFound."""
    feed.publish()
    accounts = fetch_all(_ACCOUNT, user_id=actor.user_id)
    if not accounts:
        raise NotFound
    held = {name: _as_dicts(fetch_all(statement, user_id=actor.user_id)) for name, statement in _HELD.items()}
    (user,) = _as_dicts(accounts)
    return {"exported_at": now(), "user": {**user, "metadata": user.pop("public_metadata")}, **held}


def _deleted(user_id: int, actor: Identity) -> Record:
    check(actor, Permission.USERS_WRITE, owner_id=0)
    user = fetch_one(_LOCKED, user_id=user_id)
    if user is None:
        raise NotFound
    check_grant(actor, user.role)
    if user.deleted_at is None:
        raise NotDeleted
    return user


def _erase(user: Record, actor: Identity | None) -> None:
    for own in _DELETE_OWN:
        execute(own, user_id=user.id)
    avatars.erase(user.id)
    for stray in _DELETE_STRAY:
        execute(stray, email_key=user.email_key, deleted_at=user.deleted_at)
    for forget in _FORGET_ADDRESSES:
        execute(forget, user_id=user.id)
    key = f"erased {user.id}"
    erased = update_row(User, user, email_key=key, erased_at=now(), **NOTHING)
    events.record("user.erased", erased, actor=actor)


def _as_dicts(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [row._asdict() for row in rows]
