"""Whether an address is known shows neither in what is answered nor in how long it takes.

`ROLLCALL_TIMING_PAIRS=200 pytest --log-cli-level INFO tests/served/test_timing.py` measures more closely, and tells.
"""

import logging
import math
import os
import random
import time
from collections.abc import Callable
from secrets import token_hex
from statistics import median, quantiles

import pytest
import requests

from tests.served.service import API, Caller, Service, somewhere

pytestmark = pytest.mark.served

log = logging.getLogger("rollcall.timing")

PAIRS = int(os.environ.get("ROLLCALL_TIMING_PAIRS", "40"))
WARM_UP = 5  # Pairs that are not counted, because the first requests make what the others find made.
COPIED = (
    "name, name_key, role, is_active, email_verified, public_metadata, private_metadata, password_hash, version,"
    " created_at, updated_at"
)
Ask = Callable[[Caller, str, dict[str, str]], requests.Response]


def log_in(caller: Caller, email: str, headers: dict[str, str]) -> requests.Response:
    body = {"email": email, "password": "a wrong pass phrase"}
    return caller.post(f"{API}/auth/login", json=body, headers=headers)


def register(caller: Caller, email: str, headers: dict[str, str]) -> requests.Response:
    body = {"email": email, "name": "Some Person", "password": "a good pass phrase"}
    return caller.post(f"{API}/users", json=body, headers=headers)


def forget_password(caller: Caller, email: str, headers: dict[str, str]) -> requests.Response:
    return caller.post(f"{API}/auth/password/forgot", json={"email": email}, headers=headers)


def ask_again(caller: Caller, email: str, headers: dict[str, str]) -> requests.Response:
    return caller.post(f"{API}/auth/email/resend", json={"email": email}, headers=headers)


def addresses(count: int) -> list[str]:
    return [f"person-{token_hex(6)}@example.com" for _ in range(count)]


def known_addresses(service: Service, count: int) -> list[str]:
    """Make so many accounts that differ in nothing but the address, and return their addresses."""
    model, known = service.make_user(), addresses(count)
    for email in known:
        service.execute(
            f"INSERT INTO users (email, email_key, {COPIED}) SELECT %s, %s, {COPIED} FROM users WHERE id = %s",
            *(email, email, model.id),
        )
    return known


class Comparison:
    """Times of requests about known and unknown addresses, in milliseconds, made in turn and in a random order."""

    def __init__(self, service: Service, ask: Ask) -> None:
        self.service, self.ask = service, ask
        self.answers: set[tuple[object, ...]] = set()
        self.times: dict[str, list[float]] = {"known": [], "unknown": []}
        self.times_of_next: dict[str, list[float]] = {"known": [], "unknown": []}

    def run(self) -> None:
        count = PAIRS + WARM_UP
        waiting = {"known": known_addresses(self.service, count), "unknown": addresses(count)}
        with self.service.caller() as caller:
            for _ in range(count):
                for kind in random.sample(["known", "unknown"], 2):
                    self._ask(caller, kind, waiting[kind].pop())

    def _ask(self, caller: Caller, kind: str, email: str) -> None:
        headers = {**somewhere(), "X-Request-ID": "0" * 24}
        began = time.perf_counter()
        answer = self.ask(caller, email, headers)
        answered = time.perf_counter()
        caller.get("/health")
        self.times_of_next[kind].append((time.perf_counter() - answered) * 1000)
        self.times[kind].append((answered - began) * 1000)
        shown = sorted((name, value) for name, value in answer.headers.items() if name != "Date")
        self.answers.add((answer.status_code, answer.content, *shown))
        time.sleep(0.02)  # What a process does when it has answered is not to fall into the time of another request.


def tells_apart(what: str, times: dict[str, list[float]]) -> bool:
    """Tell whether the medians are further apart than what lies between the quartiles, or a twentieth."""
    counted = {kind: found[WARM_UP:] for kind, found in times.items()}
    known, unknown = median(counted["known"]), median(counted["unknown"])
    spreads = [third - first for first, _, third in (quantiles(found, n=4) for found in counted.values())]
    log.info(
        "%s: known %.2f ms, unknown %.2f ms, apart %+.2f ms; between the quartiles %.2f and %.2f ms; z %+.1f",
        *(what, known, unknown, known - unknown, *spreads, z_of(counted["known"], counted["unknown"])),
    )
    return abs(known - unknown) > max(*spreads, 0.05 * unknown)


def z_of(ones: list[float], others: list[float]) -> float:
    """Return how many standard deviations the order of two samples is from chance (Mann and Whitney)."""
    wins = sum((one > other) + (one == other) / 2 for one in ones for other in others)
    pairs = len(ones) * len(others)
    return float((wins - pairs / 2) / math.sqrt(pairs * (len(ones) + len(others) + 1) / 12))


@pytest.mark.parametrize("ask", [log_in, register, forget_password, ask_again])
def test_known_and_unknown_address_look_the_same(proxied: Service, ask: Ask) -> None:
    comparison = Comparison(proxied, ask)

    comparison.run()

    assert len(comparison.answers) == 1, comparison.answers
    assert not tells_apart(ask.__name__, comparison.times)
    assert not tells_apart(f"the request after {ask.__name__}", comparison.times_of_next)
