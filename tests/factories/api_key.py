"""API keys."""

import secrets
import zlib
from datetime import timedelta
from hashlib import sha256
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

import factory

from models import ApiKey
from models.base import now
from tests.factories.base import RowFactory
from tests.factories.service_account import ServiceAccountFactory

LETTERS = digits + ascii_uppercase + ascii_lowercase


def new_key() -> str:
    """Return a key that is well formed, and nobody's yet."""
    return with_checksum("rk_" + "".join(secrets.choice(LETTERS) for _ in range(30)))


def with_checksum(secret: str) -> str:
    """Return a secret with its CRC-32 behind it, in six letters."""
    number = zlib.crc32(secret.encode())
    return secret + "".join(LETTERS[number // len(LETTERS) ** place % len(LETTERS)] for place in range(5, -1, -1))


class ApiKeyFactory(RowFactory):
    """A live key that was used just now, kept as the hash of `text`; traits: unused, expired, revoked."""

    class Meta:
        model = ApiKey

    class Params:
        account = factory.SubFactory(ServiceAccountFactory)
        text = factory.LazyFunction(new_key)
        unused = factory.Trait(last_used_at=None)
        expired = factory.Trait(expires_at=factory.LazyFunction(lambda: now() - timedelta(seconds=1)))
        revoked = factory.Trait(revoked_at=factory.LazyFunction(now))

    service_account_id = factory.SelfAttribute("account.id")
    prefix = factory.LazyAttribute(lambda row: row.text[:11])
    key_hash = factory.LazyAttribute(lambda row: sha256(row.text.encode()).hexdigest())
    last_used_at = factory.LazyFunction(now)


def key_of(account: Any, **fields: Any) -> str:
    """Make a key of a service account, and return its text."""
    text = new_key()
    ApiKeyFactory(account=account, text=text, **fields)
    return text


def key_for(*scopes: str, **fields: Any) -> str:
    """Make a program that may do what the scopes name, and return its key."""
    return key_of(ServiceAccountFactory(scopes=[*scopes]), **fields)
