"""The end of an account and what can follow: restoring, erasing, and giving out all that is held."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from models import Job, RefreshToken, Session, User
from models.base import db, now
from tests.factories.post import PostFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.letters import Mailbox

USERS = "/api/v1/users"
LOGIN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"
FORGOT = "/api/v1/auth/password/forgot"
VERIFY = "/api/v1/auth/email/verify"
RESEND = "/api/v1/auth/email/resend"
ME = "/api/v1/me"
EXPORT = "/api/v1/me/export"
ADA = "ada@example.com"

# What is known of one person, in places where nothing else could hold it.
NAME = "Kanarienvogel Fünf"
ADDRESS = "Canary.Bird@Bücher.example"
FIRST_ADDRESS = "Early.Finch@example.com"
POST = "A chirp that nobody else would write"
AGENT = "Aviary/7.7 (Linux; feather)"
NETWORK = "203.0.113.77"
CANARIES = [
    *("kanarienvogel", "canary.bird", "early.finch", "bücher", "xn--bcher-kva", "nobody else would write", "aviary"),
    *(NETWORK, "millet", "secret seed", "ext-canary"),
]


@pytest.fixture
def mailbox(app, tmp_path):
    return Mailbox(app, tmp_path)


@pytest.fixture
def command(app):
    """Return a function that runs a command of the application and returns what it printed."""

    def run(*arguments):
        with app.app_context():
            result = app.test_cli_runner().invoke(args=arguments)
        assert result.exit_code == 0, result.output
        return result.output

    return run


def days_ago(days):
    return now() - timedelta(days=days)


def restore(client, user_id):
    return client.post(f"{USERS}/{user_id}/restore")


def erase(client, user_id):
    return client.post(f"{USERS}/{user_id}/erase")


def sign_in(client, email=ADA, password=PASSWORD):
    return client.post(LOGIN, json={"email": email, "password": password})


def events(snapshot):
    return [row.type for row in snapshot()["events"]]


# Restoring


def test_a_deleted_user_is_restored(client, as_admin, snapshot):
    user = UserFactory(email=ADA, name="Ada Lovelace", external_id="E-1", public_metadata={"a": 1}, support=True)
    post = PostFactory(author=user)
    tokens = sign_in(client).json
    as_admin.delete(f"{USERS}/{user.id}")

    response = restore(as_admin, user.id)

    assert response.status_code == 200
    assert response.json == as_admin.get(f"{USERS}/{user.id}").json
    assert response.headers["ETag"] == f'"{response.json["version"]}"' and response.json["version"] == 3
    assert (response.json["email"], response.json["name"], response.json["external_id"], response.json["role"]) == (
        *(ADA, "Ada Lovelace", "E-1", "support"),
    )
    assert response.json["metadata"] == {"a": 1}
    assert as_admin.get(f"/api/v1/posts/{post.id}").status_code == 200
    assert events(snapshot)[-2:] == ["user.deleted", "user.restored"]
    assert client.with_token(tokens["access_token"]).get(ME).problem == (401, "invalid_token")
    assert client.post(REFRESH, json={"refresh_token": tokens["refresh_token"]}).problem == (401, "invalid_token")
    assert sign_in(client).status_code == 200


def test_who_was_suspended_is_suspended_again(client, as_admin):
    user = UserFactory(email=ADA, suspended=True, deleted=True)

    assert restore(as_admin, user.id).json["is_active"] is False
    assert sign_in(client).problem == (403, "account_suspended")


@pytest.mark.parametrize("operation", [restore, erase])
@pytest.mark.parametrize(
    ("who", "problem"),
    [("nobody", (401, "authentication_required")), ("member", (403, "permission_denied")),
     ("support", (403, "permission_denied"))],
)  # fmt: skip
def test_only_an_admin_restores_and_erases(client, request, nothing_changes, operation, who, problem):
    user = UserFactory(deleted=True)
    caller = client if who == "nobody" else client.as_(request.getfixturevalue(who))

    with nothing_changes():
        answers = [operation(caller, user.id), operation(caller, 999_999)]

    assert [response.problem for response in answers] == [problem] * 2


@pytest.mark.parametrize("operation", [restore, erase])
def test_whoever_deleted_themself_cannot_come_back_alone(client, operation, nothing_changes):
    user = UserFactory()
    own = client.as_(user)
    own.delete(ME)

    with nothing_changes():
        assert operation(own, user.id).problem == (401, "invalid_token")


@pytest.mark.parametrize("operation", [restore, erase])
@pytest.mark.parametrize("traits", [{}, {"suspended": True}, {"admin": True}], ids=str)
def test_who_is_not_deleted_is_neither_restored_nor_erased(as_admin, nothing_changes, operation, traits):
    user = UserFactory(**traits)

    with nothing_changes():
        response = operation(as_admin, user.id)

    assert response.problem == (409, "not_deleted")


@pytest.mark.parametrize("operation", [restore, erase])
@pytest.mark.parametrize("user_id", [999_999, 2**63 - 1, 2**63, 0])
def test_nobody_is_not_found(as_admin, nothing_changes, operation, user_id):
    with nothing_changes():
        response = operation(as_admin, user_id)

    assert response.problem == (404, "not_found")


@pytest.mark.parametrize(
    ("taken", "code"),
    [({"email": "ADA@example.com"}, "email_taken"), ({"external_id": "E-1"}, "external_id_taken")],
    ids=str,
)
def test_what_another_has_by_now_is_not_taken_back(as_admin, nothing_changes, taken, code):
    user = UserFactory(email=ADA, external_id="E-1", deleted=True)
    UserFactory(**taken)

    with nothing_changes():
        response = restore(as_admin, user.id)

    assert response.problem == (409, code)


def test_of_two_deleted_with_one_address_one_is_restored(as_admin, nothing_changes):
    first, second = UserFactory(email=ADA, deleted=True), UserFactory(email=ADA, deleted=True)

    assert restore(as_admin, second.id).status_code == 200
    with nothing_changes():
        assert restore(as_admin, first.id).problem == (409, "email_taken")


def test_a_user_can_be_restored_for_thirty_days(as_admin, nothing_changes):
    in_time = UserFactory(deleted_at=days_ago(30) + timedelta(minutes=1))
    too_late = UserFactory(deleted_at=days_ago(30) - timedelta(minutes=1))

    assert restore(as_admin, in_time.id).status_code == 200
    with nothing_changes():
        assert restore(as_admin, too_late.id).problem == (404, "not_found")


@pytest.mark.parametrize("operation", [restore, erase])
def test_who_was_erased_is_gone(as_admin, nothing_changes, operation):
    user = UserFactory(deleted=True)
    erase(as_admin, user.id)

    with nothing_changes():
        assert operation(as_admin, user.id).problem == (404, "not_found")
        assert as_admin.get(f"{USERS}/{user.id}").problem == (404, "not_found")
        assert as_admin.delete(f"{USERS}/{user.id}").problem == (404, "not_found")


@pytest.mark.parametrize("path", ["restore", "erase"])
def test_a_parameter_or_another_method_is_refused(as_admin, nothing_changes, path):
    user = UserFactory(deleted=True)

    with nothing_changes():
        stray = as_admin.post(f"{USERS}/{user.id}/{path}?force=1")
        others = [as_admin.send(method, f"{USERS}/{user.id}/{path}") for method in ("GET", "PUT", "PATCH", "DELETE")]

    assert stray.problem == (400, "invalid_parameter")
    assert [response.problem for response in others] == [(405, "method_not_allowed")] * 4


# Erasing


def a_life(app, client, as_admin, mailbox):
    """Let somebody register, confirm, sign in, write, change and ask; return their id and their access token."""
    seen = {"headers": {"User-Agent": AGENT}, "environ_base": {"REMOTE_ADDR": NETWORK}}
    app.config["REGISTRATION"] = "confirmed"
    body = {"name": NAME, "password": PASSWORD, "metadata": {"likes": "millet"}}
    client.post(USERS, json={"email": ADDRESS, **body}, **seen)
    client.post(VERIFY, json={"token": mailbox.collect_one().token}, **seen)
    sign_in(client, ADDRESS, "a wrong guess")
    session = client.post(LOGIN, json={"email": ADDRESS, "password": PASSWORD}, **seen).json
    client.post(REFRESH, json={"refresh_token": session["refresh_token"]}, **seen)
    own, user_id = client.with_token(session["access_token"]), session["user"]["id"]
    own.patch(ME, json={"name": f"{NAME} jr", "metadata": {"cage": "secret seed"}}, **seen)
    own.post(f"{USERS}/{user_id}/posts", json={"title": POST, "content": POST}, **seen)
    as_admin.patch(
        f"{USERS}/{user_id}", json={"external_id": "ext-canary", "private_metadata": {"note": "secret seed"}}
    )
    own.post(f"{ME}/email", json={"current_password": PASSWORD, "email": "x.Canary.Bird@example.com"}, **seen)
    client.post(FORGOT, json={"email": ADDRESS}, **seen)
    mailbox.collect()
    client.post(USERS, json={"email": ADDRESS, **body}, **seen)
    return user_id, own


def traces(snapshot):
    """Return what is still held of the person, and where."""
    tables = {table: str(rows).lower() for table, rows in snapshot().items()}
    return {(canary, table) for table, rows in tables.items() for canary in CANARIES if canary in rows}


def test_erasing_leaves_nothing_personal_anywhere(app, client, as_admin, mailbox, snapshot):
    user_id, own = a_life(app, client, as_admin, mailbox)
    before = {canary for canary, _ in traces(snapshot)}
    types = [(row.id, row.type) for row in snapshot()["events"]]
    assert before == {*CANARIES} - {"early.finch"}
    assert own.delete(ME).status_code == 204

    response = erase(as_admin, user_id)

    assert response.status_code == 204
    assert traces(snapshot) == set()
    assert [(row.id, row.type) for row in snapshot()["events"]][: len(types)] == types
    assert events(snapshot)[-2:] == ["user.deleted", "user.erased"]
    rows = snapshot()
    assert [rows[table] for table in ("posts", "one_time_tokens", "refresh_tokens", "jobs")] == [[]] * 4


def test_a_tombstone_keeps_the_id(app, as_admin, admin):
    user = UserFactory(email=ADA, external_id="E-1", support=True, deleted=True, private_metadata={"a": 1})

    erase(as_admin, user.id)

    with app.app_context():
        row = db.session.get(User, user.id)
    assert (row.email, row.name, row.name_key, row.external_id, row.password_hash) == ("", "", "", None, None)
    assert row.public_metadata == row.private_metadata == {} and row.email_verified is False
    assert ADA not in row.email_key and row.erased_at is not None and row.deleted_at is not None
    assert [found["id"] for found in as_admin.get(USERS).json["users"]] == [admin.id]


def test_the_address_and_the_external_id_of_the_erased_are_free(client, as_admin, mailbox):
    user = UserFactory(email=ADA, external_id="E-1", deleted=True)
    erase(as_admin, user.id)

    response = as_admin.post(USERS, json={"email": ADA, "name": "Ada", "external_id": "E-1", "password": PASSWORD})

    assert response.status_code == 201 and response.json["id"] > user.id
    assert sign_in(client).json["user"]["id"] == response.json["id"]
    client.post(FORGOT, json={"email": ADA})
    assert mailbox.collect_one().to == ADA


def test_two_are_erased_one_after_the_other(as_admin, snapshot):
    users = UserFactory.create_batch(2, deleted=True)

    assert [erase(as_admin, user.id).status_code for user in users] == [204, 204]
    assert len(snapshot()["users"]) == 3


def test_what_belongs_to_others_stays(client, as_admin, other, mailbox, snapshot):
    post = PostFactory(author=other)
    as_other = client.as_(other)
    client.post(RESEND, json={"email": other.email})
    letter = mailbox.collect_one()
    client.post(FORGOT, json={"email": other.email})
    user = UserFactory(deleted=True)

    erase(as_admin, user.id)

    assert as_other.get(ME).status_code == 200
    assert as_other.get(f"/api/v1/posts/{post.id}").status_code == 200
    assert client.post(VERIFY, json={"token": letter.token}).status_code == 204
    assert mailbox.collect_one().subject == "Set a new password"


def test_a_live_user_with_the_address_of_the_erased_keeps_their_letters(client, as_admin, mailbox):
    gone = UserFactory(email=ADA, deleted=True)
    UserFactory(email=ADA)
    client.post(FORGOT, json={"email": ADA})
    letter = mailbox.collect_one()
    client.post(FORGOT, json={"email": ADA})

    erase(as_admin, gone.id)

    reset = {"token": letter.token, "password": "quite another pass phrase"}
    assert client.post("/api/v1/auth/password/reset", json=reset).status_code == 204
    assert [letter.subject for letter in mailbox.collect()] != []


def test_an_earlier_address_is_forgotten_as_well(app, client, as_admin, mailbox, snapshot):
    app.config["REGISTRATION"] = "confirmed"
    client.post(USERS, json={"email": FIRST_ADDRESS, "name": NAME, "password": PASSWORD})
    client.post(VERIFY, json={"token": mailbox.collect_one().token})
    session = sign_in(client, FIRST_ADDRESS).json
    own = client.with_token(session["access_token"])
    own.post(f"{ME}/email", json={"current_password": PASSWORD, "email": ADDRESS})
    client.post(VERIFY, json={"token": mailbox.collect_one().token})
    mailbox.collect()
    own.delete(ME)

    erase(as_admin, session["user"]["id"])

    assert traces(snapshot) == set()


def test_a_letter_that_failed_is_forgotten_as_well(app, client, as_admin, snapshot):
    app.config["MAIL_URL"] = "file:///dev/null/no-folder"
    user = UserFactory(email=ADDRESS, name=NAME)
    own = client.as_(user)
    own.post(f"{ME}/password", json={"current_password": PASSWORD, "password": "quite another pass phrase"})
    client.post(FORGOT, json={"email": ADDRESS})
    with app.app_context():
        db.session.execute(update(Job).values(failed_at=now(), last_error="gone"))
        db.session.commit()
    own.delete(ME)

    erase(as_admin, user.id)

    assert traces(snapshot) == set()


def test_an_admins_own_place_is_forgotten_where_they_acted_on_others(client, as_admin, member, snapshot):
    second = UserFactory(admin=True)
    acting = client.as_(second)
    acting.patch(f"{USERS}/{member.id}", json={"name": "Changed"}, environ_base={"REMOTE_ADDR": NETWORK})
    assert NETWORK in str(snapshot()["events"])
    as_admin.delete(f"{USERS}/{second.id}")

    erase(as_admin, second.id)

    assert NETWORK not in str(snapshot())


def test_those_whose_time_is_over_are_erased_by_command(command, as_admin, snapshot):
    kept = UserFactory(deleted_at=days_ago(29), name=NAME)
    live = UserFactory(name=NAME)
    for user in UserFactory.create_batch(101, deleted_at=days_ago(31), name="Nobody Any More"):
        assert user.id

    assert "deleted users: 101\n" in command("upkeep")
    assert "deleted users: 0\n" in command("upkeep")

    assert "Nobody Any More" not in str(snapshot())
    assert events(snapshot) == ["user.erased"] * 101
    assert restore(as_admin, kept.id).status_code == 200
    assert as_admin.get(f"{USERS}/{live.id}").json["name"] == NAME


# Giving out all that is held


def test_the_export_holds_everything(app, client, as_admin, mailbox, snapshot):
    user_id, own = a_life(app, client, as_admin, mailbox)
    mailbox.collect()

    response = own.get(EXPORT)

    assert response.status_code == 200
    held = response.json
    assert {*held} == {"exported_at", "user", "posts", "sessions", "avatars", "letters", "events"}
    assert held["user"] == {**own.get(ME).json, "private_metadata": {"note": "secret seed"}}
    assert (held["user"]["name"], held["user"]["email"]) == (f"{NAME} jr", ADDRESS)
    assert held["user"]["metadata"] == {"likes": "millet", "cage": "secret seed"}
    (post,) = own.get(f"{USERS}/{user_id}/posts").json["posts"]
    assert held["posts"] == [{name: value for name, value in post.items() if name != "user_id"}]
    (session,) = held["sessions"]
    assert (session["address"], session["user_agent"], session["amr"]) == (NETWORK, AGENT, ["pwd"])
    assert {letter["purpose"] for letter in held["letters"]} >= {"change_email", "reset_password"}
    assert "x.Canary.Bird@example.com" in [letter["email"] for letter in held["letters"]]
    mine = [row for row in snapshot()["events"] if row.user_id == user_id]
    assert [(event["type"], event["data"]) for event in held["events"]] == [(row.type, row.data) for row in mine]
    assert {"user.created", "session.created", "user.updated", "post.created"} <= {row.type for row in mine}
    assert abs(datetime.fromisoformat(held["exported_at"]) - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_export_holds_no_secret(app, client, as_admin, mailbox):
    _, own = a_life(app, client, as_admin, mailbox)
    with app.app_context():
        secrets = [
            *db.session.scalars(db.select(User.password_hash)),
            *db.session.scalars(db.select(RefreshToken.token_hash)),
            *db.session.execute(db.text("SELECT token_hash FROM one_time_tokens")).scalars(),
            *db.session.execute(db.text("SELECT code_hash FROM one_time_tokens")).scalars(),
        ]

    text = own.get(EXPORT).text

    assert len([secret for secret in secrets if secret]) >= 6
    assert not [secret for secret in secrets if secret and secret in text]
    assert "hash" not in text and "argon2" not in text and "ext-canary" in text


def test_the_export_of_one_holds_nothing_of_another(client, as_member, other):
    PostFactory(author=other, title="Only of Otto")
    sign_in(client, other.email)

    held = as_member.get(EXPORT).text

    assert "Otto" not in held and other.email not in held


def test_a_registration_that_waits_is_nobodys_export(client, app, as_member, member):
    app.config["REGISTRATION"] = "confirmed"
    client.post(USERS, json={"email": "somebody@example.com", "name": "Somebody", "password": PASSWORD})

    assert as_member.get(EXPORT).json["letters"] == []


def test_only_who_is_signed_in_has_an_export(client, as_member, nothing_changes):
    with nothing_changes():
        answers = [client.get(EXPORT), as_member.get(f"{EXPORT}?user_id=1"), as_member.post(EXPORT, json={})]

    assert [response.problem for response in answers] == [
        (401, "authentication_required"),
        (400, "invalid_parameter"),
        (405, "method_not_allowed"),
    ]
    assert "no-cache" in as_member.get(EXPORT).headers["Cache-Control"]


def test_who_was_deleted_has_none(client, member, as_admin, app):
    own = client.as_(member)
    as_admin.delete(f"{USERS}/{member.id}")

    assert own.get(EXPORT).problem == (401, "invalid_token")
    with app.app_context():
        assert db.session.scalars(db.select(Session.ended_at).where(Session.user_id == member.id)).one() is not None
