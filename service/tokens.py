"""Access tokens: JSON Web Tokens (RFC 9068) signed with ES256, and the ring of keys that sign them."""

import logging
import os
import re
import secrets
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import current_app
from jwt.algorithms import ECAlgorithm
from jwt.types import Options

from service.errors import InvalidToken
from service.keyed import in_letters

log = logging.getLogger("rollcall.tokens")

LIFETIME = timedelta(minutes=15)
CLOCK_SKEW = 30  # Seconds by which the clocks of two instances may differ.
AUDIENCE = "rollcall"
MAX_LENGTH = 2048
# Whether the time is right is asked at each use.
CHECKS: Options = {
    "require": ["iss", "aud", "sub", "iat", "exp", "jti"],
    "strict_aud": True,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}
PEM = re.compile(r"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)


class Claims(NamedTuple):
    """What a token says: from when to when it is good (Unix time), and whose it is.

    A person's names the user and the session, a program's only itself, as it was written down.
    """

    good_from: int
    expires_at: int
    user_id: int = 0
    session_id: int = 0
    token_id: int | None = None


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

    def __init__(self, pems: list[str], *, issuer: str) -> None:
        """Load private EC P-256 keys in PEM; raises ValueError where one is something else, or there is none."""
        self.issuer = issuer
        self.stamp = self.source = ""
        keys = [_signing_key(pem) for pem in pems]
        if not keys:
            raise ValueError("there is no key")
        self._by_header = {_header(key): key for key in keys}
        self.current = keys[-1]
        # A good signature stays good, so it is checked once; time and session are looked at every time.
        self.verified = lru_cache(maxsize=4096)(self._verified)

    @classmethod
    def load(cls, source: str, *, issuer: str) -> "KeyRing":
        """Load the keys of a folder, in the order of their names, or of a PEM text; raises ValueError."""
        if source.startswith("-----BEGIN"):
            return cls(PEM.findall(source), issuer=issuer)
        stamp = _stamp(source)
        ring = cls([path.read_text() for path in sorted(Path(source).glob("*.pem"))], issuer=issuer)
        ring.source, ring.stamp = source, stamp
        return ring

    def renewed(self) -> "KeyRing":
        """Return the ring with the keys that the folder has now; this very one if it has not changed, or not well."""
        if not self.source or _stamp(self.source) == self.stamp:
            return self
        try:
            return KeyRing.load(self.source, issuer=self.issuer)
        except (ValueError, OSError) as error:
            log.error("signing keys cannot be read again", extra={"error": type(error).__name__})
            return self

    def knows(self, token: str) -> bool:
        """Tell whether a token claims to be signed by one of the keys."""
        return token.partition(".")[0] in self._by_header

    def _verified(self, token: str) -> Claims:
        """Return the claims of a token that one of our keys has signed for this service; raises InvalidToken."""
        key = self._by_header.get(token.partition(".")[0])
        if key is None or len(token) > MAX_LENGTH:
            raise InvalidToken
        try:
            claims = jwt.decode(token, key.public, algorithms=["ES256"], audience=AUDIENCE, options=CHECKS)
            good_from, expires_at = max(int(claims["iat"]), int(claims.get("nbf", 0))), int(claims["exp"])
            found = Claims(good_from, expires_at, **_holder(claims))
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            raise InvalidToken from None
        lifetime = found.expires_at - found.good_from
        if claims["iss"] != self.issuer or not 0 < lifetime <= LIFETIME.total_seconds():
            raise InvalidToken
        return found

    def public_keys(self) -> list[dict[str, str]]:
        """Return the public keys as JSON Web Keys (RFC 7517)."""
        return [key.jwk for key in self._by_header.values()]


def issue(*, user_id: int, session_id: int) -> str:
    """Return an access token for a session."""
    return _issue(sub=str(user_id), sid=str(session_id))


def issue_to_program(*, client_id: str, token_id: int) -> str:
    """Return an access token for a program, with the number under which it was written down."""
    return _issue(sub=client_id, client_id=client_id, tid=str(token_id))


def _issue(**holder: str) -> str:
    ring = _renewed_ring()
    issued = int(time.time())
    claims = {
        "iss": ring.issuer,
        "aud": AUDIENCE,
        **holder,
        "jti": secrets.token_urlsafe(12),
        "iat": issued,
        "exp": issued + int(LIFETIME.total_seconds()),
    }
    return jwt.encode(claims, ring.current.private, algorithm="ES256", headers=ring.current.headers)


def _holder(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return whose token it is: a person's, in a session, or a program's, by a key; raises KeyError, ValueError."""
    if "client_id" in claims:
        return {"token_id": _id(claims["tid"])}
    return {"user_id": _id(claims["sub"]), "session_id": _id(claims["sid"])}


def _id(claim: Any) -> int:
    number = int(claim)
    if not 0 < number < 2**63:
        raise ValueError("That is no id.")
    return number


def read(token: str) -> Claims:
    """Return the claims of a token that we signed and that is good now; raises InvalidToken."""
    ring = _ring()
    if not ring.knows(token):
        ring = _renewed_ring()  # Another process may have been first to see a new key, and to sign with it.
    claims = ring.verified(token)
    now = time.time()
    if not claims.good_from - CLOCK_SKEW <= now < claims.expires_at + CLOCK_SKEW:
        raise InvalidToken
    return claims


def _ring() -> KeyRing:
    ring: KeyRing = current_app.extensions["key_ring"]
    return ring


def _renewed_ring() -> KeyRing:
    ring = current_app.extensions["key_ring"] = _ring().renewed()
    return ring


def public_keys() -> list[dict[str, str]]:
    """Return the public keys as JSON Web Keys (RFC 7517)."""
    return _renewed_ring().public_keys()


def _stamp(folder: str) -> str:
    """Return what changes when a file is added to a folder or removed."""
    try:
        return f"{os.stat(folder).st_mtime_ns} {sorted(os.listdir(folder))}"
    except OSError:
        return ""


def _header(key: SigningKey) -> str:
    """Return the first part of every token that the key signs."""
    return jwt.encode({}, key.private, algorithm="ES256", headers=key.headers).partition(".")[0]


def _signing_key(pem: str) -> SigningKey:
    try:
        private = serialization.load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise ValueError("a key is under a passphrase") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ValueError("a key is not EC P-256")
    public = private.public_key()
    jwk: dict[str, Any] = ECAlgorithm.to_jwk(public, as_dict=True)
    # The key's name is its thumbprint (RFC 7638): the members in alphabetical order, hashed.
    thumbprint = sha256(orjson.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")})).digest()
    kid = in_letters(thumbprint)
    return SigningKey(private, public, {**jwk, "kid": kid, "use": "sig", "alg": "ES256"}, {"typ": "at+jwt", "kid": kid})
