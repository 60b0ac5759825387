"""Passwords: kept as Argon2id, checked at a bounded pace, judged by length."""

import os
import re
import string
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from flask import current_app
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from service import normal
from service.errors import Busy, Fault, Invalid

MAX_LENGTH = 1024
COMMON = frozenset(password for password in FREQUENCY_LISTS["passwords"] if len(password) >= 6)
PRODUCT = "rollcall"
LONGEST_PATTERN = 4  # Characters.
LEAST_OF_ITS_OWN = 4  # Letters that a password needs besides personal words.
# 19 MiB, two passes, one lane: the OWASP minimum, about 20 ms of one core.
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_UNKNOWN = _hasher.hash("nobody has this password")
# As many at once as there are cores: more would only take memory and time from other requests.
_slots = threading.BoundedSemaphore(os.cpu_count() or 1)


def places(threads: int) -> threading.BoundedSemaphore:
    """Return the places for those who are at a password, waiting included: half the threads serve other requests."""
    return threading.BoundedSemaphore(max(1, threads // 2))


@contextmanager
def place() -> Iterator[None]:
    """Hold one of the places while a password is checked or hashed; raises Busy at once where none is free."""
    free = current_app.extensions["password_places"]
    if not free.acquire(blocking=False):
        raise Busy
    try:
        yield
    finally:
        free.release()


def new_hash(password: str, *, personal: Iterable[str]) -> str:
    """Return the hash of a new password that may be used; raises Invalid, Busy."""
    check_policy(password, personal=personal)
    with place():
        return hash_of(password)


def check_policy(password: str, *, personal: Iterable[str] = ()) -> None:
    """Refuse a new password that is short, common, or made of `personal` words (NIST SP 800-63B-4 §3.1.1.2).

    There is no rule about kinds of characters. Raises Invalid.
    """
    least = current_app.config["PASSWORD_MIN_LENGTH"]
    if len(_normal(password)) < least:
        fault = Fault("/json/password", "too_short", f"Use at least {least} characters.")
        raise Invalid("The password is too short.", faults=[fault])
    if len(password) > MAX_LENGTH:
        fault = Fault("/json/password", "too_long", f"Use at most {MAX_LENGTH} characters.")
        raise Invalid("The password is too long.", faults=[fault])
    if _is_guessed_first(password, personal):
        fault = Fault("/json/password", "common", "It is among the first that would be guessed. Choose another.")
        raise Invalid("The password is too easy to guess.", faults=[fault])


def _is_guessed_first(password: str, personal: Iterable[str]) -> bool:
    """Tell whether it is a common password, a short pattern repeated, or a personal word with little round it."""
    folded = normal.key(password)
    if folded in COMMON or folded.strip(string.digits + string.punctuation) in COMMON or _is_pattern(folded):
        return True
    words = {word for text in (*personal, PRODUCT) for word in re.findall(r"[^\W_]{3,}", normal.key(text))}
    rest = re.sub("|".join(map(re.escape, sorted(words, key=len, reverse=True))), "", folded)
    return len(rest) < len(folded) and len(re.sub(r"[\W\d_]", "", rest)) < LEAST_OF_ITS_OWN


def _is_pattern(text: str) -> bool:
    """Tell whether a text is a few characters over and over, or each the next of the one before, up or down."""
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    return steps in ({1}, {-1}) or any(text[size:] == text[:-size] for size in range(1, LONGEST_PATTERN + 1))


def hash_of(password: str) -> str:
    """Return the Argon2id hash (RFC 9106) of a password, about 20 ms; the caller holds a place."""
    with _slots:
        return _hasher.hash(_normal(password))


def matches(password: str, password_hash: str | None) -> bool:
    """Tell whether the password belongs to the hash; an unknown user's takes as long. The caller holds a place."""
    with _slots:
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
