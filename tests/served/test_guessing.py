"""Guessing at a password gets nowhere, from however many places at once, and shuts nobody out of their account."""

import math
import os
import time
from collections import Counter

import pytest
import requests

from tests.served.crowd import crowd_of
from tests.served.service import API, PASSWORD, Caller, Service, somewhere
from tests.served.workers import statuses_of_each_worker

pytestmark = pytest.mark.served

LOGIN = f"{API}/auth/login"
GUESSES = int(os.environ.get("ROLLCALL_GUESSES", "200"))
GUESSERS = 20
FREE, FIRST_WAIT = 5, 5  # Attempts at an account from where it is not known, and the seconds after them.


def sign_in(caller: Caller, email: str, password: str, headers: dict[str, str]) -> requests.Response:
    """Try to sign in, and again for as long as there is no place to check the password."""
    return caller.patiently("POST", LOGIN, json={"email": email, "password": password}, headers=headers)


def most_evaluated(began: float) -> int:
    """Return how many guesses can have been evaluated since: the free ones, and one after each wait, which double."""
    return FREE + int(math.log2((time.monotonic() - began) / FIRST_WAIT + 1))


class Siege:
    """Many who guess at one account, each time from another network, while its person comes and goes (number 0)."""

    def __init__(self, email: str, home: dict[str, str], device: dict[str, str]) -> None:
        self.email, self.home, self.device = email, home, device
        self.guesses: list[int] = []
        self.own: list[requests.Response] = []
        self.left = GUESSERS

    def act(self, number: int, caller: Caller) -> None:
        if number == 0:
            self._live(caller)
            return
        for _ in range(GUESSES // GUESSERS):
            answer = sign_in(caller, self.email, f"wrong guess {len(self.guesses)}", somewhere())
            assert answer.status_code == 401 or int(answer.headers["Retry-After"]) > 0
            self.guesses.append(answer.status_code)
        self.left -= 1

    def _live(self, caller: Caller) -> None:
        while self.left and len(self.own) < 40:
            self.own.append(sign_in(caller, self.email, PASSWORD, self.home))
            self.own.append(sign_in(caller, self.email, PASSWORD, {**somewhere(), **self.device}))
            time.sleep(0.05)


def test_guesses_from_everywhere_are_hardly_ever_evaluated_and_shut_nobody_out(proxied: Service) -> None:
    person, home = proxied.make_user(), somewhere()
    with proxied.caller() as caller:
        first = sign_in(caller, person.email, PASSWORD, home)
    mark = first.headers["Set-Cookie"].partition(";")[0]
    siege = Siege(person.email, home, {"Cookie": mark})
    began = time.monotonic()

    with crowd_of(proxied, [None] * (GUESSERS + 1)) as crowd:
        crowd.at_once(siege.act)

    most = most_evaluated(began)
    counted = Counter(siege.guesses)
    assert counted.keys() == {401, 429}
    assert counted.total() == GUESSES // GUESSERS * GUESSERS
    assert FREE <= counted[401] <= most
    # The person came in all the while, by their network and by their device, and comes in now.
    assert len(siege.own) >= 2
    assert {answer.status_code for answer in siege.own} == {200}
    token = siege.own[-1].json()["access_token"]
    assert {*map(frozenset, statuses_of_each_worker(proxied, f"{API}/me", token))} == {frozenset({200})}
    with proxied.caller() as caller:
        assert sign_in(caller, person.email, PASSWORD, home).status_code == 200


def guess(number: int, caller: Caller, email: str) -> tuple[int, str]:
    answer = sign_in(caller, email, f"wrong guess {number}", somewhere())
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("is_known", [True, False])
def test_of_fifty_parallel_guesses_no_more_are_evaluated_than_are_free(proxied: Service, is_known: bool) -> None:
    email = proxied.make_user().email if is_known else "nobody-at-all@example.com"
    began = time.monotonic()

    with crowd_of(proxied, [None] * 50) as guessers:
        answers = guessers.at_once(guess, email)

    most = most_evaluated(began)
    counted = Counter(answers)
    assert counted.keys() == {(401, "invalid_credentials"), (429, "too_many_attempts")}
    assert FREE <= counted[401, "invalid_credentials"] <= most
