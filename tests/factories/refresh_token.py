"""Refresh tokens."""

from hashlib import sha256
from secrets import token_urlsafe

import factory

from models import RefreshToken
from models.base import now
from tests.factories.base import RowFactory
from tests.factories.session import SessionFactory


def new_refresh_token() -> str:
    """Return a token such as a sign-in gives."""
    return f"rr_{token_urlsafe(32)}"


class RefreshTokenFactory(RowFactory):
    """A refresh token that can be exchanged, kept as the hash of `token`; trait: used."""

    class Meta:
        model = RefreshToken

    class Params:
        session = factory.SubFactory(SessionFactory)
        token = factory.LazyFunction(new_refresh_token)
        used = factory.Trait(used_at=factory.LazyFunction(now))

    session_id = factory.SelfAttribute("session.id")
    token_hash = factory.LazyAttribute(lambda row: sha256(row.token.encode()).hexdigest())
