"""Sessions: where somebody is signed in, who sees that, and who can end it."""

from datetime import timedelta

import jwt
import pytest
from sqlalchemy import event, select

from models import Event, Session
from models.base import db, now
from tests.factories.session import SessionFactory
from tests.factories.user import PASSWORD, UserFactory

LOGIN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"
ME = "/api/v1/me"
MINE = "/api/v1/me/sessions"
NOT_FOUND = (404, "not_found")
INVALID = (401, "invalid_token")
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)


def sign_in(client, user, *, agent=FIREFOX, address="127.0.0.1", **more):
    """Return the grant of a new session on some device."""
    response = client.post(
        LOGIN,
        json={"email": user.email, "password": PASSWORD, **more},
        environ_overrides={"HTTP_USER_AGENT": agent, "REMOTE_ADDR": address},
    )
    assert response.status_code == 200
    return response.json


def session_of(grant):
    return int(jwt.decode(grant["access_token"], options={"verify_signature": False})["sid"])


def of(user):
    return f"/api/v1/users/{user.id}/sessions"


def ids(response):
    assert response.status_code == 200
    return [session["id"] for session in response.json["sessions"]]


def new_session(user, **values):
    return SessionFactory(user=None, user_id=user.id, **values)


@pytest.fixture
def stored(app):
    """Return a function that reads a session's row."""

    def read(session_id):
        with app.app_context():
            return db.session.get(Session, session_id)

    return read


@pytest.fixture
def phone(client, member):
    """Return a client signed in as the member, on one device of several."""
    return client.with_token(sign_in(client, member, agent=SAFARI)["access_token"])


# Seeing them


def test_session_says_where_it_is(client, member):
    grant = sign_in(client, member, agent=FIREFOX, address="198.51.100.7")

    (session,) = client.with_token(grant["access_token"]).get(MINE).json["sessions"]

    created = session.pop("created_at")
    assert session.pop("last_used_at") == created and session.pop("expires_at") > created
    assert session == {
        "id": session_of(grant),
        "is_current": True,
        "device": "Firefox on Linux",
        "user_agent": FIREFOX,
        "address": "198.51.100.7",
        "amr": ["pwd"],
        "transport": "body",
        "remember": False,
    }


def test_only_the_session_that_asks_is_the_current_one(client, member):
    grants = [sign_in(client, member, agent=agent) for agent in (FIREFOX, SAFARI, "curl/8.5.0")]

    for grant in grants:
        sessions = client.with_token(grant["access_token"]).get(MINE).json["sessions"]
        assert [session["id"] for session in sessions if session["is_current"]] == [session_of(grant)]
        assert [session["device"] for session in sessions][1:] == ["Mobile Safari on iOS", "curl"]


def test_only_live_sessions_are_listed(client, as_member, member, other):
    live = new_session(member)
    new_session(member, ended=True)
    new_session(member, expired=True)
    new_session(member, idle_expires_at=now() - timedelta(seconds=1))
    new_session(other)

    assert ids(as_member.get(MINE)) == ids(as_member.get(of(member)))
    assert live.id in ids(as_member.get(MINE)) and len(ids(as_member.get(MINE))) == 2


def test_list_is_read_page_by_page(as_member, member):
    for _ in range(4):
        new_session(member)
    everything = ids(as_member.get(MINE))

    found, sizes, further = [], [], ""
    while further is not None:
        page = as_member.get(f"{MINE}?per_page=2{further}")
        found += ids(page)
        sizes.append(len(ids(page)))
        further = page.json["next_cursor"] and f"&cursor={page.json['next_cursor']}"

    assert sizes == [2, 2, 1]
    assert found == everything == sorted(everything)
    assert ids(as_member.get(f"{MINE}?sort=-id")) == everything[::-1]


def test_numbered_page_counts_all_live_ones(as_member, member):
    for _ in range(2):
        new_session(member)
    new_session(member, ended=True)

    page = as_member.get(f"{MINE}?page=2&per_page=2").json

    assert (page["page"], page["pages"], page["total"], len(page["sessions"])) == (2, 2, 3, 1)


def test_cursor_of_one_person_is_not_anothers(as_member, as_admin, member, other):
    for _ in range(2):
        new_session(member)
    cursor = as_admin.get(f"{of(member)}?per_page=1").json["next_cursor"]

    assert as_admin.get(f"{of(other)}?cursor={cursor}").problem == (400, "invalid_parameter")
    assert as_member.get(f"{MINE}?cursor={cursor}").problem == (400, "invalid_parameter")


