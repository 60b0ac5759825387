"""Users: the rules of creating and changing accounts, without HTTP."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import bindparam, func, select

from models import Session, User
from models.paging import PageRequest
from models.rows import update_row
from models.statements import Record, fetch_all, fetch_one, unit_of_work
from service import sign_in, users
from service.errors import (
    Forbidden,
    Invalid,
    InvalidCredentials,
    LastAdmin,
    NotFound,
    Refusal,
    RegistrationClosed,
    VersionMismatch,
)
from service.identity import ANONYMOUS, Identity
from service.permissions import ROLES, Permission
from tests.factories.session import SessionFactory
from tests.factories.user import PASSWORD, UserFactory

OPERATOR = Identity(user_id=None, permissions=frozenset(Permission))
WRITER = Identity(user_id=None, permissions=frozenset({Permission.USERS_READ, Permission.USERS_WRITE}))
ROUNDS = 50
STORED = select(User).where(User.id == bindparam("user_id"))
ADMINS = select(User).where(User.role == "admin", User.is_active, User.deleted_at.is_(None))
WAYS_TO_GO: dict[str, Callable[..., Any]] = {
    "demoted": lambda user_id, actor: users.change(user_id, actor=actor, role="member"),
    "suspended": lambda user_id, actor: users.change(user_id, actor=actor, is_active=False),
    "deleted": lambda user_id, actor: users.delete(user_id, actor=actor),
    "replaced": lambda user_id, actor: users.replace(
        user_id, actor=actor, email=f"x{user_id}@example.com", name="Was Admin", role="support", is_active=True
    ),
}


@pytest.fixture
def work(app: Flask) -> Iterator[None]:
    """Run a test in an application context, each of its calls in a unit of work of its own."""
    with app.app_context():
        yield


def acting(user: User) -> Identity:
    return Identity(user_id=user.id, permissions=ROLES[user.role])


def done(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run an operation in a unit of work."""
    with unit_of_work():
        return operation(*args, **kwargs)


