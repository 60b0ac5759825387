"""Keys in use: which texts are keys, what each lets do, when one was last used, and what a program leaves behind."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import bindparam, event, select, update

from models import ApiKey
from models.base import db, now
from models.statements import execute, unit_of_work
from service.service_accounts import SCOPES
from tests.factories.api_key import ApiKeyFactory, key_for, key_of, new_key, with_checksum
from tests.factories.post import PostFactory
from tests.factories.service_account import ServiceAccountFactory
from tests.factories.user import UserFactory
from tests.operations import operations_of, prepared
from tests.resources.answers import anonymous_form

ACCOUNTS = "/api/v1/service-accounts"
USERS = "/api/v1/users"
EVENTS = "/api/v1/events"
ME = "/api/v1/me"
REQUIRED, TOKEN, MALFORMED, INVALID = (
    (401, code) for code in ("authentication_required", "invalid_token", "malformed_key", "invalid_key")
)
AGED = update(ApiKey).values(last_used_at=bindparam("moment"))


def other_than(letter):
    return "x" if letter != "x" else "y"


@pytest.fixture
def stored(app):
    """Return a function that reads the only key as it is in the database."""

    def read():
        with app.app_context():
            return db.session.scalars(select(ApiKey)).one()

    return read


@pytest.fixture
def last_used(app):
    """Return a function that makes the only key one that was last used some time ago."""

    def age(**ago):
        with app.app_context(), unit_of_work():
            execute(AGED, moment=now() - timedelta(**ago))

    return age


@pytest.fixture
def maker(app):
    """Return an admin who makes programs, and is not the only one."""
    UserFactory(admin=True)
    return UserFactory(admin=True)


@pytest.fixture
def program(client, maker):
    """Return a client that is a program of the maker's, and may do whatever a program can."""
    return client.with_token(key_of(ServiceAccountFactory(maker=maker)))


# Which texts are keys


def test_key_is_sent_as_a_bearer_token(client, member):
    key = key_for("users:read")

    plain = client.with_token(key).get(f"{USERS}/{member.id}")
    lower = client.get(f"{USERS}/{member.id}", headers={"Authorization": f"bearer {key}"})

    assert (plain.status_code, plain.json["id"], lower.json) == (200, member.id, plain.json)


@pytest.mark.parametrize("place", range(39))
def test_key_with_another_letter_is_none(client, nothing_changes, place):
    key = key_for("users:read")
    mistyped = key[:place] + other_than(key[place]) + key[place + 1 :]

    with nothing_changes():
        response = client.with_token(mistyped).get(USERS)

    assert response.problem == (TOKEN if place < 3 else MALFORMED)


def test_key_with_two_letters_exchanged_is_none(client, nothing_changes):
    key = key_for("users:read")
    exchanged = {key[:n] + key[n + 1] + key[n] + key[n + 2 :] for n in range(3, 38)} - {key}

    with nothing_changes():
        answers = [client.with_token(text).get(USERS).problem for text in exchanged]

    assert len(answers) > 20 and {*answers} == {MALFORMED}


def test_key_with_a_letter_in_another_case_is_none(client, nothing_changes):
    key = key_for("users:read")
    changed = [key[:n] + key[n].swapcase() + key[n + 1 :] for n in range(39) if key[n].isalpha()]

    with nothing_changes():
        answers = [client.with_token(text).get(USERS).problem for text in changed]
        whole = [client.with_token(text).get(USERS).problem for text in (key.upper(), key.swapcase())]

    assert answers[:2] == [TOKEN, TOKEN] and {*answers[2:]} == {MALFORMED}
    assert whole == [TOKEN, TOKEN]


def test_part_of_a_key_is_none(client, nothing_changes):
    key = key_for("users:read")

    with nothing_changes():
        answers = [client.with_token(key[:length]).get(USERS).problem for length in range(1, 39)]

    assert answers == [TOKEN] * 2 + [MALFORMED] * 36


