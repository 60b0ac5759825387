"""Service accounts and their keys: adding, listing, reading, changing and removing programs; making and ending keys."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from models.base import now
from service.permissions import ROLES
from service.service_accounts import SCOPES
from tests.factories.api_key import ApiKeyFactory, key_of, with_checksum
from tests.factories.oauth_token import OAuthTokenFactory, token_for
from tests.factories.service_account import ServiceAccountFactory
from tests.factories.user import UserFactory
from tests.resources.answers import links, pointers

ACCOUNTS = "/api/v1/service-accounts"
USERS = "/api/v1/users"
EVENTS = "/api/v1/events"
MEMBERS = ["id", "client_id", "name", "scopes", "maker_id", "version", "created_at", "updated_at"]
KEY_MEMBERS = ["id", "prefix", "created_at", "last_used_at", "expires_at", "revoked_at"]
KEYS_WRITE = {"keys:read", "keys:write"}


def an_account(**fields):
    return {"name": "Payroll", "scopes": ["users:read"], **fields}


def at(account):
    return f"{ACCOUNTS}/{account.id}"


def keys_at(account):
    return f"{at(account)}/keys"


def ids(response, noun="service_accounts"):
    return [item["id"] for item in response.json[noun]]


def in_an_hour():
    return (now() + timedelta(hours=1)).isoformat()


@pytest.fixture
def account(app, admin):
    """Return a program that the admin has made."""
    return ServiceAccountFactory(maker=admin)


@pytest.fixture
def is_served(client):
    """Return a function that tells whether a key is taken for one just now."""

    def ask(key):
        answer = client.with_token(key).get(USERS)
        assert answer.problem in (None, (401, "invalid_key"))
        return answer.status_code == 200

    return ask


@pytest.fixture
def happened(as_admin):
    """Return a function that returns the events of programs and keys, the first of all first."""

    def read():
        events = as_admin.get(EVENTS).json["events"]
        return [event for event in events if event["type"].startswith(("service_account.", "api_key."))]

    return read


# Adding


def test_admin_adds_a_program(as_admin, admin):
    response = as_admin.post(ACCOUNTS, json=an_account())

    assert response.status_code == 201
    account = response.json
    assert list(account) == MEMBERS
    assert (account["name"], account["scopes"], account["maker_id"]) == ("Payroll", ["users:read"], admin.id)
    assert account["client_id"] == f"sa_{account['id']}"
    assert response.headers["Location"] == f"http://localhost{ACCOUNTS}/{account['id']}"
    assert response.headers["ETag"] == '"1"'
    assert as_admin.get(f"{ACCOUNTS}/{account['id']}").json == account


def test_program_has_no_key_at_first(as_admin):
    made = as_admin.post(ACCOUNTS, json=an_account()).json

    assert as_admin.get(f"{ACCOUNTS}/{made['id']}/keys").json["keys"] == []


def test_scopes_are_shown_in_one_order(as_admin):
    response = as_admin.post(ACCOUNTS, json=an_account(scopes=[*SCOPES][::-1]))

    assert response.json["scopes"] == [*SCOPES]


def test_making_keys_is_for_no_program():
    assert [*SCOPES] == [
        *("users:read", "users:write", "users:private", "posts:read", "posts:write"),
        *("events:read", "webhooks:read", "webhooks:write"),
    ]


@pytest.mark.parametrize(
    ("field", "value", "pointer", "code"),
    [
        ("name", None, "", "null"),
        ("name", 5, "", "invalid_type"),
        ("name", "", "", "too_short"),
        ("name", "n" * 81, "", "too_long"),
        ("name", " Payroll", "", "invalid_format"),
        ("name", "Pay\nroll", "", "invalid_format"),
        ("scopes", None, "", "null"),
        ("scopes", "users:read", "", "invalid_type"),
        ("scopes", {"users:read": True}, "", "invalid_type"),
        ("scopes", [], "", "too_short"),
        ("scopes", ["users:read", "users:read"], "", "repeated"),
        ("scopes", ["users:unheard_of"], "/0", "invalid_choice"),
        ("scopes", ["users:read", "USERS:READ"], "/1", "invalid_choice"),
        ("scopes", ["*"], "/0", "invalid_choice"),
        ("scopes", ["users:*"], "/0", "invalid_choice"),
        ("scopes", ["users:read posts:read"], "/0", "invalid_choice"),
        ("scopes", ["keys:read"], "/0", "invalid_choice"),
        ("scopes", ["users:read", "keys:write"], "/1", "invalid_choice"),
        ("scopes", [5], "/0", "invalid_type"),
        ("scopes", [None], "/0", "null"),
        ("scopes", [["users:read"]], "/0", "invalid_type"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_field_is_named(as_admin, account, nothing_changes, field, value, pointer, code):
    with nothing_changes():
        answers = [
            as_admin.post(ACCOUNTS, json=an_account(**{field: value})),
            as_admin.patch(at(account), json={field: value}),
        ]

    for response in answers:
        assert response.problem == (422, "invalid")
        assert [(f["pointer"], f["code"]) for f in response.json["errors"]] == [(f"/json/{field}{pointer}", code)]


@pytest.mark.parametrize(
    "last",
    ["users:read", [], {}],
    ids=repr,
)
def test_long_list_is_refused_whatever_it_ends_with(as_admin, nothing_changes, last):
    with nothing_changes():
        response = as_admin.post(ACCOUNTS, json=an_account(scopes=["users:read"] * 100 + [last]))

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/scopes"]


def test_program_needs_a_name_and_scopes(as_admin, nothing_changes):
    with nothing_changes():
        response = as_admin.post(ACCOUNTS, json={})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/name", "/json/scopes"]


@pytest.mark.parametrize("field", ["id", "client_id", "maker_id", "version", "keys", "key", "key_hash", "created_at"])
def test_field_that_is_not_for_the_caller_is_unknown(as_admin, account, nothing_changes, field):
    with nothing_changes():
        answers = [
            as_admin.post(ACCOUNTS, json=an_account(**{field: 1})),
            as_admin.patch(at(account), json={field: 1}),
        ]

    for response in answers:
        assert response.problem == (422, "invalid")
        assert [(fault["pointer"], fault["code"]) for fault in response.json["errors"]] == [
            (f"/json/{field}", "unknown_field")
        ]


def test_scope_that_its_maker_has_not_is_refused_by_name(as_support, account, nothing_changes, monkeypatch):
    monkeypatch.setitem(ROLES, "support", ROLES["support"] | KEYS_WRITE)
    beyond = ["users:read", "users:write", "posts:read", "webhooks:read"]

    with nothing_changes():
        answers = [
            as_support.post(ACCOUNTS, json=an_account(scopes=beyond)),
            as_support.patch(at(account), json={"scopes": beyond}),
        ]

    for response in answers:
        assert response.problem == (403, "permission_denied")
        assert pointers(response) == ["/json/scopes/1", "/json/scopes/3"]
        assert "users:write" in response.json["errors"][0]["detail"]


def test_scopes_that_their_maker_has_are_taken(as_support, support, monkeypatch):
    monkeypatch.setitem(ROLES, "support", ROLES["support"] | KEYS_WRITE)

    response = as_support.post(ACCOUNTS, json=an_account(scopes=["users:read", "events:read"]))

    assert (response.status_code, response.json["maker_id"]) == (201, support.id)


# Lists and reading


def test_list_goes_forwards_and_back(as_admin):
    accounts = ServiceAccountFactory.create_batch(5)

    first = as_admin.get(f"{ACCOUNTS}?per_page=3")
    second = as_admin.get(links(first)["next"])
    back = as_admin.get(links(second)["prev"])
    newest = as_admin.get(f"{ACCOUNTS}?sort=-id&per_page=1")

    assert ids(first) + ids(second) == [account.id for account in accounts]
    assert (len(ids(first)), ids(back)) == (3, ids(first))
    assert ids(newest) == [accounts[-1].id]
    assert list(first.json["service_accounts"][0]) == MEMBERS


@pytest.mark.parametrize("query", ["sort=name", "fields=keys", "fields=key_hash", "name=Payroll", "per_page=101"])
def test_bad_parameter_of_the_list_is_named(as_admin, query):
    response = as_admin.get(f"{ACCOUNTS}?{query}")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == [f"/query/{query.partition('=')[0]}"]


def test_program_is_read_with_its_etag(as_admin, account):
    got = as_admin.get(at(account))
    known = as_admin.get(at(account), headers={"If-None-Match": got.headers["ETag"]})
    part = as_admin.get(f"{at(account)}?fields=client_id,scopes")

    assert (got.status_code, got.headers["ETag"], known.status_code) == (200, '"1"', 304)
    assert part.json == {"client_id": f"sa_{account.id}", "scopes": account.scopes}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/keys"),
        ("POST", "/keys"),
        ("DELETE", "/keys/1"),
    ],
)
def test_missing_program_is_not_found(as_admin, nothing_changes, method, path):
    ApiKeyFactory()

    with nothing_changes():
        response = as_admin.send(method, f"{ACCOUNTS}/999999{path}", **({"json": {}} if method == "PATCH" else {}))

    assert response.problem == (404, "not_found")


# Changing


def test_change_leaves_what_it_does_not_name(as_admin, account):
    response = as_admin.patch(at(account), json={"name": "Wages"})

    assert response.status_code == 200
    assert (response.json["name"], response.json["scopes"]) == ("Wages", account.scopes)
    assert response.json["version"] == 2 and response.headers["ETag"] == '"2"'
    assert datetime.fromisoformat(response.json["updated_at"]) > account.updated_at
    assert as_admin.get(at(account)).json == response.json


@pytest.mark.parametrize("fields", [{}, {"name": "Payroll"}, {"scopes": ["posts:read", "users:read"]}], ids=str)
def test_change_to_what_is_there_changes_nothing(as_admin, admin, nothing_changes, fields):
    account = ServiceAccountFactory(maker=admin, name="Payroll", scopes=["users:read", "posts:read"])

    with nothing_changes():
        response = as_admin.patch(at(account), json=fields)

    assert response.status_code == 200
    assert response.headers["ETag"] == '"1"'


def test_who_sets_the_scopes_is_the_maker_from_then_on(client, account, happened):
    another = UserFactory(admin=True)

    named = client.as_(another).patch(at(account), json={"name": "Wages"}).json
    scoped = client.as_(another).patch(at(account), json={"scopes": account.scopes}).json

    assert (named["maker_id"], scoped["maker_id"]) == (account.maker_id, another.id)
    assert [event["changed"] for event in happened()] == [["name"], ["maker_id"]]


def test_events_tell_what_becomes_of_a_program_and_its_keys(as_admin, admin, happened):
    made = as_admin.post(ACCOUNTS, json=an_account()).json
    key = as_admin.post(f"{ACCOUNTS}/{made['id']}/keys").json
    as_admin.patch(f"{ACCOUNTS}/{made['id']}", json={"name": "Wages", "scopes": ["posts:read"]})
    as_admin.delete(f"{ACCOUNTS}/{made['id']}/keys/{key['id']}")
    as_admin.delete(f"{ACCOUNTS}/{made['id']}")

    events = happened()

    assert [(event["type"], event["subject_id"], event["version"]) for event in events] == [
        ("service_account.created", made["id"], 1),
        ("api_key.created", key["id"], None),
        ("service_account.updated", made["id"], 2),
        ("api_key.revoked", key["id"], None),
        ("service_account.deleted", made["id"], 2),
    ]
    assert events[2]["changed"] == ["name", "scopes"]
    assert {(event["actor_id"], event["user_id"], event["key_id"]) for event in events} == {(admin.id, None, None)}


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
@pytest.mark.parametrize("tag", ['"2"', '"0"', "garbage", ""])
def test_stale_version_is_refused(as_admin, account, nothing_changes, method, tag):
    body = {"json": {"name": "Wages"}} if method == "PATCH" else {}

    with nothing_changes():
        response = as_admin.send(method, at(account), headers={"If-Match": tag}, **body)

    assert response.problem == (412, "version_mismatch")


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', '"7", "1"', "*"])
def test_present_version_is_changed_and_removed(as_admin, admin, tag):
    changed, removed = ServiceAccountFactory.create_batch(2, maker=admin)

    answers = [
        as_admin.patch(at(changed), json={"name": "Wages"}, headers={"If-Match": tag}),
        as_admin.delete(at(removed), headers={"If-Match": tag}),
    ]

    assert [answer.status_code for answer in answers] == [200, 204]


def test_version_can_be_required(app, as_admin, account, nothing_changes):
    app.config["REQUIRE_IF_MATCH"] = True

    with nothing_changes():
        answers = [as_admin.patch(at(account), json={"name": "Wages"}), as_admin.delete(at(account))]

    assert {answer.problem for answer in answers} == {(428, "precondition_required")}


def test_of_many_changes_to_one_version_one_is_made(as_admin, account):
    def rename(number):
        return as_admin.patch(at(account), json={"name": f"Program {number}"}, headers={"If-Match": '"1"'})

    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(rename, range(12))]

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 11


# Removing


def test_removed_program_is_gone_and_so_are_its_keys_and_tokens(client, as_admin, account, snapshot, is_served):
    other = ApiKeyFactory()
    key = key_of(account)
    token = token_for(ApiKeyFactory(account=account))
    kept = OAuthTokenFactory(key=other)
    assert is_served(key) and client.with_token(token).get(USERS).status_code == 200

    assert as_admin.delete(at(account)).status_code == 204

    assert not is_served(key)
    assert client.with_token(token).get(USERS).problem == (401, "invalid_token")
    tables = snapshot()
    assert [row.id for row in tables["service_accounts"]] == [other.service_account_id]
    assert [row.id for row in tables["api_keys"]] == [other.id]
    assert [row.id for row in tables["oauth_tokens"]] == [kept.id]
    assert as_admin.patch(at(account), json={"name": "Wages"}).problem == (404, "not_found")


# Making keys


def test_key_is_shown_when_it_is_made(as_admin, account):
    response = as_admin.post(keys_at(account))

    assert response.status_code == 201
    made = dict(response.json)
    key = made.pop("key")
    assert list(made) == KEY_MEMBERS
    assert key == with_checksum(key[:-6]) and len(key) == 39 and key.startswith(made["prefix"])
    assert (len(made["prefix"]), made["prefix"][:3]) == (11, "rk_")
    assert made["last_used_at"] is made["expires_at"] is made["revoked_at"] is None
    assert response.headers["Cache-Control"] == "no-store"
    assert as_admin.get(keys_at(account)).json["keys"] == [made]


def test_key_is_shown_once_and_nowhere_else(as_admin, admin, account):
    key = as_admin.post(keys_at(account)).json["key"]

    answers = [
        as_admin.get(at(account)),
        as_admin.get(ACCOUNTS),
        as_admin.get(keys_at(account)),
        as_admin.patch(at(account), json={"name": "Wages"}),
        as_admin.get(EVENTS),
        as_admin.get(f"{USERS}/{admin.id}/events"),
        as_admin.get("/api/v1/me/export"),
        as_admin.post(keys_at(account)),
    ]

    assert [answer.status_code for answer in answers] == [200] * 7 + [201]
    forms = {key[11:], sha256(key.encode()).hexdigest()}
    assert [form for form in forms for answer in answers if form in answer.text] == []


def test_only_the_hash_of_a_key_is_kept(client, as_admin, account, snapshot):
    key = as_admin.post(keys_at(account), headers={"Idempotency-Key": "again"}).json["key"]
    client.with_token(key).get(USERS)

    kept = snapshot()

    (row,) = kept["api_keys"]
    assert (row.key_hash, row.prefix) == (sha256(key.encode()).hexdigest(), key[:11])
    forms = [key, key[11:], key[3:-6], key.encode().hex()]
    assert [form for form in forms if form in str(kept)] == []


def test_key_that_is_asked_for_again_is_made_once_and_not_shown_again(as_admin, account, nothing_changes):
    again = {"Idempotency-Key": "again"}
    first = as_admin.post(keys_at(account), headers=again)

    with nothing_changes():
        second = as_admin.post(keys_at(account), headers=again)

    assert second.json == {**first.json, "key": None}
    assert (second.status_code, second.headers["Idempotency-Replayed"]) == (201, "true")


def test_answer_that_is_kept_of_a_program_is_not_that_of_the_person_with_its_number(as_admin, snapshot):
    again = {"Idempotency-Key": "again"}
    as_admin.post(ACCOUNTS, json=an_account())
    made = as_admin.post(ACCOUNTS, json=an_account(), headers=again).json  # The admin has the number of the other one.
    person = UserFactory(id=made["id"], deleted=True)

    assert as_admin.post(f"{USERS}/{person.id}/erase").status_code == 204

    assert as_admin.post(ACCOUNTS, json=an_account(), headers=again).json == made
    assert len(snapshot()["service_accounts"]) == 2


def test_each_key_is_another(as_admin, account):
    made = []
    for _ in range(10):
        response = as_admin.post(keys_at(account))
        made.append(response.json["key"])
        as_admin.delete(f"{keys_at(account)}/{response.json['id']}")

    assert len({key[3:11] for key in made}) == 10


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "null"),
        (5, "invalid_type"),
        ("tomorrow", "invalid_format"),
        ("2036-01-31", "invalid_format"),
        ("2036-01-31T12:00:00", "invalid_format"),
        ("2036-02-31T12:00:00Z", "invalid_format"),
        ("2025-01-31T12:00:00Z", "past"),
        ("0001-01-01T00:00:00+14:00", "past"),
    ],
)
def test_end_that_cannot_be_is_named(as_admin, account, nothing_changes, value, code):
    with nothing_changes():
        response = as_admin.post(keys_at(account), json={"expires_at": value})

    assert response.problem == (422, "invalid")
    assert [(fault["pointer"], fault["code"]) for fault in response.json["errors"]] == [("/json/expires_at", code)]


def test_key_ends_when_it_was_said_to(as_admin, account, is_served):
    ends = datetime.now(UTC) + timedelta(hours=1)

    made = as_admin.post(keys_at(account), json={"expires_at": ends.isoformat()}).json

    assert datetime.fromisoformat(made["expires_at"]) == ends
    assert is_served(made["key"])
    assert is_served(key_of(account, expires_at=now() + timedelta(seconds=20)))
    assert not is_served(key_of(account, expired=True))


def test_end_that_no_calendar_holds_is_as_late_as_can_be(as_admin, account, is_served):
    made = as_admin.post(keys_at(account), json={"expires_at": "9999-12-31T23:59:59-14:00"})

    assert made.json["expires_at"].startswith("9999-12-31T23:59:59")
    assert is_served(made.json["key"])


@pytest.mark.parametrize("field", ["key", "prefix", "scopes", "service_account_id", "last_used_at"])
def test_nothing_else_can_be_said_of_a_key(as_admin, account, nothing_changes, field):
    with nothing_changes():
        response = as_admin.post(keys_at(account), json={field: "rk_chosen"})

    assert [(fault["pointer"], fault["code"]) for fault in response.json["errors"]] == [
        (f"/json/{field}", "unknown_field")
    ]


def test_two_keys_are_good_at_once_and_a_third_is_refused(as_admin, account, is_served, snapshot):
    first, second = (as_admin.post(keys_at(account)).json for _ in range(2))
    before = snapshot()

    third = as_admin.post(keys_at(account))

    assert third.problem == (409, "too_many_keys")
    assert snapshot() == before
    assert is_served(first["key"]) and is_served(second["key"])


def test_key_that_has_ended_takes_no_place(as_admin, account):
    live = ApiKeyFactory(account=account)
    ApiKeyFactory(account=account, expired=True)
    ApiKeyFactory(account=account, revoked=True)
    ApiKeyFactory.create_batch(2)

    answers = [as_admin.post(keys_at(account)) for _ in range(2)]
    as_admin.delete(f"{keys_at(account)}/{live.id}")
    answers.append(as_admin.post(keys_at(account)))

    assert [answer.status_code for answer in answers] == [201, 409, 201]


def test_of_twenty_that_are_made_at_once_there_are_two(as_admin, account, snapshot):
    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(lambda _: as_admin.post(keys_at(account)), range(20))]

    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [409] * 18
    assert {answer.problem for answer in answers} == {None, (409, "too_many_keys")}
    tables = snapshot()
    assert len(tables["api_keys"]) == 2
    assert [event.type for event in tables["events"]] == ["api_key.created"] * 2


# Listing keys


def test_keys_are_listed_by_their_beginnings_ended_ones_among_them(as_admin, account):
    keys = [
        ApiKeyFactory(account=account, unused=True),
        ApiKeyFactory(account=account, expired=True),
        ApiKeyFactory(account=account, revoked=True),
    ]
    ApiKeyFactory()

    listed = as_admin.get(keys_at(account)).json["keys"]

    assert [list(key) for key in listed] == [KEY_MEMBERS] * 3
    assert [(key["id"], key["prefix"]) for key in listed] == [(key.id, key.prefix) for key in keys]
    assert [key["last_used_at"] is None for key in listed] == [True, False, False]
    assert [key["expires_at"] is None for key in listed] == [True, False, True]
    assert [key["revoked_at"] is None for key in listed] == [True, True, False]


def test_list_of_keys_goes_forwards_and_back(as_admin, account):
    keys = ApiKeyFactory.create_batch(5, account=account, revoked=True)

    first = as_admin.get(f"{keys_at(account)}?per_page=3&sort=-id")
    second = as_admin.get(links(first)["next"])

    assert ids(first, "keys") + ids(second, "keys") == [key.id for key in keys][::-1]
    assert ids(as_admin.get(links(second)["prev"]), "keys") == ids(first, "keys")


@pytest.mark.parametrize("query", ["sort=prefix", "fields=key", "fields=key_hash", "prefix=rk_"])
def test_bad_parameter_of_the_list_of_keys_is_named(as_admin, account, query):
    response = as_admin.get(f"{keys_at(account)}?{query}")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == [f"/query/{query.partition('=')[0]}"]


# Ending keys


def test_revoked_key_is_refused_at_once_and_the_next_one_is_not(as_admin, account, is_served):
    old, new = (as_admin.post(keys_at(account)).json for _ in range(2))

    revoked = as_admin.delete(f"{keys_at(account)}/{old['id']}")

    assert revoked.status_code == 204
    assert (is_served(old["key"]), is_served(new["key"])) == (False, True)
    shown = as_admin.get(keys_at(account)).json["keys"]
    assert [key["revoked_at"] is None for key in shown] == [False, True]


def test_key_is_revoked_once(as_admin, account, nothing_changes):
    key = ApiKeyFactory(account=account)
    path = f"{keys_at(account)}/{key.id}"
    assert as_admin.delete(path).status_code == 204

    with nothing_changes():
        again = as_admin.delete(path)

    assert again.problem == (404, "not_found")


def test_key_of_another_program_is_not_found(as_admin, account, nothing_changes):
    foreign = ApiKeyFactory()

    with nothing_changes():
        answers = [as_admin.delete(f"{keys_at(account)}/{number}") for number in (foreign.id, 999_999, 0, "x")]

    assert {answer.problem for answer in answers} == {(404, "not_found")}


def test_of_many_who_revoke_a_key_one_does(as_admin, account, snapshot):
    key = ApiKeyFactory(account=account)

    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(lambda _: as_admin.delete(f"{keys_at(account)}/{key.id}"), range(12))]

    assert sorted(answer.status_code for answer in answers) == [204] + [404] * 11
    assert [event.type for event in snapshot()["events"]] == ["api_key.revoked"]


def test_keys_are_made_and_programs_removed_at_once_and_nothing_breaks(as_admin, admin, snapshot):
    accounts = ServiceAccountFactory.create_batch(6, maker=admin)

    def trouble(number):
        account = accounts[number % 6]
        return as_admin.delete(at(account)) if number >= 12 else as_admin.post(keys_at(account))

    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(trouble, [0, 12, 6, 1, 13, 7, 2, 14, 8, 3, 15, 9, 4, 16, 10, 5, 17, 11])]

    assert {answer.status_code for answer in answers} <= {201, 204, 404}
    tables = snapshot()
    assert tables["service_accounts"] == tables["api_keys"] == []
