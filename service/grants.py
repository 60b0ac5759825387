"""Grants: what a sign-in or a refresh gives to its client."""

from typing import NamedTuple

from models.statements import Record
from service import tokens
from service.keyed import mark


class Grant(NamedTuple):
    """Tokens and whose they are; `expires_in` is of the access token, in seconds.

    The refresh token is shown as `refresh_token` only where the session's transport is the body; with cookies there is
    a `csrf_token` instead. `device` marks the client as one on which the account is known.
    """

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str | None
    csrf_token: str | None
    user: Record
    session: Record
    secret: str
    device: str | None


def grant(session: Record, user: Record, secret: str, *, device: str | None = None) -> Grant:
    """Return a grant for a session with its present refresh token."""
    is_cookie = session.transport == "cookie"
    return Grant(
        access_token=tokens.issue(user_id=user.id, session_id=session.id),
        token_type="Bearer",  # noqa: S106 (no secret, its type)
        expires_in=int(tokens.LIFETIME.total_seconds()),
        refresh_token=None if is_cookie else secret,
        csrf_token=csrf_token(session.id) if is_cookie else None,
        user=user,
        session=session,
        secret=secret,
        device=device,
    )


def csrf_token(session_id: int) -> str:
    """Return what a page must send along with the cookie of a session."""
    return mark("csrf", session_id)