@pytest.mark.parametrize(
    "changed",
    [
        lambda key: key + "0",
        lambda key: key + key,
        lambda key: key[:20] + " " + key[20:],
        lambda key: key + " " + key,
        lambda key: key + "," + key,
        lambda key: f'"{key}"',
        lambda key: key + "\t0",
        lambda key: key[:-1] + "é",
        lambda key: key[:20] + "\xa0" + key[20:],
        lambda key: key[:3] + "\xff" * 36,
        lambda key: with_checksum(key[:32] + "-"),
        lambda key: with_checksum(key[:30]),
        lambda key: with_checksum(key[:33] + "0"),
        lambda key: "rk_" + "x" * 5000,
        lambda key: with_checksum("rk_" + "x" * 5000),
        lambda key: "rk_",
        lambda key: "rk_%00",
        lambda key: "rk_' OR 1=1 --",
    ],
)
def test_what_begins_as_a_key_and_is_none_is_told_so(client, nothing_changes, queries, changed):
    text = changed(key_for("users:read"))

    with nothing_changes(), queries() as statements:
        response = client.with_token(text).get(USERS)

    assert response.problem == (TOKEN if text.startswith('"') else MALFORMED)
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]
    assert statements == []


def test_key_that_is_unknown_looks_like_one_that_has_ended(client, nothing_changes):
    account = ServiceAccountFactory()
    ended = [new_key(), key_of(account, revoked=True), key_of(account, expired=True)]
    ended.append(key_of(ServiceAccountFactory(maker=UserFactory(admin=True, suspended=True))))
    ended.append(key_of(ServiceAccountFactory(maker=UserFactory(admin=True, deleted=True))))

    with nothing_changes():
        answers = [client.with_token(key).get(USERS) for key in ended]

    assert [answer.problem for answer in answers] == [INVALID] * 5
    assert all(anonymous_form(answer) == anonymous_form(answers[0]) for answer in answers)


@pytest.mark.parametrize(
    "asked",
    [
        lambda client, key: client.get(f"{USERS}?api_key={key}"),
        lambda client, key: client.get(f"{USERS}?access_token={key}"),
        lambda client, key: client.get(USERS, auth=(key, "")),
        lambda client, key: client.get(USERS, auth=("api", key)),
        lambda client, key: client.get(USERS, headers={"Authorization": key}),
        lambda client, key: client.get(USERS, headers={"Authorization": f"Key {key}"}),
        lambda client, key: client.get(USERS, headers={"X-API-Key": key}),
        lambda client, key: client.get(USERS, headers={"Cookie": f"access_token={key}; __Host-rollcall-refresh={key}"}),
        lambda client, key: client.post(f"{USERS}/1/posts", json={"access_token": key, "title": "A", "content": "B"}),
        lambda client, key: client.post(f"{USERS}/1/posts", data={"access_token": key}),
    ],
)
def test_key_is_looked_for_in_one_place(client, nothing_changes, asked):
    key = key_for(*SCOPES)

    with nothing_changes():
        response = asked(client, key)

    assert response.problem == REQUIRED
    assert key not in response.text


def test_key_is_nothing_where_another_token_is_asked_for(client, nothing_changes):
    key = key_for(*SCOPES)

    with nothing_changes():
        refresh = client.post("/api/v1/auth/refresh", json={"refresh_token": key})
        letter = client.post("/api/v1/auth/email/verify", json={"token": key})

    assert (refresh.problem, letter.problem) == (TOKEN, (422, "invalid_one_time_token"))


# What a key lets do


