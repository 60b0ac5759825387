"""Events."""

import factory

from models import Event
from tests.factories.base import RowFactory
from tests.factories.user import UserFactory


class EventFactory(RowFactory):
    """Something that happened to a user, who did it themself; it has no place in the feed yet."""

    class Meta:
        model = Event

    class Params:
        user = factory.SubFactory(UserFactory)

    type = "user.updated"
    user_id = factory.SelfAttribute("user.id")
    subject_id = factory.SelfAttribute("user_id")
    version = 2
    actor_id = factory.SelfAttribute("user_id")
    request_id = factory.Sequence(lambda number: f"request-{number:08}")
    address = "203.0.113.7"
    data = {"changed": ["name"]}
