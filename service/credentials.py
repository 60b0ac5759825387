"""Credentials: who sends an access token or a key."""

from service import keys, oauth, sessions, tokens
from service.identity import Identity


def identify(credential: str) -> Identity:
    """Return who holds a credential, as the database sees them now; raises InvalidToken or a kind of it."""
    if credential.startswith(keys.MARK):
        return keys.identify(credential)
    claims = tokens.read(credential)
    if claims.token_id is not None:
        return oauth.identify(claims.token_id)
    return sessions.identify(claims)
