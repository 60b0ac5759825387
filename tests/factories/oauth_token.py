"""OAuth tokens."""

from datetime import timedelta
from typing import Any

import factory

from models import OAuthToken
from models.base import now
from service import tokens
from service.service_accounts import SCOPES
from tests.factories.api_key import ApiKeyFactory
from tests.factories.base import Bound, RowFactory


class OAuthTokenFactory(RowFactory):
    """A token that was just given for a key, for all that a program can do; traits: expired, old, revoked."""

    class Meta:
        model = OAuthToken

    class Params:
        key = factory.SubFactory(ApiKeyFactory)
        expired = factory.Trait(expires_at=factory.LazyFunction(lambda: now() - timedelta(minutes=1)))
        old = factory.Trait(expires_at=factory.LazyFunction(lambda: now() - timedelta(days=1, seconds=1)))
        revoked = factory.Trait(revoked_at=factory.LazyFunction(now))

    key_id = factory.SelfAttribute("key.id")
    scopes = factory.LazyFunction(lambda: sorted(SCOPES))
    expires_at = factory.LazyFunction(lambda: now() + tokens.LIFETIME)


def token_for(key: Any, **fields: Any) -> str:
    """Give out a token for a key, and return it."""
    row = OAuthTokenFactory(key=key, **fields)
    with Bound.app.app_context():
        return tokens.issue_to_program(client_id=f"sa_{key.service_account_id}", token_id=row.id)
