"""Users: creating, finding, changing and deleting accounts."""

import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

from flask import current_app
from sqlalchemy import ColumnElement, bindparam, func, literal_column, or_, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from models import User
from models.base import now
from models.paging import Page, PageRequest, page_of
from models.rows import differing, insert_row, update_row
from models.statements import AnySelect, Record, fetch_one, serialise
from service import events, metadata, normal, one_time, passwords, sessions
from service.errors import Fault, Forbidden, Invalid, LastAdmin, NotFound, RegistrationClosed, VersionMismatch
from service.identity import Identity
from service.jobs.queue import enqueue
from service.outcomes import Accepted
from service.permissions import Permission, check, check_grant
from service.throttle import letters_allowed

# What people may say of themselves, at any time and when they register; the rest needs `users:write`.
PERSONAL = frozenset({"name", "public_metadata"})
SORTS: dict[str, InstrumentedAttribute[Any]] = {
    "id": User.id,
    "created_at": User.created_at,
    "updated_at": User.updated_at,
    "name": User.name_key,
    "email": User.email_key,
}
FEW = 50_000  # Rows that are found and sorted in a tenth of a second.
_SECRET = {"password_hash", "deleted_at", "erased_at"}
_DERIVED = {"name_key", "email_key"}
_SHOWN_AS = {"public_metadata": "metadata"}
_COLUMNS = [a.class_attribute for a in User.__mapper__.column_attrs if a.key not in _SECRET]
_LIVE = select(*_COLUMNS).where(User.deleted_at.is_(None))
_LIVE_BY_ID = _LIVE.where(User.id == bindparam("user_id"))
_LOCKED_BY_ID = select(User).where(User.deleted_at.is_(None), User.id == bindparam("user_id")).with_for_update()
_OTHER_ADMINS = select(func.count().label("number")).where(
    User.role == "admin", User.is_active, User.deleted_at.is_(None), User.id != bindparam("user_id")
)
_FILTERS: dict[str, ColumnElement[bool]] = {
    "q": or_(User.name_key.like(bindparam("q"), escape="\\"), User.email_key.like(bindparam("q"), escape="\\")),
    "email": User.email_key == bindparam("email"),
    "external_id": User.external_id == bindparam("external_id"),
    "role": User.role == bindparam("role"),
    "is_active": User.is_active == bindparam("is_active"),
    "created_after": User.created_at > bindparam("created_after"),
    "created_before": User.created_at < bindparam("created_before"),
    "updated_after": User.updated_at > bindparam("updated_after"),
    "updated_before": User.updated_at < bindparam("updated_before"),
}


def create(*, actor: Identity, email: str, name: str, password: str | None = None, **more: Any) -> Record | Accepted:
    """Create a user; without `users:write`, register as one where registration is open.

    Where it must be confirmed, that is accepted, and the user is created when they have. Raises EmailTaken and
    ExternalIdTaken (from the database), RegistrationClosed, Forbidden, Invalid, Busy.
    """
    if Permission.USERS_WRITE in actor.permissions:
        return create_for(actor, email=email, name=name, password=password, **more)
    registration = current_app.config["REGISTRATION"]
    if registration == "closed":
        raise RegistrationClosed
    _only_personal(more)
    if password is None:
        raise Invalid(faults=[Fault("/json/password", "required", "A password is needed to register.")])
    email_key = normal.email_key(email)
    checked = _checked(actor, email=email, name=name, password=password, **more)
    if registration == "confirmed":
        return _register(email, email_key, **checked)
    may_send = letters_allowed(email_key)
    user = add(email=email, email_key=email_key, **checked)
    events.record("user.created", user, actor=actor)
    if may_send:
        enqueue("verify_email", user_id=user.id)
    return user


def create_for(actor: Identity, *, email: str, name: str, password: str | None = None, **more: Any) -> Record:
    """Create a user for somebody with `users:write`; raises what `create` raises."""
    email_key = normal.email_key(email)
    checked = _checked(actor, email=email, name=name, password=password, **more)
    user = add(email=email, email_key=email_key, **checked)
    events.record("user.created", user, actor=actor)
    return user


