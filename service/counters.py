"""Counters in memory that the workers of an instance share: how often something came up in its window of time."""

import mmap
import time
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple, Protocol

from service.shared_locks import shared_lock

SETS, WAYS = 16_384, 8  # Places for 131,072 keys, 3 MiB. A key has one set of places, and any of the ways in it.
KEY_BYTES = 16
_KEY = Struct("@QQ")
_SET = Struct(f"@{WAYS}Q{WAYS}d{WAYS}Q")  # What is counted there, when each window ends, and how often it came up.


class Bucket(NamedTuple):
    """What is counted, as 16 bytes that nobody can choose, and for how many seconds from its first time."""

    key: bytes
    window: int


class Count(NamedTuple):
    """How often something came up in its window, this time included, and the seconds until that ends."""

    number: int
    left: float


class Counters(Protocol):
    """Where things are counted."""

    def hit(self, *buckets: Bucket) -> list[Count]:
        """Count each of them once more."""


class SharedCounters:
    """Counters in memory of a fixed size, made before the server forks its workers, and exact over all of them.

    A window begins with the first time that something comes up. Where there is no place left for a new key, the one
    that came up least is forgotten, so that a flood of strangers forgets itself and not those who send much.
    """

    def __init__(self, sets: int = SETS, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock  # The same for all processes, and none that anybody sets.
        self._sets = sets
        self._memory = mmap.mmap(-1, sets * _SET.size)
        # Views write a number at a stroke; a Struct writes zeros first, which a worker killed then would leave behind.
        self._whole, self._real = memoryview(self._memory).cast("Q"), memoryview(self._memory).cast("d")
        self._lock = shared_lock()

    def hit(self, *buckets: Bucket) -> list[Count]:
        """Count each of them once more."""
        with self._lock:
            now = self.clock()
            return [self._count(bucket, now) for bucket in buckets]

    def _count(self, bucket: Bucket, now: float) -> Count:
        which, mark = _KEY.unpack(bucket.key)
        place = which % self._sets * 3 * WAYS
        found = _SET.unpack_from(self._memory, 8 * place)
        marks, ends, numbers = found[:WAYS], found[WAYS : 2 * WAYS], found[2 * WAYS :]
        if mark in marks:
            way = marks.index(mark)
            number, end = numbers[way] + 1, ends[way]
        else:
            way = min(range(WAYS), key=lambda way: (ends[way] > now and numbers[way], ends[way]))
            number, end = 1, now
        if end <= now:
            number = 1
        # After each of these steps the place is one that could have been so.
        self._whole[place + 2 * WAYS + way] = number
        if not now < end <= now + bucket.window:  # It is over, or a clock that was set back would never end it.
            end = self._real[place + WAYS + way] = now + bucket.window
            self._whole[place + way] = mark
        return Count(number, end - now)
