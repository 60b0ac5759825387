"""Events."""

import factory

from models import Event
from tests.factories.base import RowFactory
from tests.factories.user import UserFactory


class EventFactory(RowFactory):
    """Something that happened to a user, who did it themself."""

    class Meta:
        model = Event

    class Params:
        user = factory.SubFactory(UserFactory)

    type = "user.updated"
    user_id = factory.SelfAttribute("user.id")
    actor_id = factory.SelfAttribute("user_id")
    request_id = factory.Sequence(lambda number: f"request-{number:08}")
    address = "203.0.113.7"
    data = {"fields": ["name"]}