def add(*, name: str, **more: Any) -> Record:
    """Add a user, to whom nothing stands in the way any more; raises EmailTaken and ExternalIdTaken."""
    return insert_row(User, name=name, name_key=normal.name_key(name), **more)


def read(user_id: int, *, actor: Identity) -> Record:
    """Return a user; raises NotFound."""
    check(actor, Permission.USERS_READ, owner_id=user_id)
    found = fetch_one(_LIVE_BY_ID, user_id=user_id)
    if found is None:
        raise NotFound
    return found


def search(page: PageRequest, **filters: Any) -> Page:
    """Return a page of the users who meet every filter.

    Filters: `q` (part of name or e-mail, case-insensitive), `email`, `external_id`, `role`, `is_active` (exactly),
    and `created_` and `updated_` with `after` and `before` (aware datetimes, exclusive).
    """
    wanted = {name: value for name, value in filters.items() if value is not None}
    values = {name: _VALUES[name](value) if name in _VALUES else value for name, value in wanted.items()}
    names = frozenset(wanted)
    if "q" in names and page.sort.removeprefix("-") != "id" and _are_few(names, values):
        statement, sorts = _found_first(names)
        return page_of(statement, page, sorts, **values)
    return page_of(_matching(names), page, SORTS, **values)


def change(user_id: int, *, actor: Identity, expected: Collection[int] | None = None, **fields: Any) -> Record:
    """Change the given fields; `expected` holds the versions the caller has seen, if it matters to them.

    Metadata is merged (RFC 7396). Raises NotFound, VersionMismatch, Forbidden, Invalid, LastAdmin, EmailTaken and
    ExternalIdTaken.
    """
    user = _locked(user_id, actor=actor, expected=expected)
    for field in metadata.FIELDS & fields.keys():
        fields[field] = metadata.merged(getattr(user, field), fields[field], field=field)
    return _apply(user, actor, fields)


def replace(user_id: int, *, actor: Identity, expected: Collection[int] | None = None, **fields: Any) -> Record:
    """Set every writable field, absent ones to their defaults; raises what `change` raises."""
    user = _locked(user_id, actor=actor, expected=expected)
    if Permission.USERS_PRIVATE in actor.permissions:
        fields.setdefault("private_metadata", {})
    for field in metadata.FIELDS & fields.keys():
        metadata.bounded(fields[field], field=field)
    return _apply(user, actor, fields)


def delete(user_id: int, *, actor: Identity, expected: Collection[int] | None = None) -> None:
    """Delete a user and end their sessions; the row stays until it is erased.

    Raises NotFound, VersionMismatch, LastAdmin.
    """
    user = _locked(user_id, actor=actor, expected=expected)
    _keep_an_admin(user)
    moment = now()
    deleted = update_row(User, user, deleted_at=moment, updated_at=moment)
    sessions.end_all(user.id)
    one_time.withdraw_all(user.id)
    events.record("user.deleted", deleted, actor=actor)


def _locked(user_id: int, *, actor: Identity, expected: Collection[int] | None) -> Record:
    """Return a user for changing, with the row locked until the unit of work ends."""
    check(actor, Permission.USERS_WRITE, owner_id=user_id)
    user = fetch_one(_LOCKED_BY_ID, user_id=user_id)
    if user is None:
        raise NotFound
    if expected is not None and user.version not in expected:
        raise VersionMismatch
    if user_id != actor.user_id:
        check_grant(actor, user.role)
    return user


def _apply(user: Record, actor: Identity, fields: dict[str, Any]) -> Record:
    if Permission.USERS_WRITE not in actor.permissions:
        _only_personal(fields)
    _check_fields(actor, fields)
    role, is_active = fields.get("role", user.role), fields.get("is_active", user.is_active)
    has_other_access = (role, is_active) != (user.role, user.is_active)
    if has_other_access and (role != "admin" or not is_active):
        _keep_an_admin(user)
    if "name" in fields:
        fields["name_key"] = normal.name_key(fields["name"])
    if "email" in fields and (email_key := normal.email_key(fields["email"])) != user.email_key:
        fields |= {"email_key": email_key, "email_verified": False}
    changed = update_row(User, user, **fields)
    has_other_address = changed.email_key != user.email_key
    if has_other_access or has_other_address:
        sessions.end_all(user.id, but=None if has_other_access else actor.session_id)
        one_time.withdraw_all(user.id)
    if has_other_address:
        enqueue("notice", user_id=user.id, about="email_changed", to=user.email)
    if changed.version != user.version:
        names = differing(User, user, changed, fields.keys() - _DERIVED)
        events.record("user.updated", changed, actor=actor, changed=[_SHOWN_AS.get(name, name) for name in names])
    return changed