def refused(refusal: type[Refusal], operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Refusal:
    """Run an operation that is refused, and return the refusal."""
    with pytest.raises(refusal) as caught:
        done(operation, *args, **kwargs)
    assert type(caught.value) is refusal
    return caught.value


def stored(user: User | Record) -> Record:
    found = fetch_one(STORED, user_id=user.id)
    assert found is not None
    return found


# The last admin


@pytest.mark.parametrize("way", WAYS_TO_GO)
def test_the_last_admin_stays(app, way, nothing_changes):
    only = UserFactory(admin=True)
    UserFactory(admin=True, suspended=True)
    UserFactory(admin=True, deleted=True)
    UserFactory(support=True)
    SessionFactory(user=None, user_id=only.id)

    for actor in (acting(only), OPERATOR):
        with nothing_changes(), app.app_context():
            refused(LastAdmin, WAYS_TO_GO[way], only.id, actor)


@pytest.mark.parametrize("way", WAYS_TO_GO)
def test_one_of_two_admins_may_go(work, admin, way):
    other_admin = UserFactory(admin=True)

    done(WAYS_TO_GO[way], other_admin.id, acting(admin))

    assert is_admin_no_more(stored(other_admin)) and not is_admin_no_more(stored(admin))


@pytest.mark.parametrize("way", WAYS_TO_GO)
def test_a_suspended_admin_is_not_the_last_one(work, way):
    suspended = UserFactory(admin=True, suspended=True)

    done(WAYS_TO_GO[way], suspended.id, OPERATOR)

    assert is_admin_no_more(stored(suspended))


@pytest.mark.parametrize("change", [{"name": "Ada"}, {"role": "admin"}, {"is_active": True}])
def test_the_last_admin_may_change_what_keeps_them_admin(work, admin, change):
    SessionFactory(user=None, user_id=admin.id)

    done(users.change, admin.id, actor=acting(admin), **change)

    assert not is_admin_no_more(stored(admin))
    assert fetch_one(select(Session.ended_at)).ended_at is None


def is_admin_no_more(user: Record) -> bool:
    return user.role != "admin" or not user.is_active or user.deleted_at is not None


@pytest.mark.parametrize("mutual", [True, False], ids=["each other", "themselves"])
def test_of_two_admins_who_go_at_once_one_stays(app, mutual):
    ways = list(WAYS_TO_GO.values())

    for number in range(ROUNDS):
        pair = UserFactory(admin=True), UserFactory(admin=True)
        outcomes = at_once(app, ways[number % len(ways)], pair, mutual=mutual)

        assert sorted(outcomes) == ["LastAdmin", "done"]
        with app.app_context(), unit_of_work():
            (left,) = fetch_all(ADMINS)
            update_row(User, left, role="member")


def at_once(app: Flask, way: Callable[..., Any], pair: tuple[User, User], *, mutual: bool) -> list[str]:
    """Let both admins make one of them go at the same moment; return how it ended for each."""
    start, outcomes = threading.Barrier(2), []

    def go(actor: User, subject: User) -> None:
        with app.app_context():
            fetch_all(select(User.id).limit(1))  # The connection is open before the race begins.
            start.wait()
            try:
                done(way, subject.id, acting(actor))
                outcomes.append("done")
            except Refusal as refusal:
                outcomes.append(type(refusal).__name__)

    subjects = pair[::-1] if mutual else pair
    threads = [threading.Thread(target=go, args=both) for both in zip(pair, subjects, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# Roles above one's own


@pytest.mark.parametrize("role", ["support", "admin"])
def test_who_lacks_permissions_cannot_give_a_role_that_has_them(app, member, nothing_changes, role):
    writer = Identity(user_id=None, permissions=frozenset({Permission.USERS_WRITE}))

    with nothing_changes(), app.app_context():
        refused(Forbidden, users.change, member.id, actor=writer, role=role)
        refused(Forbidden, users.create, actor=writer, email="new@example.com", name="New", role=role)


@pytest.mark.parametrize(
    "operation",
    [
        lambda user_id: users.change(user_id, actor=WRITER, name="Changed"),
        lambda user_id: users.change(user_id, actor=WRITER, role="member"),
        lambda user_id: users.change(user_id, actor=WRITER, is_active=False),
        lambda user_id: users.change(user_id, actor=WRITER, email="taken-over@example.com"),
        lambda user_id: users.replace(
            user_id, actor=WRITER, email="a@example.com", name="Changed", role="member", is_active=True
        ),
        lambda user_id: users.delete(user_id, actor=WRITER),
    ],
)
def test_who_lacks_permissions_cannot_touch_a_user_who_has_them(app, admin, support, nothing_changes, operation):
    with nothing_changes(), app.app_context():
        for user in (admin, support):
            refused(Forbidden, operation, user.id)


def test_who_has_every_permission_of_a_role_may_give_it_and_take_it(work, member):
    writer = Identity(user_id=None, permissions=ROLES["support"] | {Permission.USERS_WRITE})

    done(users.change, member.id, actor=writer, role="support")
    assert stored(member).role == "support"

    done(users.change, member.id, actor=writer, role="member")
    assert stored(member).role == "member"


def test_a_writer_may_change_a_member(work, member):
    changed = done(users.change, member.id, actor=WRITER, email="new@example.com", is_active=False, external_id="7")

    assert (changed.email_key, changed.is_active, changed.external_id) == ("new@example.com", False, "7")


@pytest.mark.parametrize("field", ["role", "is_active", "external_id", "email", "private_metadata", "email_verified"])
def test_a_member_may_not_say_of_themself_what_needs_a_permission(app, member, nothing_changes, field):
    with nothing_changes(), app.app_context():
        refusal = refused(Forbidden, users.change, member.id, actor=acting(member), name="Changed", **{field: {}})

    assert [fault.pointer for fault in refusal.faults] == [f"/json/{field}"]


def test_private_metadata_needs_a_permission_of_its_own(app, member, nothing_changes):
    with nothing_changes(), app.app_context():
        refused(Forbidden, users.change, member.id, actor=WRITER, private_metadata={"a": 1})
        refused(Forbidden, users.create, actor=WRITER, email="new@example.com", name="New", private_metadata={"a": 1})


@pytest.mark.parametrize(("actor", "refusal"), [("other", NotFound), ("support", Forbidden)])
def test_who_may_not_change_a_user_is_refused_by_whether_they_may_see_one(
    app, request, member, nothing_changes, actor, refusal
):
    stranger = acting(request.getfixturevalue(actor))

    with nothing_changes(), app.app_context():
        refused(refusal, users.change, member.id, actor=stranger, name="Changed")
        refused(refusal, users.delete, member.id, actor=stranger)


# Registering


def test_registering_makes_an_active_member(work):
    made = done(users.create, actor=ANONYMOUS, email="Ada@Example.com", name="Ada", password=PASSWORD)

    user = stored(made)
    assert (user.email, user.email_key, user.name_key) == ("Ada@Example.com", "ada@example.com", "ada")
    assert (user.role, user.is_active, user.email_verified, user.version) == ("member", True, False, 1)
    assert user.created_at == user.updated_at and PASSWORD not in user.password_hash


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"password": None}, Invalid),
        ({"password": "short"}, Invalid),
        ({"email": "not an address"}, Invalid),
        ({"role": "admin"}, Forbidden),
        ({"role": "member"}, Forbidden),
        ({"is_active": True}, Forbidden),
        ({"external_id": "7"}, Forbidden),
        ({"private_metadata": {}}, Forbidden),
        ({"public_metadata": {str(number): 0 for number in range(51)}}, Invalid),
    ],
)
def test_registering_with_what_is_not_allowed_makes_nobody(app, nothing_changes, fields, refusal):
    good = {"email": "ada@example.com", "name": "Ada", "password": PASSWORD}

    with nothing_changes(), app.app_context():
        refused(refusal, users.create, actor=ANONYMOUS, **{**good, **fields})


