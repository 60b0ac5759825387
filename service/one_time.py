"""One-time tokens: proofs that somebody reads the mail of an address, as a link to follow or a code to type."""

import re
import secrets
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, select

from models import OneTimeToken
from models.base import now
from models.rows import delete_row, delete_some, insert_row, update_row
from models.statements import Record, execute, fetch_one
from service import throttle
from service.errors import InvalidOneTimeToken
from service.keyed import fingerprint, mark
from service.throttle import Attempt, Rule

LIFETIMES = {
    "register": timedelta(hours=24),
    "verify_email": timedelta(hours=24),
    "change_email": timedelta(hours=1),
    "reset_password": timedelta(hours=1),
}
CONFIRMING = frozenset({"register", "verify_email", "change_email"})
RESETTING = frozenset({"reset_password"})
CODE_DIGITS = 8
# Guesses at the codes of one address: a hundred million codes, and new ones come a few times an hour at most.
CODES = Rule("codes", free=10, first_wait=3600, longest_wait=3600, memory=3600)
_USABLE = select(OneTimeToken).where(OneTimeToken.expires_at > bindparam("now"))
_BY_ID = _USABLE.where(OneTimeToken.id == bindparam("token_id")).with_for_update()
_BY_TOKEN = _USABLE.where(OneTimeToken.token_hash == bindparam("token_hash"))
_BY_CODE = _USABLE.where(OneTimeToken.code_hash == bindparam("code_hash")).order_by(OneTimeToken.id.desc()).limit(1)
_PENDING = (
    _USABLE.where(OneTimeToken.email_key == bindparam("email_key"), OneTimeToken.purpose == "register")
    .order_by(OneTimeToken.id.desc())
    .limit(1)
)
_WITHDRAW = delete(OneTimeToken).where(
    OneTimeToken.user_id == bindparam("user_id"), OneTimeToken.purpose == bindparam("purpose")
)
_FORGET_EXPIRED = delete_some(OneTimeToken, OneTimeToken.expires_at <= bindparam("now"))
_WITHDRAW_ALL = delete(OneTimeToken).where(OneTimeToken.user_id == bindparam("user_id"))


class Secrets(NamedTuple):
    """What a mail holds, once: the token of its link, and the code."""

    token: str
    code: str


def prepare(purpose: str, *, user_id: int | None, email: str, email_key: str, **details: Any) -> Record:
    """Add a token that has no secrets yet; an older one of the user for the same purpose is withdrawn."""
    if user_id is not None:
        execute(_WITHDRAW, user_id=user_id, purpose=purpose)
    return insert_row(
        OneTimeToken,
        purpose=purpose,
        user_id=user_id,
        email=email,
        email_key=email_key,
        details=details or None,
        expires_at=now() + LIFETIMES[purpose],
    )


def arm(row: Record) -> Secrets:
    """Give a token its secrets, of which only hashes are kept; those of an earlier mail are void."""
    made = Secrets(secrets.token_urlsafe(32), f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}")
    throttle.forgive(_guessing(row.email_key))
    code_hash = _code_hash(_scope(row.purpose), row.email_key, made.code)
    update_row(OneTimeToken, row, token_hash=fingerprint(made.token), code_hash=code_hash)
    return made


def locked(token_id: int) -> Record | None:
    """Return a token that can still be used, locked."""
    return fetch_one(_BY_ID, token_id=token_id, now=now())


def pending_registration(email_key: str) -> Record | None:
    """Return the newest registration of an address that waits to be confirmed."""
    return fetch_one(_PENDING, email_key=email_key, now=now())


def found_by_token(purposes: frozenset[str], token: str) -> Record:
    """Return the row of the token that a link gave; raises InvalidOneTimeToken."""
    row = fetch_one(_BY_TOKEN, token_hash=fingerprint(token), now=now())
    if row is None or row.purpose not in purposes:
        raise InvalidOneTimeToken("token")
    return row


def found_by_code(purposes: frozenset[str], email_key: str, code: str) -> Record:
    """Return the row of a code that was typed; raises InvalidOneTimeToken, TooManyAttempts."""
    throttle.admit(_guessing(email_key))
    scope = "reset" if purposes == RESETTING else "confirm"
    row = fetch_one(_BY_CODE, code_hash=_code_hash(scope, email_key, re.sub(r"[\s-]", "", code)), now=now())
    if row is None:
        raise InvalidOneTimeToken("code")
    return row


def use_up(row: Record) -> None:
    """Remove a token, because it is used, once; raises InvalidOneTimeToken where another was first."""
    held = locked(row.id)
    if held is None:
        raise InvalidOneTimeToken("token")
    delete_row(OneTimeToken, held)
    throttle.forgive(_guessing(row.email_key))


def forget_expired() -> int:
    """Remove those that can no longer be used, and return how many."""
    return execute(_FORGET_EXPIRED, now=now())


def withdraw_all(user_id: int) -> None:
    """Remove every token of a user."""
    execute(_WITHDRAW_ALL, user_id=user_id)


def _guessing(email_key: str) -> Attempt:
    return Attempt(CODES, email_key)


def _scope(purpose: str) -> str:
    return "reset" if purpose in RESETTING else "confirm"


def _code_hash(scope: str, email_key: str, code: str) -> str:
    """Hash a code under the server's key: of eight digits alone, every hash could be tried."""
    return mark("code", scope, email_key, code)
