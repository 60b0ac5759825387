"""Passwords: kept as Argon2id, checked at a bounded pace, judged by length."""

import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from flask import current_app

from service.errors import Busy, Fault, Invalid

MAX_LENGTH = 1024
# 19 MiB, two passes, one lane: the OWASP minimum, about 20 ms of one core.
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_UNKNOWN = _hasher.hash("nobody has this password")
# As many at once as there are cores: more would only take memory and time from other requests.
_slots = threading.BoundedSemaphore(os.cpu_count() or 1)


def check_policy(password: str) -> None:
    """Refuse a new password by its length (NIST SP 800-63B-4 §3.1.1); raises Invalid."""
    least = current_app.config["PASSWORD_MIN_LENGTH"]
    if len(_normal(password)) < least:
        fault = Fault("/json/password", "too_short", f"Use at least {least} characters.")
        raise Invalid("The password is too short.", faults=[fault])
    if len(password) > MAX_LENGTH:
        fault = Fault("/json/password", "too_long", f"Use at most {MAX_LENGTH} characters.")
        raise Invalid("The password is too long.", faults=[fault])


def hash_of(password: str) -> str:
    """Return the Argon2id hash (RFC 9106) of a password, about 20 ms; raises Busy."""
    with _slot():
        return _hasher.hash(_normal(password))


def matches(password: str, password_hash: str | None) -> bool:
    """Tell whether the password belongs to the hash; an unknown user's takes the same time. Raises Busy."""
    with _slot():
        try:
            _hasher.verify(password_hash or _UNKNOWN, _normal(password))
        except (VerificationError, ValueError):  # The password is wrong, or the hash is none.
            return False
    return password_hash is not None


def is_outdated(password_hash: str) -> bool:
    """Tell whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


def _normal(password: str) -> str:
    """Return NFC, and otherwise the password as it is (RFC 8265 §4.2.2)."""
    return unicodedata.normalize("NFC", password)


@contextmanager
def _slot() -> Iterator[None]:
    if not _slots.acquire(timeout=2):
        raise Busy
    try:
        yield
    finally:
        _slots.release()
