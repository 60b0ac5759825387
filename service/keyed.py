"""Keyed hashes (HMAC-SHA-256, RFC 2104) under SECRET_KEY, with a key of its own for each purpose."""

import hmac
from base64 import urlsafe_b64encode
from functools import cache

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


@cache
def _key(secret: str, purpose: str) -> bytes:
    return hmac.digest(secret.encode(), b"rollcall " + purpose.encode(), "sha256")
