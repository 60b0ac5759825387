"""OAuth 2.0 for programs: getting a token for a key, what it is good for, its end, and what is known of it."""

import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import NamedTuple

import jwt
import pytest

from models.base import now
from service import tokens
from service.service_accounts import SCOPES
from tests.factories.api_key import ApiKeyFactory, key_of, new_key, with_checksum
from tests.factories.oauth_token import token_for
from tests.factories.service_account import ServiceAccountFactory
from tests.factories.user import UserFactory

TOKEN, REVOKE, INTROSPECT = "/oauth/token", "/oauth/revoke", "/oauth/introspect"
METADATA = "/.well-known/oauth-authorization-server"
ACCOUNTS = "/api/v1/service-accounts"
USERS = "/api/v1/users"
EVENTS = "/api/v1/events"
GRANT = {"grant_type": "client_credentials"}
INVALID_TOKEN, INVALID_KEY = (401, "invalid_token"), (401, "invalid_key")
INACTIVE = {"active": False}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Program(NamedTuple):
    """A program, and how it says who it is."""

    id: int
    client_id: str
    secret: str

    @property
    def form(self):
        return {"client_id": self.client_id, "client_secret": self.secret}

    @property
    def basic(self):
        return {"auth": (self.client_id, self.secret)}


def program_of(account, **fields):
    return Program(account.id, f"sa_{account.id}", key_of(account, **fields))


def refusal(response):
    """Return what a refusal in the form of OAuth says."""
    return response.status_code, response.json["error"]


def basic(text):
    return {"Authorization": f"Basic {b64encode(text.encode()).decode()}"}


@pytest.fixture
def maker(app):
    """Return an admin who makes programs, and is not the only one."""
    UserFactory(admin=True)
    return UserFactory(admin=True)


@pytest.fixture
def account(maker):
    """Return a program of the maker's that may read users and posts, and write posts."""
    return ServiceAccountFactory(maker=maker, scopes=["users:read", "posts:read", "posts:write"])


@pytest.fixture
def program(account):
    """Return how the program says who it is."""
    return program_of(account)


@pytest.fixture
def ask(client, program):
    """Return a function that asks for a token, as the program unless told otherwise, and returns the answer."""

    def send(**more):
        return client.post(TOKEN, data={**GRANT, **program.form, **more})

    return send


@pytest.fixture
def introspect(client, program):
    """Return a function that returns what the program is told of a token."""

    def send(token):
        answer = client.post(INTROSPECT, data={**program.form, "token": token})
        assert answer.status_code == 200
        return answer.json

    return send


@pytest.fixture
def reads(client):
    """Return a function that returns how reading users with a token is answered just now."""
    return lambda token: (answer := client.with_token(token).get(USERS)).problem or answer.status_code


# Getting a token


@pytest.mark.parametrize("way", ["basic", "form"])
def test_program_gets_a_token_for_its_key(client, program, way):
    sent = {"data": GRANT, **program.basic} if way == "basic" else {"data": {**GRANT, **program.form}}

    response = client.post(TOKEN, **sent)

    assert response.status_code == 200
    assert response.json == {
        "access_token": response.json["access_token"],
        "token_type": "Bearer",
        "expires_in": 900,
        "scope": "posts:read posts:write users:read",
    }
    assert response.mimetype == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert client.with_token(response.json["access_token"]).get(USERS).status_code == 200


def test_token_says_whose_it_is_and_nothing_else(ask, program):
    token = ask().json["access_token"]

    claims = jwt.decode(token, options={"verify_signature": False})

    assert claims.pop("jti") and int(claims.pop("tid")) > 0
    assert claims.pop("exp") - claims.pop("iat") == 900
    assert claims == {
        "iss": "http://localhost",
        "aud": "rollcall",
        "sub": program.client_id,
        "client_id": program.client_id,
    }
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


