"""A flood of sign-ins: whoever finds no place is told so at once, and who only reads is served as ever."""

import time
from collections.abc import Sequence

import pytest
import requests

from tests.served.crowd import crowd_of
from tests.served.service import API, PASSWORD, Caller, Person, Service, somewhere

pytestmark = pytest.mark.served

PEOPLE, READERS = 30, 4
SECONDS = 2  # How long the flood lasts.


def sign_in(caller: Caller, person: Person, network: dict[str, str]) -> requests.Response:
    return caller.post(f"{API}/auth/login", json={"email": person.email, "password": PASSWORD}, headers=network)


def act(number: int, caller: Caller, people: Sequence[Person]) -> list[requests.Response]:
    """Sign in without a pause, each from a network of their own, or read (the last ones); return the answers."""
    network, end = somewhere(), time.monotonic() + SECONDS
    answers = []
    while time.monotonic() < end:
        if number < len(people):
            answers.append(sign_in(caller, people[number], network))
        else:
            answers.append(caller.get(people[len(answers) % len(people)].path))
    return answers


def test_flood_of_sign_ins_leaves_room_for_who_reads(proxied: Service) -> None:
    people = [proxied.make_user() for _ in range(PEOPLE)]

    with crowd_of(proxied, [None] * PEOPLE + [proxied.admin_token()] * READERS) as crowd:
        answers = crowd.at_once(act, people)

    sign_ins = [answer for answers_of_one in answers[:PEOPLE] for answer in answers_of_one]
    assert {(answer.status_code, answer.json().get("code")) for answer in sign_ins} == {(200, None), (503, "busy")}
    assert {answer.headers["Retry-After"] for answer in sign_ins if answer.status_code == 503} == {"1"}
    assert all(reads and {answer.status_code for answer in reads} == {200} for reads in answers[PEOPLE:])
    with proxied.caller() as caller:
        assert sign_in(caller, people[0], somewhere()).status_code == 200
