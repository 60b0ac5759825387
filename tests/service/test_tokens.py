"""Access tokens: the ring of keys, which one signs, and which tokens are believed."""

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flask import Flask

from config.development import new_signing_key
from service import tokens
from service.errors import InvalidToken
from service.tokens import KeyRing

OLD, NEW, FOREIGN = (new_signing_key() for _ in range(3))
ISSUER = "https://users.example.com"
CLAIMS = ("iss", "aud", "sub", "sid", "jti", "iat", "exp")


@pytest.fixture
def ring():
    """Sign with the newer of two keys."""
    app = Flask(__name__)
    app.extensions["key_ring"] = loaded(OLD + NEW)
    with app.app_context():
        yield app.extensions["key_ring"]


def loaded(source: str) -> KeyRing:
    return KeyRing.load(source, issuer=ISSUER)


def pem(key: Any) -> str:
    """Return a private key as PEM."""
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *form).decode()


def public_pem(text: str) -> str:
    """Return the public half of a private key as PEM."""
    public = serialization.load_pem_private_key(text.encode(), None).public_key()
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(*form).decode()


def forged(key: str = NEW, *, headers: dict[str, Any] | None = None, algorithm: str = "ES256", **claims: Any) -> str:
    """Return a token like ours but for some claims or headers; None takes a claim away."""
    issued = int(time.time())
    good = {"iss": ISSUER, "aud": "rollcall", "sub": "42", "sid": "7", "jti": "x", "iat": issued, "exp": issued + 900}
    changed = {name: value for name, value in {**good, **claims}.items() if value is not None}
    ours = {"typ": "at+jwt", "kid": name_of(key) if algorithm == "ES256" else name_of(NEW)}
    return jwt.encode(changed, key, algorithm=algorithm, headers={**ours, **(headers or {})})


def name_of(key: str) -> str:
    """Return the name under which a private key is published."""
    return loaded(key).public_keys()[0]["kid"]


def kid_of(token: str) -> str:
    """Return the name of the key that a token says it is signed by."""
    return jwt.get_unverified_header(token)["kid"]


def is_for(token: str) -> tuple[int, int]:
    """Return the user and session of a token that is believed."""
    claims = tokens.read(token)
    return claims.user_id, claims.session_id


# The ring


@pytest.mark.parametrize("source", ["folder", "text"])
def test_the_last_key_signs_and_every_key_is_published(tmp_path, source):
    (tmp_path / "0002.pem").write_text(NEW)
    (tmp_path / "0001.pem").write_text(OLD)
    (tmp_path / "0003.pem.bak").write_text("not a key")

    ring = loaded(str(tmp_path) if source == "folder" else f"{OLD}\n{NEW}")

    assert [key["kid"] for key in ring.public_keys()] == [name_of(OLD), name_of(NEW)]
    assert ring.current.jwk["kid"] == name_of(NEW)


def test_a_key_rotates_without_signing_anyone_out(ring):
    with_old, with_new = forged(OLD), tokens.issue(user_id=42, session_id=7)

    assert (kid_of(with_old), kid_of(with_new)) == (name_of(OLD), name_of(NEW))
    assert is_for(with_old) == is_for(with_new) == (42, 7)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(pem(rsa.generate_private_key(65537, 2048)), id="RSA"),
        pytest.param(pem(ed25519.Ed25519PrivateKey.generate()), id="Ed25519"),
        pytest.param(pem(ec.generate_private_key(ec.SECP384R1())), id="P-384"),
        pytest.param(pem(ec.generate_private_key(ec.SECP256K1())), id="secp256k1"),
        pytest.param(public_pem(NEW), id="public"),
        pytest.param("-----BEGIN PRIVATE KEY-----\nbm8=\n-----END PRIVATE KEY-----", id="damaged"),
        pytest.param("-----BEGIN", id="cut"),
        pytest.param(f"{NEW}{public_pem(OLD)}", id="one of two"),
    ],
)
def test_what_is_no_private_p256_key_is_refused(tmp_path, text):
    (tmp_path / "0001.pem").write_text(text)

    for source in (text, str(tmp_path)) if text.count("BEGIN") == 1 else (text,):
        with pytest.raises(ValueError):
            loaded(source)


def test_a_key_under_a_passphrase_is_refused():
    form = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"a passphrase")
    text = ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, *form).decode()

    with pytest.raises(ValueError):
        loaded(text)


def test_a_ring_without_a_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no key"):
        loaded(str(tmp_path))


def test_only_the_public_members_of_a_key_are_published(ring):
    for jwk in ring.public_keys():
        assert set(jwk) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (jwk["kty"], jwk["crv"], jwk["use"], jwk["alg"]) == ("EC", "P-256", "sig", "ES256")
    published = json.dumps(ring.public_keys())
    for key in (OLD, NEW):
        secret = serialization.load_pem_private_key(key.encode(), None).private_numbers().private_value
        assert urlsafe_b64encode(secret.to_bytes(32)).rstrip(b"=").decode() not in published


def test_the_name_of_a_key_is_its_thumbprint(ring):
    for jwk in ring.public_keys():
        members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
        digest = sha256(json.dumps(members, separators=(",", ":")).encode()).digest()

        assert jwk["kid"] == urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_a_coordinate_that_begins_with_zeros_keeps_its_length():
    keys = (ec.derive_private_key(number, ec.SECP256R1()) for number in range(1, 1000))
    short = next(key for key in keys if key.public_key().public_numbers().x < 2**248)

    (jwk,) = loaded(pem(short)).public_keys()

    assert len(jwk["x"]) == len(jwk["y"]) == 43


