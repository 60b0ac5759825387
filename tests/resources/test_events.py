"""Events: one for each change and none for anything else; what they say, and who may read them."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import OperationalError

from models.statements import Work
from service import feed, tokens
from service.events import TYPES
from tests.factories.event import EventFactory
from tests.factories.post import PostFactory
from tests.factories.session import SessionFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.letters import Mailbox
from tests.operations import BY_FORM, operations_of, prepared, table
from tests.resources.answers import anonymous_form, links, pointers

EVENTS = "/api/v1/events"
MINE = "/api/v1/me/events"
USERS = "/api/v1/users"
ME = "/api/v1/me"
LOGIN = "/api/v1/auth/login"
FORGOT = "/api/v1/auth/password/forgot"
RESET = "/api/v1/auth/password/reset"
REFRESH = "/api/v1/auth/refresh"
VERIFY = "/api/v1/auth/email/verify"

# What a good request leaves, made by an admin about a member or, under /me, about themself: the type of its one event,
# who it says did it, and which members it names. The rest of what it says follows from the rows that changed.
TABLE = """
POST    /account/confirm                                        user.email_verified     nobody
POST    /account/reset                                          user.password_changed   nobody

POST    /api/v1/auth/login                                      session.created         nobody
POST    /api/v1/auth/logout                                     session.ended           admin
POST    /api/v1/auth/password/reset                             user.password_changed   nobody
POST    /api/v1/auth/email/verify                               user.email_verified     nobody

PATCH   /api/v1/me                                              user.updated            admin    name
DELETE  /api/v1/me                                              user.deleted            admin
POST    /api/v1/me/password                                     user.password_changed   admin
DELETE  /api/v1/me/sessions                                     user.sessions_ended     admin
DELETE  /api/v1/me/sessions/<int:session_id>                    session.ended           admin

POST    /api/v1/users                                           user.created            admin
PUT     /api/v1/users/<int:user_id>                             user.updated            admin    email name role
PATCH   /api/v1/users/<int:user_id>                             user.updated            admin    name
DELETE  /api/v1/users/<int:user_id>                             user.deleted            admin
POST    /api/v1/users/<int:user_id>/restore                     user.restored           admin
POST    /api/v1/users/<int:user_id>/erase                       user.erased             admin
DELETE  /api/v1/users/<int:user_id>/sessions                    user.sessions_ended     admin
DELETE  /api/v1/users/<int:user_id>/sessions/<int:session_id>   session.ended           admin
PUT     /api/v1/users/<int:user_id>/avatar                      user.avatar_changed     admin
DELETE  /api/v1/users/<int:user_id>/avatar                      user.avatar_changed     admin

POST    /api/v1/users/<int:user_id>/posts                       post.created            admin
PUT     /api/v1/posts/<int:post_id>                             post.updated            admin    title
PATCH   /api/v1/posts/<int:post_id>                             post.updated            admin    title
DELETE  /api/v1/posts/<int:post_id>                             post.deleted            admin

POST    /api/v1/webhooks                                        webhook.created         admin
PATCH   /api/v1/webhooks/<int:webhook_id>                       webhook.updated         admin    description
DELETE  /api/v1/webhooks/<int:webhook_id>                       webhook.deleted         admin
POST    /api/v1/webhooks/<int:webhook_id>/secret                webhook.secret_rotated  admin
POST    /api/v1/webhooks/<int:webhook_id>/ping                  webhook.ping            admin

