"""Signing in and out, and the access tokens that are accepted and refused."""

import base64
import hmac
import re
import time
from hashlib import sha256
from uuid import uuid4

import jwt
import orjson
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from config.development import new_signing_key
from models import User
from models.base import db
from service import passwords
from tests.client import Client
from tests.conftest import SIGNING_KEY
from tests.factories.session import SessionFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.resources.answers import pointers

LOGIN = "/api/v1/auth/login"
LOGOUT = "/api/v1/auth/logout"
ME = "/api/v1/me"


def credentials(user, password=PASSWORD):
    return {"email": user.email, "password": password}


def encoded(value):
    """Return a part of a token: bytes, or JSON, in base64url."""
    content = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decoded(part):
    return orjson.loads(base64.urlsafe_b64decode(part + "=="))


# Signing in


def test_right_password_begins_a_session(client, member):
    response = client.post(LOGIN, json=credentials(member))

    assert response.status_code == 200
    assert set(response.json) == {"access_token", "token_type", "expires_in", "refresh_token", "csrf_token", "user"}
    assert (response.json["token_type"], response.json["expires_in"]) == ("Bearer", 900)
    assert re.fullmatch(r"rr_[A-Za-z0-9_-]{43}", response.json["refresh_token"])
    assert response.json["csrf_token"] is None
    assert response.json["user"]["id"] == member.id
    assert response.headers["Cache-Control"] == "no-store"
    (cookie,) = response.headers.getlist("Set-Cookie")
    assert cookie.startswith("rollcall-device=")
    assert client.with_token(response.json["access_token"]).get(ME).json.items() <= response.json["user"].items()


def test_signing_in_does_not_show_private_metadata(client):
    member = UserFactory(private_metadata={"note": "not for them"})

    response = client.post(LOGIN, json=credentials(member))

    assert response.status_code == 200
    assert "private_metadata" not in response.json["user"] and b"not for them" not in response.data


def test_token_says_who_and_which_session_and_nothing_personal(client, member):
    issued = int(time.time())
    token = client.post(LOGIN, json=credentials(member)).json["access_token"]

    header, claims = (decoded(part) for part in token.split(".")[:2])

    (key,) = client.get("/.well-known/jwks.json").json["keys"]
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": key["kid"]}
    assert claims.keys() == {"iss", "aud", "sub", "sid", "jti", "iat", "exp"}
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("http://localhost", "rollcall", str(member.id))
    assert claims["sid"].isdecimal()
    assert issued <= claims["iat"] == claims["exp"] - 900
    assert jwt.decode(token, jwt.PyJWK(key), audience="rollcall", issuer="http://localhost") == claims


def test_each_sign_in_is_a_session_of_its_own(client, member):
    tokens = [client.post(LOGIN, json=credentials(member)).json["access_token"] for _ in range(2)]
    first, second = (decoded(token.split(".")[1]) for token in tokens)

    client.with_token(tokens[0]).post(LOGOUT)

    assert first["sid"] != second["sid"] and first["jti"] != second["jti"]
    assert client.with_token(tokens[0]).get(ME).problem == (401, "invalid_token")
    assert client.with_token(tokens[1]).get(ME).status_code == 200


def test_all_who_cannot_sign_in_get_the_same_answer(client, nothing_changes):
    member, no_password = UserFactory(), UserFactory(password_hash=None)
    suspended, deleted = UserFactory(suspended=True), UserFactory(deleted=True)
    attempts = [
        {"email": "unknown@example.com", "password": PASSWORD},
        {"email": "not an address", "password": PASSWORD},
        credentials(member, "a wrong password"),
        credentials(suspended, "a wrong password"),
        credentials(deleted),
        credentials(deleted, "a wrong password"),
        credentials(no_password),
        credentials(member, PASSWORD[:-1]),
        credentials(member, PASSWORD.upper()),
        credentials(member, f"{PASSWORD} "),
        credentials(member, "x" * 1024),
    ]

    with nothing_changes(but="throttles"):
        answers = [client.post(LOGIN, json=attempt) for attempt in attempts]

    for response in answers:
        assert "Set-Cookie" not in response.headers
        assert response.problem == (401, "invalid_credentials")
        assert {**response.json, "request_id": ""} == {**answers[0].json, "request_id": ""}
        assert {**response.headers, "X-Request-ID": ""} == {**answers[0].headers, "X-Request-ID": ""}


