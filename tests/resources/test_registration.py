"""Registration: open, confirmed by mail, or closed; and that nobody learns from it who has an account."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update

from models import OneTimeToken, Throttle
from models.base import db, now
from tests.factories.user import PASSWORD, UserFactory
from tests.letters import Mailbox
from tests.resources.answers import pointers

USERS = "/api/v1/users"
LOGIN = "/api/v1/auth/login"
VERIFY = "/api/v1/auth/email/verify"
RESEND = "/api/v1/auth/email/resend"
ADA = "ada@example.com"


@pytest.fixture
def mailbox(app, tmp_path):
    return Mailbox(app, tmp_path)


@pytest.fixture
def confirmed(app):
    """Let registrations be confirmed by mail."""
    app.config["REGISTRATION"] = "confirmed"


@pytest.fixture
def an_hour_passes(app):
    """Return a function after which what was counted an hour ago is an hour old."""

    def age():
        before = now() - timedelta(hours=1, seconds=1)
        with app.app_context():
            db.session.execute(update(Throttle).values(seen_at=before, refused_until=None))
            db.session.commit()

    return age


def a_person(**fields):
    return {"email": ADA, "name": "Ada Lovelace", "password": PASSWORD, **fields}


def said(response):
    """Return all that an answer says apart from its id."""
    return response.status_code, response.json, {n: v for n, v in response.headers if n != "X-Request-ID"}


def subjects(letters):
    return [letter.subject for letter in letters]


def signed_in(client, password=PASSWORD, email=ADA):
    return client.post(LOGIN, json={"email": email, "password": password})


# Open


def test_who_registers_is_a_user_at_once_and_is_asked_to_confirm(client, mailbox):
    response = client.post(USERS, json=a_person())

    assert response.status_code == 201
    assert response.json["email_verified"] is False
    letter = mailbox.collect_one()
    assert (letter.to, letter.subject) == (ADA, "Confirm your e-mail address")
    assert client.post(VERIFY, json={"token": letter.token}).status_code == 204
    user = signed_in(client).json["user"]
    assert user["email_verified"] is True and user["id"] == response.json["id"]


def test_registering_with_a_taken_address_sends_nothing(client, mailbox, nothing_changes):
    UserFactory(email=ADA)

    with nothing_changes(but="throttles"):
        response = client.post(USERS, json=a_person())

    assert response.problem == (409, "email_taken")
    assert mailbox.collect() == []


def test_whom_an_admin_creates_gets_no_letter(as_admin, mailbox):
    as_admin.post(USERS, json=a_person())

    assert mailbox.collect() == []


def test_who_registers_again_and_again_cannot_flood_an_address(client, mailbox):
    for _ in range(5):
        assert client.post(USERS, json=a_person()).status_code == 201
        token = signed_in(client).json["access_token"]
        mailbox.collect()
        assert client.with_token(token).delete("/api/v1/me").status_code == 204

    assert len([*mailbox.folder.iterdir()]) <= 3


def test_one_network_cannot_have_letters_sent_to_everybody(client, mailbox):
    for number in range(22):
        assert client.post(USERS, json=a_person(email=f"ada{number}@example.com")).status_code == 201

    assert len(mailbox.collect()) == 20


# To be confirmed


def test_the_answer_does_not_tell_who_has_an_account(client, mailbox, confirmed, snapshot):
    UserFactory(email="taken@example.com")
    UserFactory(email="suspended@example.com", suspended=True)
    UserFactory(email="deleted@example.com", deleted=True)
    users = snapshot()["users"]
    addresses = ["free@example.com", "taken@example.com", "suspended@example.com", "deleted@example.com"]

    answers = [client.post(USERS, json=a_person(email=email)) for email in [*addresses, "free@example.com"]]

    assert {response.status_code for response in answers} == {202}
    assert all(said(response) == said(answers[0]) for response in answers)
    assert "Set-Cookie" not in answers[0].headers and "Location" not in answers[0].headers
    assert snapshot()["users"] == users
    assert sorted(subjects(mailbox.collect())) == [
        *["Confirm your new account"] * 3,
        *["You have an account already"] * 2,
    ]


def test_the_same_work_is_done_for_a_free_and_for_a_taken_address(client, confirmed, queries):
    UserFactory(email="taken@example.com")
    statements = []

    for email in ("free1@example.com", "taken@example.com", "free2@example.com"):
        with queries() as collected:
            client.post(USERS, json=a_person(email=email))
        statements.append(len(collected))

    assert len(set(statements)) == 1


@pytest.mark.parametrize("way", [0, 1], ids=["link", "code"])
def test_the_letter_makes_the_user(client, mailbox, confirmed, snapshot, way):
    client.post(USERS, json=a_person(metadata={"theme": "dark"}))
    assert snapshot()["users"] == []
    assert signed_in(client).problem == (401, "invalid_credentials")

    letter = mailbox.collect_one()
    response = client.post(VERIFY, json=letter.ways()[way])

    assert (letter.to, letter.subject) == (ADA, "Confirm your new account")
    assert response.status_code == 204
    user = signed_in(client).json["user"]
    assert (user["email"], user["name"], user["role"], user["metadata"]) == (
        ADA,
        "Ada Lovelace",
        "member",
        {"theme": "dark"},
    )
    assert user["email_verified"] is True and user["is_active"] is True and user["version"] == 1


def test_the_address_keeps_the_spelling_it_was_registered_with(client, mailbox, confirmed):
    client.post(USERS, json=a_person(email="Ada.L@Bücher.example"))

    letter = mailbox.collect_one()
    client.post(VERIFY, json={"email": "ada.l@xn--bcher-kva.example", "code": letter.code})

    assert signed_in(client, email="ADA.L@bücher.example").json["user"]["email"] == "Ada.L@Bücher.example"


def test_a_confirmed_registration_leaves_neither_password_nor_name_behind(client, mailbox, confirmed, snapshot):
    client.post(USERS, json=a_person())

    client.post(VERIFY, json={"token": mailbox.collect_one().token})

    rows = snapshot()
    assert len(rows["users"]) == 1 and rows["jobs"] == []
    assert "argon2" not in str(rows["one_time_tokens"]) and "Lovelace" not in str(rows["one_time_tokens"])
    assert [row.type for row in rows["events"]] == ["user.created"]


@pytest.mark.parametrize("traits", [{}, {"suspended": True}, {"email_verified": True}], ids=str)
def test_who_has_an_account_is_told_so_and_nothing_else_happens(client, mailbox, confirmed, snapshot, traits):
    UserFactory(email=ADA, **traits)
    before = snapshot()

    client.post(USERS, json=a_person(password="not the one of Ada"))
    letter = mailbox.collect_one()

    assert (letter.to, letter.subject) == (ADA, "You have an account already")
    assert "token=" not in letter.text + letter.html and "code" not in letter.text
    assert {**snapshot(), "throttles": []} == {**before, "throttles": []}
    assert signed_in(client, "not the one of Ada").problem == (401, "invalid_credentials")


def test_the_address_of_a_deleted_user_can_be_registered_anew(client, mailbox, confirmed):
    gone = UserFactory(email=ADA, deleted=True)

    client.post(USERS, json=a_person())
    response = client.post(VERIFY, json={"token": mailbox.collect_one().token})

    assert response.status_code == 204
    assert signed_in(client).json["user"]["id"] != gone.id


def test_of_two_registrations_the_first_that_is_confirmed_wins(client, mailbox, confirmed, nothing_changes):
    client.post(USERS, json=a_person(name="First", password="the password of First"))
    client.post(USERS, json=a_person(name="Second", email="ADA@Example.com", password="the password of Second"))
    first, second = mailbox.collect()

    assert client.post(VERIFY, json={"token": second.token}).status_code == 204
    with nothing_changes():
        response = client.post(VERIFY, json={"token": first.token})

    assert response.problem == (409, "email_taken")
    assert signed_in(client, "the password of Second").json["user"]["name"] == "Second"
    assert signed_in(client, "the password of First").problem == (401, "invalid_credentials")


def test_two_registrations_confirmed_at_once_make_one_user(client, mailbox, confirmed, snapshot):
    for name in ("First", "Second"):
        client.post(USERS, json=a_person(name=name))
    start = threading.Barrier(2)

    def confirm(letter):
        start.wait()
        return client.post(VERIFY, json={"token": letter.token}).status_code

    with ThreadPoolExecutor(2) as pool:
        statuses = [*pool.map(confirm, mailbox.collect())]

    assert sorted(statuses) == [204, 409]
    assert len(snapshot()["users"]) == 1


def test_an_address_taken_before_the_letter_is_answered_stays_with_its_user(
    client, mailbox, confirmed, nothing_changes
):
    client.post(USERS, json=a_person())
    letter = mailbox.collect_one()
    UserFactory(email=ADA)

    with nothing_changes():
        response = client.post(VERIFY, json={"token": letter.token})

    assert response.problem == (409, "email_taken")


def test_a_registration_waits_for_a_day(client, app, mailbox, confirmed, nothing_changes):
    client.post(USERS, json=a_person())
    letter = mailbox.collect_one()
    with app.app_context():
        (expires_at,) = db.session.scalars(db.select(OneTimeToken.expires_at))
        db.session.execute(update(OneTimeToken).values(expires_at=now() - timedelta(seconds=1)))
        db.session.commit()

    with nothing_changes():
        response = client.post(VERIFY, json={"token": letter.token})

    assert response.problem == (422, "invalid_one_time_token")
    assert timedelta(hours=23) < expires_at - now() < timedelta(hours=24)


def test_who_is_signed_in_without_permission_registers_like_anybody(client, as_member, confirmed, snapshot):
    users = snapshot()["users"]

    response = as_member.post(USERS, json=a_person())

    assert said(response) == said(client.post(USERS, json=a_person(email="other@example.com")))
    assert snapshot()["users"] == users


def test_an_admin_creates_without_confirmation(as_admin, mailbox, confirmed):
    assert as_admin.post(USERS, json=a_person()).status_code == 201
    assert mailbox.collect() == []


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
@pytest.mark.parametrize(
    ("fields", "problem", "pointer"),
    [
        ({"role": "admin"}, (403, "permission_denied"), "/json/role"),
        ({"is_active": True}, (403, "permission_denied"), "/json/is_active"),
        ({"external_id": "E-1"}, (403, "permission_denied"), "/json/external_id"),
        ({"private_metadata": {}}, (403, "permission_denied"), "/json/private_metadata"),
        ({"email_verified": True}, (422, "invalid"), "/json/email_verified"),
        ({"password_hash": "x"}, (422, "invalid"), "/json/password_hash"),
        ({"details": {}}, (422, "invalid"), "/json/details"),
        ({"password": "short"}, (422, "invalid"), "/json/password"),
        ({"password": "password123"}, (422, "invalid"), "/json/password"),
        ({"password": None}, (422, "invalid"), "/json/password"),
        ({"email": "no address"}, (422, "invalid"), "/json/email"),
        ({"name": ""}, (422, "invalid"), "/json/name"),
        ({"metadata": {"a": "x" * 20_000}}, (422, "invalid"), "/json/metadata/a"),
    ],
    ids=str,
)
def test_what_may_not_be_said_is_refused_before_any_letter(
    client, confirmed, nothing_changes, taken, fields, problem, pointer
):
    if taken:
        UserFactory(email=ADA)

    with nothing_changes():
        response = client.post(USERS, json=a_person(**fields))

    assert response.problem == problem
    assert pointers(response) == [pointer]


def test_a_registration_needs_a_password_also_where_it_is_confirmed(client, confirmed, nothing_changes):
    with nothing_changes():
        response = client.post(USERS, json={"email": ADA, "name": "Ada Lovelace"})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/password"]


# How many letters


def test_one_address_gets_three_letters_an_hour_and_the_answer_stays_the_same(
    client, mailbox, confirmed, an_hour_passes
):
    spellings = [ADA, "ADA@example.com", "Ada@EXAMPLE.com", "ａda@example.com", ADA]

    answers = [client.post(USERS, json=a_person(email=email)) for email in spellings]
    answers.append(client.post(RESEND, json={"email": ADA}))
    at_first = mailbox.collect()
    an_hour_passes()
    client.post(USERS, json=a_person())

    assert [response.status_code for response in answers] == [202] * 6
    assert all(said(response) == said(answers[0]) for response in answers[:5])
    assert subjects(at_first) == ["Confirm your new account"] * 3
    assert subjects(mailbox.collect()) == ["Confirm your new account"]


def test_a_taken_address_gets_three_letters_an_hour_as_well(client, mailbox, confirmed):
    UserFactory(email=ADA)

    answers = [client.post(USERS, json=a_person()) for _ in range(5)]

    assert all(said(response) == said(answers[0]) for response in answers)
    assert subjects(mailbox.collect()) == ["You have an account already"] * 3


def test_one_network_causes_twenty_letters_an_hour_and_others_do_not_suffer(client, mailbox, confirmed):
    answers = [client.post(USERS, json=a_person(email=f"ada{number}@example.com")) for number in range(23)]
    answers.append(
        client.post(USERS, json=a_person(email="far@example.com"), environ_base={"REMOTE_ADDR": "198.51.100.7"})
    )

    letters = mailbox.collect()
    assert all(said(response) == said(answers[0]) for response in answers)
    assert len(letters) == 21 and letters[-1].to == "far@example.com"


# Closed


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_nobody_registers_where_it_is_closed(app, client, mailbox, nothing_changes, taken):
    app.config["REGISTRATION"] = "closed"
    if taken:
        UserFactory(email=ADA)

    with nothing_changes():
        response = client.post(USERS, json=a_person())

    assert response.problem == (403, "registration_closed")
    assert mailbox.collect() == []
