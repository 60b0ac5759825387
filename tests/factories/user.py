"""Users."""

from functools import cache

import factory

from models import User
from models.base import now
from service import normal, passwords
from tests.factories.base import RowFactory

PASSWORD = "correct horse battery staple"


@cache
def hash_of_password() -> str:
    """Return the hash of PASSWORD, made once: every user of the tests has it."""
    return passwords.hash_of(PASSWORD)


class UserFactory(RowFactory):
    """An active member; traits: support, admin, suspended, deleted."""

    class Meta:
        model = User

    class Params:
        support = factory.Trait(role="support")
        admin = factory.Trait(role="admin")
        suspended = factory.Trait(is_active=False)
        deleted = factory.Trait(deleted_at=factory.LazyFunction(now))

    email = factory.Sequence(lambda number: f"person{number}@example.com")
    email_key = factory.LazyAttribute(lambda user: normal.email_key(user.email))
    name = factory.Sequence(lambda number: f"Person {number}")
    name_key = factory.LazyAttribute(lambda user: normal.name_key(user.name))
    password_hash = factory.LazyFunction(hash_of_password)
