"""One-time tokens."""

from datetime import timedelta
from hashlib import sha256
from secrets import token_urlsafe

import factory

from models import OneTimeToken
from models.base import now
from tests.factories.base import RowFactory
from tests.factories.user import UserFactory


class OneTimeTokenFactory(RowFactory):
    """What a letter to a user asks for, kept as the hash of `token`; trait: expired."""

    class Meta:
        model = OneTimeToken

    class Params:
        user = factory.SubFactory(UserFactory)
        token = factory.LazyFunction(lambda: token_urlsafe(32))
        expired = factory.Trait(expires_at=factory.LazyFunction(lambda: now() - timedelta(seconds=1)))

    purpose = "verify_email"
    user_id = factory.SelfAttribute("user.id")
    email = factory.SelfAttribute("user.email")
    email_key = factory.SelfAttribute("user.email_key")
    token_hash = factory.LazyAttribute(lambda row: sha256(row.token.encode()).hexdigest())
    expires_at = factory.LazyFunction(lambda: now() + timedelta(hours=1))
