"""Guessing: it becomes slow for who guesses, and locks nobody out who has signed in from there before."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from models import Session, Throttle
from models.base import db
from service import passwords
from tests.client import Client
from tests.factories.user import PASSWORD, UserFactory

LOGIN = "/api/v1/auth/login"
ME = "/api/v1/me"
WRONG = (401, "invalid_credentials")
WRONG_HERE = (403, "wrong_password")
TOO_MANY = (429, "too_many_attempts")
HOME, OFFICE, ELSEWHERE = "198.51.100.7", "192.0.2.20", "203.0.113.9"
DEVICE = "rollcall-device"


def attempt(client, email, password="a wrong password", *, address=ELSEWHERE, device=None, headers=None):
    """Try to sign in from an address, on a device."""
    headers = dict(headers or {}) | ({"Cookie": f"{DEVICE}={device}"} if device else {})
    body = {"email": email, "password": password}
    return client.post(LOGIN, json=body, headers=headers, environ_overrides={"REMOTE_ADDR": address})


def attempts(count, client, email, **where):
    """Return how so many wrong attempts were answered."""
    return [attempt(client, email, **where).problem for _ in range(count)]


def signs_in(client, user, **where):
    """Sign in with the right password, and return the mark of the device."""
    response = attempt(client, user.email, PASSWORD, **where)
    assert response.status_code == 200
    return response.headers["Set-Cookie"].partition(";")[0].removeprefix(f"{DEVICE}=")


def must_wait(response, seconds):
    """Assert that an answer asks to wait so long; a slow machine may have waited some of it."""
    assert response.problem == TOO_MANY
    assert seconds - 3 <= int(response.headers["Retry-After"]) <= seconds
    return True


@pytest.fixture
def wait(app):
    """Return a function that lets time pass for what is counted."""

    def go(seconds):
        with app.app_context():
            for row in db.session.scalars(select(Throttle)):
                row.seen_at -= timedelta(seconds=seconds)
                if row.refused_until:
                    row.refused_until -= timedelta(seconds=seconds)
            db.session.commit()

    return go


@pytest.fixture
def guessed(client, member):
    """Let somebody elsewhere guess the member's password until they must wait."""
    assert attempts(5, client, member.email) == [WRONG] * 5
    return member


