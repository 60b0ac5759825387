"""Pages: every row once and in order, in both directions, while others insert and delete."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import bindparam, delete, insert, select

from models import User
from models.paging import Page, PageRequest, page_of
from models.statements import execute, fetch_all, unit_of_work
from service.users import SORTS

WAYS = [way for sort in SORTS for way in (sort, f"-{sort}")]
# Few moments and names, so that there are ties; names whose order depends on the locale, unless it is by code point.
MOMENTS = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=number) for number in range(4)]
NAMES = ["ada", "zoe", "zoë", "ödön", "a b", "ab", "\U0001f600", "\uffee"]
KEYS = ("id", "email", "email_key", "name_key", "created_at", "updated_at")
PLAIN = {"name": "Any", "role": "member", "is_active": True, "email_verified": False, "version": 1}
NEW = insert(User).values(**PLAIN, public_metadata={}, private_metadata={}, **{k: bindparam(f"new_{k}") for k in KEYS})
GONE = delete(User).where(User.id == bindparam("user_id"))
PLACES = {name: select(column.label("place"), User.id) for name, column in SORTS.items()}
WIDE = select(User.id, *(column for name, column in SORTS.items() if name != "id"))


class Undone(Exception):
    """What ends a test."""


@pytest.fixture
def rows(app: Flask) -> Iterator["Rows"]:
    """Return rows in one transaction that is never committed."""
    with app.app_context(), suppress(Undone), unit_of_work():
        yield Rows()
        raise Undone


class Rows:
    """Users that come and go."""

    def __init__(self) -> None:
        self.made = 0

    def insert(self, dice: random.Random, count: int) -> None:
        """Add rows whose place in every order is by chance, and whose ids do not only rise."""
        taken = set(self.ids())
        free = [number for number in range(1, 1000) if number not in taken]
        for user_id in dice.sample(free, count):
            self.made += 1
            key = f"{dice.choice('azéZ_')}{self.made}@example.com"
            values = (user_id, key, key, dice.choice(NAMES), dice.choice(MOMENTS), dice.choice(MOMENTS))
            execute(NEW, **{f"new_{name}": value for name, value in zip(KEYS, values, strict=True)})

    def delete(self, dice: random.Random, count: int) -> None:
        """Take some rows away."""
        for user_id in dice.sample(self.ids(), count):
            execute(GONE, user_id=user_id)

    def ids(self) -> list[int]:
        """Return all ids, rising."""
        return sorted(row.id for row in fetch_all(PLACES["created_at"]))

    def in_order(self, way: str) -> list[int]:
        """Return all ids in the order that is wanted, as Python sorts."""
        found = [tuple(row) for row in fetch_all(PLACES[way.removeprefix("-")])]
        return [user_id for _, user_id in sorted(found, reverse=way.startswith("-"))]


def page(way: str, size: int, **place: Any) -> Page:
    return page_of(WIDE, PageRequest(size=size, sort=way, **place), SORTS)


def ids(page: Page) -> list[int]:
    return [row.id for row in page.items]


def walk(way: str, size: int, *, backwards: bool = False, between: Callable[[], None] = lambda: None) -> list[int]:
    """Go from one end to the other, and return the ids in the order in which they stand in the list."""
    seen, key = [], None
    while True:
        found = page(way, size, key=key, backwards=backwards)
        seen = ids(found) + seen if backwards else seen + ids(found)
        key = found.previous_key if backwards else found.next_key
        if key is None:
            return seen
        assert len(found.items) == size and len(seen) < 1000
        between()


@pytest.mark.parametrize("backwards", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_left_alone_are_seen_once_and_in_order_while_others_come_and_go(rows, way, backwards, seed):
    dice = random.Random(f"{seed} {way} {backwards}")
    rows.insert(dice, 30)
    at_first = set(rows.in_order(way))

    def others_write() -> None:
        rows.delete(dice, dice.randint(0, 2))
        rows.insert(dice, dice.randint(0, 2))

    seen = walk(way, dice.randint(1, 5), backwards=backwards, between=others_write)

    at_last = rows.in_order(way)
    left_alone = at_first & set(at_last)
    assert [user_id for user_id in seen if user_id in left_alone] == [
        user_id for user_id in at_last if user_id in left_alone
    ]
    assert len(left_alone) < len(at_first)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 4, 5, 6, 100])
def test_pages_make_up_the_whole_list_in_every_way_of_walking(rows, way, size):
    rows.insert(random.Random(size), 10)
    whole = rows.in_order(way)

    numbered = [page(way, size, number=number) for number in range(1, 12)]

    assert walk(way, size) == whole
    assert walk(way, size, backwards=True) == whole
    assert [user_id for found in numbered for user_id in ids(found)] == whole
    assert {found.total for found in numbered} == {10}


@pytest.mark.parametrize("way", WAYS)
def test_turning_round_shows_the_page_before(rows, way):
    rows.insert(random.Random(way), 10)
    first = page(way, 4)
    second = page(way, 4, key=first.next_key)
    third = page(way, 4, key=second.next_key)

    assert (first.previous_key, third.next_key) == (None, None)
    assert ids(page(way, 4, key=third.previous_key, backwards=True)) == ids(second)
    back = page(way, 4, key=second.previous_key, backwards=True)
    assert ids(back) == ids(first) and back.previous_key is None
    assert ids(page(way, 4, key=back.next_key)) == ids(second)


@pytest.mark.parametrize("way", WAYS)
def test_a_numbered_page_leads_on_by_key(rows, way):
    rows.insert(random.Random(way), 10)

    second, last = page(way, 4, number=2), page(way, 4, number=3)

    assert ids(page(way, 4, key=second.next_key)) == ids(last)
    assert last.next_key is None


@pytest.mark.parametrize("place", [{}, {"backwards": True}, {"number": 1}, {"number": 10**9}])
def test_a_page_of_nothing_is_empty(rows, place):
    found = page("id", 20, **place)

    assert (list(found.items), found.next_key, found.previous_key) == ([], None, None)
    assert found.total == (0 if "number" in place else None)


def test_a_page_past_the_end_is_empty_and_still_counts(rows):
    rows.insert(random.Random(0), 5)

    found = page("name", 5, number=2)

    assert (list(found.items), found.next_key, found.total) == ([], None, 5)


def test_going_on_after_all_that_followed_was_deleted_finds_nothing(rows):
    rows.insert(random.Random(0), 4)
    first = page("-created_at", 2)
    for user_id in set(rows.ids()) - set(ids(first)):
        execute(GONE, user_id=user_id)

    found = page("-created_at", 2, key=first.next_key)

    assert (list(found.items), found.next_key) == ([], None)


def test_the_query_keeps_its_own_conditions_on_every_page(rows):
    rows.insert(random.Random(0), 20)
    wanted = [row.id for row in fetch_all(select(User.id).where(User.name_key == "ab").order_by(User.id))]

    found = page_of(WIDE.where(User.name_key == "ab"), PageRequest(size=100, sort="id"), SORTS)
    numbered = page_of(WIDE.where(User.name_key == "ab"), PageRequest(size=100, sort="id", number=1), SORTS)

    assert ids(found) == ids(numbered) == wanted
    assert numbered.total == len(wanted) > 0
