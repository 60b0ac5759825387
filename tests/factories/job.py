"""Jobs."""

import factory

from models import Job
from models.base import now
from tests.factories.base import RowFactory


class JobFactory(RowFactory):
    """A job that is due, about an address that nobody has; trait: failed."""

    class Meta:
        model = Job

    class Params:
        failed = factory.Trait(attempts=10, last_error="OSError", failed_at=factory.LazyFunction(now))

    kind = "reset_password"
    email_key = factory.Sequence(lambda number: f"stranger{number}@example.com")
