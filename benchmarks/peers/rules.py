"""What every Python peer does alike: settings, tokens, passwords, and the normal form of a text."""

import os
import time
import unicodedata
from secrets import token_urlsafe
from typing import Any, NamedTuple

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from cryptography.hazmat.primitives.serialization import load_pem_private_key

DATABASE_URL = os.environ["DATABASE_URL"]
THREADS = int(os.environ["THREADS"])
ISSUER, AUDIENCE = os.environ["ISSUER"], "rollcall"
TOKEN_SECONDS = 900
SESSION_DAYS = 90
READERS, WRITERS = frozenset({"support", "admin"}), frozenset({"admin"})

_private: Any = load_pem_private_key(os.environ["PRIVATE_KEY"].encode(), None)
_public = _private.public_key()
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class Claims(NamedTuple):
    user_id: int
    session_id: int
    expires_at: int


def read(token: str) -> Claims:
    """Return the claims of a token; raises jwt.InvalidTokenError."""
    claims = jwt.decode(token, _public, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER)
    return Claims(int(claims["sub"]), int(claims["sid"]), claims["exp"])


def issue(user_id: int, session_id: int) -> str:
    issued = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(user_id), "sid": str(session_id), "jti": token_urlsafe(12)}
    return jwt.encode(claims | {"iat": issued, "exp": issued + TOKEN_SECONDS}, _private, algorithm="ES256")


def matches(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except VerificationError:
        return False


def key(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()