def test_only_some_members_can_be_asked_for(as_member):
    (session,) = as_member.get(f"{MINE}?fields=device,is_current").json["sessions"]

    assert session == {"device": "Unknown device", "is_current": True}


@pytest.mark.parametrize("query", ["fields=network", "fields=user_id", "user_id=1", "sort=last_used_at", "page=0"])
def test_bad_parameter_is_refused(as_member, query):
    assert as_member.get(f"{MINE}?{query}").problem == (400, "invalid_parameter")


@pytest.mark.parametrize(
    ("agent", "kept", "device"),
    [
        pytest.param("", None, "Unknown device", id="missing"),
        pytest.param("my-app/1.2 (build 7)", "my-app/1.2 (build 7)", "my-app", id="an app"),
        pytest.param("evil\x1b[2J\r\n\x00\x7f/1", "evil[2J/1", "evil[2J", id="control characters"),
        pytest.param("app\u202e\xff/1", "app/1", "app", id="beyond ASCII"),
        pytest.param("\x00\x01", None, "Unknown device", id="nothing else"),
        pytest.param("x" * 10_000, "x" * 400, "x" * 40, id="10 kB"),
        pytest.param("<script>alert(1)</script>/1", "<script>alert(1)</script>/1", "<script>alert(1)<", id="markup"),
    ],
)
def test_user_agent_is_kept_only_as_far_as_it_can_be_shown(client, member, stored, agent, kept, device):
    grant = sign_in(client, member, agent=agent.encode().decode("latin-1"))

    (session,) = client.with_token(grant["access_token"]).get(MINE).json["sessions"]
    assert (session["user_agent"], session["device"]) == (kept, device)
    assert stored(session["id"]).user_agent == kept
    assert (kept or "").isascii() and (kept or "").isprintable()


@pytest.mark.parametrize("agent", ["/1.0", " ", "  /x"])
def test_device_always_has_a_name(client, member, agent):
    grant = sign_in(client, member, agent=agent)

    (session,) = client.with_token(grant["access_token"]).get(MINE).json["sessions"]

    assert session["device"].strip()


def test_sign_in_is_noted(app, client, member):
    grant = sign_in(client, member, address="198.51.100.7")

    with app.app_context():
        (row,) = db.session.scalars(select(Event).filter_by(type="session.created"))
    assert (row.user_id, row.subject_id, row.data, row.address) == (member.id, session_of(grant), {}, "198.51.100.7")


# Ending them


def test_one_session_is_ended(client, phone, member):
    lost = sign_in(client, member)
    kept = sign_in(client, member)

    response = phone.delete(f"{MINE}/{session_of(lost)}")

    assert response.status_code == 204
    assert client.with_token(lost["access_token"]).get(ME).problem == INVALID
    assert client.post(REFRESH, json={"refresh_token": lost["refresh_token"]}).problem == INVALID
    assert client.with_token(kept["access_token"]).get(ME).status_code == 200
    assert session_of(lost) not in ids(phone.get(MINE)) and len(ids(phone.get(MINE))) == 2


def test_present_session_can_be_ended_as_well(client, member):
    grant = sign_in(client, member)
    here = client.with_token(grant["access_token"])

    assert here.delete(f"{MINE}/{session_of(grant)}").status_code == 204
    assert here.get(ME).problem == INVALID


def test_all_others_are_ended_and_the_present_one_is_kept(client, phone, member, other):
    grants = [sign_in(client, member) for _ in range(2)]
    stranger = client.as_(other)

    response = phone.delete(MINE)

    assert response.status_code == 204
    assert len(ids(phone.get(MINE))) == 1
    for grant in grants:
        assert client.with_token(grant["access_token"]).get(ME).problem == INVALID
        assert client.post(REFRESH, json={"refresh_token": grant["refresh_token"]}).problem == INVALID
    assert stranger.get(ME).status_code == 200


def test_without_others_there_is_nothing_to_end(phone, nothing_changes):
    with nothing_changes():
        assert phone.delete(MINE).status_code == 204


