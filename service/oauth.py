"""OAuth 2.0 for programs: a short-lived token for a key (client credentials, RFC 6749 §4.4), and the end of it."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select, update

from models import ApiKey, OAuthToken
from models.base import now
from models.rows import delete_some, insert_row
from models.statements import Record, execute, fetch_one
from service import keys, tokens
from service.errors import InvalidToken
from service.identity import Identity

GRANT_TYPE = "client_credentials"

_BY_ID = select(OAuthToken).where(OAuthToken.id == bindparam("token_id"), OAuthToken.revoked_at.is_(None))
_OWN = _BY_ID.join(ApiKey, ApiKey.id == OAuthToken.key_id).where(ApiKey.service_account_id == bindparam("account_id"))
# So that the key cannot be removed before there is a token that is removed with it.
_HELD_KEY = select(ApiKey.id).where(ApiKey.id == bindparam("key_id")).with_for_update(read=True, key_share=True)
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


class UnknownClient(OAuthRefusal):
    """A program that is not known, or has not shown that it is this one."""

    def __init__(self) -> None:
        super().__init__("invalid_client", "The client is not known, or the secret is not a live key of it.")


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
    except InvalidToken:
        client = None
    if client is None or client_id != client_id_of(client.service_account_id or 0):
        raise UnknownClient
    return client


def issue(client: Identity, *, grant_type: str, scope: str | None = None) -> TokenAnswer:
    """Give a program a token for some of its scopes, or for all it has; raises OAuthRefusal."""
    if grant_type != GRANT_TYPE:
        raise OAuthRefusal("unsupported_grant_type", f"Only {GRANT_TYPE} is known here.")
    wanted = client.permissions if scope is None else frozenset(scope.split())
    if not wanted or not wanted <= client.permissions:
        raise OAuthRefusal("invalid_scope", "There is a scope among these that the client has not, or there is none.")
    if fetch_one(_HELD_KEY, key_id=client.key_id) is None:
        raise UnknownClient
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
    own = _own(client, token)
    if own is not None:
        execute(_REVOKE, token_id=own.id, now=now())


def introspect(client: Identity, token: str) -> dict[str, Any]:
    """Return what a token of the program is good for (RFC 7662), or only that it is not."""
    own = _own(client, token)
    if own is None:
        return {"active": False}
    try:
        scopes = keys.permissions_of(own.key_id, frozenset(own.scopes))
    except InvalidToken:
        return {"active": False}
    claims = tokens.read(token)
    client_id = client_id_of(client.service_account_id or 0)
    times = {"iat": claims.good_from, "exp": claims.expires_at}
    return {"active": True, "scope": _joined(scopes), "client_id": client_id, "token_type": "Bearer", **times}


def forget_old() -> int:
    """Remove some of the tokens that ran out, and return how many."""
    return execute(_FORGET_OLD, before=now() - timedelta(days=1))


def _own(client: Identity, token: str) -> Record | None:
    """Return what is kept of a token, if that is good by itself and the program's own."""
    try:
        token_id = tokens.read(token).token_id
    except InvalidToken:
        return None
    return fetch_one(_OWN, token_id=token_id, account_id=client.service_account_id) if token_id is not None else None


def _joined(scopes: Collection[str]) -> str:
    return " ".join(sorted(scopes))
