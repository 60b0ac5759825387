"""Jobs."""

from datetime import timedelta

import factory

from models import Job
from models.base import now
from tests.factories.base import RowFactory


class JobFactory(RowFactory):
    """A job that is due, about an address that nobody has; traits: later, running, failed."""

    class Meta:
        model = Job

    class Params:
        later = factory.Trait(run_at=factory.LazyFunction(lambda: now() + timedelta(hours=1)))
        running = factory.Trait(
            leased=True, attempts=1, run_at=factory.LazyFunction(lambda: now() + timedelta(minutes=1))
        )
        failed = factory.Trait(attempts=32, last_error="OSError", failed_at=factory.LazyFunction(now))

    kind = "reset_password"
    email_key = factory.Sequence(lambda number: f"stranger{number}@example.com")
