"""Sessions."""

from datetime import timedelta

import factory

from models import Session
from models.base import now
from tests.factories.base import RowFactory
from tests.factories.user import UserFactory


class SessionFactory(RowFactory):
    """A live session; traits: ended, expired."""

    class Meta:
        model = Session

    class Params:
        user = factory.SubFactory(UserFactory)
        ended = factory.Trait(ended_at=factory.LazyFunction(now))
        expired = factory.Trait(expires_at=factory.LazyFunction(lambda: now() - timedelta(seconds=1)))

    user_id = factory.SelfAttribute("user.id")
    amr = ["pwd"]
    idle_expires_at = factory.LazyFunction(lambda: now() + timedelta(days=1))
    expires_at = factory.LazyFunction(lambda: now() + timedelta(days=1))
