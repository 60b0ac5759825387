"""Rate limits: what is counted for whom, what answers say of it, and that time alone frees who has used theirs up."""

import http_sfv
import pytest

from tests.client import Client
from tests.factories.api_key import key_for, key_of
from tests.factories.post import PostFactory
from tests.factories.service_account import ServiceAccountFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.operations import operations_of, prepared

USERS, ME, LOGIN = "/api/v1/users", "/api/v1/me", "/api/v1/auth/login"
LIMITED = (429, "rate_limited")
HOME, OFFICE = {"REMOTE_ADDR": "203.0.113.7"}, {"REMOTE_ADDR": "203.0.113.8"}
COSTLY = {
    ("POST", "/account/reset"),
    ("POST", "/api/v1/auth/email/resend"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/password/forgot"),
    ("POST", "/api/v1/auth/password/reset"),
    ("POST", "/api/v1/me/email"),
    ("POST", "/api/v1/me/password"),
    ("GET", "/api/v1/me/export"),
    ("POST", "/api/v1/users"),
    ("PUT", "/api/v1/users/<int:user_id>/avatar"),
    ("POST", "/oauth/token"),
}
UNLIMITED = {
    *("/", "/docs", "/docs/assets/<path:name>", "/api/v1/openapi.json", "/problems", "/problems/<name>"),
    *("/health", "/health/ready", "/static/<path:filename>", "/avatars/<file>"),
    *("/.well-known/jwks.json", "/.well-known/oauth-authorization-server"),
}
FORM_PAGES = {("GET", "/account/confirm"), ("GET", "/account/reset")}


class Clock:
    """A clock that a test sets."""

    now = 5_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limited(another_app, contract, clock):
    """Return a function that makes an application with limits, and returns a client of it."""

    def make(**variables):
        app = another_app(**{f"RATE_LIMIT_{name.upper()}": value for name, value in variables.items()})
        app.extensions["limits"].counters.clock = clock
        return Client(app, contract)

    return make


def said(response, header):
    """Return what a header says, as {policy: parameters}, read by another's parser."""
    items = http_sfv.List()
    items.parse(response.headers[header].encode())
    assert all(isinstance(item.value, str) and not isinstance(item.value, http_sfv.Token) for item in items)
    return {item.value: dict(item.params) for item in items}


def names(response):
    """Return the names of the policies that counted a request."""
    if "RateLimit" not in response.headers:
        return []
    assert said(response, "RateLimit").keys() == said(response, "RateLimit-Policy").keys()
    return [*said(response, "RateLimit")]


def left(response, policy):
    return said(response, "RateLimit")[policy]["r"]


def sign_in(client, email, password=PASSWORD, **kwargs):
    return client.post(LOGIN, json={"email": email, "password": password}, **kwargs)


# What is said


def test_answers_say_what_is_allowed_and_what_is_left(limited, member, clock):
    me = limited(user="3/minute").as_(member)

    first = me.get(ME)
    clock.now += 20.5
    second = me.get(ME)

    assert said(first, "RateLimit-Policy") == said(second, "RateLimit-Policy") == {"user": {"q": 3, "w": 60}}
    assert said(first, "RateLimit") == {"user": {"r": 2, "t": 60}}
    assert said(second, "RateLimit") == {"user": {"r": 1, "t": 40}}


def test_what_is_costly_says_both_limits(limited, member):
    me = limited(user="10/minute", costly="2/hour").as_(member)

    answer = me.get(f"{ME}/export")

    assert said(answer, "RateLimit-Policy") == {"user": {"q": 10, "w": 60}, "costly": {"q": 2, "w": 3600}}
    assert said(answer, "RateLimit") == {"user": {"r": 9, "t": 60}, "costly": {"r": 1, "t": 3600}}


def test_every_kind_of_answer_says_it(limited, member, other):
    me = limited(user="100/minute", address="100/minute").as_(member)
    path = f"{USERS}/{member.id}"
    etag = me.get(path).headers["ETag"]

    answers = [
        me.get(path),
        me.head(path),
        me.get(path, headers={"If-None-Match": etag}),
        me.get(f"{path}?unknown=1"),
        me.with_token("garbage").get(path),
        me.get(USERS),
        me.get(f"{USERS}/{other.id}"),
        me.patch(path, json={"name": "New"}, headers={"If-Match": '"0"'}),
        me.patch(path, json={"name": 1}),
        me.delete(f"{ME}/sessions"),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 304, 400, 401, 403, 404, 412, 422, 204]
    assert [names(answer) for answer in answers] == [["user"] if a.status_code != 401 else ["address"] for a in answers]


def test_browsers_may_read_it(another_app, contract, member):
    origin = "https://app.example.com"
    client = Client(another_app(RATE_LIMIT_ADDRESS="1/minute", CORS_ORIGINS=origin), contract)

    answers = [client.get(ME, headers={"Origin": origin}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [401, 429]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        exposed = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
        assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= exposed


# Used up


def test_who_has_used_theirs_up_is_refused_until_the_window_ends(limited, member, clock, nothing_changes):
    me = limited(user="3/minute").as_(member)
    path = f"{USERS}/{member.id}/posts"
    answers = [me.get(path).status_code for _ in range(3)]
    clock.now += 12.2

    with nothing_changes():
        refused = me.post(path, json={"title": "A title", "content": "Words"})

    assert answers == [200] * 3
    assert refused.problem == LIMITED
    assert refused.headers["Retry-After"] == "48"
    assert said(refused, "RateLimit") == {"user": {"r": 0, "t": 48}}
    assert refused.json["detail"] == 'The limit "user", 3 requests in 60 seconds, is used up.'
    clock.now += 47.7
    assert me.get(path).problem == LIMITED
    clock.now += 0.2
    assert left(me.get(path), "user") == 2


def test_what_is_refused_is_counted_and_puts_nothing_off(limited, member, clock):
    me = limited(user="2/minute").as_(member)

    answers = []
    for _ in range(61):
        answers.append(me.get(ME).status_code)
        clock.now += 1

    assert answers == [200] * 2 + [429] * 58 + [200]


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_a_clock_that_jumps_frees_nobody_for_long_and_locks_nobody_out(limited, member, clock, jump):
    me = limited(user="2/minute").as_(member)
    before = [me.get(ME).status_code for _ in range(3)]

    clock.now += jump
    after = [me.get(ME).status_code for _ in range(3)]
    clock.now += 61

    assert before == [200, 200, 429]
    assert after == ([429] * 3 if jump < 0 else [200, 200, 429])
    assert me.get(ME).status_code == 200


def test_the_longest_wait_is_the_one_that_is_said(limited, member):
    me = limited(user="1/minute", costly="1/hour").as_(member)
    me.get(f"{ME}/export")

    assert me.get(f"{ME}/export").headers["Retry-After"] == "3600"
    assert me.get(ME).headers["Retry-After"] == "60"


# Whose


def test_a_person_is_counted_as_one_in_all_sessions_and_apart_from_others(limited, member, other):
    client = limited(user="2/minute")
    sessions = [client.as_(member), client.as_(member)]

    assert [session.get(ME).status_code for session in sessions] == [200, 200]
    assert [session.get(ME).problem for session in sessions] == [LIMITED, LIMITED]
    assert client.as_(other).get(ME).status_code == 200


def test_a_person_has_the_same_limit_at_all_addresses(limited, member):
    me = limited(user="2/minute", address="1/minute").as_(member)

    answers = [me.get(ME, environ_base=address).status_code for address in (HOME, OFFICE, HOME)]

    assert answers == [200, 200, 429]


def test_a_key_is_counted_with_its_tokens_and_apart_from_other_keys(limited, app):
    client = limited(key="3/minute", user="1/minute", address="1/minute")
    account = ServiceAccountFactory()
    key, next_key = key_of(account), key_of(account)
    form = {"grant_type": "client_credentials", "client_id": f"sa_{account.id}", "client_secret": key}

    issued = client.post("/oauth/token", data=form)
    program, with_token = client.with_token(key), client.with_token(issued.json["access_token"])

    assert [left(answer, "key") for answer in (issued, program.get(USERS), with_token.get(USERS))] == [2, 1, 0]
    assert program.get(USERS).problem == with_token.get(USERS).problem == LIMITED
    assert client.post("/oauth/token", data=form).problem == LIMITED
    assert client.with_token(next_key).get(USERS).status_code == 200
    assert client.with_token(key_for("users:read")).get(USERS).status_code == 200


def test_what_is_not_allowed_to_a_program_counts_as_well(limited):
    program = limited(key="2/minute").with_token(key_for("posts:read"))

    assert [program.get(path).status_code for path in (USERS, ME, USERS)] == [403, 403, 429]


@pytest.mark.parametrize("token", [None, "garbage", "rk_garbage", "a.b.c"])
def test_who_is_not_known_is_counted_by_address(limited, token):
    client = limited(address="2/minute")
    stranger = client.with_token(token) if token else client

    answers = [stranger.get(ME, environ_base=HOME) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert stranger.get(ME, environ_base=OFFICE).status_code == 401


def test_a_good_credential_is_good_at_an_address_that_is_used_up(limited, member):
    client = limited(address="1/minute", user="5/minute")
    me = client.as_(member)
    client.get(ME)

    assert client.get(ME).problem == LIMITED
    assert me.get(ME).status_code == 200
    assert left(me.get(ME), "user") == 3


def test_a_bad_secret_at_the_door_of_oauth_counts_for_the_address(limited):
    client = limited(address="2/minute", key="5/minute")
    form = {"grant_type": "client_credentials", "client_id": "sa_1", "client_secret": "garbage"}

    answers = [client.post(path, data=form) for path in ("/oauth/token", "/oauth/introspect", "/oauth/revoke")]

    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert answers[2].problem == LIMITED


@pytest.mark.parametrize(
    ("home", "same", "another"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"),
        ("198.51.100.7", "::ffff:198.51.100.7", "::ffff:198.51.100.8"),
        ("::ffff:c633:6407", "198.51.100.7", "198.51.100.70"),
    ],
)
def test_what_one_person_holds_of_addresses_counts_as_one(limited, home, same, another):
    client = limited(address="2/minute")

    answers = [client.get(ME, environ_base={"REMOTE_ADDR": address}) for address in (home, same, home, another)]

    assert [answer.status_code for answer in answers] == [401, 401, 429, 401]


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP"]
)
def test_forged_addresses_change_nothing(limited, header):
    client = limited(address="2/minute")

    answers = [client.get(ME, headers={header: f"203.0.113.{number}"}) for number in range(3)]

    assert [answer.status_code for answer in answers] == [401, 401, 429]


def test_behind_a_trusted_proxy_its_word_counts_and_no_other(another_app, contract):
    client = Client(another_app(RATE_LIMIT_ADDRESS="1/minute", TRUSTED_PROXIES="1"), contract)

    def ask(forwarded):
        return client.get(ME, headers={"X-Forwarded-For": forwarded}).status_code

    assert [ask("198.51.100.1"), ask("198.51.100.2")] == [401, 401]
    assert [ask("203.0.113.9, 198.51.100.1"), ask("198.51.100.2")] == [429, 429]


# What


def test_these_operations_are_costly_and_those_are_not_limited(app, limited, member):
    client = limited(key="100/minute", user="100/minute", address="100/minute", costly="100/minute")
    post = PostFactory(author=member)
    requests = {operation: prepared(*operation, member, post) for operation in operations_of(app)}

    found = {}
    for (method, rule), (path, sent) in requests.items():
        caller = client if rule.startswith("/oauth/") else client.as_(UserFactory(admin=True))
        found[method, rule] = names(caller.send(method, path, buffered=True, **sent))

    assert {operation for operation, limits in found.items() if "costly" in limits} == COSTLY
    assert {operation for operation, limits in found.items() if not limits} == {
        *(("GET", rule) for rule in UNLIMITED),
        *FORM_PAGES,
    }
    for (_, rule), limits in found.items():
        kind = "address" if rule.startswith(("/api/v1/auth/", "/account/")) and "logout" not in rule else "user"
        assert set(limits) <= {"key" if rule.startswith("/oauth/") else kind, "costly"}


def test_a_search_is_costly_and_a_list_is_not(limited, support):
    as_support = limited(user="10/minute", costly="1/minute").as_(support)

    assert names(as_support.get(f"{USERS}?sort=name")) == ["user"]
    assert names(as_support.get(f"{USERS}?q=ada")) == ["user", "costly"]
    assert as_support.get(f"{USERS}?q=ada").problem == LIMITED
    assert as_support.get(f"{USERS}?sort=name").status_code == 200


def test_who_may_do_nothing_costly_any_more_may_do_the_rest(limited, member):
    client = limited(user="10/minute", address="10/minute", costly="2/minute")
    me = client.as_(member)
    signed_in = [sign_in(client, member.email).status_code for _ in range(3)]

    assert signed_in == [200, 200, 429]
    assert client.post("/api/v1/auth/refresh", json={"refresh_token": "garbage"}).status_code == 401
    assert me.get(f"{ME}/export").status_code == 200


def test_a_refused_sign_in_hashes_nothing_and_counts_no_attempt(limited, member, nothing_changes):
    client = limited(costly="1/minute")
    sign_in(client, member.email)

    with nothing_changes():
        refused = [sign_in(client, member.email, "a wrong password").problem for _ in range(10)]

    assert refused == [LIMITED] * 10


def test_wrong_passwords_are_slowed_down_as_before(limited, member):
    client = limited(address="100/minute", costly="100/minute")

    answers = [sign_in(client, member.email, "a wrong password") for _ in range(6)]

    assert [answer.problem for answer in answers] == [(401, "invalid_credentials")] * 5 + [(429, "too_many_attempts")]
    assert names(answers[-1]) == ["address", "costly"]


def test_a_preflight_costs_nothing(another_app, contract):
    client = Client(another_app(RATE_LIMIT_ADDRESS="1/minute", CORS_ORIGINS="https://app.example.com"), contract)
    asks = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "GET"}

    for _ in range(3):
        assert client.send("OPTIONS", ME, headers=asks).status_code == 204

    assert client.get(ME).status_code == 401


def test_a_page_that_sets_a_password_is_limited(limited):
    client = limited(address="5/minute", costly="1/minute")
    form = {"token": "garbage", "password": "a good password"}

    answers = [client.post("/account/reset", data=form) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]
    assert client.get("/account/reset?token=garbage").status_code == 200


# Off


def test_what_is_switched_off_is_not_counted(limited, member):
    client = limited(address="1/minute", costly="1/minute")

    answers = [client.as_(member).get(ME) for _ in range(3)]
    costly = client.as_(member).get(f"{ME}/export")

    assert [names(answer) for answer in answers] == [[]] * 3
    assert names(costly) == ["costly"]


def test_where_all_is_switched_off_nothing_is_said(client, member):
    assert names(client.as_(member).get(f"{ME}/export")) == []


def test_a_user_with_a_number_of_a_key_is_somebody_else(limited):
    user = UserFactory(admin=True)
    client = limited(user="1/minute", key="1/minute")
    keys = [key_for("users:read") for _ in range(3)]

    assert client.as_(user).get(USERS).status_code == 200
    assert [client.with_token(key).get(USERS).status_code for key in keys] == [200] * 3