def test_neither_token_nor_key_is_kept(ask, program, snapshot):
    token = ask().json["access_token"]

    kept = str(snapshot())

    assert token not in kept and token.rpartition(".")[2] not in kept
    assert program.secret not in kept


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("users:read", "users:read"),
        ("users:read posts:read", "posts:read users:read"),
        ("posts:read  posts:read", "posts:read"),
        ("", "posts:read posts:write users:read"),
    ],
)
def test_token_is_for_the_scopes_that_are_asked_for(ask, asked, given):
    response = ask(scope=asked)

    assert (response.status_code, response.json["scope"]) == (200, given)


@pytest.mark.parametrize(
    "scope",
    [
        *("users:write", "users:read users:write", "keys:read", "users:unheard_of", "USERS:READ", "*", " "),
        *("users:read,posts:read", "users:read\x00", "ü", "x" * 5000),
    ],
    ids=lambda scope: ascii(scope)[:30],
)
def test_scope_that_the_program_has_not_is_refused(ask, nothing_changes, scope):
    with nothing_changes():
        response = ask(scope=scope)

    assert refusal(response) == (400, "invalid_scope")


def test_token_is_for_no_more_than_the_maker_may_do_now(as_admin, ask, maker):
    assert as_admin.patch(f"{USERS}/{maker.id}", json={"role": "support"}).status_code == 200

    assert ask().json["scope"] == "posts:read users:read"
    assert refusal(ask(scope="posts:write")) == (400, "invalid_scope")


def test_program_whose_maker_may_do_nothing_gets_no_token(as_admin, ask, maker, nothing_changes):
    assert as_admin.patch(f"{USERS}/{maker.id}", json={"role": "member"}).status_code == 200

    with nothing_changes():
        assert refusal(ask()) == (400, "invalid_scope")


@pytest.mark.parametrize("grant_type", ["password", "refresh_token", "authorization_code", "CLIENT_CREDENTIALS", " "])
def test_other_grant_is_refused(ask, nothing_changes, grant_type):
    with nothing_changes():
        response = ask(grant_type=grant_type)

    assert refusal(response) == (400, "unsupported_grant_type")


@pytest.mark.parametrize("grant_type", [None, ""])
def test_grant_must_be_named(client, program, nothing_changes, grant_type):
    form = {**program.form, **({"grant_type": grant_type} if grant_type is not None else {})}

    with nothing_changes():
        response = client.post(TOKEN, data=form)

    assert refusal(response) == (400, "invalid_request")


def test_parameter_that_is_not_known_is_passed_over(ask):
    assert ask(audience="somebody", resource="https://example.com").status_code == 200


# Who asks


BAD_CLIENTS = {
    "nobody": lambda program: {},
    "no secret": lambda program: {"client_id": program.client_id},
    "an empty secret": lambda program: {**program.form, "client_secret": ""},
    "no client": lambda program: {"client_secret": program.secret},
    "an unknown client": lambda program: {**program.form, "client_id": "sa_999999"},
    "a client by its number": lambda program: {**program.form, "client_id": str(program.id)},
    "a client with a zero": lambda program: {**program.form, "client_id": f"sa_0{program.id}"},
    "a client in capitals": lambda program: {**program.form, "client_id": f"SA_{program.id}"},
    "a client with a space": lambda program: {**program.form, "client_id": f"sa_{program.id} "},
    "the key of another": lambda program: {**program.form, "client_secret": key_of(ServiceAccountFactory())},
    "the name of another": lambda program: {**program.form, "client_id": f"sa_{ServiceAccountFactory().id}"},
    "an unknown key": lambda program: {**program.form, "client_secret": new_key()},
    "a mistyped key": lambda program: {**program.form, "client_secret": program.secret[:-1] + "~"},
    "half a key": lambda program: {**program.form, "client_secret": program.secret[:20]},
    "what is no key": lambda program: {**program.form, "client_secret": "secret"},
    "a key of 5 kB": lambda program: {**program.form, "client_secret": with_checksum("rk_" + "x" * 5000)},
    "letters of no alphabet here": lambda program: {**program.form, "client_secret": "rk_ключ"},
}


