"""API keys: how a program is known; each is shown once, and only its hash is kept."""

import logging
import re
import secrets
import zlib
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute

from models import ApiKey, ServiceAccount, User
from models.base import now
from models.paging import Page, PageRequest, page_of
from models.rows import insert_row, update_row
from models.statements import Record, execute, fetch_one, unit_of_work
from service import events, service_accounts
from service.errors import Fault, Invalid, InvalidKey, MalformedKey, NotFound, TooManyKeys
from service.identity import Identity
from service.keyed import fingerprint
from service.permissions import ROLES

log = logging.getLogger("rollcall.keys")

MARK = "rk_"
LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_LETTERS, CHECK_LETTERS = 30, 6  # 178 bits that nobody can guess, and a checksum that tells a typing error.
SHOWN_LETTERS = len(MARK) + 8
MOST_LIVE = 2  # One in use, and the next while it is being exchanged.
USE_NOTED_EVERY = timedelta(minutes=1)
SORTS: dict[str, InstrumentedAttribute[Any]] = {"id": ApiKey.id}

_IS_LIVE = (
    ApiKey.revoked_at.is_(None),
    or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > bindparam("now")),
)
_HOLDER = (
    select(
        *(ApiKey.id, ApiKey.last_used_at, ApiKey.service_account_id, ServiceAccount.scopes, User.role),
        *(User.id.label("maker_id"),),
    )
    .join(ServiceAccount, ServiceAccount.id == ApiKey.service_account_id)
    .join(User, User.id == ServiceAccount.maker_id)
    .where(User.is_active, User.deleted_at.is_(None), *_IS_LIVE)
)
_BY_HASH = _HOLDER.where(ApiKey.key_hash == bindparam("key_hash"))
_BY_ID = _HOLDER.where(ApiKey.id == bindparam("key_id"))
_OF_ACCOUNT = select(ApiKey).where(ApiKey.service_account_id == bindparam("account_id"))
_COUNT_LIVE = select(func.count().label("number")).where(
    ApiKey.service_account_id == bindparam("account_id"), *_IS_LIVE
)
_LOCKED = _OF_ACCOUNT.where(ApiKey.id == bindparam("key_id")).with_for_update()
_NOTE_USE = (
    update(ApiKey)
    .where(
        ApiKey.id == bindparam("key_id"),
        or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < bindparam("noted_before")),
    )
    .values(last_used_at=bindparam("now"))
)


class NewKey(NamedTuple):
    """A key that was just made, with the text that is shown this once."""

    id: int
    prefix: str
    key: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


def create(account_id: int, *, actor: Identity, expires_at: datetime | None = None) -> NewKey:
    """Make a key for a service account, beside the one that it has; raises NotFound, TooManyKeys, Invalid."""
    if expires_at is not None and expires_at <= now():
        raise Invalid(faults=[Fault("/json/expires_at", "past", "Use a time that is still to come.")])
    account = service_accounts.locked(account_id)
    live = fetch_one(_COUNT_LIVE, account_id=account.id, now=now())
    if live is not None and live.number >= MOST_LIVE:
        raise TooManyKeys
    text = _new_text()
    row = insert_row(
        ApiKey,
        service_account_id=account.id,
        prefix=text[:SHOWN_LETTERS],
        key_hash=fingerprint(text),
        expires_at=expires_at,
    )
    events.record("api_key.created", row, actor=actor)
    return NewKey(row.id, row.prefix, text, row.created_at, None, row.expires_at, None)


def page_of_account(account_id: int, page: PageRequest) -> Page:
    """Return a page of a service account's keys, ended ones among them; raises NotFound."""
    service_accounts.read(account_id)
    return page_of(_OF_ACCOUNT, page, SORTS, account_id=account_id)


def revoke(account_id: int, key_id: int, *, actor: Identity) -> None:
    """End a key at once; raises NotFound where there is none, or it was ended before."""
    service_accounts.locked(account_id)
    key = fetch_one(_LOCKED, account_id=account_id, key_id=key_id)
    if key is None or key.revoked_at is not None:
        raise NotFound
    events.record("api_key.revoked", update_row(ApiKey, key, revoked_at=now()), actor=actor)


def identify(text: str) -> Identity:
    """Return who holds a key, as the database sees it now; raises MalformedKey, InvalidKey."""
    if not is_well_formed(text):
        raise MalformedKey
    return _identity(_used(fetch_one(_BY_HASH, key_hash=fingerprint(text), now=now())))


def identify_by_id(key_id: int, scopes: frozenset[str]) -> Identity:
    """Return who holds a token that was given for a key, limited to the token's scopes; raises InvalidKey."""
    return _identity(_used(fetch_one(_BY_ID, key_id=key_id, now=now())), scopes)


def permissions_of(key_id: int, scopes: frozenset[str]) -> frozenset[str]:
    """Return what a token lets do that was given for a key, of which this is no use; raises InvalidKey."""
    return _identity(fetch_one(_BY_ID, key_id=key_id, now=now()), scopes).permissions


def is_well_formed(text: str) -> bool:
    """Tell whether a text is one that could be a key: a typing error changes the checksum."""
    secret, check = text[:-CHECK_LETTERS], text[-CHECK_LETTERS:]
    length = SECRET_LETTERS + CHECK_LETTERS
    return re.fullmatch(f"{MARK}[0-9A-Za-z]{{{length}}}", text) is not None and _checksum(secret) == check


def _identity(row: Record | None, scopes: frozenset[str] | None = None) -> Identity:
    if row is None:
        raise InvalidKey
    permissions = ROLES[row.role].intersection(row.scopes)
    return Identity(
        user_id=None,
        permissions=permissions if scopes is None else permissions & scopes,
        service_account_id=row.service_account_id,
        key_id=row.id,
    )


def _used(row: Record | None) -> Record | None:
    """Note that a key was used, at most once a minute; where that fails, the request goes on all the same."""
    moment = now()
    noted_before = moment - USE_NOTED_EVERY
    if row is None or (row.last_used_at is not None and row.last_used_at >= noted_before):
        return row
    try:
        with unit_of_work():
            execute(_NOTE_USE, key_id=row.id, noted_before=noted_before, now=moment)
    except SQLAlchemyError as error:
        log.warning("use of a key not noted", extra={"error": type(error).__name__})
    return row


def _new_text() -> str:
    secret = MARK + "".join(secrets.choice(LETTERS) for _ in range(SECRET_LETTERS))
    return secret + _checksum(secret)


def _checksum(secret: str) -> str:
    """Return CRC-32 in base 62, as the keys of GitHub have it."""
    number, letters = zlib.crc32(secret.encode()), ""
    for _ in range(CHECK_LETTERS):
        number, digit = divmod(number, len(LETTERS))
        letters = LETTERS[digit] + letters
    return letters
