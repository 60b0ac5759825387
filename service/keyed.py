"""Hashes: keyed ones (HMAC-SHA-256, RFC 2104) under SECRET_KEY, a key for each purpose, and fingerprints of tokens."""

import hmac
from base64 import urlsafe_b64encode
from functools import cache
from hashlib import sha256

from flask import current_app


def keyed_hash(purpose: str, data: bytes) -> bytes:
    """Return the 32 bytes that only who knows SECRET_KEY can make of the data."""
    return hmac.digest(_key(current_app.config["SECRET_KEY"], purpose), data, "sha256")


def mark(purpose: str, *parts: object) -> str:
    """Return a keyed hash of some parts as text."""
    return in_letters(keyed_hash(purpose, "\0".join(map(str, parts)).encode()))


def in_letters(data: bytes) -> str:
    """Return bytes as letters that need no quoting anywhere (base64url without padding, RFC 4648 §5)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def fingerprint(token: str) -> str:
    """Return what is kept of a token of 256 random bits, which needs neither salt nor slowness (SHA-256)."""
    return sha256(token.encode()).hexdigest()


@cache
def _key(secret: str, purpose: str) -> bytes:
    return hmac.digest(secret.encode(), b"rollcall " + purpose.encode(), "sha256")