def test_where_registration_is_closed_only_a_writer_creates(app, nothing_changes):
    app.config["REGISTRATION"] = "closed"
    ada = {"email": "ada@example.com", "name": "Ada", "password": PASSWORD}

    with nothing_changes(), app.app_context():
        refused(RegistrationClosed, users.create, actor=ANONYMOUS, **ada)

    with app.app_context():
        assert done(users.create, actor=WRITER, **ada).id


# Changing


def test_an_unchanged_user_keeps_version_and_time(work, member):
    done(users.change, member.id, actor=acting(member), name=member.name, public_metadata={})

    assert (stored(member).version, stored(member).updated_at) == (member.version, member.updated_at)


def test_a_changed_user_gets_a_new_version_and_time(work, member):
    done(users.change, member.id, actor=acting(member), name="Ödön Zoë", public_metadata={"a": 1})

    user = stored(member)
    assert (user.version, user.name_key, user.public_metadata) == (2, "ödön zoë", {"a": 1})
    assert user.updated_at > member.updated_at and user.created_at == member.created_at


def test_a_stale_version_changes_nothing(app, member, nothing_changes):
    with nothing_changes(), app.app_context():
        refused(VersionMismatch, users.change, member.id, actor=acting(member), expected={7}, name="Changed")
        refused(VersionMismatch, users.delete, member.id, actor=acting(member), expected=())


def test_a_new_spelling_of_an_address_stays_verified_and_a_new_address_does_not(work):
    user = UserFactory(email="ada@example.com", email_verified=True)

    done(users.change, user.id, actor=OPERATOR, email="Ada@Example.com")
    assert (stored(user).email, stored(user).email_verified) == ("Ada@Example.com", True)

    done(users.change, user.id, actor=OPERATOR, email="grace@example.com")
    assert (stored(user).email_key, stored(user).email_verified) == ("grace@example.com", False)


def test_a_replacement_empties_what_it_leaves_out(work):
    user = UserFactory(external_id="7", public_metadata={"a": 1}, private_metadata={"b": 2})
    rest = {"email": user.email, "name": user.name, "role": "member", "is_active": True}

    done(users.replace, user.id, actor=OPERATOR, **rest, external_id=None, public_metadata={})

    found = stored(user)
    assert (found.external_id, found.public_metadata, found.private_metadata) == (None, {}, {})


