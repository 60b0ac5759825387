"""Passwords: what is refused, what counts as the same, what it costs, and when there is no room."""

import os
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher
from flask import Flask, current_app

from models.statements import unit_of_work
from service import passwords, sign_in
from service.errors import AccountSuspended, Busy, Invalid, InvalidCredentials
from tests.factories.user import PASSWORD, UserFactory

COMPOSED, DECOMPOSED = "pässwörd ñ", "pa\u0308sswo\u0308rd n\u0303"


@pytest.fixture
def policy() -> Iterator[dict[str, int]]:
    """Return the settings that a check of the policy reads."""
    app = Flask(__name__)
    app.config["PASSWORD_MIN_LENGTH"] = 8
    app.extensions["password_places"] = passwords.places(4)
    with app.app_context():
        yield app.config


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by each password that Argon2 checks."""
    calls = []
    verify = PasswordHasher.verify

    def counted(hasher: PasswordHasher, *args: str) -> bool:
        calls.append(args[-1])
        return verify(hasher, *args)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    return calls


# The policy


LONG = "".join(f"{number:04}" for number in range(256))  # As long as a password may be.


@pytest.mark.parametrize(
    "password",
    ["vjqzkxwp", LONG, "  gaps  in  it  ", "ñandú ñandú", "😀🦊🌋🎻🧊🚲🥨🔭", PASSWORD],
)
def test_a_long_enough_password_is_accepted_whatever_is_in_it(policy, password):
    passwords.check_policy(password)


@pytest.mark.parametrize(
    ("password", "code"),
    [("", "too_short"), ("x" * 7, "too_short"), ("n\u0303" * 7, "too_short"), (f"{LONG}x", "too_long")],
)
def test_a_password_too_short_or_too_long_is_refused(policy, password, code):
    with pytest.raises(Invalid) as refusal:
        passwords.check_policy(password)

    assert [(fault.pointer, fault.code) for fault in refusal.value.faults] == [("/json/password", code)]
    assert password == "" or password not in str(refusal.value.faults) + refusal.value.detail


def test_the_least_length_is_a_setting(policy):
    policy["PASSWORD_MIN_LENGTH"] = 15

    passwords.check_policy("fifteen letters")
    with pytest.raises(Invalid, match="too short"):
        passwords.check_policy("fifteen letter")


# The hash


def test_a_password_is_kept_as_argon2id_with_a_salt_of_its_own():
    first, second = passwords.hash_of(PASSWORD), passwords.hash_of(PASSWORD)

    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$") and first != second
    assert passwords.matches(PASSWORD, first) and passwords.matches(PASSWORD, second)
    assert not passwords.is_outdated(first)


def test_composed_and_decomposed_letters_are_the_same_password():
    assert COMPOSED != DECOMPOSED

    assert passwords.matches(DECOMPOSED, passwords.hash_of(COMPOSED))
    assert passwords.matches(COMPOSED, passwords.hash_of(DECOMPOSED))


@pytest.mark.parametrize(
    ("kept", "given"),
    [
        ("correct horse", "Correct horse"),
        ("correct horse", " correct horse"),
        ("correct horse", "correct horse "),
        ("ﬁnest horse", "finest horse"),
        ("ａｂｃｄｅｆｇｈ", "abcdefgh"),
        ("x" * 72 + "a", "x" * 72 + "b"),
        ("a\x00bcdefgh", "a"),
    ],
)
def test_what_looks_alike_is_another_password(kept, given):
    assert not passwords.matches(given, passwords.hash_of(kept))


@pytest.mark.parametrize("broken", ["", "x", "$argon2id$", "$argon2id$v=19$m=19456,t=2,p=1$é$é", "$2b$12$" + "x" * 53])
def test_a_hash_that_is_none_matches_nothing(broken):
    assert not passwords.matches(PASSWORD, broken)


def test_a_hash_of_other_parameters_is_outdated_and_still_matches():
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)

    assert passwords.is_outdated(cheap)
    assert passwords.matches(PASSWORD, cheap)


# What it costs


def test_nobody_costs_as_much_as_somebody(verified):
    known = passwords.hash_of(PASSWORD)

    assert passwords.matches(PASSWORD, known)
    assert not passwords.matches(PASSWORD, None)
    assert not passwords.matches("nobody has this password", None)

    assert len(verified) == 3


@pytest.mark.parametrize(
    ("email", "traits", "refusal"),
    [
        ("ada@example.com", {}, None),
        ("nobody@example.com", {}, InvalidCredentials),
        ("not an address", {}, InvalidCredentials),
        ("", {}, InvalidCredentials),
        ("ada@example.com", {"deleted": True}, InvalidCredentials),
        ("ada@example.com", {"password_hash": None}, InvalidCredentials),
        ("ada@example.com", {"suspended": True}, AccountSuspended),
    ],
)
def test_every_sign_in_checks_one_password(app, verified, email, traits, refusal):
    UserFactory(email="ada@example.com", **traits)
    verified.clear()

    with app.app_context():
        if refusal is None:
            with unit_of_work():
                sign_in.sign_in(email=email, password=PASSWORD)
        else:
            with pytest.raises(refusal), unit_of_work():
                sign_in.sign_in(email=email, password=PASSWORD)

    assert verified == [PASSWORD]


# How many at once


def test_half_the_threads_may_be_at_a_password_and_the_next_is_told_to_come_back(policy):
    with passwords.place(), passwords.place(), pytest.raises(Busy):
        passwords.new_hash(PASSWORD, personal=[])

    assert passwords.new_hash(PASSWORD, personal=[])


def test_a_single_thread_has_a_place(policy):
    current_app.extensions["password_places"] = passwords.places(1)

    assert passwords.new_hash(PASSWORD, personal=[])


def test_a_sign_in_that_finds_no_place_is_no_attempt(app, nothing_changes, verified):
    UserFactory(email="ada@example.com")

    with app.app_context():
        app.extensions["password_places"] = passwords.places(2)
        with passwords.place(), nothing_changes(), pytest.raises(Busy), unit_of_work():
            sign_in.sign_in(email="ada@example.com", password=PASSWORD)

    assert verified == []


def test_places_and_slots_are_given_back_however_the_check_ends(policy):
    policy_places = current_app.extensions["password_places"] = passwords.places(2)
    known = passwords.hash_of(PASSWORD)

    assert [passwords.matches(password, known) for password in ("wrong", PASSWORD)] == [False, True]
    assert [passwords.matches(PASSWORD, kept) for kept in ("broken", None)] == [False, False]
    for _ in range(os.cpu_count() + 1):
        with pytest.raises(UnicodeEncodeError):
            passwords.new_hash("\ud800 and more", personal=[])

    assert policy_places.acquire(blocking=False)
    assert passwords.hash_of(PASSWORD)
