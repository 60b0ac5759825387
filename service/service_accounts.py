"""Service accounts: the programs of partners, with scopes that are never more than their maker may do."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import InstrumentedAttribute

from models import ServiceAccount
from models.paging import Page, PageRequest, page_of
from models.rows import delete_row, differing, insert_row, update_row
from models.statements import Record, fetch_one
from service import events
from service.errors import Fault, Forbidden, NotFound, VersionMismatch
from service.identity import Identity
from service.permissions import Permission

# What a program can be allowed; making and ending keys is for people.
SCOPES = tuple(permission.value for permission in Permission if not permission.startswith("keys:"))
SORTS: dict[str, InstrumentedAttribute[Any]] = {"id": ServiceAccount.id}

_ALL = select(ServiceAccount)
_BY_ID = _ALL.where(ServiceAccount.id == bindparam("account_id"))
_LOCKED = _BY_ID.with_for_update()


def create(*, actor: Identity, name: str, scopes: Sequence[str]) -> Record:
    """Add a service account; raises Forbidden for a scope that the maker has not."""
    _check_scopes(actor, scopes)
    account = insert_row(ServiceAccount, name=name, scopes=_in_order(scopes), maker_id=actor.user_id)
    events.record("service_account.created", account, actor=actor)
    return account


def page(wanted: PageRequest) -> Page:
    """Return a page of the service accounts."""
    return page_of(_ALL, wanted, SORTS)


def read(account_id: int) -> Record:
    """Return a service account; raises NotFound."""
    found = fetch_one(_BY_ID, account_id=account_id)
    if found is None:
        raise NotFound
    return found


def change(account_id: int, *, actor: Identity, expected: Collection[int] | None = None, **fields: Any) -> Record:
    """Set the given fields; who sets the scopes becomes the maker, whose permissions bound them from then on.

    Raises NotFound, VersionMismatch, Forbidden.
    """
    account = locked(account_id, expected=expected)
    if "scopes" in fields:
        _check_scopes(actor, fields["scopes"])
        fields |= {"scopes": _in_order(fields["scopes"]), "maker_id": actor.user_id}
    changed = update_row(ServiceAccount, account, **fields)
    if changed.version != account.version:
        names = differing(ServiceAccount, account, changed, fields)
        events.record("service_account.updated", changed, actor=actor, changed=names)
    return changed


def delete(account_id: int, *, actor: Identity, expected: Collection[int] | None = None) -> None:
    """Remove a service account; its keys are refused from then on. Raises NotFound, VersionMismatch."""
    account = locked(account_id, expected=expected)
    delete_row(ServiceAccount, account)
    events.record("service_account.deleted", account, actor=actor)


def locked(account_id: int, *, expected: Collection[int] | None = None) -> Record:
    """Return a service account for changing, with the row locked until the unit of work ends.

    Raises NotFound, VersionMismatch.
    """
    account = fetch_one(_LOCKED, account_id=account_id)
    if account is None:
        raise NotFound
    if expected is not None and account.version not in expected:
        raise VersionMismatch
    return account


def _check_scopes(actor: Identity, scopes: Sequence[str]) -> None:
    beyond = [(number, scope) for number, scope in enumerate(scopes) if scope not in actor.permissions]
    if beyond:
        faults = [Fault(f"/json/scopes/{n}", "permission_denied", f"You do not have {scope}.") for n, scope in beyond]
        raise Forbidden("A service account cannot do more than its maker.", faults=faults)


def _in_order(scopes: Sequence[str]) -> list[str]:
    return [scope for scope in SCOPES if scope in scopes]
