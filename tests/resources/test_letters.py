"""Letters and their answers: forgotten passwords, confirmed addresses, changes of either, and the pages of links."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
from sqlalchemy import update

from models import OneTimeToken, RefreshToken
from models.base import db, now
from service import account, one_time, passwords
from tests.factories.user import PASSWORD, UserFactory
from tests.letters import Mailbox
from tests.resources.answers import pointers

USERS = "/api/v1/users"
LOGIN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"
FORGOT = "/api/v1/auth/password/forgot"
RESET = "/api/v1/auth/password/reset"
VERIFY = "/api/v1/auth/email/verify"
RESEND = "/api/v1/auth/email/resend"
ME = "/api/v1/me"
MY_PASSWORD = "/api/v1/me/password"
MY_EMAIL = "/api/v1/me/email"
NEW = "quite another pass phrase"
ADA = "ada@example.com"
LINK = r"http://localhost/account/(?:confirm|reset)\?token=[\w-]{43}"
REFUSED = (422, "invalid_one_time_token")
WAYS = pytest.mark.parametrize("way", [0, 1], ids=["link", "code"])


@pytest.fixture
def mailbox(app, tmp_path):
    return Mailbox(app, tmp_path)


@pytest.fixture
def ada(app):
    """Return somebody whose address is not confirmed yet."""
    return UserFactory(email=ADA, name="Ada Lovelace")


@pytest.fixture
def only_guesses_are_counted(snapshot):
    """Return a context in which nothing may change but the counts of attempts."""

    @contextmanager
    def context():
        before = snapshot()
        yield
        assert {**snapshot(), "throttles": []} == {**before, "throttles": []}

    return context


@pytest.fixture
def is_refused(client, nothing_changes, only_guesses_are_counted):
    """Return a function that proves that neither link nor code of a letter can be used, and that nothing changes."""

    def check(path, letter, **more):
        by_link, by_code = letter.ways()
        with nothing_changes():
            answers = [client.post(path, json=by_link | more)]
        with only_guesses_are_counted():
            answers.append(client.post(path, json=by_code | more))
        return [response.problem for response in answers] == [REFUSED] * 2 and pointers(answers[0]) == ["/json/token"]

    return check


def said(response):
    """Return all that an answer says apart from its id."""
    return response.status_code, response.json, {n: v for n, v in response.headers if n != "X-Request-ID"}


def sign_in(client, password=PASSWORD, email=ADA):
    return client.post(LOGIN, json={"email": email, "password": password})


def forgotten(client, mailbox, email=ADA):
    """Ask for a new password and return the letter."""
    assert client.post(FORGOT, json={"email": email}).status_code == 202
    return mailbox.collect_one()


def at_once(count, work):
    start = threading.Barrier(count)

    def run(_):
        start.wait()
        return work()

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(run, range(count))]


def events(snapshot):
    return [row.type for row in snapshot()["events"]]


def expire(app):
    """Let a day go by for every letter."""
    with app.app_context():
        db.session.execute(update(OneTimeToken).values(expires_at=now() - timedelta(seconds=1)))
        db.session.commit()


# A forgotten password: asking


def test_forgot_answers_alike_for_everybody(client, mailbox, snapshot):
    people = {
        "known@example.com": {},
        "verified@example.com": {"email_verified": True},
        "no-password@example.com": {"password_hash": None},
        "suspended@example.com": {"suspended": True},
        "deleted@example.com": {"deleted": True},
    }
    for email, traits in people.items():
        UserFactory(email=email, **traits)
    users = snapshot()["users"]

    answers = [client.post(FORGOT, json={"email": email}) for email in [*people, "unknown@example.com"]]
    letters = mailbox.collect()

    assert answers[0].status_code == 202
    assert all(said(response) == said(answers[0]) for response in answers)
    assert [letter.to for letter in letters] == ["known@example.com", "verified@example.com", "no-password@example.com"]
    assert {letter.subject for letter in letters} == {"Set a new password"}
    assert snapshot()["users"] == users


def test_forgot_does_the_same_work_for_known_and_unknown(client, ada, queries):
    numbers = []

    for email in ("unknown@example.com", ADA, "another@example.com"):
        with queries() as collected:
            client.post(FORGOT, json={"email": email})
        numbers.append(len(collected))

    assert len(set(numbers)) == 1


@pytest.mark.parametrize("path", [FORGOT, RESEND])
@pytest.mark.parametrize("email", ["", "ada", "ada@", "@example.com", "a@b", None, 1, ["ada@example.com"], "x" * 200])
def test_what_is_no_address_is_refused(client, nothing_changes, path, email):
    with nothing_changes():
        response = client.post(path, json={"email": email})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/email"]


@pytest.mark.parametrize("path", [FORGOT, RESEND])
def test_an_address_gets_three_letters_an_hour_however_it_is_spelled(client, mailbox, path):
    UserFactory(email=ADA)

    answers = [client.post(path, json={"email": email}) for email in (ADA, "ADA@example.com", ADA, ADA, ADA) * 2]

    assert all(said(response) == said(answers[0]) for response in answers)
    assert len(mailbox.collect()) == 3


def test_the_letter_goes_to_the_address_of_the_account_and_not_to_the_one_given(client, mailbox):
    UserFactory(email="Ada@Bücher.example")

    client.post(FORGOT, json={"email": "ａDA@xn--bcher-kva.example"})

    assert mailbox.collect_one().to == "Ada@xn--bcher-kva.example"


# A forgotten password: setting another


@pytest.mark.parametrize("written", ["token", "1234 5678", "12345678", "1234-5678", " 1234 5678 "])
def test_the_letter_sets_a_password_and_confirms_the_address(client, ada, mailbox, snapshot, written):
    session = sign_in(client).json
    other = client.as_(ada)
    letter = forgotten(client, mailbox)
    digits = letter.code.replace(" ", "")
    code = written.replace("1234", digits[:4]).replace("5678", digits[4:])
    proof = {"token": letter.token} if written == "token" else {"email": "ADA@example.com", "code": code}

    response = client.post(RESET, json={"password": NEW, **proof})

    assert response.status_code == 204
    assert client.with_token(session["access_token"]).get(ME).problem == (401, "invalid_token")
    assert client.post(REFRESH, json={"refresh_token": session["refresh_token"]}).problem == (401, "invalid_token")
    assert other.get(ME).problem == (401, "invalid_token")
    assert sign_in(client).problem == (401, "invalid_credentials")
    assert sign_in(client, NEW).json["user"]["email_verified"] is True
    assert "user.password_changed" in events(snapshot)
    notice = mailbox.collect_one()
    assert (notice.to, notice.subject) == (ADA, "Your password was changed")
    assert "token=" not in notice.text


def test_setting_a_password_forgives_the_guesses_of_others(client, ada, mailbox):
    for _ in range(5):
        assert sign_in(client, "a wrong guess").problem == (401, "invalid_credentials")
    assert sign_in(client).problem == (429, "too_many_attempts")

    client.post(RESET, json={"token": forgotten(client, mailbox).token, "password": NEW})

    assert sign_in(client, NEW).status_code == 200


def test_setting_a_password_forgives_ones_own_attempts_from_home(client, ada, mailbox):
    assert sign_in(client).status_code == 200
    for _ in range(10):
        assert sign_in(client, "a wrong guess").problem == (401, "invalid_credentials")
    assert sign_in(client).problem == (429, "too_many_attempts")

    client.post(RESET, json={"token": forgotten(client, mailbox).token, "password": NEW})

    assert sign_in(client, NEW).status_code == 200


def test_who_never_had_a_password_gets_one(client, mailbox):
    UserFactory(email=ADA, password_hash=None)

    client.post(RESET, json={"token": forgotten(client, mailbox).token, "password": NEW})

    assert sign_in(client, NEW).status_code == 200


@pytest.mark.parametrize("password", ["short", "password123", "Ada Lovelace", "ada@example.com"])
def test_a_password_that_is_refused_leaves_the_letter_usable(client, ada, mailbox, nothing_changes, password):
    letter = forgotten(client, mailbox)

    with nothing_changes():
        response = client.post(RESET, json={"token": letter.token, "password": password})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/password"]
    assert client.post(RESET, json={"token": letter.token, "password": NEW}).status_code == 204


# Letters that are not, or no longer, good


def test_a_letter_is_used_once(client, ada, mailbox, is_refused):
    letter = forgotten(client, mailbox)
    client.post(RESET, json={"token": letter.token, "password": NEW})

    assert is_refused(RESET, letter, password="yet another pass phrase")


def test_the_code_goes_with_the_link(client, ada, mailbox, is_refused):
    letter = forgotten(client, mailbox)
    client.post(RESET, json={"email": ADA, "code": letter.code, "password": NEW})

    assert is_refused(RESET, letter, password="yet another pass phrase")


@WAYS
def test_of_ten_at_once_one_sets_the_password(client, ada, mailbox, snapshot, way):
    proof = forgotten(client, mailbox).ways()[way]

    statuses = at_once(10, lambda: client.post(RESET, json={**proof, "password": NEW}).status_code)

    assert sorted(statuses) == [204] + [422] * 9
    assert events(snapshot).count("user.password_changed") == 1
    assert len(mailbox.collect()) == 1


@WAYS
def test_of_ten_at_once_one_confirms_the_address(client, ada, mailbox, snapshot, way):
    client.post(RESEND, json={"email": ADA})
    proof = mailbox.collect_one().ways()[way]

    statuses = at_once(10, lambda: client.post(VERIFY, json=proof).status_code)

    assert sorted(statuses) == [204] + [422] * 9
    assert events(snapshot) == ["user.email_verified"]


def test_setting_a_password_and_confirming_at_once_do_not_wait_for_each_other(client, ada, mailbox, monkeypatch):
    client.post(RESEND, json={"email": ADA})
    confirming = mailbox.collect_one()
    resetting = forgotten(client, mailbox)
    both, locked, use_up = threading.Barrier(2, timeout=0.5), account._locked, one_time.use_up

    def wait():
        """Let each go on when the other has locked something too, or cannot."""
        with suppress(threading.BrokenBarrierError):
            both.wait()

    def slowly_locked(user_id):
        user = locked(user_id)
        if threading.current_thread().name == "resetting":
            wait()
        return user

    def slowly_used_up(row):
        use_up(row)
        if threading.current_thread().name == "confirming":
            wait()

    monkeypatch.setattr(account, "_locked", slowly_locked)
    monkeypatch.setattr(one_time, "use_up", slowly_used_up)
    statuses = {}

    def send(path, body):
        statuses[threading.current_thread().name] = client.post(path, json=body).status_code

    requests = {
        "confirming": (VERIFY, {"token": confirming.token}),
        "resetting": (RESET, {"token": resetting.token, "password": NEW}),
    }
    threads = [threading.Thread(target=send, args=request, name=name) for name, request in requests.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses["resetting"] == 204
    assert statuses["confirming"] in (204, 422)


def test_a_letter_ends_by_itself(client, app, ada, mailbox, is_refused):
    letter = forgotten(client, mailbox)
    expire(app)

    assert is_refused(RESET, letter, password=NEW)


def test_a_newer_letter_voids_the_one_before(client, ada, mailbox, is_refused):
    first, second = forgotten(client, mailbox), forgotten(client, mailbox)

    assert is_refused(RESET, first, password=NEW)
    assert client.post(RESET, json={"token": second.token, "password": NEW}).status_code == 204


def test_a_letter_is_good_for_its_own_purpose_only(client, ada, mailbox, is_refused):
    client.post(RESEND, json={"email": ADA})
    confirming = mailbox.collect_one()
    resetting = forgotten(client, mailbox)

    assert is_refused(VERIFY, resetting)
    assert is_refused(RESET, confirming, password=NEW)
    assert client.post(VERIFY, json={"token": confirming.token}).status_code == 204
    assert client.post(RESET, json={"token": resetting.token, "password": NEW}).status_code == 204


def test_letters_to_an_address_that_was_changed_are_void(client, as_admin, ada, mailbox, is_refused):
    client.post(RESEND, json={"email": ADA})
    confirming = mailbox.collect_one()
    resetting = forgotten(client, mailbox)

    as_admin.patch(f"{USERS}/{ada.id}", json={"email": "countess@example.com"})

    assert is_refused(RESET, resetting, password=NEW)
    assert is_refused(VERIFY, confirming)


def test_an_address_changed_there_and_back_makes_no_letter_good_again(client, as_admin, ada, mailbox, is_refused):
    resetting = forgotten(client, mailbox)

    for email in ("countess@example.com", ADA):
        as_admin.patch(f"{USERS}/{ada.id}", json={"email": email})

    assert is_refused(RESET, resetting, password=NEW)


def test_letters_to_a_deleted_user_are_void(client, as_admin, ada, mailbox, is_refused):
    client.post(RESEND, json={"email": ADA})
    confirming = mailbox.collect_one()
    resetting = forgotten(client, mailbox)

    as_admin.delete(f"{USERS}/{ada.id}")

    assert is_refused(RESET, resetting, password=NEW)
    assert is_refused(VERIFY, confirming)


def test_letters_from_before_a_deletion_are_void_after_it_is_undone(client, as_admin, ada, mailbox, is_refused):
    client.as_(ada).post(MY_EMAIL, json={"current_password": PASSWORD, "email": "thief@example.com"})
    changing = mailbox.collect_one()
    resetting = forgotten(client, mailbox)

    as_admin.delete(f"{USERS}/{ada.id}")
    as_admin.post(f"{USERS}/{ada.id}/restore")

    assert is_refused(RESET, resetting, password=NEW)
    assert is_refused(VERIFY, changing)


def test_letters_to_a_suspended_user_are_void(client, as_admin, ada, mailbox, is_refused):
    client.as_(ada).post(MY_EMAIL, json={"current_password": PASSWORD, "email": "thief@example.com"})
    changing = mailbox.collect_one()
    resetting = forgotten(client, mailbox)

    as_admin.patch(f"{USERS}/{ada.id}", json={"is_active": False})

    assert is_refused(RESET, resetting, password=NEW)
    assert is_refused(VERIFY, changing)


def test_setting_a_password_voids_every_letter(client, ada, mailbox, is_refused):
    client.post(RESEND, json={"email": ADA})
    confirming = mailbox.collect_one()
    client.as_(ada).post(MY_EMAIL, json={"current_password": PASSWORD, "email": "thief@example.com"})
    changing = mailbox.collect_one()

    client.post(RESET, json={"token": forgotten(client, mailbox).token, "password": NEW})

    assert is_refused(VERIFY, confirming)
    assert is_refused(VERIFY, changing)


def test_a_code_belongs_to_its_address(client, ada, mailbox, other, only_guesses_are_counted):
    letter = forgotten(client, mailbox)

    with only_guesses_are_counted():
        response = client.post(RESET, json={"email": other.email, "code": letter.code, "password": NEW})

    assert response.problem == REFUSED


@pytest.mark.parametrize("token", ["x", "x" * 43, "' OR 1=1 --", "%", "é", "0", "x" * 200])
def test_a_token_that_was_never_given_out_is_refused(client, ada, mailbox, nothing_changes, token):
    forgotten(client, mailbox)

    with nothing_changes():
        answers = [
            client.post(VERIFY, json={"token": token}),
            client.post(RESET, json={"token": token, "password": NEW}),
        ]

    assert [response.problem for response in answers] == [REFUSED] * 2


@pytest.mark.parametrize("path", [VERIFY, RESET])
@pytest.mark.parametrize(
    "proof",
    [
        {},
        {"email": ADA},
        {"code": "12345678"},
        {"token": "x", "email": ADA},
        {"token": "x", "code": "12345678"},
        {"token": "x", "email": ADA, "code": "12345678"},
        {"token": None},
        {"token": ""},
        {"token": 1},
        {"token": "x" * 201},
        {"email": ADA, "code": 12345678},
        {"email": ADA, "code": ""},
        {"email": "no address", "code": "12345678"},
        {"token": "x", "user_id": 1},
    ],
    ids=str,
)
def test_either_the_token_or_address_and_code_must_be_sent(client, ada, nothing_changes, path, proof):
    with nothing_changes():
        response = client.post(path, json=proof | ({"password": NEW} if path == RESET else {}))

    assert response.problem == (422, "invalid")


# Guessing codes


@pytest.mark.parametrize("email", [ADA, "nobody@example.com"])
@pytest.mark.parametrize("path", [VERIFY, RESET])
def test_ten_wrong_codes_end_guessing_also_where_there_is_nobody(
    client, ada, mailbox, only_guesses_are_counted, path, email
):
    client.post(RESEND, json={"email": ADA})
    client.post(FORGOT, json={"email": ADA})
    taken = {letter.code.replace(" ", "") for letter in mailbox.collect()}
    wrong = next(code for code in ("00000000", "11111111", "22222222") if code not in taken)
    more = {"password": NEW} if path == RESET else {}

    with only_guesses_are_counted():
        answers = [client.post(path, json={"email": email, "code": wrong, **more}) for _ in range(12)]

    assert [response.problem for response in answers] == [REFUSED] * 10 + [(429, "too_many_attempts")] * 2
    assert 3590 < int(answers[-1].headers["Retry-After"]) <= 3600


def test_the_right_code_comes_too_late_but_link_and_new_letter_work(client, ada, mailbox, only_guesses_are_counted):
    client.post(RESEND, json={"email": ADA})
    confirming = mailbox.collect_one()
    letter = forgotten(client, mailbox)
    wrong = f"{(int(letter.code.replace(' ', '')) + 1) % 10**8:08}"
    for _ in range(10):
        client.post(RESET, json={"email": ADA, "code": wrong, "password": NEW})

    with only_guesses_are_counted():
        late = client.post(RESET, json={"email": ADA, "code": letter.code, "password": NEW})

    assert late.problem == (429, "too_many_attempts")
    assert client.post(VERIFY, json={"token": confirming.token}).status_code == 204
    for _ in range(10):
        client.post(RESET, json={"email": ADA, "code": wrong, "password": NEW})
    fresh = forgotten(client, mailbox)
    assert client.post(RESET, json={"email": ADA, "code": fresh.code, "password": NEW}).status_code == 204


def test_the_right_code_forgives_the_wrong_ones(client, ada, mailbox, snapshot):
    client.post(RESEND, json={"email": ADA})
    letter = mailbox.collect_one()
    before = len(snapshot()["throttles"])
    for _ in range(9):
        client.post(VERIFY, json={"email": ADA, "code": "x"})

    assert client.post(VERIFY, json={"email": ADA, "code": letter.code}).status_code == 204
    assert len(snapshot()["throttles"]) == before


# Confirming an address


@WAYS
def test_the_letter_confirms_the_address(client, as_admin, ada, mailbox, snapshot, way):
    own = client.as_(ada)
    client.post(RESEND, json={"email": ADA})

    response = client.post(VERIFY, json=mailbox.collect_one().ways()[way])

    assert response.status_code == 204
    assert own.get(ME).json["email_verified"] is True
    assert events(snapshot) == ["user.email_verified"]
    assert mailbox.collect() == []


def test_resend_answers_alike_for_everybody(client, mailbox):
    people = {
        "unverified@example.com": {},
        "verified@example.com": {"email_verified": True},
        "deleted@example.com": {"deleted": True},
    }
    for email, traits in people.items():
        UserFactory(email=email, **traits)

    answers = [client.post(RESEND, json={"email": email}) for email in [*people, "unknown@example.com"]]

    assert answers[0].status_code == 202
    assert all(said(response) == said(answers[0]) for response in answers)
    assert mailbox.collect_one().to == "unverified@example.com"


def test_a_confirmation_sent_again_voids_the_one_before(client, ada, mailbox, is_refused):
    client.post(RESEND, json={"email": ADA})
    first = mailbox.collect_one()
    client.post(RESEND, json={"email": ADA})
    second = mailbox.collect_one()

    assert is_refused(VERIFY, first)
    assert client.post(VERIFY, json={"token": second.token}).status_code == 204


def test_a_registration_that_waits_is_sent_again(app, client, mailbox, is_refused):
    app.config["REGISTRATION"] = "confirmed"
    client.post(USERS, json={"email": ADA, "name": "Ada", "password": PASSWORD})
    first = mailbox.collect_one()

    client.post(RESEND, json={"email": ADA})
    second = mailbox.collect_one()

    assert second.subject == first.subject == "Confirm your new account"
    assert is_refused(VERIFY, first)
    assert client.post(VERIFY, json={"email": ADA, "code": second.code}).status_code == 204
    assert sign_in(client).status_code == 200


# Changing the password


def test_a_changed_password_keeps_this_session_and_ends_the_others(client, ada, mailbox, snapshot):
    mine, elsewhere = sign_in(client).json, sign_in(client).json
    own = client.with_token(mine["access_token"])

    response = own.post(MY_PASSWORD, json={"current_password": PASSWORD, "password": NEW})

    assert response.status_code == 204
    assert own.get(ME).status_code == 200
    assert client.with_token(elsewhere["access_token"]).get(ME).problem == (401, "invalid_token")
    assert client.post(REFRESH, json={"refresh_token": elsewhere["refresh_token"]}).problem == (401, "invalid_token")
    assert client.post(REFRESH, json={"refresh_token": mine["refresh_token"]}).status_code == 200
    assert sign_in(client).problem == (401, "invalid_credentials")
    assert sign_in(client, NEW).status_code == 200
    assert "user.password_changed" in events(snapshot)
    notice = mailbox.collect_one()
    assert (notice.to, notice.subject) == (ADA, "Your password was changed")


@pytest.mark.parametrize(
    ("path", "wish"), [(MY_PASSWORD, {"password": NEW}), (MY_EMAIL, {"email": "new@example.com"})], ids=str
)
@pytest.mark.parametrize("current", ["wrong", PASSWORD.upper(), f"{PASSWORD} ", NEW])
def test_a_change_needs_the_current_password(client, ada, mailbox, only_guesses_are_counted, path, wish, current):
    own = client.as_(ada)

    with only_guesses_are_counted():
        response = own.post(path, json={"current_password": current, **wish})

    assert response.problem == (403, "wrong_password")
    assert mailbox.collect() == []


@pytest.mark.parametrize(
    ("path", "wish"), [(MY_PASSWORD, {"password": NEW}), (MY_EMAIL, {"email": "new@example.com"})], ids=str
)
def test_a_change_without_the_current_password_or_a_sign_in_is_refused(client, ada, nothing_changes, path, wish):
    own = client.as_(ada)

    with nothing_changes():
        answers = [
            client.post(path, json={"current_password": PASSWORD, **wish}),
            own.post(path, json=wish),
            own.post(path, json={"current_password": None, **wish}),
            own.post(path, json={"current_password": "", **wish}),
            own.post(path, json={"current_password": PASSWORD, "user_id": 1, **wish}),
        ]

    assert [r.problem for r in answers] == [(401, "authentication_required")] + [(422, "invalid")] * 4


def test_guessing_at_the_current_password_ends(client, ada, only_guesses_are_counted):
    own = client.as_(ada)
    wish = {"password": NEW}

    with only_guesses_are_counted():
        answers = [own.post(MY_PASSWORD, json={"current_password": f"wrong {n}", **wish}) for n in range(10)]
        late = own.post(MY_PASSWORD, json={"current_password": PASSWORD, **wish})
        other_door = own.post(MY_EMAIL, json={"current_password": PASSWORD, "email": "new@example.com"})

    assert {response.problem for response in answers} == {(403, "wrong_password")}
    assert late.problem == other_door.problem == (429, "too_many_attempts")


@pytest.mark.parametrize("password", ["short", "password123", "ada lovelace", "rollcall1!", "x" * 1025])
def test_a_changed_password_is_judged_like_a_first_one(client, ada, nothing_changes, password):
    own = client.as_(ada)

    with nothing_changes():
        response = own.post(MY_PASSWORD, json={"current_password": PASSWORD, "password": password})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/password"]


def test_a_changed_password_voids_every_letter(client, ada, mailbox, is_refused):
    letter = forgotten(client, mailbox)

    client.as_(ada).post(MY_PASSWORD, json={"current_password": PASSWORD, "password": NEW})

    assert is_refused(RESET, letter, password="yet another pass phrase")


def test_who_holds_an_address_unconfirmed_cannot_flood_it(client, mailbox):
    client.post(USERS, json={"email": ADA, "name": "Eve", "password": PASSWORD})
    own = client.with_token(sign_in(client).json["access_token"])
    current = PASSWORD

    for number in range(5):
        following = f"a pass phrase with the number {number}"
        assert own.post(MY_PASSWORD, json={"current_password": current, "password": following}).status_code == 204
        current = following

    assert len(mailbox.collect()) <= 3


# Changing the address


@WAYS
def test_an_address_changes_when_the_new_one_confirms(client, ada, mailbox, snapshot, way):
    mine, elsewhere = sign_in(client).json, sign_in(client).json
    own = client.with_token(mine["access_token"])

    asked = own.post(MY_EMAIL, json={"current_password": PASSWORD, "email": "Countess@example.com"})
    letter = mailbox.collect_one()
    before = own.get(ME).json
    confirmed = client.post(VERIFY, json=letter.ways()[way])

    assert asked.status_code == 202
    assert (letter.to, letter.subject) == ("Countess@example.com", "Confirm your new e-mail address")
    assert (before["email"], before["version"]) == (ADA, 1)
    assert confirmed.status_code == 204
    after = own.get(ME).json
    assert (after["email"], after["email_verified"]) == ("Countess@example.com", True)
    assert client.with_token(elsewhere["access_token"]).get(ME).problem == (401, "invalid_token")
    assert client.post(REFRESH, json={"refresh_token": elsewhere["refresh_token"]}).problem == (401, "invalid_token")
    assert client.post(REFRESH, json={"refresh_token": mine["refresh_token"]}).status_code == 200
    notice = mailbox.collect_one()
    assert (notice.to, notice.subject) == (ADA, "Your e-mail address was changed")
    assert "ountess" not in notice.text + notice.html
    assert sign_in(client).problem == (401, "invalid_credentials")
    assert sign_in(client, email="countess@example.com").status_code == 200
    assert "user.email_changed" in events(snapshot)
    assert "ountess" not in str(snapshot()["events"])


def test_the_old_address_stays_good_until_then(client, ada, mailbox):
    client.as_(ada).post(MY_EMAIL, json={"current_password": PASSWORD, "email": "new@example.com"})
    mailbox.collect()

    assert sign_in(client).status_code == 200
    assert sign_in(client, email="new@example.com").problem == (401, "invalid_credentials")


def test_asking_for_another_address_does_not_tell_who_has_it(client, ada, other, mailbox, snapshot):
    UserFactory(email="suspended@example.com", suspended=True)
    own = client.as_(ada)
    users = snapshot()["users"]
    wishes = ["free@example.com", other.email, "suspended@example.com", ADA]

    answers = [own.post(MY_EMAIL, json={"current_password": PASSWORD, "email": email}) for email in wishes]
    letters = mailbox.collect()

    assert answers[0].status_code == 202
    assert all(said(response) == said(answers[0]) for response in answers)
    assert snapshot()["users"] == users
    assert all("token=" not in letter.text for letter in letters if letter.to != "free@example.com")


def test_who_has_the_address_is_told_that_somebody_wanted_it(client, ada, other, mailbox, snapshot):
    users = snapshot()["users"]

    client.as_(ada).post(MY_EMAIL, json={"current_password": PASSWORD, "email": other.email})
    letter = mailbox.collect_one()

    assert (letter.to, letter.subject) == (other.email, "You have an account already")
    assert "token=" not in letter.text + letter.html
    assert "Ada" not in letter.text + letter.html and ADA not in letter.text + letter.html
    assert snapshot()["users"] == users


def test_an_address_taken_meanwhile_stays_with_its_user(client, ada, mailbox, nothing_changes):
    client.as_(ada).post(MY_EMAIL, json={"current_password": PASSWORD, "email": "new@example.com"})
    letter = mailbox.collect_one()
    UserFactory(email="NEW@example.com")

    with nothing_changes():
        response = client.post(VERIFY, json={"token": letter.token})

    assert response.problem == (409, "email_taken")


def test_a_second_wish_replaces_the_first(client, ada, mailbox, is_refused):
    own = client.as_(ada)
    letters = []
    for email in ("first@example.com", "second@example.com"):
        own.post(MY_EMAIL, json={"current_password": PASSWORD, "email": email})
        letters.append(mailbox.collect_one())

    assert is_refused(VERIFY, letters[0])
    assert client.post(VERIFY, json={"token": letters[1].token}).status_code == 204
    assert own.get(ME).json["email"] == "second@example.com"


def test_a_change_of_address_voids_letters_to_the_old_one(client, ada, mailbox, is_refused):
    client.as_(ada).post(MY_EMAIL, json={"current_password": PASSWORD, "email": "new@example.com"})
    changing = mailbox.collect_one()
    resetting = forgotten(client, mailbox)

    client.post(VERIFY, json={"token": changing.token})
    mailbox.collect()

    assert is_refused(RESET, resetting, password=NEW)
    assert is_refused(VERIFY, changing)


def test_a_wish_of_an_hour_ago_is_forgotten(client, app, ada, mailbox, is_refused):
    client.as_(ada).post(MY_EMAIL, json={"current_password": PASSWORD, "email": "new@example.com"})
    letter = mailbox.collect_one()
    expire(app)

    assert is_refused(VERIFY, letter)


def test_a_new_address_gets_three_letters_an_hour(client, ada, mailbox):
    own = client.as_(ada)

    answers = [own.post(MY_EMAIL, json={"current_password": PASSWORD, "email": "new@example.com"}) for _ in range(5)]

    assert all(said(response) == said(answers[0]) for response in answers)
    assert len([letter for letter in mailbox.collect() if letter.to == "new@example.com"]) <= 3


# What letters are like


def every_kind_of_letter(app, client, mailbox, name):
    """Cause each kind of letter by somebody of this name, and return them by their subjects."""
    user = UserFactory(email=ADA, name=name)
    letters = []

    def collect():
        letters.append(mailbox.collect_one())
        return letters[-1]

    client.post(RESEND, json={"email": ADA})
    collect()
    own = client.as_(user)
    own.post(MY_PASSWORD, json={"current_password": PASSWORD, "password": NEW})
    collect()
    client.post(FORGOT, json={"email": ADA})
    client.post(RESET, json={"token": collect().token, "password": PASSWORD})
    mailbox.collect()
    client.as_(user).post(MY_EMAIL, json={"current_password": PASSWORD, "email": "new@example.com"})
    client.post(VERIFY, json={"token": collect().token})
    collect()
    session = sign_in(client, email="new@example.com").json
    client.post(REFRESH, json={"refresh_token": session["refresh_token"]})
    with app.app_context():
        db.session.execute(update(RefreshToken).values(used_at=now() - timedelta(minutes=5)))
        db.session.commit()
    client.post(REFRESH, json={"refresh_token": session["refresh_token"]})
    collect()
    app.config["REGISTRATION"] = "confirmed"
    for email in ("new@example.com", "free@example.com"):
        client.post(USERS, json={"email": email, "name": name, "password": PASSWORD, "metadata": {"a": name}})
        collect()
    return {letter.subject: letter for letter in letters}


def test_every_letter_has_one_receiver_two_forms_and_no_text_of_users(app, client, mailbox):
    name = "Eve <b>bold</b> {{7*7}} https://evil.example/"

    letters = every_kind_of_letter(app, client, mailbox, name)

    assert letters.keys() == {
        "Confirm your e-mail address",
        "Your password was changed",
        "Set a new password",
        "Confirm your new e-mail address",
        "Your e-mail address was changed",
        "A session of yours was ended",
        "You have an account already",
        "Confirm your new account",
    }
    for letter in letters.values():
        message = letter.message
        assert sorted(message.keys()) == [
            *("Auto-Submitted", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To"),
        ]
        assert len(message["To"].addresses) == len(message["From"].addresses) == 1
        assert str(message["From"]) == "Rollcall <no-reply@localhost>"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message.get_content_type() == "multipart/alternative"
        assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
        for form in (letter.text, letter.html):
            assert "http://localhost" in form
            assert not re.search(r"Eve|bold|evil|\{\{", form)
            assert {*re.findall(r"https?://[^\s\"<]+", form)} <= {"http://localhost", *re.findall(LINK, form)}
        if "token=" in letter.text:
            assert letter.link in letter.html and letter.code in letter.html
        assert "<script" not in letter.html and "<img" not in letter.html


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"Forwarded": "host=evil.example;proto=http"},
        {"X-Forwarded-Proto": "http", "X-Forwarded-Prefix": "/evil"},
        {"Host": "127.0.0.1:6666"},
        {"Origin": "https://evil.example", "Referer": "https://evil.example/"},
    ],
    ids=str,
)
def test_links_lead_to_the_public_address_whatever_the_request_says(app, client, ada, mailbox, headers):
    app.config["PUBLIC_URL"] = "https://rollcall.example"

    assert client.post(FORGOT, json={"email": ADA}, headers=headers).status_code == 202
    letter = mailbox.collect_one()

    assert re.fullmatch(r"https://rollcall\.example/account/reset\?token=[\w-]{43}", letter.link)
    assert "evil" not in letter.message.as_string() and "6666" not in letter.text


def test_another_host_causes_no_letter(client, ada, nothing_changes):
    with nothing_changes():
        response = client.post(FORGOT, json={"email": ADA}, headers={"Host": "evil.example"})

    assert response.problem == (400, "bad_request")


@pytest.mark.parametrize(
    "email",
    [
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\nBcc: eve@example.com",
        "ada\r\nBcc: eve@example.com",
        "ada@example.com%0d%0aBcc: eve@example.com",
        "ada@example.com\u2028Bcc: eve@example.com",
        "ada@example.com\x00",
        "ada@example.com,eve@example.com",
        "ada@example.com;eve@example.com",
        "ada@example.com eve@example.com",
        "ada@example.com, Eve <eve@example.com>",
        "Ada <ada@example.com>",
        "<ada@example.com>",
        '"ada"@example.com',
        "ada(comment)@example.com",
        "ada@eve@example.com",
        "@eve.example:ada@example.com",
        "ada@[127.0.0.1]",
    ],
)
def test_no_address_smuggles_a_header_or_a_second_receiver(app, client, ada, other, nothing_changes, email):
    own = client.as_(other)
    app.config["REGISTRATION"] = "confirmed"

    with nothing_changes():
        answers = [
            client.post(FORGOT, json={"email": email}),
            client.post(RESEND, json={"email": email}),
            client.post(USERS, json={"email": email, "name": "Eve", "password": PASSWORD}),
            own.post(MY_EMAIL, json={"current_password": PASSWORD, "email": email}),
        ]

    assert [response.problem for response in answers] == [(422, "invalid")] * 4
    assert {pointer for response in answers for pointer in pointers(response)} == {"/json/email"}


def test_what_a_letter_holds_stands_nowhere_in_the_database(app, client, ada, mailbox, snapshot):
    app.config["REGISTRATION"] = "confirmed"
    client.post(USERS, json={"email": "free@example.com", "name": "Free", "password": "the secret of Free"})
    client.post(RESEND, json={"email": ADA})
    client.post(FORGOT, json={"email": ADA})
    client.as_(ada).post(MY_EMAIL, json={"current_password": PASSWORD, "email": "new@example.com"})

    waiting = str(snapshot())
    letters = mailbox.collect()
    kept = str(snapshot())

    assert len(letters) == 4 and "sha256" not in kept
    for letter in letters:
        assert len(letter.token) == 43
        for secret in (letter.token, letter.code, letter.code.replace(" ", "")):
            assert secret not in waiting and secret not in kept
    assert "the secret of Free" not in waiting + kept and PASSWORD not in waiting + kept and "$argon2id$" in kept


def test_no_secret_is_logged(app, client, ada, mailbox, caplog):
    caplog.set_level("DEBUG")

    letter = forgotten(client, mailbox)
    client.get(f"/account/reset?token={letter.token}")
    client.post(RESET, json={"token": letter.token, "password": NEW})
    client.post(RESET, json={"email": ADA, "code": letter.code, "password": NEW})

    assert not {letter.token, letter.code, letter.code.replace(" ", ""), NEW, ADA} & {*caplog.text.split()}
    assert letter.token not in caplog.text and NEW not in caplog.text and ADA not in caplog.text


# The pages

CONFIRM_PAGE, RESET_PAGE = "/account/confirm", "/account/reset"
PAGES = pytest.mark.parametrize("page", [CONFIRM_PAGE, RESET_PAGE])


def alert(response):
    """Return what a page says went wrong."""
    assert response.mimetype == "text/html"
    (found,) = re.findall(r'<p role="alert">(.*?)</p>', response.text, re.DOTALL)
    return found.strip()


def test_opening_a_page_changes_nothing_however_often(client, ada, mailbox, nothing_changes):
    client.post(RESEND, json={"email": ADA})
    confirming = mailbox.collect_one()
    resetting = forgotten(client, mailbox)

    with nothing_changes():
        for letter in (confirming, resetting) * 5:
            address = letter.link.removeprefix("http://localhost")
            assert client.get(address).status_code == client.head(address).status_code == 200

    assert client.post(VERIFY, json={"token": confirming.token}).status_code == 204
    assert client.post(RESET, json={"token": resetting.token, "password": NEW}).status_code == 204


@PAGES
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_is_kept_by_nobody_and_can_load_nothing_foreign(client, page, method):
    response = client.send(method, page, query_string={"token": "x"} if method == "GET" else None)

    directives = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert directives.pop("default-src") == directives.pop("frame-ancestors") == "'none'"
    assert directives.pop("style-src") == directives.pop("form-action") == "'self'"
    assert {*directives.values()} <= {"'none'"}
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in response.headers
    assert response.mimetype == "text/html"
    assert not re.search(r"<script|<iframe|<img|style=|\son\w+=", response.text)
    assert {*re.findall(r'(?:src|href|action)="([^"]*)"', response.text)} == {"/static/page.css", page}


@PAGES
@pytest.mark.parametrize(
    "token",
    [
        "{{7*7}}",
        "{% include 'base.html' %}",
        "<script>alert(1)</script>",
        '"><script>alert(1)</script>',
        '" onfocus=alert(1) autofocus x="',
        "' onfocus=alert(1) '",
        "</form><form action=//evil.example>",
        "javascript:alert(1)",
        "\u202e<b>",
        "x" * 5000,
    ],
)
def test_a_page_shows_what_it_was_given_as_plain_text(client, nothing_changes, page, token):
    with nothing_changes():
        answers = [client.get(page, query_string={"token": token}), client.post(page, data={"token": token})]

    for response in answers:
        assert response.status_code == 200
        assert not re.search(r"<script|<b>|evil\.example>|>49<|\"49\"", response.text)
        (shown,) = re.findall(r'<input type="hidden" name="token" value="([^"]*)">', response.text)
        assert "<" not in shown and len(shown) <= 1200
        assert response.text.count("<form") == 1 and response.text.count("<!doctype") == 1


def test_the_page_confirms_an_address_by_a_plain_form(client, ada, mailbox):
    client.post(RESEND, json={"email": ADA})
    letter = mailbox.collect_one()
    form = client.get(letter.link.removeprefix("http://localhost")).text
    (token,) = re.findall(r'name="token" value="([^"]*)"', form)

    response = client.post(CONFIRM_PAGE, data={"token": token})

    assert 'method="post"' in form and "<h1>Confirmed</h1>" in response.text
    assert "<form" not in response.text
    assert sign_in(client).json["user"]["email_verified"] is True


def test_the_page_opens_an_account(app, client, mailbox):
    app.config["REGISTRATION"] = "confirmed"
    client.post(USERS, json={"email": ADA, "name": "Ada", "password": PASSWORD})

    response = client.post(CONFIRM_PAGE, data={"token": mailbox.collect_one().token})

    assert response.status_code == 200 and "Confirmed" in response.text
    assert sign_in(client).status_code == 200


def test_the_page_sets_a_password_by_a_plain_form(client, ada, mailbox, snapshot):
    own = client.as_(ada)
    letter = forgotten(client, mailbox)
    form = client.get(letter.link.removeprefix("http://localhost")).text

    response = client.post(RESET_PAGE, data={"token": letter.token, "password": NEW})

    assert 'type="password"' in form and 'autocomplete="new-password"' in form
    assert response.status_code == 200 and "Your password is set" in response.text and NEW not in response.text
    assert own.get(ME).problem == (401, "invalid_token")
    assert sign_in(client, NEW).status_code == 200
    assert mailbox.collect_one().subject == "Your password was changed"
    (row,) = [row for row in snapshot()["events"] if row.type == "user.password_changed"]
    assert row.address == "127.0.0.1"


@PAGES
@pytest.mark.parametrize("token", ["", "x", "never given out", None, "x" * 1025, "a\nb"])
def test_a_page_says_readably_that_a_link_cannot_be_used(client, nothing_changes, page, token):
    form = {"password": NEW} | ({} if token is None else {"token": token})

    with nothing_changes():
        response = client.post(page, data=form)

    assert re.search(r"cannot be used|cannot be read", alert(response))
    assert NEW not in response.text


def test_a_page_says_readably_that_a_link_was_used(client, ada, mailbox, nothing_changes):
    letter = forgotten(client, mailbox)
    client.post(RESET_PAGE, data={"token": letter.token, "password": NEW})

    with nothing_changes():
        response = client.post(RESET_PAGE, data={"token": letter.token, "password": "yet another pass phrase"})

    assert "The link or code cannot be used." in alert(response)


@pytest.mark.parametrize("page", [CONFIRM_PAGE, RESET_PAGE])
def test_a_page_takes_no_letter_of_the_other(client, ada, mailbox, nothing_changes, page):
    client.post(RESEND, json={"email": ADA})
    confirming = mailbox.collect_one()
    resetting = forgotten(client, mailbox)
    token = resetting.token if page == CONFIRM_PAGE else confirming.token

    with nothing_changes():
        response = client.post(page, data={"token": token, "password": NEW})

    assert "cannot be used" in alert(response)


@pytest.mark.parametrize("password", ["short", "password123", "Ada Lovelace", ""])
def test_a_password_refused_on_the_page_can_be_mended_there(client, ada, mailbox, nothing_changes, password):
    letter = forgotten(client, mailbox)

    with nothing_changes():
        response = client.post(RESET_PAGE, data={"token": letter.token, "password": password})

    assert "password" in alert(response)
    (token,) = re.findall(r'name="token" value="([^"]*)"', response.text)
    assert "Your password is set" in client.post(RESET_PAGE, data={"token": token, "password": NEW}).text


def test_the_page_says_readably_that_an_address_is_taken(app, client, mailbox, nothing_changes):
    app.config["REGISTRATION"] = "confirmed"
    client.post(USERS, json={"email": ADA, "name": "Ada", "password": PASSWORD})
    letter = mailbox.collect_one()
    UserFactory(email=ADA)

    with nothing_changes():
        response = client.post(CONFIRM_PAGE, data={"token": letter.token})

    assert "taken" in alert(response)


@pytest.mark.parametrize(
    "password",
    [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 and four words",
        "four\u00a0words\u00a0and one",
        "  spaces round it  ",
    ],
)
def test_the_page_takes_every_password_that_the_api_takes(client, ada, mailbox, password):
    response = client.post(RESET_PAGE, data={"token": forgotten(client, mailbox).token, "password": password})

    assert "Your password is set" in response.text
    assert sign_in(client, password).status_code == 200


@pytest.mark.parametrize(
    "password", ["four words\u3164and one", "four\u034f words and one", "four words\ufeff and one"]
)
def test_the_page_takes_no_password_with_which_nobody_can_sign_in(client, ada, mailbox, nothing_changes, password):
    assert sign_in(client, password).problem == (422, "invalid")
    letter = forgotten(client, mailbox)

    with nothing_changes():
        response = client.post(RESET_PAGE, data={"token": letter.token, "password": password})

    assert alert(response)


def test_a_page_takes_no_password_from_the_address_and_no_json(client, ada, mailbox, nothing_changes):
    letter = forgotten(client, mailbox)

    with nothing_changes():
        answers = [
            client.post(f"{RESET_PAGE}?token={letter.token}&password={NEW}"),
            client.post(RESET_PAGE, json={"token": letter.token, "password": NEW}),
            client.get(f"{RESET_PAGE}?token={letter.token}&password={NEW}"),
        ]

    assert all(NEW not in response.text and "is set" not in response.text for response in answers)


def test_a_page_hashes_nothing_for_a_token_that_is_none(client, ada, monkeypatch, nothing_changes):
    monkeypatch.setattr(passwords, "hash_of", lambda password: pytest.fail("hashed"))

    with nothing_changes():
        assert "cannot be used" in alert(client.post(RESET_PAGE, data={"token": "x", "password": NEW}))
        assert client.post(RESET, json={"token": "x", "password": NEW}).problem == REFUSED


@PAGES
def test_a_page_reads_no_more_than_a_form(client, nothing_changes, page):
    with nothing_changes():
        response = client.post(page, data={"token": "x" * 2_000_000})

    assert response.status_code == 413 or "cannot be read" in alert(response)


@PAGES
def test_a_page_has_no_other_methods_and_no_other_host(client, nothing_changes, page):
    with nothing_changes():
        answers = [client.put(page), client.delete(page), client.get(page, headers={"Host": "evil.example"})]

    assert [response.status_code for response in answers] == [405, 405, 400]