@pytest.fixture
def quick(monkeypatch):
    """Make it cheap to check a password at an address that nobody has."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_UNKNOWN", cheap.hash("nobody has this password"))


@pytest.fixture
def only_counted(snapshot):
    """Return a function that reads every row but those that count attempts."""
    return lambda: {name: rows for name, rows in snapshot().items() if name != "throttles"}


# At an account


def test_five_wrong_passwords_are_free_and_then_one_must_wait(client, member, nothing_changes):
    assert attempts(5, client, member.email) == [WRONG] * 5

    with nothing_changes():
        refused = attempt(client, member.email)

    assert must_wait(refused, 5)
    assert refused.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in refused.headers


def test_wrong_attempt_is_counted_and_does_nothing_else(client, member, snapshot, only_counted):
    before = only_counted()

    attempts(6, client, member.email)

    assert only_counted() == before
    assert len(snapshot()["throttles"]) == 2


def test_wait_doubles_up_to_a_quarter_of_an_hour(client, guessed, wait):
    for seconds in (5, 10, 20, 40, 80, 160, 320, 640, 900, 900):
        assert must_wait(attempt(client, guessed.email), seconds)
        wait(seconds + 1)
        assert attempt(client, guessed.email).problem == WRONG


def test_waiting_less_does_not_help_nor_make_it_longer(client, guessed, wait):
    wait(2)
    for _ in range(3):
        assert must_wait(attempt(client, guessed.email), 3)

    wait(4)
    assert attempt(client, guessed.email).problem == WRONG
    assert must_wait(attempt(client, guessed.email), 10)


def test_right_password_waits_as_well_from_where_nobody_is_known(client, guessed, wait, nothing_changes):
    with nothing_changes():
        assert must_wait(attempt(client, guessed.email, PASSWORD), 5)
        assert must_wait(attempt(client, guessed.email, PASSWORD, address=OFFICE), 5)

    wait(6)
    assert attempt(client, guessed.email, PASSWORD).status_code == 200


def test_guessing_from_many_addresses_is_no_faster(client, member):
    answers = [attempt(client, member.email, address=f"203.0.113.{number}").problem for number in range(1, 31)]

    assert answers == [WRONG] * 5 + [TOO_MANY] * 25


def test_other_accounts_do_not_wait(client, guessed, other):
    assert attempt(client, other.email).problem == WRONG
    assert attempt(client, other.email, PASSWORD).status_code == 200


def test_quiet_forgets(client, guessed, wait):
    assert must_wait(attempt(client, guessed.email), 5)
    wait(3601)

    assert attempts(5, client, guessed.email) == [WRONG] * 5
    assert must_wait(attempt(client, guessed.email), 5)


def test_less_quiet_does_not_forget(client, guessed, wait):
    wait(3500)

    assert attempt(client, guessed.email).problem == WRONG
    assert must_wait(attempt(client, guessed.email), 10)


@pytest.mark.parametrize(
    "spell",
    [
        str.upper,
        str.title,
        lambda email: f"  {email} ",
        lambda email: "".join(chr(ord(letter) + 0xFEE0) if "a" <= letter <= "z" else letter for letter in email),
        lambda email: email.replace("@", "＠"),
        lambda email: email.replace("ü", "u\u0308"),
        lambda email: email.replace("bücher", "xn--bcher-kva"),
    ],
    ids=["upper case", "title case", "spaces", "full width", "full-width at", "NFD", "punycode"],
)
def test_spelling_of_the_address_makes_no_difference(client, spell):
    user = UserFactory(email="ada.k@bücher.example")

    assert attempts(5, client, spell(user.email)) == [WRONG] * 5

    assert must_wait(attempt(client, user.email), 5)
    assert must_wait(attempt(client, spell(user.email)), 5)


def test_guesses_in_parallel_get_no_further_than_in_turn(client, member):
    count = 12
    start = threading.Barrier(count)

    def guess(number):
        start.wait()
        return attempt(client, member.email, address=f"203.0.113.{number + 1}").problem

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(guess, range(count)))

    assert sorted(answers) == [WRONG] * 5 + [TOO_MANY] * (count - 5)


def test_right_guess_among_parallel_ones_is_not_evaluated_beyond_the_free_ones(client, guessed, only_counted):
    before = only_counted()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: attempt(client, guessed.email, PASSWORD).problem, range(8)))

    assert answers == [TOO_MANY] * 8
    assert only_counted() == before


# Who nobody is


@pytest.mark.parametrize("nobody", ["nobody@example.com", "not an address", "gone@example.com", "sso@example.com"])
def test_unknown_address_is_counted_and_answered_just_the_same(client, member, wait, nobody):
    UserFactory(email="gone@example.com", deleted=True)
    UserFactory(email="sso@example.com", password_hash=None)

    def seen(email, address):
        answers = [attempt(client, email, address=address) for _ in range(7)]
        wait(6)
        answers += [attempt(client, email, address=address) for _ in range(2)]
        return [
            (
                response.status_code,
                response.data.replace(response.json["request_id"].encode(), b""),
                {name: value for name, value in response.headers if name != "X-Request-ID"},
            )
            for response in answers
        ]

    known, unknown = seen(member.email, OFFICE), seen(nobody, ELSEWHERE)

    assert unknown == known
    assert [status for status, *_ in known] == [401] * 5 + [429] * 2 + [401, 429]


def test_unknown_address_costs_as_many_statements(client, member, queries):
    counts = []
    for email in (member.email, "nobody@example.com", "not an address"):
        with queries() as statements:
            attempts(1, client, email, address=f"192.0.2.{len(counts) + 1}")
        with queries() as more:
            attempts(6, client, email, address=f"192.0.2.{len(counts) + 1}")
        counts.append((len(statements), len(more)))

    assert len(set(counts)) == 1


# Who is known


def test_network_where_somebody_signed_in_before_does_not_wait(client, member):
    signs_in(client, member, address=HOME)
    attempts(6, client, member.email)

    assert attempt(client, member.email, PASSWORD, address=HOME).status_code == 200
    assert attempt(client, member.email, PASSWORD, address=OFFICE).problem == TOO_MANY


def test_device_on_which_somebody_signed_in_before_does_not_wait(client, member):
    device = signs_in(client, member, address=HOME)
    attempts(6, client, member.email)

    assert attempt(client, member.email, PASSWORD, address=OFFICE).problem == TOO_MANY
    assert attempt(client, member.email, PASSWORD, address=OFFICE, device=device).status_code == 200


def test_guesses_go_on_being_slow_after_the_person_signed_in_elsewhere(client, member):
    device = signs_in(client, member, address=HOME)
    attempts(6, client, member.email)

    signs_in(client, member, address=HOME)
    signs_in(client, member, address=OFFICE, device=device)

    assert attempt(client, member.email).problem == TOO_MANY


@pytest.mark.parametrize(("days", "problem"), [(89, None), (91, TOO_MANY)])
def test_network_is_known_for_ninety_days(app, client, member, days, problem):
    signs_in(client, member, address=HOME)
    attempts(6, client, member.email)
    with app.app_context():
        db.session.scalars(select(Session)).one().created_at -= timedelta(days=days)
        db.session.commit()

    assert attempt(client, member.email, PASSWORD, address=HOME).problem == problem


def test_network_of_another_person_is_not_known(client, member, other):
    signs_in(client, other, address=HOME)
    attempts(6, client, member.email)

    assert attempt(client, member.email, PASSWORD, address=HOME).problem == TOO_MANY


@pytest.mark.parametrize("forge", [lambda mark: mark[:-1] + "_", lambda mark: "a." + mark.partition(".")[2]])
def test_forged_device_is_not_known(client, member, forge):
    device = signs_in(client, member, address=HOME)
    attempts(6, client, member.email)

    assert attempt(client, member.email, PASSWORD, device=forge(device)).problem == TOO_MANY


def test_device_of_another_person_is_not_known(client, member, other):
    theirs = signs_in(client, other, address=HOME)
    attempts(6, client, member.email)

    assert attempt(client, member.email, PASSWORD, device=theirs).problem == TOO_MANY


def test_known_network_waits_after_ten_and_by_itself(client, member, nothing_changes):
    device = signs_in(client, member, address=HOME)

    assert attempts(10, client, member.email, address=HOME) == [WRONG] * 10
    with nothing_changes():
        assert must_wait(attempt(client, member.email, PASSWORD, address=HOME), 5)

    assert attempt(client, member.email, PASSWORD, address=HOME, device=device).status_code == 200
    assert attempts(5, client, member.email, address=OFFICE) == [WRONG] * 5


def test_known_device_waits_after_ten_and_by_itself(client, member):
    device = signs_in(client, member, address=HOME)

    assert attempts(10, client, member.email, device=device) == [WRONG] * 10
    assert must_wait(attempt(client, member.email, PASSWORD, device=device), 5)

    assert attempt(client, member.email, PASSWORD, address=HOME).status_code == 200


# Success


def test_success_forgives_the_account(client, member):
    attempts(4, client, member.email)

    signs_in(client, member)

    assert attempts(5, client, member.email, address=OFFICE) == [WRONG] * 5
    assert must_wait(attempt(client, member.email, address=OFFICE), 5)


def test_success_after_a_wait_ends_the_waiting(client, guessed, wait):
    wait(6)
    attempt(client, guessed.email)
    wait(11)

    signs_in(client, guessed)

    assert attempts(5, client, guessed.email, address=OFFICE) == [WRONG] * 5


@pytest.mark.usefixtures("quick")
def test_success_does_not_forgive_the_network(client, member, other):
    for number in range(59):
        assert attempt(client, f"person{number}@example.org").problem == WRONG
    for _ in range(3):
        signs_in(client, member)

    assert attempt(client, "one.more@example.org").problem == WRONG

    assert must_wait(attempt(client, "and.another@example.org"), 10)
    assert must_wait(attempt(client, other.email, PASSWORD), 10)


# A network


@pytest.mark.usefixtures("quick")
def test_sixty_wrong_passwords_at_many_accounts_slow_a_network_down(client, member, other, nothing_changes):
    device = signs_in(client, other, address=HOME)
    assert [attempt(client, f"person{number}@example.org").problem for number in range(60)] == [WRONG] * 60

    with nothing_changes():
        assert must_wait(attempt(client, "one.more@example.org"), 10)
        assert must_wait(attempt(client, member.email, PASSWORD), 10)

    assert attempt(client, member.email, PASSWORD, address=OFFICE).status_code == 200
    assert attempt(client, other.email, PASSWORD, device=device).status_code == 200


@pytest.mark.parametrize(
    ("home", "same", "another"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"),
        ("2001:0db8:0000:0001::5", "2001:DB8:0:1::6", "2001:db8::1"),
        ("198.51.100.7", "::ffff:198.51.100.7", "::ffff:198.51.100.8"),
        ("::ffff:c633:6407", "198.51.100.7", "::c633:6407"),
        ("198.51.100.7", "198.51.100.7", "198.51.100.70"),
    ],
)
def test_what_one_person_holds_of_addresses_is_one_network(client, member, home, same, another):
    signs_in(client, member, address=home)
    attempts(6, client, member.email)

    assert attempt(client, member.email, PASSWORD, address=another).problem == TOO_MANY
    assert attempt(client, member.email, PASSWORD, address=same).status_code == 200


@pytest.mark.usefixtures("quick")
def test_ipv6_network_is_slowed_down_as_one(client):
    for number in range(60):
        attempt(client, f"person{number}@example.org", address=f"2001:db8:0:1::{number:x}")

    assert must_wait(attempt(client, "one.more@example.org", address="2001:db8:0:1:ffff::1"), 10)
    assert attempt(client, "one.more@example.org", address="2001:db8:0:2::1").problem == WRONG


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP"]
)
def test_forwarded_address_changes_nothing_without_a_trusted_proxy(client, member, header):
    signs_in(client, member, address=HOME)
    forged = {header: f"for={HOME}" if header == "Forwarded" else HOME}

    assert attempts(6, client, member.email, headers=forged) == [WRONG] * 5 + [TOO_MANY]
    assert attempt(client, member.email, PASSWORD, headers=forged).problem == TOO_MANY


@pytest.mark.usefixtures("quick")
def test_forwarded_addresses_do_not_make_many_networks_of_one(client):
    for number in range(60):
        attempt(client, f"person{number}@example.org", headers={"X-Forwarded-For": f"10.0.0.{number}"})

    assert must_wait(attempt(client, "one.more@example.org", headers={"X-Forwarded-For": "10.0.1.1"}), 10)


def test_forwarded_address_counts_behind_a_trusted_proxy(app, another_app, contract, member):
    behind = Client(another_app(TRUSTED_PROXIES="1"), contract)
    proxy = "10.0.0.1"
    signs_in(behind, member, address=proxy, headers={"X-Forwarded-For": HOME})
    attempts(6, behind, member.email, address=proxy, headers={"X-Forwarded-For": ELSEWHERE})

    with app.app_context():
        assert [session.address for session in db.session.scalars(select(Session))] == [HOME]
    forged = {"X-Forwarded-For": f"{HOME}, {ELSEWHERE}"}
    assert attempt(behind, member.email, PASSWORD, address=proxy, headers=forged).problem == TOO_MANY
    real = {"X-Forwarded-For": f"{ELSEWHERE}, {HOME}"}
    assert attempt(behind, member.email, PASSWORD, address=proxy, headers=real).status_code == 200


# The password of who is signed in


def new_password(own, current="a wrong password"):
    return own.post(f"{ME}/password", json={"current_password": current, "password": "another pass phrase"})


def new_email(own, current="a wrong password"):
    return own.post(f"{ME}/email", json={"current_password": current, "email": "new@example.com"})


def test_wrong_current_passwords_are_counted(as_member, only_counted, nothing_changes):
    before = only_counted()

    answers = [send(as_member).problem for _ in range(5) for send in (new_password, new_email)]

    assert answers == [WRONG_HERE] * 10
    with nothing_changes():
        for send in (new_password, new_email):
            assert must_wait(send(as_member), 5)
            assert must_wait(send(as_member, PASSWORD), 5)
    assert only_counted() == before


def test_wait_for_the_current_password_doubles(as_member, wait):
    for _ in range(10):
        new_password(as_member)

    for seconds in (5, 10, 20):
        assert must_wait(new_email(as_member), seconds)
        wait(seconds + 1)
        assert new_password(as_member).problem == WRONG_HERE


def test_wrong_current_passwords_lock_nobody_else_out(client, as_member, member, other):
    for _ in range(11):
        new_password(as_member)

    assert new_password(client.as_(member), PASSWORD).problem == TOO_MANY
    assert new_password(client.as_(other), PASSWORD).status_code == 204
    assert attempt(client, member.email, PASSWORD).status_code == 200


def test_guesses_from_outside_do_not_keep_who_is_signed_in_from_changing_the_password(client, guessed):
    assert new_password(client.as_(guessed), PASSWORD).status_code == 204


def test_right_current_password_forgives(as_member):
    for _ in range(9):
        new_password(as_member)
    assert new_email(as_member, PASSWORD).status_code == 202

    assert [new_email(as_member).problem for _ in range(10)] == [WRONG_HERE] * 10
    assert new_email(as_member).problem == TOO_MANY


def test_current_password_guessed_in_parallel_gets_no_further(as_member):
    start = threading.Barrier(14)

    def guess(_):
        start.wait()
        return new_email(as_member).problem

    with ThreadPoolExecutor(14) as threads:
        answers = list(threads.map(guess, range(14)))

    assert sorted(answers) == [WRONG_HERE] * 10 + [TOO_MANY] * 4


# What is kept


def test_nothing_that_is_counted_names_anybody(client, as_member, member, snapshot):
    device = signs_in(client, member, address=HOME)
    attempts(2, client, member.email, address=HOME)
    attempts(2, client, member.email, device=device)
    attempts(2, client, member.email)
    attempts(2, client, "nobody@example.org", address="2001:db8:0:1::1")
    new_password(as_member)

    kept = repr(snapshot()["throttles"])

    assert len(snapshot()["throttles"]) >= 7
    for name in (member.email, "example", "nobody", HOME, ELSEWHERE, "2001:db8", *device.split(".")):
        assert name not in kept


def test_keys_are_of_this_installation(app, client, member, snapshot):
    attempts(1, client, member.email)
    app.config["SECRET_KEY"] = "another secret key: 9876543210 zyxwvutsrqponmlkjihgfedcba"
    attempts(1, client, member.email)

    assert len({row[1] for row in snapshot()["throttles"]}) == 4


# What is no guess


def test_suspended_person_with_the_right_password_does_not_guess(client):
    user = UserFactory(suspended=True)

    answers = [attempt(client, user.email, PASSWORD).problem for _ in range(7)]

    assert answers == [(403, "account_suspended")] * 7


def test_attempt_for_which_there_is_no_place_is_no_guess(app, client, as_member, member, nothing_changes):
    only_place = app.extensions["password_places"] = passwords.places(1)

    with only_place, nothing_changes():
        answers = [attempt(client, member.email), new_password(as_member), new_email(as_member)]

    assert [(answer.problem, answer.headers["Retry-After"]) for answer in answers] == [((503, "busy"), "1")] * 3
    assert attempts(5, client, member.email) == [WRONG] * 5
    assert [new_email(as_member).problem for _ in range(10)] == [WRONG_HERE] * 10