def test_suspended_user_learns_so_only_with_the_right_password(client, nothing_changes):
    user = UserFactory(suspended=True)

    with nothing_changes(but="throttles"):
        response = client.post(LOGIN, json=credentials(user))

    assert response.problem == (403, "account_suspended")


@pytest.mark.parametrize(
    ("stored", "given"), [("pässword 1é", "pa\u0308ssword 1e\u0301"), ("pa\u0308ssword 1e\u0301", "pässword 1é")]
)
def test_password_is_the_same_in_nfc_and_nfd(client, stored, given):
    client.post("/api/v1/users", json={"email": "ada@example.com", "name": "Ada", "password": stored})

    response = client.post(LOGIN, json={"email": "ada@example.com", "password": given})

    assert response.status_code == 200


@pytest.mark.parametrize(
    "change", [str.upper, str.title, lambda text: f" {text}", lambda text: text.replace(" ", "  ")]
)
def test_password_is_otherwise_taken_as_it_is(client, member, nothing_changes, change):
    with nothing_changes(but="throttles"):
        response = client.post(LOGIN, json=credentials(member, change(PASSWORD)))

    assert response.problem == (401, "invalid_credentials")


def test_full_width_password_is_another(client, nothing_changes):
    user = UserFactory(password_hash=passwords.hash_of("password1"))

    with nothing_changes(but="throttles"):
        response = client.post(LOGIN, json=credentials(user, "ｐａｓｓｗｏｒｄ１"))

    assert response.problem == (401, "invalid_credentials")


def test_long_passwords_that_differ_at_the_end_are_different(client, nothing_changes):
    user = UserFactory(password_hash=passwords.hash_of("a" * 79 + "b"))

    with nothing_changes(but="throttles"):
        response = client.post(LOGIN, json=credentials(user, "a" * 79 + "c"))

    assert response.problem == (401, "invalid_credentials")


@pytest.mark.parametrize(
    "spelling", ["ADA@BÜCHER.example", "ada@xn--bcher-kva.example", "ａｄａ＠bücher.example", " Ada@bücher.EXAMPLE "]
)
def test_address_signs_in_however_it_is_spelled(client, spelling):
    user = UserFactory(email="ada@bücher.example")

    response = client.post(LOGIN, json={"email": spelling, "password": PASSWORD})

    assert response.status_code == 200
    assert response.json["user"]["id"] == user.id


def test_outdated_hash_is_renewed_at_sign_in(client, app):
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    user = UserFactory(password_hash=weak)

    first = client.post(LOGIN, json=credentials(user))
    with app.app_context():
        renewed = db.session.get(User, user.id).password_hash
    second = client.post(LOGIN, json=credentials(user))

    assert (first.status_code, second.status_code) == (200, 200)
    assert renewed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    with app.app_context():
        assert db.session.get(User, user.id).password_hash == renewed


def test_outdated_hash_is_not_renewed_by_a_wrong_password(client, nothing_changes):
    user = UserFactory(password_hash=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD))

    with nothing_changes(but="throttles"):
        response = client.post(LOGIN, json=credentials(user, "a wrong password"))

    assert response.problem == (401, "invalid_credentials")