@pytest.mark.parametrize("path", [TOKEN, REVOKE, INTROSPECT])
@pytest.mark.parametrize("form", BAD_CLIENTS.values(), ids=BAD_CLIENTS)
def test_who_is_not_known_is_refused(client, program, nothing_changes, path, form):
    sent = {**GRANT, "token": "a token", **form(program)}

    with nothing_changes():
        response = client.post(path, data=sent)

    assert refusal(response) == (401, "invalid_client")
    assert response.headers["WWW-Authenticate"] == 'Basic realm="rollcall"'
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", [TOKEN, REVOKE, INTROSPECT])
@pytest.mark.parametrize("ended", ["revoked", "expired", "of a suspended maker", "of a deleted maker"])
def test_key_that_has_ended_makes_no_client(client, maker, nothing_changes, path, ended):
    states = {"of a suspended maker": "suspended", "of a deleted maker": "deleted"}
    if ended in states:
        program = program_of(ServiceAccountFactory(maker=UserFactory(admin=True, **{states[ended]: True})))
    else:
        program = program_of(ServiceAccountFactory(maker=maker), **{ended: True})

    with nothing_changes():
        response = client.post(path, data={**GRANT, **program.form, "token": "a token"})

    assert refusal(response) == (401, "invalid_client")


def test_every_refusal_of_a_client_is_the_same(client, program):
    forms = [form(program) for form in BAD_CLIENTS.values()]
    complete = [form for form in forms if len(form) == 2 and all(form.values())]

    bodies = [client.post(TOKEN, data={**GRANT, **form}).text for form in complete]

    assert len(bodies) > 10 and len({*bodies}) == 1


@pytest.mark.parametrize(
    "text", [":", "sa_1", "sa_1:", ":secret", "sa_1:secret", "sa_1:rk_x:y", "sa_1:" + "x" * 5000, "ü:ü"]
)
def test_header_that_names_no_client_is_refused(client, program, nothing_changes, text):
    with nothing_changes():
        response = client.post(TOKEN, data=GRANT, headers=basic(text))

    assert refusal(response) == (401, "invalid_client")


@pytest.mark.parametrize("value", ["Basic", "Basic !!!", "Basic /w==", "garbage", "Bearer x.y.z", "Digest a=b"])
def test_two_ways_at_once_are_refused_however_bad_the_other_is(client, program, nothing_changes, value):
    with nothing_changes():
        response = client.post(TOKEN, data={**GRANT, **program.form}, headers={"Authorization": value})

    assert refusal(response) == (400, "invalid_request")


def test_two_good_ways_at_once_are_refused(client, program, nothing_changes):
    with nothing_changes():
        answers = [
            client.post(TOKEN, data={**GRANT, **program.form}, **program.basic),
            client.post(TOKEN, data={**GRANT, "client_secret": program.secret}, **program.basic),
            client.with_token(program.secret).post(TOKEN, data={**GRANT, **program.form}),
        ]

    assert [refusal(answer) for answer in answers] == [(400, "invalid_request")] * 3


@pytest.mark.parametrize("value", ["Basic", "Basic !!!", "Basic /w==", "garbage", "Bearer", "Digest a=b"])
def test_other_way_is_refused(client, program, nothing_changes, value):
    value = f"Bearer {program.secret}" if value == "Bearer" else value

    with nothing_changes():
        response = client.post(TOKEN, data=GRANT, headers={"Authorization": value})

    assert refusal(response) == (401, "invalid_client")


def test_what_has_no_value_counts_as_left_out(client, program):
    response = client.post(TOKEN, data={**GRANT, "client_secret": "", "scope": ""}, **program.basic)

    assert response.status_code == 200


def test_client_may_name_itself_beside_the_header_as_long_as_it_is_the_same(client, program, nothing_changes):
    same = client.post(TOKEN, data={**GRANT, "client_id": program.client_id}, **program.basic)
    with nothing_changes():
        other = client.post(TOKEN, data={**GRANT, "client_id": "sa_999999"}, **program.basic)

    assert (same.status_code, refusal(other)) == (200, (400, "invalid_request"))


