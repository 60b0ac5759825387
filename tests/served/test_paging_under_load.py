"""Lists while they change: of the users who stay, none is skipped and none is seen twice."""

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.served.crowd import Churn
from tests.served.service import API, Caller, Service, eventually

pytestmark = pytest.mark.served

USERS = int(os.environ.get("ROLLCALL_PAGING_USERS", "2000"))
CHANGES = 40  # Users who must have come and gone while the list was read, or the reading proves nothing.
SORTS = ("id", "-id", "name", "-name")
MOMENT = "2026-01-02 03:04:05.000000"


@pytest.fixture
def population(service: Service) -> Iterator[tuple[list[int], list[int]]]:
    """Return the ids of many users who stay, and of some among them who may be deleted."""
    service.insert("users", [row_of(number) for number in range(USERS)])
    ids = [user_id for (user_id,) in service.rows("SELECT id FROM users WHERE email_key LIKE 'crowd-%%'")]
    random.shuffle(ids)
    yield ids[USERS // 5 :], ids[: USERS // 5]
    service.execute("DELETE FROM users WHERE email_key LIKE 'crowd-%%' OR name_key LIKE '%% of the churn'")


def row_of(number: int) -> dict[str, object]:
    # Names come in no order of their ids, begin with every letter that the names of others begin with, and repeat.
    name = f"{number * 7919 % 211:02x} in the crowd"
    return {
        "email": f"crowd-{number}@example.com",
        "email_key": f"crowd-{number}@example.com",
        "name": name,
        "name_key": name,
        "role": "member",
        "is_active": True,
        "email_verified": False,
        "public_metadata": "{}",
        "private_metadata": "{}",
        "version": 1,
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }


def read_through(caller: Caller, sort: str) -> list[int]:
    """Return the ids of all pages, one after the other."""
    seen: list[int] = []
    wanted = {"sort": sort, "per_page": "100", "fields": "id"}
    while True:
        answer = caller.get(f"{API}/users", params=wanted)
        assert answer.status_code == 200, answer.text
        seen += [user["id"] for user in answer.json()["users"]]
        if answer.json()["next_cursor"] is None:
            return seen
        wanted["cursor"] = answer.json()["next_cursor"]


def test_users_who_stay_are_seen_exactly_once(service: Service, population: tuple[list[int], list[int]]) -> None:
    staying, doomed = population
    token = service.admin_token()
    readings: list[tuple[str, list[int]]] = []

    with Churn(service, token, doomed) as churn, service.caller(token) as caller:
        eventually(lambda: churn.count > 0)
        for sort in SORTS:
            before = churn.count
            while churn.count < before + CHANGES:
                readings.append((sort, read_through(caller, sort)))

    assert {sort for sort, _ in readings} == set(SORTS)
    for sort, seen in readings:
        assert [user_id for user_id, times in Counter(seen).items() if times > 1] == [], sort
        assert set(staying) - set(seen) == set(), sort