def _checked(actor: Identity, *, email: str, name: str, password: str | None, **more: Any) -> dict[str, Any]:
    """Return the fields of a new user after every check that needs no transaction, its password hashed."""
    _check_fields(actor, more)
    for field in metadata.FIELDS & more.keys():
        metadata.bounded(more[field], field=field)
    password_hash = passwords.new_hash(password, personal=[email, name]) if password is not None else None
    return {"name": name, "password_hash": password_hash, **more}


def _register(email: str, email_key: str, **details: Any) -> Accepted:
    """Keep a registration until a letter is answered; whether the address is known, only the letter tells."""
    if letters_allowed(email_key):
        row = one_time.prepare("register", user_id=None, email=email, email_key=email_key, **details)
        enqueue("confirm_registration", email_key=email_key, token_id=row.id)
    return Accepted("A letter with the next step is on its way to the address.")


def _only_personal(fields: Collection[str]) -> None:
    """Refuse (Forbidden) what a person may not say of themself."""
    if beyond := sorted(set(fields) - PERSONAL):
        raise Forbidden(faults=[Fault(f"/json/{name}", "permission_denied", "Needs users:write.") for name in beyond])


def _check_fields(actor: Identity, fields: dict[str, Any]) -> None:
    """Refuse (Forbidden) fields that need more than `users:write`."""
    if "private_metadata" in fields and Permission.USERS_PRIVATE not in actor.permissions:
        raise Forbidden(faults=[Fault("/json/private_metadata", "permission_denied", "Needs users:private.")])
    if "role" in fields:
        check_grant(actor, fields["role"])


def _keep_an_admin(user: Record) -> None:
    """Refuse (LastAdmin) to lose the only active admin, also to two at once."""
    if user.role != "admin" or not user.is_active:
        return
    serialise("admins")
    others = fetch_one(_OTHER_ADMINS, user_id=user.id)
    if others is None or not others.number:
        raise LastAdmin


@lru_cache(maxsize=512)
def _matching(names: frozenset[str]) -> AnySelect:
    return _LIVE.where(*(_FILTERS[name] for name in sorted(names))).execution_options(own_plan=bool(names))


def _are_few(names: frozenset[str], values: dict[str, Any]) -> bool:
    """Tell whether so few match that they are better found first and then sorted.

    They may all lie at the far end of an order, which the database does not know when it walks along an index.
    """
    found = fetch_one(_count_up_to(names), **values)
    return found is not None and found.number <= FEW


@lru_cache(maxsize=512)
def _count_up_to(names: frozenset[str]) -> AnySelect:
    some = _matching(names).with_only_columns(User.id).limit(literal_column(str(FEW + 1))).subquery()
    return select(func.count().label("number")).select_from(some).execution_options(own_plan=True)


@lru_cache(maxsize=512)
def _found_first(names: frozenset[str]) -> tuple[AnySelect, Mapping[str, InstrumentedAttribute[Any]]]:
    """Return the statement that finds all before it sorts, and its columns to sort by."""
    found = aliased(User, _matching(names).cte("found").prefix_with("MATERIALIZED"))
    columns = [getattr(found, column.key) for column in _COLUMNS]
    sorts = {name: getattr(found, column.key) for name, column in SORTS.items()}
    return select(*columns).execution_options(own_plan=True), sorts


def _part(text: str) -> str:
    """Return the pattern for a text anywhere in a key, in which `%` and `_` are plain characters."""
    plain = re.sub(r"([%_\\])", r"\\\1", normal.key(text))
    return f"%{plain}%"


def _email_key_or_nobody(email: str) -> str:
    try:
        return normal.email_key(email)
    except Invalid:
        return ""  # What is no address is nobody's.


_VALUES: dict[str, Callable[[Any], Any]] = {"q": _part, "email": _email_key_or_nobody}
