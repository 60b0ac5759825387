"""OAuth 2.0 for programs: a short-lived token for a key (client credentials, RFC 6749 §4.4), and the end of it."""

import re
from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select, update

from models import OAuthToken
from models.base import now
from models.rows import delete_some, insert_row
from models.statements import execute, fetch_one
from service import keys, tokens
from service.errors import InvalidKey, InvalidToken
from service.identity import Identity

GRANT_TYPE = "client_credentials"
CLIENT_ID = re.compile(r"sa_([1-9][0-9]{0,17})", re.ASCII)

_BY_ID = select(OAuthToken).where(OAuthToken.id == bindparam("token_id"), OAuthToken.revoked_at.is_(None))
_REVOKE = (
    update(OAuthToken)
    .where(OAuthToken.id == bindparam("token_id"), OAuthToken.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
)
_FORGET_OLD = delete_some(OAuthToken, OAuthToken.expires_at < bindparam("before"))


class OAuthRefusal(Exception):
    """A request that is refused in the form of RFC 6749 §5.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.error, self.description = error, description


class TokenAnswer(NamedTuple):
    """A token, for how many seconds it is good, and what it lets do."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


def client_id_of(service_account_id: int) -> str:
    """Return the name of a service account in OAuth."""
    return f"sa_{service_account_id}"


def authenticate(client_id: str, client_secret: str) -> Identity:
    """Return which program this is; its secret is one of its keys. Raises OAuthRefusal."""
    try:
        client = keys.identify(client_secret)
    except InvalidKey:
        client = None
    if client is None or client_id != client_id_of(client.service_account_id or 0):
        raise OAuthRefusal("invalid_client", "The client is not known, or the secret is not a live key of it.")
    return client


def issue(client: Identity, *, grant_type: str, scope: str | None = None) -> TokenAnswer:
    """Give a program a token for some of its scopes, or for all it has; raises OAuthRefusal."""
    if grant_type != GRANT_TYPE:
        raise OAuthRefusal("unsupported_grant_type", f"Only {GRANT_TYPE} is known here.")
    wanted = client.permissions if scope is None else frozenset(scope.split())
    if not wanted or not wanted <= client.permissions:
        raise OAuthRefusal("invalid_scope", "There is a scope among these that the client has not, or there is none.")
    row = insert_row(OAuthToken, key_id=client.key_id, scopes=sorted(wanted), expires_at=now() + tokens.LIFETIME)
    token = tokens.issue_to_program(client_id=client_id_of(client.service_account_id or 0), token_id=row.id)
    seconds = int(tokens.LIFETIME.total_seconds())
    return TokenAnswer(token, "Bearer", seconds, _joined(wanted))


def identify(token_id: int) -> Identity:
    """Return the program that holds a token, limited to the scopes of that; raises InvalidToken."""
    row = fetch_one(_BY_ID, token_id=token_id)
    if row is None:
        raise InvalidToken
    return keys.identify_by_id(row.key_id, frozenset(row.scopes))


def revoke(client: Identity, token: str) -> None:
    """End a token of the program (RFC 7009); one that is not its own, or none at all, is passed over."""
    token_id = _own(client, token)
    if token_id is not None:
        execute(_REVOKE, token_id=token_id, now=now())


def introspect(client: Identity, token: str) -> dict[str, Any]:
    """Return what a token of the program is good for (RFC 7662), or only that it is not."""
    token_id = _own(client, token)
    if token_id is None:
        return {"active": False}
    claims, scopes = tokens.read(token), identify(token_id).permissions
    client_id = client_id_of(client.service_account_id or 0)
    times = {"iat": claims.good_from, "exp": claims.expires_at}
    return {"active": True, "scope": _joined(scopes), "client_id": client_id, "token_type": "Bearer", **times}


def forget_old() -> int:
    """Remove some of the tokens that ran out, and return how many."""
    return execute(_FORGET_OLD, before=now() - timedelta(days=1))


def _own(client: Identity, token: str) -> int | None:
    try:
        token_id = tokens.read(token).token_id
        holder = identify(token_id) if token_id is not None else None
    except InvalidToken:
        return None
    is_own = holder is not None and holder.service_account_id == client.service_account_id
    return token_id if is_own else None


def _joined(scopes: Collection[str]) -> str:
    return " ".join(sorted(scopes))