@pytest.mark.parametrize(
    "password_hash", ["", "garbage", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=1,t=1,p=1$x$y", "ü"]
)
def test_unreadable_hash_lets_nobody_in(client, nothing_changes, password_hash):
    user = UserFactory(password_hash=password_hash)

    with nothing_changes(but="throttles"):
        response = client.post(LOGIN, json=credentials(user))

    assert response.problem == (401, "invalid_credentials")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"password": PASSWORD}, "/json/email"),
        ({"email": "a@example.com"}, "/json/password"),
        ({"email": "", "password": PASSWORD}, "/json/email"),
        ({"email": "a@example.com", "password": ""}, "/json/password"),
        ({"email": "a@example.com", "password": "x" * 1025}, "/json/password"),
        ({"email": "a" * 321, "password": PASSWORD}, "/json/email"),
        ({"email": "a@example.com", "password": PASSWORD, "otp": "1"}, "/json/otp"),
        ({"email": "a@example.com", "password": PASSWORD, "role": "admin"}, "/json/role"),
        ({"email": {"$ne": None}, "password": PASSWORD}, "/json/email"),
        ({"email": "a@example.com", "password": {"$ne": None}}, "/json/password"),
        ({"email": "a@example.com", "password": None}, "/json/password"),
        ({"email": "a@example.com", "password": PASSWORD, "transport": "header"}, "/json/transport"),
        ({"email": "a@example.com", "password": PASSWORD, "transport": None}, "/json/transport"),
        ({"email": "a@example.com", "password": PASSWORD, "remember": "yes"}, "/json/remember"),
        ({"email": "a@example.com", "password": PASSWORD, "device": "x"}, "/json/device"),
    ],
)
def test_bad_field_is_named(client, nothing_changes, body, pointer):
    with nothing_changes():
        response = client.post(LOGIN, json=body)

    assert response.problem == (422, "invalid")
    assert pointers(response) == [pointer]


def test_what_is_remembered_of_a_sign_in_says_nothing_personal(client, snapshot, member):
    client.post(LOGIN, json=credentials(member, "a wrong password"))
    client.post(LOGIN, json=credentials(member), headers={"X-Request-ID": "a-request-id"})

    rows = snapshot()
    (event,) = rows["events"]
    assert (event.type, event.user_id, event.actor_id, event.session_id) == ("session.created", member.id, None, None)
    assert (event.request_id, event.address, event.data) == ("a-request-id", "127.0.0.1", {})
    for table in ("events", "throttles", "refresh_tokens"):
        assert member.email not in str(rows[table]) and member.name not in str(rows[table])
        assert "password" not in str(rows[table])


def test_credential_that_is_sent_along_is_not_looked_at(client, member):
    response = client.with_token("garbage").post(LOGIN, json=credentials(member))

    assert response.status_code == 200


@pytest.mark.parametrize("path", [LOGIN, LOGOUT])
def test_password_in_the_query_string_is_refused(as_member, nothing_changes, path):
    with nothing_changes():
        response = as_member.post(f"{path}?password=x", json={"email": "a@example.com", "password": PASSWORD})

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == ["/query/password"]


# Signing out


def test_signing_out_ends_this_session_only(client, as_member, member):
    second_session = client.as_(member)

    response = as_member.post(LOGOUT)

    assert response.status_code == 204
    assert as_member.get(ME).problem == (401, "invalid_token")
    assert second_session.get(ME).status_code == 200


def test_signing_out_twice_is_refused(as_member, nothing_changes):
    as_member.post(LOGOUT)

    with nothing_changes():
        response = as_member.post(LOGOUT)

    assert response.problem == (401, "invalid_token")


# Who holds a token


@pytest.mark.parametrize("state", ["suspended", "deleted"])
def test_token_of_a_user_who_may_not_sign_in_is_refused(client, state):
    own = client.as_(UserFactory(**{state: True}))

    assert own.get(ME).problem == (401, "invalid_token")


@pytest.mark.parametrize("state", ["ended", "expired"])
def test_token_of_a_session_that_is_over_is_refused(client, forge, member, state):
    session = SessionFactory(user=None, user_id=member.id, **{state: True})

    response = client.with_token(forge(sid=str(session.id))).get(ME)

    assert response.problem == (401, "invalid_token")


def test_token_of_anothers_session_is_refused(client, forge, other):
    session = SessionFactory(user=None, user_id=other.id)

    response = client.with_token(forge(sid=str(session.id))).get(ME)

    assert response.problem == (401, "invalid_token")


def test_next_request_sees_a_demotion(client, as_admin):
    second = UserFactory(admin=True)
    as_second = client.as_(second)

    as_admin.patch(f"/api/v1/users/{second.id}", json={"role": "member"})

    assert as_second.get("/api/v1/users").problem == (401, "invalid_token")