def permissions_of(app):
    """Return the permission of every operation that asks who calls, as its verb notes it."""
    found = {}
    for rule in app.url_map.iter_rules():
        resource = getattr(app.view_functions[rule.endpoint], "view_class", None)
        for method in rule.methods - {"HEAD", "OPTIONS"} if resource is not None else ():
            facts = getattr(resource, method.lower()).operation
            if facts["access"] != "public":
                found[method, rule.rule] = facts["permission"]
    return found


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("has", ["this only", "all but this"])
def test_program_does_exactly_what_its_scopes_name(app, client, member, snapshot, scope, has):
    app.config["REGISTRATION"] = "closed"
    scopes = [scope] if has == "this only" else [name for name in SCOPES if name != scope]
    program, post = client.with_token(key_for(*scopes)), PostFactory(author=member)
    permissions = permissions_of(app)
    about = {"DELETE": lambda: (UserFactory(), PostFactory())}
    requests = {
        (method, rule): prepared(method, rule, *about.get(method, lambda: (member, post))())
        for method, rule in permissions
    }
    done = set()

    for (method, rule), (path, sent) in requests.items():
        if "role" in sent.get("json", {}):
            sent["json"]["role"] = "member"  # A role takes all its permissions to give.
        before = snapshot()
        response = program.send(method, path, **sent)
        if response.status_code < 300:
            done.add((method, rule))
        else:
            assert response.problem in {(403, "permission_denied"), (404, "not_found"), (403, "registration_closed")}
            assert snapshot() == before, f"{method} {rule}"

    assert done == {operation for operation, permission in permissions.items() if permission in scopes}
    assert permissions.keys() <= operations_of(app)


def test_program_has_no_account_of_its_own(app, program, nothing_changes, member):
    mine = [operation for operation, permission in permissions_of(app).items() if permission is None]

    with nothing_changes():
        answers = [program.send(method, rule.replace("<int:session_id>", "1"), json={}) for method, rule in mine]

    assert len(mine) >= 9 and ("POST", "/api/v1/auth/logout") in mine
    assert {answer.problem for answer in answers} == {(403, "permission_denied")}
    assert {answer.json["detail"] for answer in answers} == {"Only a person can do this, and this is a key."}


def test_program_makes_no_keys_even_for_itself(client, maker, nothing_changes):
    account = ServiceAccountFactory(maker=maker)
    program, other = client.with_token(key_of(account)), ApiKeyFactory(account=account)
    path = f"{ACCOUNTS}/{account.id}"

    with nothing_changes():
        answers = [
            program.get(ACCOUNTS),
            program.post(ACCOUNTS, json={"name": "More", "scopes": ["users:read"]}),
            program.get(path),
            program.patch(path, json={"scopes": ["users:read"]}),
            program.delete(path),
            program.get(f"{path}/keys"),
            program.post(f"{path}/keys"),
            program.delete(f"{path}/keys/{other.id}"),
        ]

    assert {answer.problem for answer in answers} == {(403, "permission_denied")}


def test_program_makes_nobody_an_admin_and_touches_none(program, member, maker, nothing_changes):
    with nothing_changes():
        answers = [
            program.post(USERS, json={"email": "new@example.com", "name": "New", "role": "admin"}),
            program.patch(f"{USERS}/{member.id}", json={"role": "admin"}),
            program.patch(f"{USERS}/{maker.id}", json={"name": "Another"}),
            program.patch(f"{USERS}/{maker.id}", json={"email": "another@example.com"}),
            program.delete(f"{USERS}/{maker.id}"),
        ]

    assert {answer.problem for answer in answers} == {(403, "permission_denied")}


def test_private_metadata_is_shown_to_a_program_that_may_see_it(client):
    user = UserFactory(private_metadata={"plan": "gold"})
    path = f"{USERS}/{user.id}"

    reader, insider = (client.with_token(key_for("users:read", *more)) for more in ([], ["users:private"]))

    assert "private_metadata" not in reader.get(path).json
    assert reader.get(f"{path}?fields=private_metadata").problem == (403, "permission_denied")
    assert insider.get(path).json["private_metadata"] == {"plan": "gold"}


def test_program_without_a_permission_registers_people_as_anybody_does(client):
    program = client.with_token(key_for("posts:read"))
    person = {"email": "new@example.com", "name": "New", "password": "a good password"}

    refused = program.post(USERS, json={**person, "role": "support"})
    made = program.post(USERS, json=person)

    assert refused.problem == (403, "permission_denied")
    assert (made.status_code, made.json["role"]) == (201, "member")