# How it is asked


@pytest.mark.parametrize("path", [TOKEN, REVOKE, INTROSPECT])
@pytest.mark.parametrize("name", ["grant_type", "scope", "token", "client_id", "client_secret", "unknown"])
def test_parameter_that_stands_there_twice_is_refused(client, program, nothing_changes, path, name):
    members = {**GRANT, "scope": "users:read", "token": "a token", "unknown": "1", **program.form}
    form = [*members.items(), (name, members[name])]

    with nothing_changes():
        response = client.post(path, data="&".join(f"{key}={value}" for key, value in form), headers=FORM)

    assert refusal(response) == (400, "invalid_request")


@pytest.mark.parametrize("path", [TOKEN, REVOKE, INTROSPECT])
@pytest.mark.parametrize(
    "sent",
    [
        lambda form: {"json": form},
        lambda form: {"data": form, "content_type": "multipart/form-data"},
        lambda form: {"data": b"grant_type=client_credentials", "content_type": "text/plain"},
        lambda form: {"data": b"grant_type=client_credentials"},
        lambda form: {},
    ],
    ids=["JSON", "multipart", "text", "no type", "nothing"],
)
def test_what_is_no_form_is_refused(client, program, nothing_changes, path, sent):
    with nothing_changes():
        response = client.post(path, **sent({**GRANT, **program.form, "token": "a token"}))

    assert refusal(response) == (400, "invalid_request")


def test_parameters_in_the_address_are_not_read(client, program, nothing_changes):
    query = f"?grant_type=client_credentials&client_id={program.client_id}&client_secret={program.secret}"

    with nothing_changes():
        response = client.post(TOKEN + query, data={"scope": "users:read"})

    assert refusal(response) == (401, "invalid_client")


@pytest.mark.parametrize("path", [TOKEN, REVOKE, INTROSPECT])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_only_post_is_offered(client, nothing_changes, path, method):
    with nothing_changes():
        response = client.send(method, path)

    assert response.problem == (405, "method_not_allowed")


def test_form_that_is_far_too_large_is_refused(client, program, nothing_changes):
    with nothing_changes():
        response = client.post(TOKEN, data={**GRANT, **program.form, "scope": "x" * 1_100_000})

    assert response.problem == (413, "payload_too_large")


# What a token is good for


def test_token_is_good_for_its_scopes_only(client, ask, member):
    token = client.with_token(ask(scope="users:read").json["access_token"])
    posts = f"{USERS}/{member.id}/posts"

    answers = [
        token.get(USERS),
        token.get(f"{USERS}/{member.id}"),
        token.patch(f"{USERS}/{member.id}", json={"name": "New"}),
        token.get(posts),
        token.post(posts, json={"title": "A title", "content": "Some words."}),
        token.get("/api/v1/me"),
        token.post("/api/v1/auth/logout"),
        token.post(f"{ACCOUNTS}/1/keys"),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 403, 404, 404, 403, 403, 403]


def test_token_is_nothing_that_a_key_or_a_session_is(client, ask, program, nothing_changes):
    token = ask().json["access_token"]

    with nothing_changes():
        as_secret = client.post(TOKEN, data={**GRANT, **program.form, "client_secret": token})
        as_refresh = client.post("/api/v1/auth/refresh", json={"refresh_token": token})

    assert refusal(as_secret) == (401, "invalid_client")
    assert as_refresh.problem == INVALID_TOKEN


def test_what_is_done_with_a_token_is_told_as_the_programs_doing(client, as_admin, account, member):
    key = ApiKeyFactory(account=account)
    token = token_for(key)

    client.with_token(token).post(f"{USERS}/{member.id}/posts", json={"title": "A title", "content": "Some words."})

    (event,) = as_admin.get(EVENTS).json["events"]
    assert (event["type"], event["service_account_id"], event["key_id"]) == ("post.created", account.id, key.id)
    assert (event["actor_id"], event["session_id"]) == (None, None)


