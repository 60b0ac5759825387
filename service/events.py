"""Events: what happened, for those whose account it concerns and for those who must find out."""

from typing import Any, NamedTuple

from models import Event
from models.rows import insert_row
from models.statements import Record
from service.identity import Identity, current_client

# What happens, by the noun it happens to; `subject_id` is the id of that.
TYPES = {
    "user.created": "Somebody registered, or was added.",
    "user.updated": "Members of a user changed: `changed` names them.",
    "user.email_verified": "A user confirmed their address.",
    "user.email_changed": "A user confirmed another address, which is theirs from now on.",
    "user.password_changed": "A user has another password; their other sessions have ended.",
    "user.avatar_changed": "A user's picture was uploaded, is shown, cannot be used, or was removed: read the avatar.",
    "user.sessions_ended": "All sessions of a user were ended, or all but the one in which that was asked.",
    "user.deleted": "A user was deleted, and can be restored for thirty days.",
    "user.restored": "A deleted user was brought back.",
    "user.erased": "Everything personal of a deleted user was removed, for ever.",
    "session.created": "Somebody signed in.",
    "session.ended": "A session was ended, by its person or an admin.",
    "session.refresh_token_reused": "A refresh token was used again, after the time in which that is harmless.",
    "post.created": "A post was written.",
    "post.updated": "Members of a post changed: `changed` names them.",
    "post.deleted": "A post was deleted.",
    "service_account.created": "A service account was added.",
    "service_account.updated": "Members of a service account changed: `changed` names them.",
    "service_account.deleted": "A service account was removed, and its keys with it.",
    "api_key.created": "A key was made for a service account.",
    "api_key.revoked": "A key of a service account was ended.",
    "webhook.created": "A webhook was added.",
    "webhook.updated": "Members of a webhook changed: `changed` names them.",
    "webhook.secret_rotated": "A webhook has a new secret; the one before stays good for a while.",
    "webhook.disabled": "A webhook gets no more deliveries, because they kept failing or it said that it is gone.",
    "webhook.deleted": "A webhook was removed.",
    "webhook.ping": "Somebody tried a webhook; only that one is told.",
}


class Account(NamedTuple):
    """A user of whom no more is known than the number."""

    id: int


def record(
    type_: str, subject: Record | Account, *, user_id: int | None = None, actor: Identity | None = None, **data: Any
) -> Record:
    """Write in the running unit of work what happened to a row; `data` holds no secret, address of mail or name.

    It belongs to the account that the row is, or is of, unless `user_id` names another.
    """
    assert type_ in TYPES, type_
    owner_id = subject.id if type_.startswith("user.") else getattr(subject, "user_id", None)
    client = current_client()
    return insert_row(
        Event,
        type=type_,
        user_id=user_id or owner_id,
        subject_id=subject.id,
        version=getattr(subject, "version", None),
        actor_id=actor.user_id if actor else None,
        session_id=actor.session_id if actor else None,
        service_account_id=actor.service_account_id if actor else None,
        key_id=actor.key_id if actor else None,
        request_id=client.request_id,
        address=client.address,
        data=data,
    )
