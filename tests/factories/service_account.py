"""Service accounts."""

import factory

from models import ServiceAccount
from service.service_accounts import SCOPES
from tests.factories.base import RowFactory
from tests.factories.user import UserFactory


class ServiceAccountFactory(RowFactory):
    """A program that may do whatever a program can; whoever made it is made, an admin, if none is given."""

    class Meta:
        model = ServiceAccount

    class Params:
        maker = factory.SubFactory(UserFactory, admin=True)

    name = factory.Sequence(lambda number: f"Program {number}")
    scopes = factory.LazyFunction(lambda: [*SCOPES])
    maker_id = factory.SelfAttribute("maker.id")