@pytest.mark.parametrize("claim", ["tid", "client_id", "sub"])
def test_token_that_was_made_up_is_none(app, client, reads, nothing_changes, claim):
    token = token_for(ApiKeyFactory())
    claims = jwt.decode(token, options={"verify_signature": False})
    ring = app.extensions["key_ring"]
    changed = {"tid": "999999", "client_id": None, "sub": "1"}[claim]
    forged = {name: value for name, value in {**claims, claim: changed}.items() if value is not None}
    signed = jwt.encode(forged, ring.current.private, algorithm="ES256", headers=ring.current.headers)

    with nothing_changes():
        expected = 200 if claim == "sub" else INVALID_TOKEN  # A program is known by what was written down.
        assert reads(signed) == expected


def test_person_and_program_cannot_be_mixed_in_one_token(app, member, nothing_changes, reads):
    ring = app.extensions["key_ring"]
    issued = int(time.time())
    claims = {"iss": ring.issuer, "aud": "rollcall", "iat": issued, "exp": issued + 900, "jti": "x"}
    mixed = [
        {**claims, "sub": str(member.id), "sid": "1", "tid": "1"},
        {**claims, "sub": "sa_1", "client_id": "sa_1", "sid": "1"},
        {**claims, "sub": "sa_1", "client_id": "sa_1", "tid": "x"},
        {**claims, "sub": "sa_1", "client_id": "sa_1", "tid": ["1"]},
        {**claims, "sub": "sa_1", "client_id": "sa_1", "tid": "-1"},
        {**claims, "sub": "sa_1", "client_id": "sa_1", "tid": str(2**63)},
    ]

    with nothing_changes():
        answers = [
            reads(jwt.encode(each, ring.current.private, algorithm="ES256", headers=ring.current.headers))
            for each in mixed
        ]

    assert answers == [INVALID_TOKEN] * 6


# Its end


def ended_by_its_program(client, as_admin, program, maker, token):
    return client.post(REVOKE, data={**program.form, "token": token})


def ended_with_its_key(client, as_admin, program, maker, token):
    (key,) = as_admin.get(f"{ACCOUNTS}/{program.id}/keys").json["keys"]
    return as_admin.delete(f"{ACCOUNTS}/{program.id}/keys/{key['id']}")


def ended_with_its_program(client, as_admin, program, maker, token):
    return as_admin.delete(f"{ACCOUNTS}/{program.id}")


def ended_with_its_maker_suspended(client, as_admin, program, maker, token):
    return as_admin.patch(f"{USERS}/{maker.id}", json={"is_active": False})


def ended_with_its_maker_deleted(client, as_admin, program, maker, token):
    return as_admin.delete(f"{USERS}/{maker.id}")


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (ended_by_its_program, INVALID_TOKEN),
        (ended_with_its_key, INVALID_KEY),
        (ended_with_its_program, INVALID_TOKEN),
        (ended_with_its_maker_suspended, INVALID_KEY),
        (ended_with_its_maker_deleted, INVALID_KEY),
    ],
)
def test_token_ends_at_once(client, as_admin, ask, program, maker, reads, end, problem):
    token = ask().json["access_token"]
    assert reads(token) == 200

    assert end(client, as_admin, program, maker, token).status_code < 300

    assert reads(token) == problem


def test_token_ends_with_its_time(ask, reads, monkeypatch):
    token = ask().json["access_token"]
    issued = time.time()

    monkeypatch.setattr(time, "time", lambda: issued + 800)
    in_time = reads(token)
    monkeypatch.setattr(time, "time", lambda: issued + 900 + tokens.CLOCK_SKEW + 1)

    assert (in_time, reads(token)) == (200, INVALID_TOKEN)


def test_token_ends_with_the_time_of_its_key(account, reads):
    live = ApiKeyFactory(account=account, expires_at=now() + timedelta(seconds=20))
    ended = ApiKeyFactory(account=account, expired=True)

    assert (reads(token_for(live)), reads(token_for(ended))) == (200, INVALID_KEY)


