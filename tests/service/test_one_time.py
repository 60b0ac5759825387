"""One-time tokens: what they are made of, what is kept of them, and when they are good."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import bindparam, select, update

from models import OneTimeToken
from models.base import now
from models.statements import execute, fetch_all, unit_of_work
from service import one_time
from service.errors import InvalidOneTimeToken, TooManyAttempts
from service.one_time import CONFIRMING, LIFETIMES, RESETTING
from tests.factories.user import UserFactory

ADA = "ada@example.com"
EVERY = select(OneTimeToken).order_by(OneTimeToken.id)
EXPIRE = update(OneTimeToken).values(expires_at=bindparam("moment"))


@pytest.fixture(autouse=True)
def context(app):
    with app.app_context():
        yield


@pytest.fixture
def user(app):
    return UserFactory(email=ADA)


def prepared(purpose, user=None, **details):
    with unit_of_work():
        user_id = user.id if user else None
        return one_time.prepare(purpose, user_id=user_id, email="Ada@example.com", email_key=ADA, **details)


def armed(row):
    with unit_of_work():
        return one_time.arm(one_time.locked(row.id))


def by_token(purposes, made):
    return one_time.found_by_token(purposes, made.token)


def by_code(purposes, made, email_key=ADA):
    return one_time.found_by_code(purposes, email_key, made.code)


def wrong(made, step=1):
    return made._replace(code=f"{(int(made.code) + step) % 10**8:08}")


def rows():
    return [*fetch_all(EVERY)]


def age(by):
    """Let the time of every token be over since then."""
    with unit_of_work():
        execute(EXPIRE, moment=now() - by)


@pytest.mark.parametrize("purpose", LIFETIMES)
def test_it_has_no_secrets_until_its_letter_is_written(user, purpose):
    row = prepared(purpose, user)

    (kept,) = rows()
    assert (kept.token_hash, kept.code_hash, kept.details) == (None, None, None)
    assert kept.purpose == purpose and abs(kept.expires_at - kept.created_at - LIFETIMES[purpose]) < timedelta(
        seconds=1
    )
    armed(row)
    (kept,) = rows()
    assert len(kept.token_hash) == 64 and len(kept.code_hash) == 43


def test_lifetimes_are_an_hour_or_a_day():
    hours = {purpose: lifetime / timedelta(hours=1) for purpose, lifetime in LIFETIMES.items()}

    assert hours == {"register": 24, "verify_email": 24, "change_email": 1, "reset_password": 1}
    assert hours.keys() == CONFIRMING | RESETTING and not CONFIRMING & RESETTING


def test_its_secrets_cannot_be_guessed_and_are_not_kept(user):
    made = [armed(prepared("register")) for _ in range(50)]

    assert len({secrets.token for secrets in made}) == 50 and {len(secrets.token) for secrets in made} == {43}
    assert len({secrets.code for secrets in made}) >= 49
    assert {(len(secrets.code), secrets.code.isdecimal()) for secrets in made} == {(8, True)}
    kept = str([(row.token_hash, row.code_hash, row.email, row.details) for row in rows()])
    assert not [secrets for secrets in made if secrets.token in kept or secrets.code in kept]


def test_a_code_may_begin_with_zeros(user, monkeypatch):
    monkeypatch.setattr(one_time.secrets, "randbelow", lambda limit: 42)

    made = armed(prepared("verify_email", user))

    assert made.code == "00000042"
    assert by_code(CONFIRMING, made).user_id == user.id


def test_the_hash_of_a_code_needs_the_servers_key_and_belongs_to_address_and_purpose(app, user, monkeypatch):
    monkeypatch.setattr(one_time.secrets, "randbelow", lambda limit: 12_345_678)
    hashes = set()

    for purpose in LIFETIMES:
        armed(prepared(purpose, user))
    hashes |= {row.code_hash for row in rows()}
    assert len(hashes) == 2  # Of confirming, and of resetting.

    app.config["SECRET_KEY"] = "another secret key: 0123456789 abcdefghijklmnopqrstuvwxyz"
    armed(prepared("reset_password", user))
    assert rows()[-1].code_hash not in hashes
    with unit_of_work():
        other = one_time.prepare("reset_password", user_id=None, email="b@example.com", email_key="b@example.com")
    armed(other)
    assert len({row.code_hash for row in rows()} | hashes) == 4


def test_a_second_letter_voids_the_secrets_of_the_first(user):
    row = prepared("verify_email", user)
    first, second = armed(row), armed(row)

    for find in (by_token, by_code):
        with pytest.raises(InvalidOneTimeToken):
            find(CONFIRMING, first)
        assert find(CONFIRMING, second).id == row.id


def test_a_later_one_of_the_same_purpose_replaces_the_earlier(user):
    first = prepared("reset_password", user)
    other = prepared("verify_email", user)
    second = prepared("reset_password", user)

    assert [row.id for row in rows()] == [other.id, second.id]
    with unit_of_work():
        assert one_time.locked(first.id) is None


def test_registrations_of_one_address_do_not_replace_each_other():
    made = [armed(prepared("register", name=name)) for name in ("First", "Second")]

    assert [by_token(CONFIRMING, secrets).details["name"] for secrets in made] == ["First", "Second"]
    assert [by_code(CONFIRMING, secrets).details["name"] for secrets in made] == ["First", "Second"]
    assert one_time.pending_registration(ADA).details["name"] == "Second"
    assert one_time.pending_registration("b@example.com") is None


@pytest.mark.parametrize("find", [by_token, by_code])
@pytest.mark.parametrize("purpose", LIFETIMES)
def test_it_is_found_for_its_purpose_only(user, purpose, find):
    made = armed(prepared(purpose, user))
    its, others = (RESETTING, CONFIRMING) if purpose in RESETTING else (CONFIRMING, RESETTING)

    assert find(its, made).purpose == purpose
    with pytest.raises(InvalidOneTimeToken):
        find(others, made)


@pytest.mark.parametrize("find", [by_token, by_code])
def test_it_is_not_found_when_its_time_is_over(user, find):
    made = armed(prepared("reset_password", user))
    age(timedelta(milliseconds=1))

    with pytest.raises(InvalidOneTimeToken):
        find(RESETTING, made)


@pytest.mark.parametrize("find", [by_token, by_code])
def test_it_is_found_until_it_is_used(user, find):
    made = armed(prepared("reset_password", user, note="gone with its use"))
    row = find(RESETTING, made)
    with unit_of_work():
        one_time.use_up(row)

    with pytest.raises(InvalidOneTimeToken):
        find(RESETTING, made)
    with pytest.raises(InvalidOneTimeToken), unit_of_work():
        one_time.use_up(row)
    assert rows() == []


def test_a_use_that_is_undone_is_none(user):
    made = armed(prepared("reset_password", user))
    row = by_token(RESETTING, made)

    def use_and_fail():
        with unit_of_work():
            one_time.use_up(row)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_and_fail()
    assert by_token(RESETTING, made).id == row.id


def test_of_ten_threads_one_uses_it_up(app, user):
    row = by_token(RESETTING, armed(prepared("reset_password", user)))
    start = threading.Barrier(10)

    def use(_):
        start.wait()
        with app.app_context():
            try:
                with unit_of_work():
                    one_time.use_up(row)
            except InvalidOneTimeToken:
                return "refused"
            return "used"

    with ThreadPoolExecutor(10) as pool:
        assert Counter(pool.map(use, range(10))) == {"used": 1, "refused": 9}


def test_all_of_a_user_are_withdrawn_and_no_others(user):
    other = UserFactory()
    for purpose in ("verify_email", "change_email", "reset_password"):
        prepared(purpose, user)
    kept = [prepared("verify_email", other), prepared("register")]

    with unit_of_work():
        one_time.withdraw_all(user.id)

    assert [row.id for row in rows()] == [row.id for row in kept]


@pytest.mark.parametrize("typed", ["{}{}", "{} {}", " {}-{} ", "{}\u00a0{}", "{}\t{}", "{}  {}"])
def test_a_code_is_read_as_people_type_it(user, typed):
    made = armed(prepared("verify_email", user))

    found = one_time.found_by_code(CONFIRMING, ADA, typed.format(made.code[:4], made.code[4:]))

    assert found.user_id == user.id


@pytest.mark.parametrize("change", [lambda c: c[:7], lambda c: f"{c}0", lambda c: f"0{c}", lambda c: c[::-1] + "x"])
def test_what_is_nearly_the_code_is_wrong(user, change):
    made = armed(prepared("verify_email", user))

    with pytest.raises(InvalidOneTimeToken) as refusal:
        one_time.found_by_code(CONFIRMING, ADA, change(made.code))

    assert refusal.value.faults[0].pointer == "/json/code"


def test_a_code_of_another_address_is_wrong(user):
    made = armed(prepared("verify_email", user))

    with pytest.raises(InvalidOneTimeToken):
        by_code(CONFIRMING, made, "eve@example.com")


def test_ten_wrong_codes_end_guessing_for_both_purposes_until_the_next_letter(user):
    made = armed(prepared("reset_password", user))
    for step in range(1, 11):
        with pytest.raises(InvalidOneTimeToken):
            by_code((RESETTING, CONFIRMING)[step % 2], wrong(made, step))

    for purposes in (RESETTING, CONFIRMING):
        with pytest.raises(TooManyAttempts) as refusal:
            by_code(purposes, made)
        assert 3590 < refusal.value.retry_after <= 3600
    assert by_token(RESETTING, made)
    with pytest.raises(InvalidOneTimeToken):
        by_code(RESETTING, made, "somebody.else@example.com")

    fresh = armed(prepared("reset_password", user))
    assert by_code(RESETTING, fresh)


def test_guesses_at_once_are_no_more_than_guesses_in_turn(app, user):
    made = armed(prepared("reset_password", user))
    start = threading.Barrier(8)

    def guess(number):
        start.wait()
        answers = []
        with app.app_context():
            for step in range(3):
                try:
                    by_code(RESETTING, wrong(made, 1 + number * 3 + step))
                except (InvalidOneTimeToken, TooManyAttempts) as refusal:
                    answers.append(type(refusal))
        return answers

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(answer for some in pool.map(guess, range(8)) for answer in some)

    assert answers == {InvalidOneTimeToken: 10, TooManyAttempts: 14}


def test_an_unused_one_does_not_stay_for_ever(app):
    """A registration that nobody confirms holds a name and the hash of a password."""
    prepared("register", name="Somebody Else", password_hash="$argon2id$")
    age(timedelta(days=31))

    with app.app_context():
        result = app.test_cli_runner().invoke(args=["upkeep"])
    assert "one-time tokens: 1\n" in result.output
    prepared("register", name="Ada")

    assert "Somebody Else" not in str([row.details for row in rows()])