def test_a_published_key_verifies_a_token(ring):
    token = tokens.issue(user_id=42, session_id=7)
    published = {jwk["kid"]: jwt.PyJWK(jwk) for jwk in ring.public_keys()}

    claims = jwt.decode(token, published[kid_of(token)], algorithms=["ES256"], audience="rollcall", issuer=ISSUER)

    assert (claims["sub"], claims["sid"]) == ("42", "7")


# What a token says


def test_a_token_says_what_the_standard_asks(ring):
    tokens_of_one_session = {tokens.issue(user_id=42, session_id=7) for _ in range(2)}

    for token in tokens_of_one_session:
        claims = jwt.decode(token, options={"verify_signature": False})
        assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "at+jwt", "kid": kid_of(token)}
        assert (claims["iss"], claims["aud"], claims["sub"], claims["sid"]) == (ISSUER, "rollcall", "42", "7")
        assert claims["exp"] - claims["iat"] == tokens.LIFETIME.total_seconds() == 900
    assert len(tokens_of_one_session) == 2


def test_a_token_of_a_program_says_what_the_standard_asks_and_names_no_person(ring):
    token = tokens.issue_to_program(client_id="sa_7", token_id=42)

    claims = jwt.decode(token, options={"verify_signature": False})

    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "at+jwt", "kid": kid_of(token)}
    assert (claims["iss"], claims["aud"], claims["tid"]) == (ISSUER, "rollcall", "42")
    assert claims["sub"] == claims["client_id"] == "sa_7" and "sid" not in claims
    assert claims["exp"] - claims["iat"] == tokens.LIFETIME.total_seconds()
    assert tokens.read(token) == (claims["iat"], claims["exp"], 0, 0, 42)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: "", id="nothing"),
        pytest.param(lambda: "a.b.c", id="no token"),
        pytest.param(lambda: forged(FOREIGN), id="foreign key"),
        pytest.param(lambda: forged(FOREIGN, headers={"kid": name_of(NEW)}), id="stolen name"),
        pytest.param(lambda: forged(headers={"typ": "JWT"}), id="other type"),
        pytest.param(lambda: forged(headers={"jku": "https://evil.example/keys"}), id="key address"),
        pytest.param(lambda: forged(headers={"crit": ["exp"]}), id="extension"),
        pytest.param(lambda: forged("", algorithm="none"), id="not signed"),
        pytest.param(lambda: forged("0" * 64, algorithm="HS256"), id="HMAC"),
        pytest.param(lambda: forged(iss="https://other.example.com"), id="other issuer"),
        pytest.param(lambda: forged(aud="other"), id="other audience"),
        pytest.param(lambda: forged(aud=["rollcall", "other"]), id="two audiences"),
        pytest.param(lambda: forged(exp=int(time.time()) - 60), id="expired"),
        pytest.param(lambda: forged(iat=int(time.time()) + 3600), id="from tomorrow"),
        pytest.param(lambda: forged(exp=int(time.time()) + 901), id="lives too long"),
        pytest.param(lambda: forged(nbf=int(time.time()) + 3600), id="not yet"),
        pytest.param(lambda: forged(sub="ada"), id="no number"),
        pytest.param(lambda: forged(sid=[7]), id="list"),
        pytest.param(lambda: forged(x="x" * 2048), id="too long"),
        pytest.param(lambda: forged() + "=", id="padded"),
        pytest.param(lambda: forged().rpartition(".")[0] + ".", id="signature cut off"),
        pytest.param(lambda: tampered(forged()), id="claims changed"),
        *[pytest.param(lambda name=name: forged(**{name: None}), id=f"no {name}") for name in CLAIMS],
        pytest.param(lambda: forged(client_id="sa_7"), id="a program's without its number"),
        *[
            pytest.param(lambda tid=tid: forged(client_id="sa_7", tid=tid), id=f"a program's of number {tid}")
            for tid in ("0", "-1", str(2**63), "x", "", [42], {})
        ],
    ],
)
def test_a_token_that_we_did_not_write_is_not_believed(ring, token):
    with pytest.raises(InvalidToken):
        tokens.read(token())


def tampered(token: str) -> str:
    """Return a token whose subject was changed after it was signed."""
    header, claims, signature = token.split(".")
    changed = json.loads(urlsafe_b64decode(claims + "==")) | {"sub": "1"}
    return f"{header}.{urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b'=').decode()}.{signature}"


def test_a_clock_half_a_minute_behind_signs_nobody_out(ring):
    now = int(time.time())

    assert is_for(forged(iat=now - 880, exp=now - 10)) == (42, 7)
    assert is_for(forged(iat=now + 20, exp=now + 900)) == (42, 7)


def test_a_token_that_was_good_ends_with_its_time(ring, monkeypatch):
    token = tokens.issue(user_id=42, session_id=7)
    assert is_for(token) == (42, 7)

    late = time.time() + tokens.LIFETIME.total_seconds() + 60
    monkeypatch.setattr(time, "time", lambda: late)

    with pytest.raises(InvalidToken):
        tokens.read(token)


def test_what_is_no_token_of_ours_is_not_remembered(ring):
    for junk in (f"junk {number} {'x' * 8000}" for number in range(10)):
        with pytest.raises(InvalidToken):
            tokens.read(junk)

    assert ring.verified.cache_info().currsize == 0
