"""The account's life by mail: confirming an address, a forgotten password, changing either.

Where somebody asks who has not signed in, the answer is the same for every address, and so is what is done before it:
whether there is such an account is looked up later, when the letter is written.
"""

from sqlalchemy import bindparam, select

from models import User
from models.rows import update_row
from models.statements import Record, fetch_one
from service import events, normal, one_time, passwords, sessions, throttle, users
from service.errors import Invalid, InvalidOneTimeToken, NotFound, WrongPassword
from service.identity import Identity
from service.jobs.queue import enqueue
from service.one_time import CONFIRMING, RESETTING
from service.outcomes import Accepted
from service.sign_in import check_password, known_attempts
from service.throttle import letters_allowed

SENT = Accepted("If there is something to be done for this address, a letter is on its way.")

_CURRENT = select(User).where(User.id == bindparam("user_id"), User.deleted_at.is_(None))
_LOCKED = _CURRENT.where(User.is_active).with_for_update()


def forgot_password(*, email: str) -> Accepted:
    """Send a letter with which a new password can be set; raises Invalid for what is no address."""
    _send_unless_too_many("reset_password", normal.email_key(email))
    return SENT


def resend(*, email: str) -> Accepted:
    """Send what an address has not confirmed yet once more; raises Invalid for what is no address."""
    _send_unless_too_many("verify_again", normal.email_key(email))
    return SENT


def verify_email(*, token: str | None = None, email: str | None = None, code: str | None = None) -> None:
    """Confirm an address by the link or the code of a letter: of a registration, an account, or a change.

    Raises InvalidOneTimeToken, TooManyAttempts, EmailTaken, Invalid.
    """
    row = _found(CONFIRMING, token, email, code)
    if row.purpose == "register":
        one_time.use_up(row)
        user = users.add(email=row.email, email_key=row.email_key, email_verified=True, **row.details)
        events.record("user.created", user)
        return
    user = _locked(row.user_id)
    one_time.use_up(row)
    if row.purpose == "change_email":
        _change_email(user, row)
        return
    if user.email_key != row.email_key:
        raise InvalidOneTimeToken("token")  # The account has another address by now.
    events.record("user.email_verified", update_row(User, user, email_verified=True))


def reset_password(
    *, password: str, token: str | None = None, email: str | None = None, code: str | None = None
) -> None:
    """Set a new password by the link or the code of a letter; all sessions end.

    Raises InvalidOneTimeToken, TooManyAttempts, Invalid, Busy.
    """
    with passwords.place():  # Before a code is looked at, which would count as an attempt.
        row = _found(RESETTING, token, email, code)
        found = fetch_one(_CURRENT, user_id=row.user_id)
        if found is None or found.email_key != row.email_key:
            raise InvalidOneTimeToken("token")
        passwords.check_policy(password, personal=[found.email, found.name])
        password_hash = passwords.hash_of(password)
    user = _locked(row.user_id)
    one_time.use_up(row)
    changed = update_row(User, user, password_hash=password_hash, email_verified=True)
    for attempt in known_attempts(user.email_key):
        throttle.forgive(attempt)
    _password_changed(changed, is_told=True)


def change_password(*, actor: Identity, current_password: str, password: str) -> None:
    """Change the caller's password; their other sessions end. Raises WrongPassword, Invalid, TooManyAttempts, Busy."""
    found = _current(actor)
    check_password(found, current_password)
    password_hash = passwords.new_hash(password, personal=[found.email, found.name])
    # A stranger's address, which nobody has confirmed, must not get letters without end.
    is_told = found.email_verified or letters_allowed(found.email_key)
    user = _locked(found.id)
    if user.password_hash != found.password_hash:
        raise WrongPassword  # It changed while it was being checked.
    changed = update_row(User, user, password_hash=password_hash)
    _password_changed(changed, actor=actor, is_told=is_told)


def change_email(*, actor: Identity, current_password: str, email: str) -> Accepted:
    """Ask at a new address whether it is to be the caller's; until it is confirmed there the old one stays.

    Raises WrongPassword, Invalid, TooManyAttempts, Busy.
    """
    email_key = normal.email_key(email)
    found = _current(actor)
    check_password(found, current_password)
    if letters_allowed(email_key):
        row = one_time.prepare(
            "change_email", user_id=found.id, email=email, email_key=email_key, session_id=actor.session_id
        )
        enqueue("change_email", user_id=found.id, token_id=row.id)
    return SENT


def _change_email(user: Record, row: Record) -> None:
    changed = update_row(User, user, email=row.email, email_key=row.email_key, email_verified=True)
    one_time.withdraw_all(user.id)
    sessions.end_all(user.id, but=row.details["session_id"])
    events.record("user.email_changed", changed)
    enqueue("notice", user_id=user.id, about="email_changed", to=user.email)


def _password_changed(user: Record, *, is_told: bool, actor: Identity | None = None) -> None:
    one_time.withdraw_all(user.id)
    sessions.end_all(user.id, but=actor.session_id if actor else None)
    events.record("user.password_changed", user, actor=actor)
    if is_told:
        enqueue("notice", user_id=user.id, about="password_changed", to=user.email)


def _found(purposes: frozenset[str], token: str | None, email: str | None, code: str | None) -> Record:
    """Return the row that either a token or an address with its code names."""
    if token is not None and email is None and code is None:
        return one_time.found_by_token(purposes, token)
    if token is None and email is not None and code is not None:
        return one_time.found_by_code(purposes, normal.email_key(email), code)
    raise Invalid("Send either token, or email and code.")


def _send_unless_too_many(kind: str, email_key: str) -> None:
    if letters_allowed(email_key):
        enqueue(kind, email_key=email_key)


def _current(actor: Identity) -> Record:
    user = fetch_one(_CURRENT, user_id=actor.user_id)
    if user is None:
        raise NotFound
    return user


def _locked(user_id: int) -> Record:
    user = fetch_one(_LOCKED, user_id=user_id)
    if user is None:
        raise InvalidOneTimeToken("token")
    return user