def test_token_of_one_key_outlives_the_other_key(as_admin, account, reads):
    old, new = ApiKeyFactory.create_batch(2, account=account)
    of_old, of_new = token_for(old), token_for(new)

    as_admin.delete(f"{ACCOUNTS}/{account.id}/keys/{old.id}")

    assert (reads(of_old), reads(of_new)) == (INVALID_KEY, 200)


def test_scope_that_is_taken_from_the_program_is_taken_from_its_tokens(as_admin, ask, account, reads):
    token = ask().json["access_token"]

    as_admin.patch(f"{ACCOUNTS}/{account.id}", json={"scopes": ["posts:read", "webhooks:read"]})

    assert reads(token) == (403, "permission_denied")


def test_scope_that_the_program_gets_later_is_not_its_tokens(as_admin, client, ask, account):
    token = ask().json["access_token"]

    as_admin.patch(f"{ACCOUNTS}/{account.id}", json={"scopes": [*SCOPES]})

    assert client.with_token(token).get(EVENTS).problem == (403, "permission_denied")


# Revoking


def test_token_is_revoked_and_the_others_are_not(client, ask, program, reads):
    token, other = (ask().json["access_token"] for _ in range(2))

    response = client.post(REVOKE, data={"token": token, "token_type_hint": "access_token"}, **program.basic)

    assert response.status_code == 200
    assert (reads(token), reads(other)) == (INVALID_TOKEN, 200)


def test_key_can_revoke_what_the_other_key_was_given(client, account, program, reads):
    token = token_for(ApiKeyFactory(account=account))

    assert client.post(REVOKE, data={**program.form, "token": token}).status_code == 200
    assert reads(token) == INVALID_TOKEN


def test_what_is_not_the_programs_own_to_revoke_stays(client, program, member, nothing_changes, reads):
    foreign = token_for(ApiKeyFactory(unused=True))
    persons = client.as_(UserFactory(admin=True)).token
    garbage = [new_key(), program.secret, "x", "a.b.c", "ü", "x" * 5000, f"{foreign}x", f"rr_{'a' * 43}"]

    with nothing_changes():
        answers = [client.post(REVOKE, data={**program.form, "token": it}) for it in (foreign, persons, *garbage)]

    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert (reads(foreign), reads(persons)) == (200, 200)


def test_token_is_revoked_once(client, ask, program, nothing_changes):
    token = ask().json["access_token"]
    client.post(REVOKE, data={**program.form, "token": token})

    with nothing_changes():
        again = client.post(REVOKE, data={**program.form, "token": token})

    assert again.status_code == 200


@pytest.mark.parametrize("path", [REVOKE, INTROSPECT])
@pytest.mark.parametrize("form", [{}, {"token": ""}])
def test_token_must_be_named(client, program, nothing_changes, path, form):
    with nothing_changes():
        response = client.post(path, data={**program.form, **form})

    assert refusal(response) == (400, "invalid_request")


# Introspection


