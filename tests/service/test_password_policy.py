"""The policy for new passwords, through the front door: what is refused, what is not, and what it costs to say so."""

import time
import unicodedata

import pytest
from argon2 import PasswordHasher

from models import User
from models.base import db
from tests.factories.user import PASSWORD, UserFactory
from tests.resources.answers import pointers

USERS = "/api/v1/users"
LOGIN = "/api/v1/auth/login"
ADA = {"email": "countess.ada@analytical.example", "name": "Augusta Ada King-Noël"}


@pytest.fixture
def no_hashing(monkeypatch):
    """Let no password be hashed or checked."""

    def fail(*_):
        pytest.fail("a password was hashed")

    for name in ("hash", "verify"):
        monkeypatch.setattr(PasswordHasher, name, fail)


def register(client, password, **fields):
    return client.post(USERS, json={**ADA, "password": password, **fields})


def sign_in(client, password):
    return client.post(LOGIN, json={"email": ADA["email"], "password": password})


def codes(response):
    return [fault["code"] for fault in response.json["errors"]]


# How long


@pytest.mark.parametrize("length", [8, 9, 64, 73, 128, 256, 1024])
def test_any_length_between_the_bounds_is_accepted_and_signs_in(client, length):
    password = ("the quick brown fox jumps over a lazy dog; " * 30)[:length].strip().ljust(length, "!")

    assert register(client, password).status_code == 201
    assert sign_in(client, password).status_code == 200
    assert sign_in(client, f"{password[:-1]}#").problem == (401, "invalid_credentials")


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("", "too_short"),
        ("seven77", "too_short"),
        ("e\u0301" * 7, "too_short"),
        ("\U0001f40e" * 7, "too_short"),
        ("unlikely " * 113 + "12345678", "too_long"),
        ("ü" * 1025, "too_long"),
    ],
    ids=["none", "seven", "seven of two code points", "seven of four bytes", "1025", "1025 of two bytes"],
)
def test_one_character_too_few_or_too_many_is_refused(client, nothing_changes, no_hashing, password, code):
    with nothing_changes():
        response = register(client, password)

    assert response.problem == (422, "invalid")
    assert (pointers(response), codes(response)) == (["/json/password"], [code])
    assert not password or password not in response.text


def test_characters_are_counted_and_not_bytes(client):
    assert register(client, "ñandú läßt grüßen, мир 用户 " * 36 + "ü" * 10).status_code == 201


def test_the_least_length_is_a_setting(app, client, nothing_changes):
    app.config["PASSWORD_MIN_LENGTH"] = 15

    with nothing_changes():
        assert codes(register(client, "horse battery!")) == ["too_short"]
    assert register(client, "horse battery!!").status_code == 201


# What is guessed first


@pytest.mark.parametrize(
    "password",
    [
        *("password", "PASSWORD", "password1", "password123", "Passw0rd", "Passw0rd!", "P@ssw0rd", "!!password!!"),
        *("qwertyuiop", "qwerty123", "Qwerty12345", "1q2w3e4r", "1qaz2wsx", "asdfghjkl", "zxcvbnm123"),
        *("iloveyou", "iloveyou2", "sunshine", "football1", "baseball", "superman", "trustno1", "letmein1"),
        *("12345678", "123456789", "1234567890", "87654321", "11111111", "00000000", "123123123"),
        *("ｐａｓｓｗｏｒｄ１", "  password ", "princess2024", "monkey!!", "dragon1234"),
    ],
)
def test_a_common_password_is_refused(client, nothing_changes, no_hashing, password):
    with nothing_changes():
        response = register(client, password)

    assert response.problem == (422, "invalid")
    assert (pointers(response), codes(response)) == (["/json/password"], ["common"])


@pytest.mark.parametrize(
    "password",
    [
        *("aaaaaaaa", "AAAAaaaa", "x" * 1024, "abababab", "xyxyxyxyxy", "abcabcabcabc", "!!!!!!!!", " " * 8),
        *("12341234", "abcdefgh", "23456789", "987654321", "ññññññññ", "\U0001f600" * 8, "zyzyzyzyz", "qxzqxzqxzq"),
    ],
    ids=lambda password: password[:12],
)
def test_a_short_pattern_repeated_or_a_sequence_is_refused(client, nothing_changes, no_hashing, password):
    with nothing_changes():
        response = register(client, password)

    assert response.problem == (422, "invalid")
    assert codes(response) == ["common"]


@pytest.mark.parametrize(
    "password",
    [
        *("Augusta Ada King-Noël", "augusta1815", "KingNoël1815", "Augusta!!!", "ada-ada-ada"),
        *("countess.ada@analytical.example", "countess.ada", "Countess2026", "analytical1", "!analytical.example!"),
        *(
            "rollcall",
            "rollcall1",
            "Rollcall2026!",
            "rollcall-ada",
            "ROLLCALLROLLCALL",
            "my-rollcall",
            "ｒｏｌｌｃａｌｌ",
        ),
    ],
)
def test_a_personal_word_with_little_round_it_is_refused(client, nothing_changes, no_hashing, password):
    with nothing_changes():
        response = register(client, password)

    assert response.problem == (422, "invalid")
    assert codes(response) == ["common"]


