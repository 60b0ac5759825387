"""Throttling: how attempts are counted, refused, forgiven and taken back."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select

from models import Throttle
from models.base import db, now
from models.statements import unit_of_work
from service import throttle
from service.errors import TooManyAttempts
from service.throttle import Attempt, Rule, network_of

RULE = Rule("test", free=3, first_wait=5, longest_wait=60, memory=600)
OTHER = Rule("other", free=3, first_wait=5, longest_wait=60, memory=600)
ADA, GRACE = Attempt(RULE, "ada"), Attempt(RULE, "grace")


@pytest.fixture
def work(app):
    """Work in the application's context."""
    with app.app_context():
        yield app


@pytest.fixture
def wait(work):
    """Return a function that lets time pass for what is counted."""

    def go(seconds):
        for row in db.session.scalars(select(Throttle)):
            row.seen_at -= timedelta(seconds=seconds)
            if row.refused_until:
                row.refused_until -= timedelta(seconds=seconds)
        db.session.commit()
        db.session.remove()

    return go


def counted():
    """Return the attempts that are counted, by key."""
    rows = {row.key: row.attempts for row in db.session.scalars(select(Throttle))}
    db.session.remove()
    return rows


def admitted(*attempts):
    """Tell whether attempts are admitted, or how long they must wait."""
    try:
        throttle.admit(*attempts)
    except TooManyAttempts as refusal:
        return refusal.retry_after
    return True


def done(operation):
    with unit_of_work():
        operation(ADA)


def done_and_failed(operation):
    with unit_of_work():
        operation(ADA)
        raise RuntimeError


# Rules


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, None), (1, None), (2, None), (3, 5), (4, 10), (5, 20), (6, 40), (7, 60), (8, 60)]
)
def test_waits_double_after_the_free_ones_up_to_the_longest(attempts, seconds):
    assert RULE.wait(attempts) == (None if seconds is None else timedelta(seconds=seconds))


def test_wait_after_very_many_attempts_is_the_longest():
    assert RULE.wait(10**9) == timedelta(seconds=60)


def test_key_is_of_one_rule_and_one_subject_and_one_installation(work):
    keys = {ADA.key, GRACE.key, Attempt(OTHER, "ada").key}
    assert ADA.key == Attempt(RULE, "ada").key
    work.config["SECRET_KEY"] = "another secret key: 9876543210 zyxwvutsrqponmlkjihgfedcba"

    keys.add(ADA.key)

    assert len(keys) == 4
    assert all(len(key) == 43 for key in keys)


def test_key_of_a_long_subject_fits(work):
    assert admitted(Attempt(RULE, "x" * 100_000)) is True


# Networks


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("::FFFF:C633:6407", "198.51.100.7"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
        ("2001:0DB8:0000:0001::", "2001:db8:0:1::"),
        ("2001:db8:0:1::198.51.100.7", "2001:db8:0:1::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        ("127.0.0.1", "127.0.0.1"),
        (None, ""),
        ("", ""),
        ("unknown", ""),
        ("198.51.100.7:4711", ""),
        ("198.51.100.007", ""),
        ("198.51.100.7, 10.0.0.1", ""),
        ("[2001:db8::1]", ""),
        ("１９８.51.100.7", ""),
        ("x" * 10_000, ""),
    ],
)
def test_network_is_what_one_person_holds(address, network):
    assert network_of(address) == network


# Admitting


def test_free_attempts_are_admitted_and_then_one_must_wait(work, nothing_changes):
    assert [admitted(ADA) for _ in range(3)] == [True] * 3

    with nothing_changes():
        assert [admitted(ADA) for _ in range(3)] == [5] * 3


def test_attempts_at_others_are_counted_apart(work):
    for _ in range(3):
        admitted(ADA)

    assert [admitted(ADA), admitted(GRACE), admitted(Attempt(OTHER, "ada"))] == [5, True, True]


def test_wait_grows_with_each_further_attempt(work, wait):
    for _ in range(3):
        admitted(ADA)

    for seconds in (5, 10, 20, 40, 60, 60):
        assert admitted(ADA) == seconds
        wait(seconds)
        assert admitted(ADA) is True


def test_wait_is_rounded_up(work, wait):
    for _ in range(3):
        admitted(ADA)
    wait(4.5)

    assert admitted(ADA) == 1


def test_quiet_forgets(work, wait):
    for _ in range(3):
        admitted(ADA)
    wait(601)

    assert [admitted(ADA) for _ in range(4)] == [True, True, True, 5]
    assert counted() == {ADA.key: 3}