def test_program_is_told_what_its_token_is_good_for(ask, program, introspect):
    token = ask(scope="users:read posts:read").json["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})

    assert introspect(token) == {
        "active": True,
        "scope": "posts:read users:read",
        "client_id": program.client_id,
        "token_type": "Bearer",
        "iat": claims["iat"],
        "exp": claims["exp"],
    }


def test_program_is_told_what_is_left_of_a_token(as_admin, ask, introspect, account, maker):
    token = ask().json["access_token"]

    as_admin.patch(f"{USERS}/{maker.id}", json={"role": "support"})
    of_a_support_person = introspect(token)
    as_admin.patch(f"{ACCOUNTS}/{account.id}", json={"scopes": ["posts:write"]})

    assert of_a_support_person["scope"] == "posts:read users:read"
    assert introspect(token)["scope"] == "posts:write"


def test_program_is_told_nothing_of_what_is_not_its_own(client, introspect, nothing_changes, program):
    foreign = token_for(ApiKeyFactory(unused=True))
    persons = client.as_(UserFactory(admin=True)).token

    with nothing_changes():
        told = [introspect(token) for token in (foreign, persons, program.secret, new_key(), "x", "a.b.c", "ü")]

    assert told == [INACTIVE] * 7


def test_program_is_told_that_a_revoked_token_is_over(account, introspect):
    assert introspect(token_for(ApiKeyFactory(account=account), revoked=True)) == INACTIVE


def test_program_is_told_that_a_token_of_an_ended_key_is_over(account, introspect):
    tokens_of_ended = [token_for(ApiKeyFactory(account=account, **{state: True})) for state in ("revoked", "expired")]

    assert [introspect(token) for token in tokens_of_ended] == [INACTIVE] * 2


def test_program_is_told_that_the_time_of_a_token_is_over(ask, introspect, monkeypatch):
    token = ask().json["access_token"]
    late = time.time() + 900 + tokens.CLOCK_SKEW + 1

    monkeypatch.setattr(time, "time", lambda: late)

    assert introspect(token) == INACTIVE


def test_asking_of_a_token_is_no_use_of_its_key(account, introspect, nothing_changes):
    token = token_for(ApiKeyFactory(account=account, unused=True))

    with nothing_changes():
        assert introspect(token)["active"] is True


# Use


def test_getting_and_using_a_token_is_a_use_of_the_key(client, account, snapshot):
    program = program_of(account, unused=True)

    token = client.post(TOKEN, data={**GRANT, **program.form}).json["access_token"]
    (asked,) = snapshot()["api_keys"]
    other = token_for(ApiKeyFactory(account=account, unused=True))
    client.with_token(other).get(USERS)
    used = snapshot()["api_keys"][1]

    assert token and asked.last_used_at is not None and used.last_used_at is not None


def test_of_many_who_ask_at_once_each_gets_a_token_of_its_own(ask, reads):
    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(lambda _: ask(), range(18))]

    given = {answer.json["access_token"] for answer in answers}
    assert len(given) == 18
    assert {reads(token) for token in given} == {200}


def test_token_is_asked_for_while_the_program_is_removed_and_nothing_breaks(client, as_admin, maker, snapshot):
    def hurry(program):
        return [client.post(TOKEN, data={**GRANT, **program.form}) for _ in range(8)]

    for _ in range(10):
        program = program_of(ServiceAccountFactory(maker=maker))
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(hurry, program) for _ in range(3)]
            time.sleep(0.02)
            assert as_admin.delete(f"{ACCOUNTS}/{program.id}").status_code == 204
        answers = [answer for each in asked for answer in each.result()]

        assert {answer.status_code for answer in answers} <= {200, 401}
        assert {refusal(answer) for answer in answers if answer.status_code > 200} <= {(401, "invalid_client")}
    assert snapshot()["oauth_tokens"] == []


# What is told of it all


def test_metadata_says_what_there_is_and_where(client):
    response = client.get(METADATA)

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "public, max-age=300"
    found = response.json
    assert found["issuer"] == "http://localhost"
    assert {name: found[name] for name in found if name.endswith("_endpoint")} == {
        "token_endpoint": f"http://localhost{TOKEN}",
        "revocation_endpoint": f"http://localhost{REVOKE}",
        "introspection_endpoint": f"http://localhost{INTROSPECT}",
    }
    assert found["jwks_uri"] == "http://localhost/.well-known/jwks.json"
    assert (found["grant_types_supported"], found["response_types_supported"]) == (["client_credentials"], [])
    assert found["scopes_supported"] == [*SCOPES]
    for endpoint in ("token", "revocation", "introspection"):
        assert found[f"{endpoint}_endpoint_auth_methods_supported"] == ["client_secret_basic", "client_secret_post"]


def test_token_is_checked_with_the_published_keys(client, ask):
    token = ask().json["access_token"]
    path = client.get(METADATA).json["jwks_uri"].removeprefix("http://localhost")
    (key,) = [jwt.PyJWK(key) for key in client.get(path).json["keys"]]

    claims = jwt.decode(token, key, algorithms=["ES256"], audience="rollcall", issuer="http://localhost")

    assert claims["client_id"].startswith("sa_")
