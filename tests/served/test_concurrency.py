"""Many at once: nothing is lost, nothing is made twice, and nothing survives its end."""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from secrets import token_hex

import pytest

from tests.served.crowd import add_members, crowd_of, in_processes
from tests.served.service import API, PASSWORD, TIMEOUT, Caller, Person, Service

pytestmark = pytest.mark.served

ROUNDS = int(os.environ.get("ROLLCALL_ROUNDS", "20"))
CLIENTS = 32


def rename(number: int, caller: Caller, path: str, etag: str, turn: int) -> int:
    body = {"name": f"Writer {number} of {turn}"}
    return caller.patch(path, json=body, headers={"If-Match": etag}).status_code


def test_of_writers_with_one_etag_exactly_one_wins(service: Service) -> None:
    person, token = service.make_user(password=None), service.admin_token()

    with crowd_of(service, [token] * CLIENTS) as writers, service.caller(token) as reader:
        for turn in range(ROUNDS):
            before = reader.get(person.path)

            statuses = writers.at_once(rename, person.path, before.headers["ETag"], turn)

            after = reader.get(person.path).json()
            assert Counter(statuses) == {200: 1, 412: CLIENTS - 1}
            assert after["version"] == before.json()["version"] + 1
            assert after["name"] == f"Writer {statuses.index(200)} of {turn}"


def register(number: int, caller: Caller, spellings: Sequence[str]) -> tuple[int, str | None]:
    body = {"email": spellings[number % len(spellings)], "name": f"Ann {number}", "password": PASSWORD}
    answer = caller.patiently("POST", f"{API}/users", json=body)
    return answer.status_code, answer.json().get("code")


def test_one_address_in_four_spellings_registers_once(service: Service) -> None:
    address = f"ann.{token_hex(6)}@example.com"
    spellings = [address, address.upper(), address.title(), address.replace("ann", "ａｎｎ")]

    with crowd_of(service, [None] * CLIENTS) as people:
        answers = people.at_once(register, spellings)

    assert Counter(answers) == {(201, None): 1, (409, "email_taken"): CLIENTS - 1}
    assert len(service.rows("SELECT id FROM users WHERE email_key = %s", address)) == 1


def take_address(number: int, caller: Caller, people: Sequence[Person], address: str) -> int:
    return caller.patch(people[number].path, json={"email": address}).status_code


def test_one_address_is_taken_by_one_of_those_who_change_to_it(service: Service) -> None:
    people = [service.make_user(password=None) for _ in range(8)]
    address = f"wanted.{token_hex(6)}@example.com"

    with crowd_of(service, [service.admin_token()] * len(people)) as admins:
        statuses = admins.at_once(take_address, people, address)

    assert Counter(statuses) == {200: 1, 409: len(people) - 1}
    assert service.rows("SELECT id FROM users WHERE email_key = %s", address) == [(people[statuses.index(200)].id,)]


def test_patches_without_if_match_lose_nothing(service: Service) -> None:
    person, token = service.make_user(password=None), service.admin_token()
    shares = [[f"{process}-{number}" for number in range(12)] for process in range(4)]

    in_processes(add_members, [(service.url, token, person.path, share) for share in shares])

    kept = service.send("GET", person.path, token).json()
    assert kept["metadata"] == {name: True for share in shares for name in share}
    assert kept["version"] == 1 + sum(len(share) for share in shares)


@pytest.fixture
def only_two_admins(service: Service) -> Iterator[tuple[Person, Person]]:
    """Return the only two active admins; the others are back afterwards."""
    pair = service.make_user(role="admin"), service.make_user(role="admin")
    active = service.rows("SELECT id FROM users WHERE role = 'admin' AND is_active AND deleted_at IS NULL")
    others = sorted({user_id for (user_id,) in active} - {person.id for person in pair})
    places = ", ".join("%s" for _ in others)
    service.execute(f"UPDATE users SET is_active = false WHERE id IN ({places})", *others)
    yield pair
    service.execute(f"UPDATE users SET is_active = true WHERE id IN ({places})", *others)


def demote_the_other(number: int, caller: Caller, pair: Sequence[Person]) -> int:
    return caller.patch(pair[1 - number].path, json={"role": "member"}).status_code


def test_two_admins_cannot_demote_each_other(service: Service, only_two_admins: tuple[Person, Person]) -> None:
    for _ in range(ROUNDS):
        tokens = [service.sign_in(person.email) for person in only_two_admins]

        with crowd_of(service, tokens) as admins:
            statuses = admins.at_once(demote_the_other, only_two_admins)

        # The loser's session has ended (401), or a last admin must remain (409).
        assert sorted(statuses) in ([200, 401], [200, 409])
        winner, loser = tokens[statuses.index(200)], only_two_admins[1 - statuses.index(200)]
        restored = service.send("PATCH", loser.path, winner, json={"role": "admin"})
        assert restored.status_code == 200


class Ending:
    """The last moments of an account: somebody deletes it while others sign in to it and change it."""

    def __init__(self, person: Person, token: str) -> None:
        self.person, self.tokens = person, [token]
        self.credentials = {"email": person.email, "password": PASSWORD}
        self._sign_ins = threading.Semaphore(0)

    def act(self, number: int, caller: Caller) -> int:
        """Return the status that ended it: of the deletion (number 0), or of what others could do no longer."""
        if number == 0:
            for _ in range(3):  # By then others are in the middle of signing in.
                assert self._sign_ins.acquire(timeout=TIMEOUT)
            return caller.delete(self.person.path).status_code
        return self._sign_in(caller) if number % 2 else self._change(caller)

    def _sign_in(self, caller: Caller) -> int:
        while (answer := caller.post(f"{API}/auth/login", json=self.credentials)).status_code == 200:
            self.tokens.append(answer.json()["access_token"])
            self._sign_ins.release()
        return answer.status_code

    def _change(self, caller: Caller) -> int:
        while (answer := caller.patch(f"{API}/me", json={"name": "Changing Name"})).status_code == 200:
            pass
        return answer.status_code


def test_nothing_works_after_a_deletion_amid_sign_ins_and_changes(service: Service) -> None:
    admin_token = service.admin_token()
    for _ in range(max(1, ROUNDS // 3)):
        person = service.make_user()
        token = service.sign_in(person.email)
        ending = Ending(person, token)

        with crowd_of(service, [admin_token, *[token] * 7]) as crowd:
            deletion, *others = crowd.at_once(ending.act)

        assert deletion == 204
        assert set(others) <= {401, 404}  # Not found: the user went between the token's check and the change.
        assert {service.send("GET", f"{API}/me", token).status_code for token in ending.tokens} == {401}
        assert service.send("POST", f"{API}/auth/login", json=ending.credentials).status_code == 401
        assert service.rows("SELECT id FROM sessions WHERE user_id = %s AND ended_at IS NULL", person.id) == []