# Tokens


OUR_KEY = serialization.load_pem_private_key(SIGNING_KEY.encode(), None)


@pytest.fixture
def forge(as_member, member):
    """Return a function that signs a token for a live session of the member, with some claims and headers changed."""
    session = SessionFactory(user=None, user_id=member.id)
    our_header = decoded(as_member.token.split(".")[0])

    def make(*, key=OUR_KEY, algorithm="ES256", headers=None, **claims):
        now = int(time.time())
        standard = {
            "iss": "http://localhost",
            "aud": "rollcall",
            "sub": str(member.id),
            "sid": str(session.id),
            "jti": uuid4().hex,
            "iat": now,
            "exp": now + 900,
        }
        payload = {name: value for name, value in {**standard, **claims}.items() if value is not ...}
        header = {**our_header, "alg": algorithm, **(headers or {})}
        return signed({name: value for name, value in header.items() if value is not ...}, payload, algorithm, key)

    return make


def signed(header, payload, algorithm="ES256", key=OUR_KEY):
    """Return a token, each part of which may be an object or any text or bytes."""
    signing_input = f"{header if isinstance(header, str) else encoded(header)}.{encoded(payload)}"
    return f"{signing_input}.{encoded(signature(signing_input, algorithm, key))}"


def signature(signing_input, algorithm, key):
    if algorithm.lower() in ("none", ""):
        return b""
    if algorithm.startswith("HS"):
        return hmac.digest(key if isinstance(key, bytes) else b"", signing_input.encode(), sha256)
    return jwt.get_algorithm_by_name(algorithm).sign(signing_input.encode(), key)


def test_forged_token_with_nothing_changed_is_accepted(client, forge, member):
    response = client.with_token(forge()).get(ME)

    assert response.json["id"] == member.id


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": "http://localhost/"},
        {"iss": ["http://localhost"]},
        {"iss": None},
        {"iss": ...},
        {"aud": "another"},
        {"aud": ["rollcall", "another"]},
        {"aud": ["rollcall"]},
        {"aud": None},
        {"aud": ...},
        {"sub": ...},
        {"sub": None},
        {"sub": ""},
        {"sub": "me"},
        {"sub": "-1"},
        {"sub": "0"},
        {"sub": 1},
        {"sub": ["1"]},
        {"sub": "9" * 30},
        {"sid": ...},
        {"sid": None},
        {"sid": "x"},
        {"sid": "9" * 30},
        {"sid": {"$ne": 1}},
        {"jti": ...},
        {"iat": ...},
        {"iat": "now"},
        {"iat": None},
        {"exp": ...},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": 10**18},
        {"exp": 1e300},
        {"exp": [1]},
        {"exp": 0},
        {"exp": -1},
        {"nbf": 4_000_000_000},
    ],
    ids=lambda claims: str(claims)[:20],
)
def test_token_with_another_claim_is_refused(client, forge, nothing_changes, claims):
    token = forge(**claims)

    with nothing_changes():
        response = client.with_token(token).get(ME)

    assert response.problem == (401, "invalid_token")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="rollcall", error="invalid_token"'


@pytest.mark.parametrize(
    ("issued", "expires"),
    [
        (-2000, -1100),
        (-931, -31),
        (0, -1),
        (0, 0),
        (0, 901),
        (0, 10**9),
        (-10_000, 900),
        (120, 900),
        (120, 1020),
        (10**9, 10**9 + 900),
    ],
)
def test_token_outside_its_time_is_refused(client, forge, nothing_changes, issued, expires):
    now = int(time.time())
    token = forge(iat=now + issued, exp=now + expires)

    with nothing_changes():
        response = client.with_token(token).get(ME)

    assert response.problem == (401, "invalid_token")


def test_clocks_may_differ_a_little(client, forge):
    now = int(time.time())

    for shift in (-905, 15):
        assert client.with_token(forge(iat=now + shift, exp=now + shift + 900)).get(ME).status_code == 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", f"1{'0' * 30}", "9" * 5000])
