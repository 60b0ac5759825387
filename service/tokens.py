"""Access tokens: JSON Web Tokens (RFC 9068) signed with ES256, and the ring of keys that sign them."""

import re
import secrets
import time
from base64 import urlsafe_b64encode
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import current_app
from jwt.algorithms import ECAlgorithm

from service.errors import InvalidToken

LIFETIME = timedelta(minutes=15)
CLOCK_SKEW = timedelta(seconds=30)
AUDIENCE = "rollcall"
MAX_LENGTH = 2048
CLAIMS = ["iss", "aud", "sub", "iat", "exp", "jti", "sid"]
PEM = re.compile(r"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)


class Claims(NamedTuple):
    """What a valid token says: whose it is and which session it belongs to."""

    user_id: int
    session_id: int


class SigningKey(NamedTuple):
    """A key, its public half for checking and for publishing, and the headers of its tokens."""

    private: ec.EllipticCurvePrivateKey
    public: ec.EllipticCurvePublicKey
    jwk: dict[str, str]
    headers: dict[str, str]


class KeyRing:
    """The keys whose tokens are accepted; the last one signs.

    A token's header is compared as a whole with the ones we write and never interpreted: no algorithm, key address or
    extension that somebody puts there is ever looked at.
    """

    def __init__(self, pems: list[str]) -> None:
        """Load private EC P-256 keys in PEM; raises ValueError where one is something else, or there is none."""
        keys = [_signing_key(pem) for pem in pems]
        if not keys:
            raise ValueError("there is no key")
        self._by_header = {_header(key): key for key in keys}
        self.current = keys[-1]

    @classmethod
    def load(cls, source: str) -> "KeyRing":
        """Load the keys of a folder, in the order of their names, or of a PEM text; raises ValueError."""
        if source.startswith("-----BEGIN"):
            return cls(PEM.findall(source))
        return cls([path.read_text() for path in sorted(Path(source).glob("*.pem"))])

    def key_for(self, token: str) -> SigningKey | None:
        """Return the key that a token's header names, or None where the header is not one of ours."""
        return self._by_header.get(token.partition(".")[0])

    def public_keys(self) -> list[dict[str, str]]:
        """Return the public keys as JSON Web Keys (RFC 7517)."""
        return [key.jwk for key in self._by_header.values()]


def issue(*, user_id: int, session_id: int) -> str:
    """Return an access token for a session."""
    key = _ring().current
    issued = int(time.time())
    claims = {
        "iss": current_app.config["PUBLIC_URL"],
        "aud": AUDIENCE,
        "sub": str(user_id),
        "sid": str(session_id),
        "jti": secrets.token_urlsafe(12),
        "iat": issued,
        "exp": issued + int(LIFETIME.total_seconds()),
    }
    return jwt.encode(claims, key.private, algorithm="ES256", headers=key.headers)


def read(token: str) -> Claims:
    """Return the claims of a token that we signed and that has not expired; raises InvalidToken."""
    key = _ring().key_for(token) if len(token) <= MAX_LENGTH else None
    if key is None:
        raise InvalidToken
    try:
        claims = jwt.decode(
            token,
            key.public,
            algorithms=["ES256"],
            audience=AUDIENCE,
            issuer=current_app.config["PUBLIC_URL"],
            leeway=CLOCK_SKEW,
            options={"require": CLAIMS, "strict_aud": True},
        )
        lifetime = claims["exp"] - claims["iat"]
        found = Claims(int(claims["sub"]), int(claims["sid"]))
    except (jwt.InvalidTokenError, TypeError, ValueError, RecursionError):
        raise InvalidToken from None
    if not 0 < lifetime <= LIFETIME.total_seconds():
        raise InvalidToken
    return found


def _ring() -> KeyRing:
    ring: KeyRing = current_app.extensions["key_ring"]
    return ring


def _header(key: SigningKey) -> str:
    """Return the first part of every token that the key signs."""
    return jwt.encode({}, key.private, algorithm="ES256", headers=key.headers).partition(".")[0]


def _signing_key(pem: str) -> SigningKey:
    private = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ValueError("a key is not EC P-256")
    public = private.public_key()
    jwk: dict[str, Any] = ECAlgorithm.to_jwk(public, as_dict=True)
    # The key's name is its thumbprint (RFC 7638): the members in alphabetical order, hashed.
    thumbprint = sha256(orjson.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")})).digest()
    kid = urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
    return SigningKey(private, public, {**jwk, "kid": kid, "use": "sig", "alg": "ES256"}, {"typ": "at+jwt", "kid": kid})