@pytest.mark.parametrize(
    "password",
    [
        *(
            PASSWORD,
            "all lower case and long",
            "alllowercaseandlong",
            "onlyletters",
            "8417390625",
            "#%&/()=?",
            "QzVbNmKl",
        ),
        *(
            "Augusta rides a horse",
            "rollcall of the brave",
            "the analytical engine",
            "kingfisher pond",
            "nadal wins sets",
        ),
        *(
            "my passwords are long",
            "qwerty is a keyboard",
            "abcabcabd",
            "aaaaaaaab",
            "пароль из слов",
            "密码是很长的一个词",
        ),
    ],
)
def test_what_is_no_first_guess_is_accepted(client, password):
    assert register(client, password).status_code == 201
    assert sign_in(client, password).status_code == 200


def test_what_is_personal_is_so_for_one_person_only(client):
    assert register(client, "augusta1815", email="bob@example.com", name="Bob Builder").status_code == 201


@pytest.mark.parametrize("who", ["nobody", "member", "admin"])
def test_everybody_is_held_to_it(client, request, nothing_changes, who):
    caller = client if who == "nobody" else client.as_(request.getfixturevalue(who))

    with nothing_changes():
        response = register(caller, "password123")

    assert codes(response) == ["common"]


def test_a_password_from_before_still_signs_in(client):
    hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
    UserFactory(**ADA, password_hash=hasher.hash("password123"))

    assert sign_in(client, "password123").status_code == 200


# Taken as it is


@pytest.mark.parametrize(
    "password",
    [
        "  a space at either end  ",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 and a horse \U0001f40e",
        "\U0001f3f3\ufe0f\u200d\U0001f308 flags & horses",
        "ﬁne ligatures ½ and ①",
        "non\u00a0breaking\u2009thin",
        "{{7*7}} ${jndi} '; --",
        '\\"quoted\\" <script>',
    ],
    ids=ascii,
)
def test_every_visible_character_counts(client, password):
    assert register(client, password).status_code == 201

    assert sign_in(client, password).status_code == 200
    compatible = unicodedata.normalize("NFKC", password)
    if compatible != unicodedata.normalize("NFC", password):
        assert sign_in(client, compatible).problem == (401, "invalid_credentials")
    if password.strip() != password:
        assert sign_in(client, password.strip()).problem == (401, "invalid_credentials")


@pytest.mark.parametrize("given", ["NFC", "NFD"])
@pytest.mark.parametrize("kept", ["NFC", "NFD"])
def test_composed_and_decomposed_are_the_same(client, kept, given):
    password = "Žluťoučký kůň 한국어 Å"

    assert register(client, unicodedata.normalize(kept, password)).status_code == 201
    assert sign_in(client, unicodedata.normalize(given, password)).status_code == 200


@pytest.mark.parametrize(
    "password", ["four words\x00 more", "four\nwords more", "four \u202ewords", "four \ufeffwords"]
)
def test_what_cannot_be_seen_is_refused(client, nothing_changes, no_hashing, password):
    with nothing_changes():
        response = register(client, password)

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/password"]


# What it costs


@pytest.mark.parametrize(
    "password",
    [
        "x" * 1_000_000,
        "x" * 2_000_000,
        "ñ" * 500_000,
        "n\u0303" * 300_000,
        "\U0001f600" * 250_000,
        "a" + "\u0301\u0327" * 25_000,
    ],
    ids=["1 MB", "2 MB", "composed", "decomposed", "emoji", "marks out of order"],
)
@pytest.mark.parametrize("door", ["register", "sign in", "reset", "change"])
def test_a_huge_password_is_refused_at_once(client, member, nothing_changes, no_hashing, door, password):
    own = client.as_(member)
    send = {
        "register": lambda: register(client, password),
        "sign in": lambda: sign_in(client, password),
        "reset": lambda: client.post("/api/v1/auth/password/reset", json={"token": "x", "password": password}),
        "change": lambda: own.post("/api/v1/me/password", json={"current_password": password, "password": password}),
    }[door]

    with nothing_changes():
        began = time.perf_counter()
        response = send()
        took = time.perf_counter() - began

    assert response.status_code in (413, 422)
    assert took < 0.5


def test_judging_the_longest_password_takes_no_time(client, nothing_changes, no_hashing):
    """Personal words and repetitions are looked for in all of it."""
    passwords = ["ada" * 341 + "a", "rollcall" * 128, "countess.ada" * 85, "aB" * 512]

    began = time.perf_counter()
    with nothing_changes():
        answers = [register(client, password) for password in passwords]
    took = time.perf_counter() - began

    assert {response.status_code for response in answers} == {422}
    assert took < 0.5


# At sign-in


def test_a_hash_of_other_parameters_is_renewed_without_a_new_version(app, client):
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    user = UserFactory(**ADA, password_hash=weak)
    before = client.as_(user).get("/api/v1/me")

    assert sign_in(client, PASSWORD).status_code == 200

    after = client.as_(user).get("/api/v1/me", headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 304
    with app.app_context():
        row = db.session.get(User, user.id)
    assert row.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert (row.version, row.updated_at) == (user.version, user.updated_at)
    assert sign_in(client, PASSWORD).status_code == 200