# No more than its maker


def change_maker(as_admin, maker, **fields):
    assert as_admin.patch(f"{USERS}/{maker.id}", json=fields).status_code == 200


def may(program, member):
    """Return whether a program may read and write just now, or that it is refused altogether."""
    read, written = program.get(f"{USERS}/{member.id}"), program.patch(f"{USERS}/{member.id}", json={})
    if INVALID in (read.problem, written.problem):
        assert read.problem == written.problem
        return "nothing"
    return "read and write" if written.status_code == 200 else "read" if read.status_code == 200 else "neither"


def test_program_can_do_what_its_maker_can_do_now(as_admin, program, maker, member):
    seen = [may(program, member)]
    for role in ("support", "member", "support", "admin"):
        change_maker(as_admin, maker, role=role)
        seen.append(may(program, member))

    assert seen == ["read and write", "read", "neither", "read", "read and write"]


def test_program_of_a_support_person_reads_what_its_scopes_name(client, member):
    program = client.with_token(key_of(ServiceAccountFactory(maker=UserFactory(support=True))))

    answers = [program.get(path) for path in (USERS, EVENTS, f"{USERS}/{member.id}/posts", "/api/v1/webhooks")]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 403]


def test_program_of_a_suspended_maker_is_refused_until_they_are_back(as_admin, program, maker, member):
    change_maker(as_admin, maker, is_active=False)
    suspended = may(program, member)
    change_maker(as_admin, maker, is_active=True)

    assert (suspended, may(program, member)) == ("nothing", "read and write")


def test_program_of_a_deleted_maker_is_refused_until_they_are_restored(as_admin, program, maker, member):
    assert as_admin.delete(f"{USERS}/{maker.id}").status_code == 204
    deleted = may(program, member)
    assert as_admin.post(f"{USERS}/{maker.id}/restore").status_code == 200

    assert (deleted, may(program, member)) == ("nothing", "read and write")


def test_program_of_an_erased_maker_is_refused_and_can_be_adopted(as_admin, admin, program, maker, member, snapshot):
    as_admin.delete(f"{USERS}/{maker.id}")
    as_admin.post(f"{USERS}/{maker.id}/erase")
    (account,) = snapshot()["service_accounts"]
    erased = may(program, member)

    adopted = as_admin.patch(f"{ACCOUNTS}/{account.id}", json={"scopes": ["users:read"]})

    assert adopted.json["maker_id"] == admin.id
    assert (erased, may(program, member)) == ("nothing", "read")


def test_program_outlives_the_sessions_of_its_maker(client, program, maker, member):
    own = client.as_(maker)

    assert own.delete(f"{USERS}/{maker.id}/sessions").status_code == 204
    assert may(program, member) == "read and write"


def test_scopes_that_are_taken_away_are_gone_at_once(as_admin, client, maker, member):
    account = ServiceAccountFactory(maker=maker)
    program = client.with_token(key_of(account))

    seen = [may(program, member)]
    for scopes in (["users:read"], ["posts:read"], ["users:write"], ["users:read", "users:write"]):
        as_admin.patch(f"{ACCOUNTS}/{account.id}", json={"scopes": scopes})
        seen.append(may(program, member))

    assert seen == ["read and write", "read", "neither", "read and write", "read and write"]


def test_who_sets_the_scopes_bounds_them_from_then_on(as_admin, admin, client, maker, member):
    account = ServiceAccountFactory(maker=maker)
    program = client.with_token(key_of(account))
    as_admin.patch(f"{ACCOUNTS}/{account.id}", json={"scopes": account.scopes})

    change_maker(as_admin, maker, is_active=False)

    assert may(program, member) == "read and write"


# When it was last used