def test_session_that_is_not_there_is_not_found(as_member, member, other, nothing_changes):
    elsewhere, ended = new_session(other), new_session(member, ended=True)
    addresses = [f"{MINE}/{number}" for number in (elsewhere.id, ended.id, 999_999, 2**63 - 1, 2**63, 0, -1, "x")]
    addresses += [f"{of(member)}/{elsewhere.id}", f"{of(other)}/{elsewhere.id}"]

    with nothing_changes():
        answers = [as_member.delete(address) for address in addresses]

    assert [response.problem for response in answers] == [NOT_FOUND] * len(addresses)


def test_anothers_session_looks_like_none(as_member, other, nothing_changes):
    elsewhere = new_session(other)

    with nothing_changes():
        theirs, nobodys = as_member.delete(f"{MINE}/{elsewhere.id}"), as_member.delete(f"{MINE}/999999")

    varies = {"instance": "", "request_id": ""}
    assert {**theirs.json, **varies} == {**nobodys.json, **varies}


# Those of others


@pytest.mark.parametrize(
    ("who", "problem"),
    [("member", NOT_FOUND), ("support", (403, "permission_denied")), (None, (401, "authentication_required"))],
)
def test_sessions_of_others_are_closed_to_who_may_not_change_users(
    client, request, other, nothing_changes, who, problem
):
    session = new_session(other)
    asking = client.as_(request.getfixturevalue(who)) if who else client

    with nothing_changes():
        answers = [asking.get(of(other)), asking.delete(of(other)), asking.delete(f"{of(other)}/{session.id}")]

    assert [response.problem for response in answers] == [problem] * 3


def test_everybody_sees_and_ends_their_own_under_their_id(client, support):
    asking = client.as_(support)
    second = new_session(support)

    assert len(ids(asking.get(of(support)))) == 2
    assert asking.delete(f"{of(support)}/{second.id}").status_code == 204
    assert asking.delete(of(support)).status_code == 204
    assert asking.get(ME).problem == INVALID


def test_admin_sees_sessions_of_others(client, as_admin, member):
    grant = sign_in(client, member)

    (session,) = as_admin.get(of(member)).json["sessions"]

    assert (session["id"], session["is_current"]) == (session_of(grant), False)


def test_admin_ends_one_session_of_another(client, as_admin, member, stored):
    lost, kept = sign_in(client, member), sign_in(client, member)

    assert as_admin.delete(f"{of(member)}/{session_of(lost)}").status_code == 204

    assert client.with_token(lost["access_token"]).get(ME).problem == INVALID
    assert client.with_token(kept["access_token"]).get(ME).status_code == 200


def test_admin_ends_all_sessions_of_another(client, as_admin, member, other):
    grants = [sign_in(client, member) for _ in range(2)]
    stranger = client.as_(other)

    assert as_admin.delete(of(member)).status_code == 204

    for grant in grants:
        assert client.with_token(grant["access_token"]).get(ME).problem == INVALID
        assert client.post(REFRESH, json={"refresh_token": grant["refresh_token"]}).problem == INVALID
    assert stranger.get(ME).status_code == as_admin.get(ME).status_code == 200
    assert ids(as_admin.get(of(member))) == []


def test_admin_finds_no_sessions_of_nobody(as_admin, member, other, nothing_changes):
    elsewhere, gone = new_session(other), UserFactory(deleted=True)
    paths = ["/api/v1/users/999999/sessions", of(gone)]

    with nothing_changes():
        answers = [as_admin.send(method, path) for path in paths for method in ("GET", "DELETE")]
        answers += [as_admin.delete(f"{of(member)}/{elsewhere.id}"), as_admin.delete(f"{of(member)}/999999")]

    assert [response.problem for response in answers] == [NOT_FOUND] * 6


@pytest.mark.parametrize("path", [MINE, f"{MINE}/1"])
def test_who_has_not_signed_in_has_none(client, nothing_changes, path):
    with nothing_changes():
        response = client.delete(path)

    assert response.problem == (401, "authentication_required")


# When one was last used


def notes(statements):
    return [statement for statement in statements if "UPDATE sessions" in str(statement)]


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_use_is_noted_at_most_once_a_minute(client, member, stored, queries, method):
    grant = sign_in(client, member)
    here = client.with_token(grant["access_token"])
    send = {"GET": lambda: here.get(ME), "PATCH": lambda: here.patch(ME, json={"name": member.name})}[method]

    with queries() as at_once:
        assert send().status_code == 200
    before = stored(session_of(grant)).last_used_at
    set_back(client.app, session_of(grant), seconds=61)
    with queries() as later:
        assert send().status_code == 200
    with queries() as at_once_again:
        assert send().status_code == 200

    assert [len(notes(statements)) for statements in (at_once, later, at_once_again)] == [0, 1, 0]
    assert len(later) == len(at_once) + 1 == len(at_once_again) + 1
    assert stored(session_of(grant)).last_used_at >= before