POST    /api/v1/service-accounts                                service_account.created admin
PATCH   /api/v1/service-accounts/<int:service_account_id>       service_account.updated admin    name
DELETE  /api/v1/service-accounts/<int:service_account_id>       service_account.deleted admin
POST    /api/v1/service-accounts/<int:service_account_id>/keys  api_key.created         admin
DELETE  /api/v1/service-accounts/<int:service_account_id>/keys/<int:key_id> api_key.revoked admin
"""
ROWS = table(TABLE)
PAGES = {"/account/confirm", "/account/reset"}  # Their status says that there is a page.
SILENT = {
    ("POST", "/api/v1/auth/refresh"): "The session goes on as it was.",
    ("POST", "/api/v1/auth/password/forgot"): "Whoever asks for a letter has not changed anything yet.",
    ("POST", "/api/v1/auth/email/resend"): "Whoever asks for a letter has not changed anything yet.",
    ("POST", "/api/v1/me/email"): "The address changes when the letter is answered.",
    ("POST", "/api/v1/webhooks/<int:webhook_id>/deliveries/<int:delivery_id>/redeliver"): (
        "It tells again of an event that there is."
    ),
    ("POST", "/oauth/token"): "What a program may do is the same as before, and the key says who it is.",
    ("POST", "/oauth/revoke"): "A token ends by itself within minutes.",
    ("POST", "/oauth/introspect"): "It only asks.",
}
KEPT_IN = {
    "user": "users",
    "session": "sessions",
    "post": "posts",
    "service_account": "service_accounts",
    "api_key": "api_keys",
    "webhook": "webhooks",
}
# What happens to somebody's other things, and so makes no other version of the user.
BESIDE_THE_ROW = {"user.sessions_ended", "user.avatar_changed", "webhook.ping"}


def events_of(user):
    return f"{USERS}/{user.id}/events"


def ids(response):
    return [event["id"] for event in response.json["events"]]


def types(response):
    return [event["type"] for event in response.json["events"]]


def recorded(snapshot):
    return [event.type for event in snapshot()["events"]]


def sign_in(client, email, password=PASSWORD, **more):
    return client.post(LOGIN, json={"email": email, "password": password, **more})


@pytest.fixture
def mailbox(app, tmp_path):
    """Return the folder to which all letters go."""
    return Mailbox(app, tmp_path)


@pytest.fixture
def command(app):
    """Return a function that runs a command, and returns its exit status."""

    def run(*arguments):
        with app.app_context():
            return app.test_cli_runner().invoke(args=arguments).exit_code

    return run


@pytest.fixture
def ready(app, client, admin, member):
    """Return a function that makes what a good request of an admin needs, and returns how to send it, and its session.

    Another admin lets this one go.
    """
    UserFactory(admin=True)

    def make(method, rule):
        user = admin if "/me" in rule else member
        path, sent = prepared(method, rule, user, PostFactory(author=user))
        session = SessionFactory(user=admin)
        with app.app_context():
            token = tokens.issue(user_id=admin.id, session_id=session.id)
        sender = client if (method, rule) in BY_FORM else client.with_token(token)
        return lambda: sender.send(method, path, **sent), session.id

    return make


# What is written


def test_table_holds_every_operation_that_may_change_something(app):
    assert ROWS.keys() | SILENT.keys() == {(method, rule) for method, rule in operations_of(app) if method != "GET"}
    assert ROWS.keys().isdisjoint(SILENT)


@pytest.mark.parametrize(("method", "rule"), ROWS, ids=map(" ".join, ROWS))
def test_a_change_leaves_one_event_that_says_what_who_and_from_where(admin, ready, snapshot, method, rule):
    send, session_id = ready(method, rule)
    type_, actor, *changed = ROWS[method, rule]
    before = snapshot()

    response = send()

    assert response.status_code < 300
    after = snapshot()
    (event,) = [row for row in after["events"] if row not in before["events"]]
    subject = changed_row(before, after, event)
    assert (event.type, event.data.get("changed", [])) == (type_, changed)
    assert event.user_id == (subject.id if type_.startswith("user.") else getattr(subject, "user_id", None))
    assert event.version == (None if type_ == "user.sessions_ended" else getattr(subject, "version", None))
    assert (event.actor_id, event.session_id) == ((admin.id, session_id) if actor == "admin" else (None, None))
    assert (event.service_account_id, event.key_id) == (None, None)
    assert (event.request_id, event.address) == (response.headers["X-Request-ID"], "127.0.0.1")
    assert abs(event.created_at.astimezone(UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    assert event.position is None


def changed_row(before, after, event):
    """Return the row that the event is about, as it is now or was last, having seen that it is the one that changed."""
    name = KEPT_IN[event.type.partition(".")[0]]
    differing = {row.id: row for row in (*before[name], *after[name]) if (row in before[name]) != (row in after[name])}
    if event.type in BESIDE_THE_ROW:
        assert not differing
        differing = {row.id: row for row in after[name] if row.id == event.subject_id}
    assert [*differing] == [event.subject_id]
    return differing[event.subject_id]


@pytest.mark.parametrize(("method", "rule"), SILENT, ids=map(" ".join, SILENT))
def test_what_changes_nothing_that_anybody_must_hear_of_leaves_none(ready, snapshot, method, rule):
    send, _ = ready(method, rule)
    before = snapshot()["events"]

    assert send().status_code < 300
    assert snapshot()["events"] == before


def test_who_registers_is_nobody_yet(client, snapshot):
    user = client.post(USERS, json={"email": "ada@example.com", "name": "Ada", "password": PASSWORD}).json

    (event,) = snapshot()["events"]
    assert (event.type, event.user_id, event.subject_id, event.version) == ("user.created", user["id"], user["id"], 1)
    assert (event.actor_id, event.session_id) == (None, None)


def test_a_registration_is_told_of_when_it_is_confirmed(app, client, mailbox, snapshot):
    app.config["REGISTRATION"] = "confirmed"
    client.post(USERS, json={"email": "ada@example.com", "name": "Ada", "password": PASSWORD})
    assert recorded(snapshot) == []

    client.post(VERIFY, json={"token": mailbox.collect_one().token})

    rows = snapshot()
    assert [(event.type, event.user_id) for event in rows["events"]] == [("user.created", rows["users"][0].id)]


def test_an_address_that_changes_is_told_of_when_it_is_confirmed(as_member, client, member, mailbox, snapshot):
    as_member.post(f"{ME}/email", json={"current_password": PASSWORD, "email": "new@example.com"})
    assert recorded(snapshot) == []

    client.post(VERIFY, json={"token": mailbox.collect_one().token})

    (event,) = snapshot()["events"]
    assert (event.type, event.user_id, event.version) == ("user.email_changed", member.id, 2)


def test_a_sign_out_by_cookie_is_told_of(client, member, snapshot):
    origin = {"Origin": "http://localhost"}
    answer = client.post(
        LOGIN, json={"email": member.email, "password": PASSWORD, "transport": "cookie"}, headers=origin
    )
    cookies = "; ".join(cookie.partition(";")[0] for cookie in answer.headers.getlist("Set-Cookie"))
    headers = {**origin, "Cookie": cookies, "X-CSRF-Token": answer.json["csrf_token"]}

    assert client.post("/api/v1/auth/logout", headers=headers).status_code == 204

    begun, ended = snapshot()["events"]
    assert (begun.type, ended.type) == ("session.created", "session.ended")
    assert begun.subject_id == ended.subject_id and begun.user_id == ended.user_id == member.id


def test_what_a_program_does_names_its_key(client, as_admin, member, snapshot):
    account = as_admin.post("/api/v1/service-accounts", json={"name": "Payroll", "scopes": ["users:write"]}).json
    key = as_admin.post(f"/api/v1/service-accounts/{account['id']}/keys").json
    before = len(recorded(snapshot))

    client.with_token(key["key"]).patch(f"{USERS}/{member.id}", json={"name": "New"})

    (event,) = snapshot()["events"][before:]
    assert (event.type, event.user_id) == ("user.updated", member.id)
    assert (event.actor_id, event.session_id) == (None, None)
    assert (event.service_account_id, event.key_id) == (account["id"], key["id"])


def test_what_is_sent_again_with_its_key_happened_once(as_member, member, snapshot):
    post = {"json": {"title": "A title", "content": "Some words."}, "headers": {"Idempotency-Key": "a-key"}}

    answers = [as_member.post(f"{USERS}/{member.id}/posts", **post) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201] and answers[0].json == answers[1].json
    assert recorded(snapshot) == ["post.created"]


def test_a_stolen_token_is_told_of_although_its_use_is_refused(client, member, snapshot, monkeypatch):
    session = sign_in(client, member.email).json
    client.post(REFRESH, json={"refresh_token": session["refresh_token"]})
    monkeypatch.setattr("service.refresh.GRACE", timedelta(0))

    answer = client.post(REFRESH, json={"refresh_token": session["refresh_token"]})

    assert answer.problem == (401, "reused_token")
    begun, reused = snapshot()["events"]
    assert (reused.type, reused.subject_id) == ("session.refresh_token_reused", begun.subject_id)
    assert reused.request_id == answer.headers["X-Request-ID"]


def test_what_a_command_does_says_neither_who_nor_from_where(command, member, snapshot):
    assert command("users", "suspend", member.email) == 0

    (event,) = snapshot()["events"]
    assert (event.type, event.data, event.user_id) == ("user.updated", {"changed": ["is_active"]}, member.id)
    assert [event.actor_id, event.session_id, event.request_id, event.address] == [None] * 4


def test_who_is_erased_because_the_time_is_over_is_told_of_once(command, snapshot):
    user = UserFactory(deleted_at=datetime.now(UTC) - timedelta(days=31))

    assert [command("upkeep"), command("upkeep")] == [0, 0]

    (event,) = snapshot()["events"]
    assert (event.type, event.user_id, event.actor_id, event.version) == ("user.erased", user.id, None, 2)


@pytest.mark.parametrize(
    ("before", "body", "changed"),
    [
        ({}, {"name": "Another", "role": "support", "is_active": False}, ["is_active", "name", "role"]),
        ({}, {"external_id": "7"}, ["external_id"]),
        ({"email_verified": True}, {"email": "another@example.com"}, ["email", "email_verified"]),
        ({"email": "ada@example.com"}, {"email": "Ada@example.com"}, ["email"]),
        ({"name": "Ada"}, {"name": "ada"}, ["name"]),
        ({"private_metadata": {"a": 1}}, {"private_metadata": {"a": None}}, ["private_metadata"]),
        ({"public_metadata": {"a": 1}}, {"metadata": {"b": 2}}, ["metadata"]),
        ({"private_metadata": {"a": 1}}, {"private_metadata": {"a": True}}, ["private_metadata"]),
        ({"private_metadata": {"a": 1}}, {"private_metadata": {"a": 1.0}}, ["private_metadata"]),
    ],
    ids=str,
)
def test_what_changed_is_named_as_it_is_named_in_a_user(as_admin, snapshot, before, body, changed):
    user = UserFactory(**before)

    shown = as_admin.patch(f"{USERS}/{user.id}", json=body).json

    (event,) = snapshot()["events"]
    assert (event.type, event.version, event.data) == ("user.updated", 2, {"changed": changed})
    assert {*changed} <= {*shown}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (lambda user, post: f"{USERS}/{user.id}", lambda user, post: {"name": user.name, "is_active": True}),
        (lambda user, post: f"{USERS}/{user.id}", lambda user, post: {"metadata": {"no such": None}}),
        (lambda user, post: f"{USERS}/{user.id}", lambda user, post: {}),
        (lambda user, post: f"/api/v1/posts/{post.id}", lambda user, post: {"title": post.title}),
    ],
)
def test_where_nothing_differs_nothing_happened(as_admin, member, nothing_changes, path, body):
    post = PostFactory(author=member)

    with nothing_changes():
        answer = as_admin.patch(path(member, post), json=body(member, post))

    assert answer.status_code == 200


def test_a_whole_post_that_is_the_same_did_not_happen(as_member, member, nothing_changes):
    post = PostFactory(author=member)

    with nothing_changes():
        answer = as_member.put(f"/api/v1/posts/{post.id}", json={"title": post.title, "content": post.content})

    assert answer.status_code == 200


def test_a_session_that_has_ended_is_not_ended_again(app, client, member, snapshot):
    session = SessionFactory(user=member)
    with app.app_context():
        token = tokens.issue(user_id=member.id, session_id=session.id)
    signed_in = client.with_token(token)

    first, second = (signed_in.post("/api/v1/auth/logout") for _ in range(2))

    assert (first.status_code, second.problem) == (204, (401, "invalid_token"))
    assert recorded(snapshot) == ["session.ended"]


# What is not written


REFUSED = {
    "a guess": lambda client, user: sign_in(client, user.email, "a wrong password"),
    "a suspended user": lambda client, user: sign_in(client, UserFactory(suspended=True).email),
    "an address that is taken": lambda client, user: client.post(
        USERS, json={"email": user.email, "name": "Ada", "password": PASSWORD}
    ),
    "a stale version": lambda client, user: client.as_(user).patch(
        ME, json={"name": "New"}, headers={"If-Match": '"9"'}
    ),
    "what is not theirs to say": lambda client, user: client.as_(user).patch(ME, json={"role": "admin"}),
    "another's account": lambda client, user: client.as_(UserFactory()).delete(f"{USERS}/{user.id}"),
    "the only admin": lambda client, user: client.as_(UserFactory(admin=True)).delete(ME),
    "a letter that was never sent": lambda client, user: client.post(
        RESET, json={"token": "x" * 43, "password": "another pass phrase"}
    ),
    "a wrong present password": lambda client, user: client.as_(user).post(
        f"{ME}/password", json={"current_password": "wrong", "password": "another pass phrase"}
    ),
    "a token of nobody": lambda client, user: client.post(REFRESH, json={"refresh_token": "rr_" + "x" * 43}),
    "a post of nobody": lambda client, user: client.as_(user).delete("/api/v1/posts/999999"),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_what_was_refused_did_not_happen(client, member, snapshot, refused):
    answer = refused(client, member)

    assert answer.status_code >= 400
    assert recorded(snapshot) == []


@pytest.mark.parametrize(("method", "rule"), ROWS, ids=map(" ".join, ROWS))
def test_what_could_not_be_committed_did_not_happen(ready, snapshot, monkeypatch, method, rule):
    send, _ = ready(method, rule)
    before = snapshot()

    def fail(work):
        if work.connection is not None:
            raise OperationalError("COMMIT", {}, Exception("the connection is lost"))

    with monkeypatch.context() as patch:
        patch.setattr(Work, "commit", fail)
        answer = send()

    assert answer.status_code == 503 or (rule in PAGES and 'role="status"' not in answer.text)
    assert snapshot() == before


CANARY = "canary"


def test_no_event_holds_anything_personal(app, client, as_admin, mailbox, snapshot):
    app.config["REGISTRATION"] = "confirmed"
    agent = {"User-Agent": f"{CANARY}/1.0"}
    address, password, other = f"{CANARY}.one@example.com", f"{CANARY} pass phrase", f"{CANARY}.two@example.com"
    person = {"name": f"{CANARY} Bird", "metadata": {CANARY: CANARY}, "password": password}
    client.post(USERS, json={"email": address, **person}, headers=agent)
    client.post(VERIFY, json={"token": mailbox.collect_one().token}, headers=agent)
    session = sign_in(client, address, password).json
    own, user_id = client.with_token(session["access_token"]), session["user"]["id"]
    own.patch(ME, json={"name": f"{CANARY} Finch", "metadata": {f"{CANARY}2": CANARY}}, headers=agent)
    post = own.post(f"{USERS}/{user_id}/posts", json={"title": CANARY, "content": CANARY}, headers=agent).json
    own.patch(f"/api/v1/posts/{post['id']}", json={"title": f"{CANARY}s"})
    own.delete(f"/api/v1/posts/{post['id']}")
    own.post(f"{ME}/email", json={"current_password": password, "email": other}, headers=agent)
    client.post(VERIFY, json={"token": mailbox.collect_one().token})
    own.post(f"{ME}/password", json={"current_password": password, "password": f"{CANARY} another phrase"})
    client.post(FORGOT, json={"email": other})
    letters = {letter.subject: letter for letter in mailbox.collect()}
    reset = letters["Set a new password"].token
    client.post(RESET, json={"token": reset, "password": f"{CANARY} third phrase"})
    change = {"external_id": CANARY, "private_metadata": {CANARY: CANARY}, "email": f"{CANARY}.three@example.com"}
    as_admin.patch(f"{USERS}/{user_id}", json=change)
    as_admin.patch(f"{USERS}/{user_id}", json={"is_active": False})
    as_admin.delete(f"{USERS}/{user_id}")
    as_admin.post(f"{USERS}/{user_id}/restore")

    rows = snapshot()["events"]
    assert [row.type for row in rows] == [
        *("user.created", "session.created", "user.updated", "post.created", "post.updated", "post.deleted"),
        *("user.email_changed", "user.password_changed", "user.password_changed"),
        *("user.updated", "user.updated", "user.deleted", "user.restored"),
    ]
    assert CANARY not in str(rows).lower()
    assert not [secret for secret in (session["access_token"], session["refresh_token"], reset) if secret in str(rows)]
    assert {row.address for row in rows} == {"127.0.0.1"}


# The feed


@pytest.fixture
def made(member):
    """Return a function that makes some events of the member, which are not published yet, and returns them."""
    return lambda count=1, **fields: [EventFactory(user=member, **fields) for _ in range(count)]


def test_an_event_says_what_happened(as_support, member):
    event = EventFactory(
        user=member,
        version=7,
        actor_id=11,
        session_id=12,
        service_account_id=13,
        key_id=14,
        request_id="a-request",
        created_at=datetime(2026, 5, 1, 12, tzinfo=UTC),
    )

    (shown,) = as_support.get(EVENTS).json["events"]

    assert shown == {
        "id": 1,
        "type": "user.updated",
        "user_id": member.id,
        "subject_id": member.id,
        "version": 7,
        "changed": ["name"],
        "actor_id": 11,
        "session_id": 12,
        "service_account_id": 13,
        "key_id": 14,
        "request_id": "a-request",
        "address": event.address,
        "created_at": "2026-05-01T12:00:00Z",
    }


def test_what_an_event_does_not_say_is_null(as_support):
    nothing = dict.fromkeys(("user", "user_id", "subject_id", "version", "actor_id", "request_id", "address"))
    EventFactory(**nothing, data={})

    (shown,) = as_support.get(EVENTS).json["events"]

    said = {name: value for name, value in shown.items() if value is not None}
    assert said == {"id": 1, "type": "user.updated", "changed": [], "created_at": said["created_at"]}
    assert len(shown) == 13


def test_who_reads_first_finds_what_was_just_done(as_admin, member):
    as_admin.patch(f"{USERS}/{member.id}", json={"name": "New"})

    assert types(as_admin.get(EVENTS)) == ["user.updated"]
    assert as_admin.get(EVENTS).json == as_admin.get(EVENTS).json


def test_reading_on_gives_each_event_once_and_in_order(as_support, made):
    events = made(7)
    path, seen = f"{EVENTS}?per_page=3", []

    for _ in range(4):
        page = as_support.get(path)
        seen.append(ids(page))
        path = links(page)["next"]

    assert seen == [[1, 2, 3], [4, 5, 6], [7], []]
    assert len(events) == 7


def test_what_comes_later_stands_behind(as_support, made):
    made(2)
    first = as_support.get(EVENTS).json
    made(2)

    second = as_support.get(f"{EVENTS}?after={first['next_after']}").json

    assert (first["next_after"], second["next_after"]) == (2, 4)
    assert [event["id"] for event in second["events"]] == [3, 4]


def test_any_event_is_a_place_to_go_on_from(as_support, made):
    made(5)

    assert [ids(as_support.get(f"{EVENTS}?after={number}")) for number in (0, 1, 4, 5)] == [
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5],
        [5],
        [],
    ]


def test_an_empty_feed_begins_at_nought(as_support):
    answer = as_support.get(EVENTS)

    assert answer.json == {"events": [], "next_after": 0}
    assert links(answer) == {"next": f"{EVENTS}?after=0"}


@pytest.mark.parametrize("after", [6, 10**6, 2**63 - 1])
def test_a_place_beyond_the_end_is_kept(as_support, made, after):
    made(5)

    answer = as_support.get(f"{EVENTS}?after={after}")

    assert answer.json == {"events": [], "next_after": after}


def test_there_are_twenty_on_a_page_unless_others_are_asked_for(as_support, made):
    made(21)

    assert [len(ids(as_support.get(f"{EVENTS}?{query}"))) for query in ("", "per_page=1", "per_page=100")] == [
        *(20, 1, 21),
    ]


def test_a_full_page_that_is_the_last_leads_to_an_empty_one(as_support, made):
    made(4)

    first = as_support.get(f"{EVENTS}?per_page=4")
    second = as_support.get(links(first)["next"])

    assert (first.json["next_after"], second.json) == (4, {"events": [], "next_after": 4})


def test_the_next_page_keeps_what_was_asked_for(as_support, made, member):
    made(3)

    page = as_support.get(f"{EVENTS}?per_page=2&after=0&fields=id,type&wait=1&type=user.updated&user_id={member.id}")

    kept = f"per_page=2&fields=id%2Ctype&wait=1&type=user.updated&user_id={member.id}"
    assert links(page) == {"next": f"{EVENTS}?{kept}&after=2"}


def test_only_the_members_that_are_asked_for_are_shown(as_support, made):
    made(1)

    assert as_support.get(f"{EVENTS}?fields=type,changed").json["events"] == [
        {"type": "user.updated", "changed": ["name"]}
    ]


# Filters


def test_each_filter_finds_what_it_says_and_nothing_else(as_support, member, other):
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    for user, actor, type_, hours in (
        (member, member, "user.updated", 0),
        (member, other, "user.deleted", 1),
        (other, other, "user.updated", 2),
        (other, None, "post.created", 3),
    ):
        EventFactory(user=user, actor_id=actor and actor.id, type=type_, created_at=noon + timedelta(hours=hours))

    found = {
        query: ids(as_support.get(f"{EVENTS}?{query}"))
        for query in (
            "type=user.updated",
            f"user_id={member.id}",
            f"actor_id={other.id}",
            "created_after=2026-05-01T13:00:00Z",
            "created_before=2026-05-01T13:00:00Z",
            f"type=user.updated&actor_id={other.id}",
            f"user_id={other.id}&created_after=2026-05-01T14:00:00Z",
            "type=user.erased",
            "user_id=999999",
            f"user_id={2**63 - 1}",
        )
    }

    assert [*found.values()] == [[1, 3], [1, 2], [2, 3], [3, 4], [1], [3], [4], [], [], []]


def test_every_type_can_be_asked_for(as_support):
    for type_ in TYPES:
        EventFactory(user=None, user_id=None, type=type_)

    assert [ids(as_support.get(f"{EVENTS}?type={type_}")) for type_ in TYPES] == [
        [number] for number in range(1, len(TYPES) + 1)
    ]


def test_who_filters_goes_past_what_does_not_match(as_support, made):
    made(2, type="user.deleted")
    made(30)
    first = as_support.get(f"{EVENTS}?type=user.deleted&per_page=10").json
    made(5)
    second = as_support.get(f"{EVENTS}?type=user.deleted&after={first['next_after']}").json
    made(1, type="user.deleted")

    third = as_support.get(f"{EVENTS}?type=user.deleted&after={second['next_after']}").json

    assert [len(page["events"]) for page in (first, second, third)] == [2, 0, 1]
    assert [page["next_after"] for page in (first, second, third)] == [32, 37, 38]


def test_a_full_page_of_what_matches_goes_no_further_than_that(as_support, made):
    for type_ in ("user.deleted", "user.updated", "user.deleted", "user.updated", "user.deleted"):
        made(1, type=type_)

    page = as_support.get(f"{EVENTS}?type=user.deleted&per_page=2").json

    assert ([event["id"] for event in page["events"]], page["next_after"]) == ([1, 3], 3)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("after=-1", "after"),
        ("after=x", "after"),
        ("after=1.5", "after"),
        ("after=", "after"),
        (f"after={2**63}", "after"),
        ("per_page=0", "per_page"),
        ("per_page=101", "per_page"),
        ("wait=-1", "wait"),
        ("wait=21", "wait"),
        ("wait=0.5", "wait"),
        ("type=user", "type"),
        ("type=no.such", "type"),
        ("user_id=0", "user_id"),
        ("user_id=x", "user_id"),
        ("actor_id=-1", "actor_id"),
        (f"actor_id={2**63}", "actor_id"),
        ("created_after=yesterday", "created_after"),
        ("created_before=2026-05-01", "created_before"),
        ("fields=secret", "fields"),
        ("fields=id,position", "fields"),
        ("sort=-id", "sort"),
        ("cursor=x", "cursor"),
        ("page=1", "page"),
        ("subject_id=1", "subject_id"),
        ("after=1&after=2", "after"),
        ("type=user.updated&type=user.deleted", "type"),
    ],
)
def test_a_parameter_that_is_unknown_or_wrong_is_named(as_support, query, named):
    answer = as_support.get(f"{EVENTS}?{query}")

    assert answer.problem == (400, "invalid_parameter")
    assert pointers(answer) == [f"/query/{named}"]


# Waiting


def test_who_waits_is_answered_as_soon_as_something_happens(as_support, as_member, made):
    made(1)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(as_support.get(f"{EVENTS}?after=1&wait=20")))
    began = time.monotonic()

    waiting.start()
    time.sleep(0.1)
    as_member.patch(ME, json={"name": "New"})
    waiting.join()

    assert time.monotonic() - began < 10
    assert (ids(answers[0]), answers[0].json["next_after"]) == ([2], 2)


def test_who_waits_in_vain_gets_an_empty_answer_when_the_time_is_over(as_support):
    began = time.monotonic()

    answer = as_support.get(f"{EVENTS}?wait=1")

    assert answer.json == {"events": [], "next_after": 0}
    assert 1 <= time.monotonic() - began < 5


def test_who_waits_for_one_kind_is_not_woken_by_another(as_support, as_member, made):
    made(1)
    answers = []
    path = f"{EVENTS}?after=1&type=post.created&wait=1"
    waiting = threading.Thread(target=lambda: answers.append(as_support.get(path)))

    waiting.start()
    as_member.patch(ME, json={"name": "New"})
    waiting.join()

    assert answers[0].json == {"events": [], "next_after": 2}


def test_who_finds_something_does_not_wait(as_support, made):
    made(1)
    began = time.monotonic()

    assert ids(as_support.get(f"{EVENTS}?wait=20")) == [1]
    assert time.monotonic() - began < 5


def test_no_more_than_a_quarter_of_the_threads_wait(app, as_support):
    places = app.extensions["feed_places"]
    began = time.monotonic()

    with places, places:
        answer = as_support.get(f"{EVENTS}?wait=20")

    assert app.config["THREADS"] == 8
    assert answer.json == {"events": [], "next_after": 0}
    assert time.monotonic() - began < 5


def test_who_has_waited_gives_the_place_to_the_next(app, as_support, monkeypatch):
    monkeypatch.setattr(feed, "LOOK_EVERY", 0.01)
    places = app.extensions["feed_places"]

    with app.app_context():
        for _ in range(5):
            began = time.monotonic()
            feed.read(size=1, wait=0.02)
            assert time.monotonic() - began >= 0.02

    assert places.acquire(blocking=False) and places.acquire(blocking=False)
    assert not places.acquire(blocking=False)
    places.release(2)


# Of one account


def test_a_member_reads_what_happened_to_their_own_account(as_member, as_admin, member, other):
    as_admin.patch(f"{USERS}/{member.id}", json={"name": "New"})
    as_admin.patch(f"{USERS}/{other.id}", json={"name": "New"})
    as_member.post(f"{USERS}/{member.id}/posts", json={"title": "A title", "content": "Some words."})

    mine = as_member.get(MINE)

    assert types(mine) == ["user.updated", "post.created"]
    assert {event["user_id"] for event in mine.json["events"]} == {member.id}
    assert mine.json == as_member.get(events_of(member)).json
    seen_by_admin = as_admin.get(events_of(member)).json["events"]
    hidden = {name for event in seen_by_admin[:1] for name in event if event[name] != mine.json["events"][0][name]}
    assert hidden == {"session_id", "request_id", "address"}  # Those of the admin.
    assert mine.json["events"][1:] == seen_by_admin[1:]


def test_an_id_is_the_same_in_every_list(as_support, made, member, other):
    EventFactory(user=other)
    made(1)
    EventFactory(user=other)

    (event,) = as_support.get(events_of(member)).json["events"]

    assert event["id"] == 2 and event == as_support.get(f"{EVENTS}?after=1&per_page=1").json["events"][0]


@pytest.mark.parametrize("sort", ["id", "-id"])
def test_a_list_goes_forwards_and_back(as_member, made, other, sort):
    for _ in range(5):
        made(1)
        EventFactory(user=other)

    first = as_member.get(f"{MINE}?per_page=3&sort={sort}")
    second = as_member.get(links(first)["next"])
    back = as_member.get(links(second)["prev"])

    assert ids(first) + ids(second) == sorted((1, 3, 5, 7, 9), reverse=sort.startswith("-"))
    assert ids(back) == ids(first) and len(ids(first)) == 3


def test_a_list_has_numbered_pages(as_member, made):
    made(5)

    page = as_member.get(f"{MINE}?per_page=2&page=3&sort=-id").json

    assert ([event["id"] for event in page["events"]], page["page"], page["pages"], page["total"]) == ([1], 3, 3, 5)


def test_a_list_is_empty_where_nothing_happened(as_member):
    assert as_member.get(MINE).json == {"events": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "named"),
    [("after=1", "after"), ("type=user.updated", "type"), ("sort=type", "sort"), ("per_page=101", "per_page")],
)
def test_a_list_has_no_other_parameters(as_member, query, named):
    answer = as_member.get(f"{MINE}?{query}")

    assert (answer.problem, pointers(answer)) == ((400, "invalid_parameter"), [f"/query/{named}"])


# Who may read


def test_the_whole_feed_is_for_those_who_may_read_events(client, as_member, as_support, as_admin, made):
    made(1)

    assert client.get(EVENTS).problem == (401, "authentication_required")
    assert as_member.get(EVENTS).problem == (403, "permission_denied")
    assert ids(as_support.get(EVENTS)) == ids(as_admin.get(EVENTS)) == [1]


def test_anothers_events_look_like_nobodys(client, as_member, other):
    EventFactory(user=other)

    theirs, nobodys = as_member.get(events_of(other)), as_member.get(f"{USERS}/999999/events")

    assert theirs.problem == (404, "not_found")
    assert anonymous_form(theirs) == anonymous_form(nobodys)
    assert client.get(events_of(other)).problem == client.get(MINE).problem == (401, "authentication_required")


def test_who_was_deleted_has_no_list_any_more_but_stays_in_the_feed(as_admin, as_support, member):
    as_admin.delete(f"{USERS}/{member.id}")

    assert as_support.get(events_of(member)).problem == (404, "not_found")
    assert types(as_support.get(f"{EVENTS}?user_id={member.id}")) == ["user.deleted"]


def test_events_cannot_be_written(as_admin, nothing_changes):
    with nothing_changes():
        answers = [as_admin.send(method, EVENTS, json={}) for method in ("POST", "PUT", "PATCH", "DELETE")]

    assert [answer.problem for answer in answers] == [(405, "method_not_allowed")] * 4


# What is forgotten


def test_an_erased_persons_events_stay_without_where_they_came_from(client, as_admin, member, other):
    network = {"environ_base": {"REMOTE_ADDR": "203.0.113.99"}}
    acting = client.as_(UserFactory(admin=True))
    own = client.as_(member)
    own.patch(ME, json={"name": "New"}, **network)
    acting.patch(f"{USERS}/{member.id}", json={"name": "Newer"}, **network)
    assert len(ids(as_admin.get(f"{EVENTS}?user_id={member.id}"))) == 2
    own.delete(ME, **network)

    as_admin.post(f"{USERS}/{member.id}/erase", environ_base={"REMOTE_ADDR": "203.0.113.100"})

    events = as_admin.get(f"{EVENTS}?user_id={member.id}").json["events"]
    assert [event["type"] for event in events] == ["user.updated", "user.updated", "user.deleted", "user.erased"]
    assert [(event["address"], event["request_id"]) for event in events[:3]] == [(None, None)] * 3
    assert events[3]["address"] == "203.0.113.100"
