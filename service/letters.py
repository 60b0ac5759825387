"""Letters: which mail goes to whom, looked up when it is sent: no answer takes longer for people who are known."""

from urllib.parse import urlencode

from flask import current_app
from sqlalchemy import bindparam, select

from models import OneTimeToken, User, Webhook
from models.rows import delete_row
from models.statements import Record, fetch_one, unit_of_work
from service import mail, one_time
from service.one_time import Secrets

_LIVE = select(User.id, User.email, User.email_key, User.email_verified, User.is_active).where(
    User.deleted_at.is_(None)
)
_BY_ID = _LIVE.where(User.id == bindparam("user_id"))
_WEBHOOK = select(Webhook).where(Webhook.id == bindparam("webhook_id"))
_BY_EMAIL = _LIVE.where(User.email_key == bindparam("email_key"))


def confirm_registration(job: Record) -> None:
    """Ask somebody who registers to confirm; who has an account already is told so instead."""
    _confirm_registration(job, job.arguments["token_id"])


def verify_email(job: Record) -> None:
    """Ask a user to confirm that the address is theirs."""
    _verify_email(job, job.user_id)


def verify_again(job: Record) -> None:
    """Send what an address has not confirmed yet once more, if there is anything."""
    user = fetch_one(_BY_EMAIL, email_key=job.email_key)
    if user is not None:
        _verify_email(job, user.id)
    elif pending := one_time.pending_registration(job.email_key):
        _confirm_registration(job, pending.id)


def change_email(job: Record) -> None:
    """Ask at a new address whether it is to be the account's; where another account has it, say only that."""
    with unit_of_work():
        row = one_time.locked(job.arguments["token_id"])
        if row is None:
            return
        holder = fetch_one(_BY_EMAIL, email_key=row.email_key)
        made = None if holder else one_time.arm(row)
    if made is not None:
        mail.send("change_email", job, to=row.email, **_ways("confirm", made))
    elif holder is not None:
        mail.send("already_registered", job, to=holder.email)


def reset_password(job: Record) -> None:
    """Let somebody who forgot their password set another."""
    with unit_of_work():
        user = fetch_one(_BY_EMAIL, email_key=job.email_key)
        if user is None or not user.is_active:
            return
        made = _armed("reset_password", user)
    mail.send("reset_password", job, to=user.email, **_ways("reset", made))


def notice(job: Record) -> None:
    """Tell of a change to the account: what was not the person's own doing, they should know at once."""
    mail.send(f"notice_{job.arguments['about']}", job, to=job.arguments["to"])


def webhook_disabled(job: Record) -> None:
    """Tell an admin that an endpoint was given up."""
    user = fetch_one(_BY_ID, user_id=job.user_id)
    webhook = fetch_one(_WEBHOOK, webhook_id=job.arguments["webhook_id"])
    if user is not None and webhook is not None and webhook.disabled_at is not None:
        is_gone = webhook.disabled_reason == "gone"
        mail.send("webhook_disabled", job, to=user.email, url=webhook.url, is_gone=is_gone)


def _confirm_registration(job: Record, token_id: int) -> None:
    with unit_of_work():
        row = one_time.locked(token_id)
        if row is None:
            return
        holder = fetch_one(_BY_EMAIL, email_key=row.email_key)
        made = None if holder else one_time.arm(row)
    if made is not None:
        mail.send("confirm_registration", job, to=row.email, **_ways("confirm", made))
        return
    if holder is not None:
        mail.send("already_registered", job, to=holder.email)
    with unit_of_work():
        delete_row(OneTimeToken, row)


def _verify_email(job: Record, user_id: int) -> None:
    with unit_of_work():
        user = fetch_one(_BY_ID, user_id=user_id)
        if user is None or user.email_verified:
            return
        made = _armed("verify_email", user)
    mail.send("verify_email", job, to=user.email, **_ways("confirm", made))


def _armed(purpose: str, user: Record) -> Secrets:
    return one_time.arm(one_time.prepare(purpose, user_id=user.id, email=user.email, email_key=user.email_key))


def _ways(page: str, made: Secrets) -> dict[str, str]:
    """Return the link and the code, either of which will do."""
    link = f"{current_app.config['PUBLIC_URL']}/account/{page}?{urlencode({'token': made.token})}"
    return {"link": link, "code": f"{made.code[:4]} {made.code[4:]}"}
