"""Who may do what: permissions, roles as named sets of them, and the one check."""

from enum import StrEnum

from service.errors import Forbidden, NotFound
from service.identity import Identity


class Permission(StrEnum):
    """What may be granted; a user's own account and posts need none."""

    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    USERS_PRIVATE = "users:private"
    POSTS_READ = "posts:read"
    POSTS_WRITE = "posts:write"
    EVENTS_READ = "events:read"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"


# What lets somebody see the things that a permission lets others change.
READING = {
    Permission.USERS_WRITE: Permission.USERS_READ,
    Permission.POSTS_WRITE: Permission.POSTS_READ,
    Permission.WEBHOOKS_WRITE: Permission.WEBHOOKS_READ,
    Permission.KEYS_WRITE: Permission.KEYS_READ,
}
ROLES: dict[str, frozenset[str]] = {
    "member": frozenset(),
    "support": frozenset({Permission.USERS_READ, Permission.POSTS_READ, Permission.EVENTS_READ}),
    "admin": frozenset(Permission),
}


def check(actor: Identity, permission: Permission, *, owner_id: int) -> None:
    """Let the owner or a holder of the permission pass.

    Others are refused: with Forbidden if they may at least read such things, else, since to them it does not exist,
    with NotFound.
    """
    if actor.user_id == owner_id or permission in actor.permissions:
        return
    raise Forbidden if READING.get(permission) in actor.permissions else NotFound


def check_grant(actor: Identity, role: str) -> None:
    """Refuse (Forbidden) to give a role that can do more than its giver."""
    if not ROLES[role] <= actor.permissions:
        raise Forbidden("A role with more permissions than your own cannot be given.")