def test_first_use_is_noted(client, as_admin, stored):
    account = ServiceAccountFactory()
    key, began = key_of(account, unused=True), now()

    client.with_token(key).get(USERS)

    (shown,) = as_admin.get(f"{ACCOUNTS}/{account.id}/keys").json["keys"]
    assert shown["last_used_at"] is not None
    assert began <= stored().last_used_at <= now()


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_use_is_noted_at_most_once_a_minute(client, member, last_used, queries, method):
    program = client.with_token(key_for(*SCOPES))
    more = {"json": {}} if method == "PATCH" else {}
    noted = []

    for ago in ({"seconds": 55}, {"seconds": 61}, {}):
        if ago:
            last_used(**ago)
        with queries() as statements:
            assert program.send(method, f"{USERS}/{member.id}", **more).status_code == 200
        noted.append(len([statement for statement in statements if "UPDATE api_keys" in str(statement)]))

    assert noted == [0, 1, 0]


def test_use_that_another_request_has_noted_meanwhile_is_not_noted_again(client, outside, last_used, stored):
    program = client.with_token(key_for("users:read"))
    last_used(minutes=5)
    is_sqlite = client.app.config["DATABASE_URL"].startswith("sqlite")

    with ThreadPoolExecutor(1) as pool:
        outside.execute("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
        outside.execute("UPDATE api_keys SET last_used_at = created_at")
        waiting = pool.submit(program.get, USERS)
        time.sleep(0.3)
        outside.execute("COMMIT")

    assert waiting.result().status_code == 200
    assert stored().last_used_at == stored().created_at


def test_refused_request_is_a_use_too(client, stored, last_used):
    program = client.with_token(key_for("users:read"))
    last_used(minutes=5)
    before = stored().last_used_at

    assert program.get(EVENTS).problem == (403, "permission_denied")

    assert stored().last_used_at > before


@pytest.mark.parametrize("ended", [{"revoked": True}, {"expired": True}])
def test_ended_key_is_not_noted_as_used(client, nothing_changes, ended):
    key = key_for("users:read", unused=True, **ended)

    with nothing_changes():
        assert client.with_token(key).get(USERS).problem == INVALID


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


def test_request_goes_on_where_its_use_cannot_be_noted(impatient, client, outside, stored):
    key = key_for("users:read", unused=True)
    is_sqlite = client.app.config["DATABASE_URL"].startswith("sqlite")

    outside.execute("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
    outside.execute("UPDATE api_keys SET prefix = prefix")
    try:
        response = client.with_token(key).get(USERS)
    finally:
        outside.execute("ROLLBACK")

    assert response.status_code == 200 and stored().last_used_at is None
    assert client.with_token(key).get(USERS).status_code == 200 and stored().last_used_at is not None


def test_who_a_key_is_costs_one_statement(client, member, queries):
    program = client.with_token(key_for("users:read"))

    with queries() as statements:
        program.get(f"{USERS}/{member.id}")

    assert len(statements) == 2


# What a program leaves


def test_what_a_program_does_is_told_as_its_doing(client, as_admin, member):
    key = ApiKeyFactory(text=(text := new_key()))

    client.with_token(text).patch(f"{USERS}/{member.id}", json={"name": "New Name"})

    (event,) = as_admin.get(EVENTS).json["events"]
    assert (event["type"], event["user_id"], event["changed"]) == ("user.updated", member.id, ["name"])
    assert (event["service_account_id"], event["key_id"]) == (key.service_account_id, key.id)
    assert (event["actor_id"], event["session_id"]) == (None, None)


def test_idempotency_keys_are_a_programs_own_whichever_key_it_uses(client, maker, member):
    account, other = ServiceAccountFactory.create_batch(2, maker=maker)
    path, body = f"{USERS}/{member.id}/posts", {"title": "A title", "content": "Some words."}

    def write(key):
        return client.with_token(key).post(path, json=body, headers={"Idempotency-Key": "one"})

    first, again, foreign = write(key_of(account)), write(key_of(account)), write(key_of(other))
    by_maker = client.as_(maker).post(path, json=body, headers={"Idempotency-Key": "one"})

    assert (first.status_code, again.json) == (201, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len({answer.json["id"] for answer in (first, foreign, by_maker)}) == 3