def test_less_quiet_does_not_forget(work, wait):
    for _ in range(3):
        admitted(ADA)
    wait(590)

    assert [admitted(ADA), admitted(ADA)] == [True, 10]


def test_of_several_all_are_counted_or_none(work, nothing_changes):
    for _ in range(3):
        assert admitted(ADA) is True

    with nothing_changes():
        assert admitted(GRACE, ADA) == admitted(ADA, GRACE) == 5
    assert counted() == {ADA.key: 3}

    assert admitted(GRACE, Attempt(OTHER, "ada")) is True
    assert counted() == {ADA.key: 3, GRACE.key: 1, Attempt(OTHER, "ada").key: 1}


def test_attempt_is_counted_although_what_follows_fails(work):
    with pytest.raises(RuntimeError):
        done_and_failed(throttle.admit)

    assert counted() == {ADA.key: 1}


def test_three_letters_an_hour_go_to_one_address(work, wait):
    assert [throttle.letters_allowed("ada@example.com") for _ in range(5)] == [True] * 3 + [False] * 2
    assert throttle.letters_allowed("grace@example.com")

    wait(3601)
    assert throttle.letters_allowed("ada@example.com")


def test_twenty_letters_an_hour_are_caused_by_one_network(work, wait):
    answers = [throttle.letters_allowed(f"person{number}@example.com") for number in range(22)]
    assert answers == [True] * 20 + [False] * 2

    wait(3601)
    assert throttle.letters_allowed("person20@example.com")


def test_what_has_been_quiet_for_a_day_is_removed(work, wait):
    admitted(ADA)
    wait(24 * 3600 + 1)
    for _ in range(4):
        admitted(GRACE)
    wait(23 * 3600)

    with unit_of_work():
        assert throttle.forget_old() == 1
    assert counted() == {GRACE.key: 3}


def test_clock_that_goes_back_frees_nobody(work, wait):
    for _ in range(3):
        admitted(ADA)

    wait(-3600)

    assert admitted(ADA) > 3600
    assert counted() == {ADA.key: 3}


def test_many_at_once_get_no_further_than_many_in_turn(work):
    count = 10
    start = threading.Barrier(count)

    def go(_):
        with work.app_context():
            start.wait()
            return admitted(ADA)

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(go, range(count)))

    assert answers.count(True) == 3
    assert counted() == {ADA.key: 3}


def test_many_at_once_at_several_things_do_not_wait_for_each_other_for_ever(work):
    network = Attempt(Rule("network", free=100, first_wait=5, longest_wait=60, memory=600), "here")

    def go(number):
        with work.app_context():
            return admitted(Attempt(RULE, f"person {number % 4}"), network)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(go, range(16)))

    assert answers.count(True) == 12
    assert counted()[network.key] == 12


# Forgiving


def test_forgiven_attempts_are_forgotten(work):
    for _ in range(3):
        admitted(ADA)
    admitted(GRACE)

    done(throttle.forgive)

    assert counted() == {GRACE.key: 1}
    assert [admitted(ADA) for _ in range(4)] == [True, True, True, 5]


def test_attempt_that_is_taken_back_was_not_made(work):
    for _ in range(2):
        admitted(ADA)

    for _ in range(5):
        assert admitted(ADA) is True
        done(throttle.take_back)

    assert counted() == {ADA.key: 2}
    assert [admitted(ADA), admitted(ADA)] == [True, 5]


def test_no_more_is_taken_back_than_was_counted(work):
    admitted(ADA)

    for _ in range(3):
        done(throttle.take_back)

    assert counted() == {ADA.key: 0}


def test_nothing_is_forgiven_where_nothing_was_counted(work, nothing_changes):
    with nothing_changes():
        done(throttle.forgive)
        done(throttle.take_back)


def test_forgiving_is_undone_with_what_it_belongs_to(work, nothing_changes):
    admitted(ADA)

    with nothing_changes(), pytest.raises(RuntimeError):
        done_and_failed(throttle.forgive)
    with nothing_changes(), pytest.raises(RuntimeError):
        done_and_failed(throttle.take_back)


def test_row_says_when_and_nothing_of_whom(work):
    before = now()

    admitted(Attempt(RULE, "ada@example.com"))

    (row,) = db.session.scalars(select(Throttle))
    assert before <= row.seen_at <= now() and row.refused_until is None
    assert "ada" not in row.key and "example" not in row.key