@pytest.mark.parametrize(
    ("operation", "ends"),
    [
        (lambda user_id: users.change(user_id, actor=OPERATOR, role="support"), True),
        (lambda user_id: users.change(user_id, actor=OPERATOR, is_active=False), True),
        (lambda user_id: users.delete(user_id, actor=OPERATOR), True),
        (lambda user_id: users.change(user_id, actor=OPERATOR, role="member", is_active=True), False),
        (lambda user_id: users.change(user_id, actor=OPERATOR, name="Changed"), False),
    ],
)
def test_losing_access_ends_every_session_of_that_user_and_of_no_other(work, member, other, operation, ends):
    for user in (member, member, other):
        SessionFactory(user=None, user_id=user.id)

    done(operation, member.id)

    living = fetch_all(
        select(Session.user_id, func.count()).where(Session.ended_at.is_(None)).group_by(Session.user_id)
    )
    assert dict(map(tuple, living)) == ({other.id: 1} if ends else {member.id: 2, other.id: 1})


def test_a_deleted_user_is_hidden_and_the_address_free_again(work, member):
    done(users.delete, member.id, actor=OPERATOR)

    refused(NotFound, users.read, member.id, actor=OPERATOR)
    refused(NotFound, users.change, member.id, actor=OPERATOR, name="Changed")
    refused(NotFound, users.delete, member.id, actor=OPERATOR)
    assert users.search(PageRequest(size=20, sort="id")).items == []
    assert done(users.create, actor=OPERATOR, email=member.email, name="Next").id != member.id
    refused(InvalidCredentials, sign_in.sign_in, email=member.email, password=PASSWORD)


# Finding


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"q": "LOVE"}, {"ada"}),
        ({"q": "zoe\u0308"}, {"zoë"}),
        ({"q": "@example"}, {"ada", "zoë"}),
        ({"q": "100%"}, {"100%_\\"}),
        ({"q": "%"}, {"100%_\\"}),
        ({"q": "_"}, {"100%_\\"}),
        ({"q": "\\"}, {"100%_\\"}),
        ({"q": "nobody"}, set()),
        ({"email": "ADA@example.com"}, {"ada"}),
        ({"email": "ada"}, set()),
        ({"email": "not an address"}, set()),
        ({"external_id": "7"}, {"zoë"}),
        ({"external_id": "07"}, set()),
        ({"role": "support"}, {"zoë"}),
        ({"is_active": False}, {"100%_\\"}),
        ({"is_active": True, "role": "member"}, {"ada"}),
        ({"q": None, "role": None}, {"ada", "zoë", "100%_\\"}),
    ],
)
def test_users_are_found_by_every_filter(work, filters, found):
    UserFactory(name="Ada Lovelace", email="ada@example.com", external_id="ada")
    UserFactory(name="ZOË", email="zoe@example.com", external_id="7", support=True)
    UserFactory(name="100%_\\", email="x@other.net", external_id="8", suspended=True)
    UserFactory(name="Ada Lovelace", email="ada@example.com", external_id="7", deleted=True)

    names = {
        row.name_key.removesuffix(" lovelace") for row in users.search(PageRequest(size=20, sort="id"), **filters).items
    }

    assert names == found


def test_the_bounds_of_time_are_outside(work, member, other):
    page = PageRequest(size=20, sort="id")
    first, last = sorted([member, other], key=lambda user: user.created_at)

    assert [row.id for row in users.search(page, created_after=first.created_at).items] == [last.id]
    assert [row.id for row in users.search(page, created_before=last.created_at).items] == [first.id]
    assert users.search(page, updated_after=last.updated_at).items == []
    assert users.search(page, updated_before=first.updated_at).items == []


def test_nothing_found_holds_a_secret(work, member):
    found = users.search(PageRequest(size=20, sort="id")).items[0]

    for row in (found, users.read(member.id, actor=OPERATOR)):
        assert not hasattr(row, "password_hash") and not hasattr(row, "deleted_at")
        assert "$argon2" not in str(tuple(row))
