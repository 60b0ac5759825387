"""Signing in: a password is checked at a bounded pace, and each sign-in begins a session."""

from datetime import timedelta
from hmac import compare_digest
from secrets import token_urlsafe

from sqlalchemy import bindparam, select, update

from models import Session, User
from models.base import now
from models.statements import Record, execute, fetch_one, unit_of_work
from service import events, normal, passwords, refresh, sessions, throttle
from service.errors import AccountSuspended, Invalid, InvalidCredentials, WrongPassword
from service.grants import Grant, grant
from service.identity import current_client
from service.keyed import mark
from service.throttle import Attempt, Rule

# Guesses at an account from where it is not known, from a device or network it is known on, and from one network at
# any account. Whoever guesses from elsewhere thereby does not lock the person out.
ACCOUNT = Rule("account", free=5, first_wait=5, longest_wait=900, memory=3600)
FAMILIAR = Rule("familiar", free=10, first_wait=5, longest_wait=900, memory=3600)
NETWORK = Rule("network", free=60, first_wait=10, longest_wait=900, memory=900)
KNOWN_FOR = timedelta(days=90)

_CREDENTIALS = select(User.id, User.password_hash).where(
    User.email_key == bindparam("email_key"), User.deleted_at.is_(None)
)
_LOCKED = select(User).where(User.id == bindparam("user_id"), User.deleted_at.is_(None)).with_for_update()
_SEEN_HERE = (
    select(Session.id)
    .where(
        Session.user_id == bindparam("user_id"),
        Session.network == bindparam("network"),
        Session.created_at > bindparam("since"),
    )
    .limit(1)
)
_REHASH = update(User).where(User.id == bindparam("user_id")).values(password_hash=bindparam("new_hash"))


def sign_in(
    *, email: str, password: str, transport: str = "body", remember: bool = False, device: str | None = None
) -> Grant:
    """Begin a session for an address and its password.

    Raises InvalidCredentials, AccountSuspended, TooManyAttempts or Busy. The password is checked before the
    transaction begins, so that nobody waits for the 20 ms it takes.
    """
    with passwords.place():
        email_key = _key(email)
        found = fetch_one(_CREDENTIALS, email_key=email_key)
        attempts = _attempts(email_key, found.id if found else 0, device)
        throttle.admit(*attempts)
        if not passwords.matches(password, found.password_hash if found else None) or found is None:
            raise InvalidCredentials
        new_hash = passwords.hash_of(password) if passwords.is_outdated(found.password_hash) else None

    user = fetch_one(_LOCKED, user_id=found.id)
    if user is None or user.password_hash != found.password_hash:
        raise InvalidCredentials  # It changed while the password was being checked.
    _passed(attempts)
    if not user.is_active:
        raise AccountSuspended
    if new_hash:
        execute(_REHASH, user_id=user.id, new_hash=new_hash)
    session = sessions.begin(user.id, amr=["pwd"], transport=transport, remember=remember)
    events.record("session.created", session)
    known = device if device and _is_device_of(device, user.id) else _new_device(user.id)
    return grant(session, user, refresh.first(session.id), device=known)


def check_password(user: Record, password: str) -> None:
    """Check the password of somebody who is signed in; raises WrongPassword, TooManyAttempts, Busy."""
    attempts = (Attempt(FAMILIAR, f"{user.email_key}\0signed in"),)
    with passwords.place():
        throttle.admit(*attempts)
        if not passwords.matches(password, user.password_hash):
            raise WrongPassword
    with unit_of_work():
        _passed(attempts)


def known_attempts(email_key: str) -> tuple[Attempt, ...]:
    """Return what attempts at an account from the present network count as, wherever it is known."""
    network = throttle.network_of(current_client().address)
    return Attempt(ACCOUNT, email_key), Attempt(FAMILIAR, f"{email_key}\0{network}")


def _attempts(email_key: str, user_id: int, device: str | None) -> tuple[Attempt, ...]:
    """Return what an attempt to sign in counts as; the same, and at the same cost, for an address nobody has."""
    network = throttle.network_of(current_client().address)
    seen_here = fetch_one(_SEEN_HERE, user_id=user_id, network=network, since=now() - KNOWN_FOR)
    if device and _is_device_of(device, user_id):
        return (Attempt(FAMILIAR, f"{email_key}\0{device}"),)
    if seen_here:
        return Attempt(FAMILIAR, f"{email_key}\0{network}"), Attempt(NETWORK, network)
    return Attempt(ACCOUNT, email_key), Attempt(NETWORK, network)


def _passed(attempts: tuple[Attempt, ...]) -> None:
    account, *network = attempts
    throttle.forgive(account)
    for attempt in network:
        throttle.take_back(attempt)


def _key(email: str) -> str:
    try:
        return normal.email_key(email)
    except Invalid:
        return normal.key(email)  # Nobody has an address that is none, and it must take as long to say so.


def _new_device(user_id: int) -> str:
    nonce = token_urlsafe(12)
    return f"{nonce}.{mark('device', user_id, nonce)}"


def _is_device_of(device: str, user_id: int) -> bool:
    nonce, _, given = device.partition(".")
    return compare_digest(given.encode(), mark("device", user_id, nonce).encode())