def test_use_within_the_minute_is_not_noted(client, member, queries):
    grant = sign_in(client, member)
    set_back(client.app, session_of(grant), seconds=55)

    with queries() as statements:
        client.with_token(grant["access_token"]).get(ME)

    assert notes(statements) == []


def test_list_shows_when_each_was_last_used(client, member):
    idle, used = sign_in(client, member), sign_in(client, member)
    for grant in (idle, used):
        set_back(client.app, session_of(grant), hours=2)

    sessions = client.with_token(used["access_token"]).get(MINE).json["sessions"]

    assert [session["last_used_at"] > session["created_at"] for session in sessions] == [False, True]


def set_back(app, session_id, **ago):
    """Make a session one that was begun and last used some time ago."""
    with app.app_context():
        session = db.session.get(Session, session_id)
        session.last_used_at = session.created_at = now() - timedelta(**ago)
        db.session.commit()


@pytest.fixture
def impatient(app):
    """Let the application wait for a lock only for a moment."""

    def hurry(connection, *_):
        is_sqlite = app.config["DATABASE_URL"].startswith("sqlite")
        connection.execute("PRAGMA busy_timeout = 50" if is_sqlite else "SET lock_timeout = 50")

    with app.app_context():
        engine = db.engine
    event.listen(engine, "checkout", hurry)
    yield app
    event.remove(engine, "checkout", hurry)
    engine.dispose()


def test_request_goes_on_where_its_use_cannot_be_noted(impatient, client, member, outside, stored):
    grant = sign_in(client, member)
    set_back(client.app, session_of(grant), minutes=5)
    before = stored(session_of(grant))
    is_sqlite = client.app.config["DATABASE_URL"].startswith("sqlite")

    outside.execute("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
    outside.execute("UPDATE sessions SET remember = remember")
    try:
        response = client.with_token(grant["access_token"]).get(ME)
    finally:
        outside.execute("ROLLBACK")

    assert response.status_code == 200
    assert stored(session_of(grant)).last_used_at == before.last_used_at
    assert client.with_token(grant["access_token"]).get(ME).status_code == 200
    assert stored(session_of(grant)).last_used_at > before.last_used_at


def test_ended_session_is_not_noted_as_used(client, member, stored, nothing_changes):
    grant = sign_in(client, member)
    set_back(client.app, session_of(grant), minutes=5)
    client.with_token(grant["access_token"]).post("/api/v1/auth/logout")

    with nothing_changes():
        assert client.with_token(grant["access_token"]).get(ME).problem == INVALID


# How many there are


def test_fifty_first_sign_in_ends_the_session_used_longest_ago(client, member, stored):
    sessions = [new_session(member, last_used_at=now() - timedelta(minutes=number)) for number in range(1, 51)]
    longest_ago = sessions.pop(17)
    set_back(client.app, longest_ago.id, days=1)

    grant = sign_in(client, member)

    assert stored(longest_ago.id).ended_at is not None
    assert [stored(session.id).ended_at for session in sessions] == [None] * 49
    here = client.with_token(grant["access_token"])
    assert len(ids(here.get(f"{MINE}?per_page=100"))) == 50


def test_fifty_sessions_of_others_end_none_of_mine(client, member, other, stored):
    mine = new_session(member, last_used_at=now() - timedelta(days=1))
    for _ in range(50):
        new_session(other)

    sign_in(client, member)

    assert stored(mine.id).ended_at is None


def test_sessions_that_are_over_take_no_place(client, member, stored):
    """Fifty that have run out since are none; who asked to be remembered stays so."""
    mine = new_session(
        member,
        remember=True,
        last_used_at=now() - timedelta(days=20),
        idle_expires_at=now() + timedelta(days=70),
        expires_at=now() + timedelta(days=300),
    )
    for number in range(50):
        over = now() - timedelta(days=1, minutes=number)
        new_session(member, last_used_at=over - timedelta(days=1), idle_expires_at=over)

    sign_in(client, member)

    assert stored(mine.id).ended_at is None
