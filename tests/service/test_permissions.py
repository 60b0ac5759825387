"""Permissions: who may see, who may change, and who may give which role."""

import pytest

from service.errors import Forbidden, NotFound
from service.identity import ANONYMOUS, Identity
from service.permissions import READING, ROLES, Permission, check, check_grant

OWNER, STRANGER = 1, 2


def somebody(*permissions: str, user_id: int = STRANGER) -> Identity:
    return Identity(user_id=user_id, permissions=frozenset(permissions))


@pytest.mark.parametrize("permission", Permission)
def test_an_owner_needs_no_permission(permission):
    check(somebody(user_id=OWNER), permission, owner_id=OWNER)


@pytest.mark.parametrize("permission", Permission)
def test_a_holder_needs_not_be_the_owner(permission):
    check(somebody(permission), permission, owner_id=OWNER)


@pytest.mark.parametrize("permission", Permission)
def test_to_anybody_else_the_object_does_not_exist(permission):
    others = set(Permission) - {permission, READING.get(permission)}

    for actor in (ANONYMOUS, somebody(), somebody(*others)):
        with pytest.raises(NotFound):
            check(actor, permission, owner_id=OWNER)


@pytest.mark.parametrize(("permission", "reading"), READING.items())
def test_who_may_read_it_is_told_that_changing_is_forbidden(permission, reading):
    with pytest.raises(Forbidden):
        check(somebody(reading), permission, owner_id=OWNER)


def test_somebody_without_their_permissions_acts_for_themself_only():
    admin = somebody(*Permission, user_id=OWNER).without_permissions()

    check(admin, Permission.USERS_WRITE, owner_id=OWNER)
    with pytest.raises(NotFound):
        check(admin, Permission.USERS_WRITE, owner_id=STRANGER)


def test_roles_rise_from_member_to_admin():
    assert list(ROLES) == ["member", "support", "admin"]
    assert ROLES["member"] < ROLES["support"] < ROLES["admin"] == frozenset(Permission)
    assert not any(permission.endswith((":write", ":private")) for permission in ROLES["support"])


@pytest.mark.parametrize(
    ("giver", "role", "allowed"),
    [
        ("admin", "admin", True),
        ("admin", "support", True),
        ("admin", "member", True),
        ("support", "admin", False),
        ("support", "support", True),
        ("support", "member", True),
        ("member", "support", False),
        ("member", "member", True),
    ],
)
def test_nobody_gives_a_role_that_can_do_more_than_they_can(giver, role, allowed):
    actor = somebody(*ROLES[giver])

    if allowed:
        check_grant(actor, role)
    else:
        with pytest.raises(Forbidden):
            check_grant(actor, role)


@pytest.mark.parametrize("lacking", Permission)
def test_one_lacking_permission_is_enough_to_keep_a_role_out_of_reach(lacking):
    actor = somebody(*set(Permission) - {lacking})

    with pytest.raises(Forbidden):
        check_grant(actor, "admin")