@pytest.mark.parametrize("claim", ["exp", "iat"])
def test_token_with_a_number_that_is_none_is_refused(client, forge, nothing_changes, claim, number):
    header, payload, _ = forge(**{claim: "HERE"}).split(".")
    content = base64.urlsafe_b64decode(payload + "==").replace(b'"HERE"', number.encode())

    with nothing_changes():
        response = client.with_token(signed(header, content)).get(ME)

    assert response.problem == (401, "invalid_token")


@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "JWT"},
        {"typ": "at+JWT"},
        {"typ": "refresh+jwt"},
        {"typ": ...},
        {"kid": "unknown"},
        {"kid": ""},
        {"kid": "../../../../dev/null"},
        {"kid": "' OR '1'='1"},
        {"kid": ["a"]},
        {"kid": {"a": 1}},
        {"kid": "k" * 1500},
        {"kid": 1},
        {"kid": ...},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/keys"},
        {"jwk": {"kty": "EC", "crv": "P-256"}},
        {"x5c": ["MIIB"]},
        {"crit": ["b64"], "b64": False},
        {"crit": ["unknown"], "unknown": 1},
        {"crit": []},
        {"b64": False},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "ES384"},
        {"alg": "RS256"},
        {"alg": "es256"},
        {"alg": ["ES256"]},
        {"alg": None},
        {"alg": ...},
    ],
    ids=lambda headers: str(headers)[:40],
)
def test_token_with_another_header_is_refused(client, forge, nothing_changes, headers):
    token = forge(headers=headers)

    with nothing_changes():
        response = client.with_token(token).get(ME)

    assert response.problem == (401, "invalid_token")


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", ""])
def test_unsigned_token_is_refused(client, forge, algorithm):
    token = forge(algorithm=algorithm)

    assert client.with_token(token).get(ME).problem == (401, "invalid_token")
    assert client.with_token(token.rstrip(".")).get(ME).problem == (401, "invalid_token")


@pytest.mark.parametrize("header", [{}, {"alg": "ES256"}], ids=["honest", "as if ES256"])
@pytest.mark.parametrize("form", ["pem", "der", "jwks", "secret key", "empty"])
def test_token_signed_with_what_is_public_is_refused(client, app, forge, form, header):
    public = OUR_KEY.public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    secret = {
        "pem": public.public_bytes(serialization.Encoding.PEM, spki),
        "der": public.public_bytes(serialization.Encoding.DER, spki),
        "jwks": client.get("/.well-known/jwks.json").data,
        "secret key": app.config["SECRET_KEY"].encode(),
        "empty": b"",
    }[form]

    token = forge(algorithm="HS256", key=secret, headers=header)

    assert client.with_token(token).get(ME).problem == (401, "invalid_token")


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("RS256", rsa.generate_private_key(65_537, 2048)),
        ("ES384", ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["ES256", "RS256", "ES384"],
)
@pytest.mark.parametrize("header", [{}, {"alg": "ES256"}], ids=["honest", "as if ES256"])
def test_token_signed_with_another_key_is_refused(client, forge, algorithm, key, header):
    token = forge(algorithm=algorithm, key=key, headers=header)

    assert client.with_token(token).get(ME).problem == (401, "invalid_token")


def test_token_with_another_payload_under_an_old_signature_is_refused(client, forge, other):
    header, _, old_signature = forge().split(".")
    _, payload, _ = forge(sub=str(other.id)).split(".")

    assert client.with_token(f"{header}.{payload}.{old_signature}").get(ME).problem == (401, "invalid_token")


def test_token_with_any_character_changed_is_refused(client, forge):
    token = forge()
    changed = [token[:at] + ("A" if token[at] != "A" else "Q") + token[at + 1 :] for at in range(0, len(token) - 1, 5)]

    assert {client.with_token(one).get(ME).problem for one in changed} == {(401, "invalid_token")}


@pytest.mark.parametrize(
    "mangle",
    [
        lambda token: token.rpartition(".")[0],
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token[:-4],
        lambda token: f"{token}.",
        lambda token: f"{token}.{token}",
        lambda token: f".{token}",
        lambda token: f"{token}=",
        lambda token: token.swapcase(),
        lambda token: f"{token}{'A' * 2048}",
        lambda token: f"{token} {token}",
        lambda token: f"{token},{token}",
        lambda token: f"{token}, Bearer {token}",
        lambda token: token.replace(".", ".\u00e9", 1),
        lambda token: f'"{token}"',
    ],
)
def test_mangled_token_is_refused(client, forge, mangle):
    response = client.with_token(mangle(forge())).get(ME)

    assert response.problem == (401, "invalid_token")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "a.b.c.d.e",
        "\x80\xff",
        "null",
        "rr_live_0123456789",
        "A" * 100_000,
        f"{encoded([])}.{encoded({})}.x",
        f"{encoded(None)}.{encoded({})}.x",
        f"{encoded(b'[' * 1000)}.{encoded({})}.x",
        f"{encoded(b'{' * 1000)}..",
        f"{encoded(bytes(range(256)))}.x.x",
        f"{encoded({'alg': 'ES256', 'a': 'x' * 9000})}.{encoded({})}.x",
    ],
    ids=lambda token: ascii(token)[:24],
)
def test_garbage_is_no_token(client, nothing_changes, token):
    with nothing_changes():
        response = client.with_token(token).get(ME)

    assert response.problem == (401, "invalid_token")


@pytest.mark.parametrize("content", [b"[]", b"null", b"5", b'"x"', b"", b"{", b"\xff\xfe", b"[" * 1000, b'{"a":' * 300])
def test_payload_that_is_no_object_is_refused(client, forge, content):
    header = forge().partition(".")[0]

    response = client.with_token(signed(header, content)).get(ME)

    assert response.problem == (401, "invalid_token")


@pytest.mark.parametrize(
    "header",
    ["", " ", "Bearer", "Bearer ", "Basic YTpi", "Token {token}", "{token}", "Bearer\t{token}", "Bearer:{token}"],
)
def test_other_credentials_are_none(client, forge, header):
    response = client.get(ME, headers={"Authorization": header.format(token=forge())})

    assert response.problem == (401, "authentication_required")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="rollcall"'


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_scheme_is_read_in_any_case(client, forge, scheme):
    response = client.get(ME, headers={"Authorization": f"{scheme} {forge()}"})

    assert response.status_code == 200


def test_token_elsewhere_than_in_the_header_is_not_seen(client, forge):
    in_query = client.get(f"{ME}?access_token={forge()}")
    in_cookie = client.get(ME, headers={"Cookie": f"access_token={forge()}; Authorization=Bearer {forge()}"})
    in_header = client.get(ME, headers={"X-Access-Token": forge(), "Proxy-Authorization": f"Bearer {forge()}"})

    for response in (in_query, in_cookie, in_header):
        assert response.problem == (401, "authentication_required")


# Keys


def test_key_rotates_without_signing_anyone_out(client, another_app, contract, member):
    new_key = new_signing_key()
    old_token = client.post(LOGIN, json=credentials(member)).json["access_token"]

    during = Client(another_app(SIGNING_KEYS=f"{SIGNING_KEY}\n{new_key}"), contract)
    after = Client(another_app(SIGNING_KEYS=new_key), contract)
    new_token = during.post(LOGIN, json=credentials(member)).json["access_token"]

    assert len(during.get("/.well-known/jwks.json").json["keys"]) == 2
    assert during.with_token(old_token).get(ME).status_code == 200
    assert after.with_token(new_token).get(ME).status_code == 200
    assert after.with_token(old_token).get(ME).problem == (401, "invalid_token")
    assert client.with_token(new_token).get(ME).problem == (401, "invalid_token")


def test_token_of_another_installation_is_refused(client, another_app, contract, member):
    elsewhere = Client(another_app(PUBLIC_URL="https://staging.example"), contract)

    token = elsewhere.post(LOGIN, json=credentials(member)).json["access_token"]

    assert elsewhere.with_token(token).get(ME).status_code == 200
    assert client.with_token(token).get(ME).problem == (401, "invalid_token")
