"""Throttles."""

import factory

from models import Throttle
from models.base import now
from tests.factories.base import RowFactory


class ThrottleFactory(RowFactory):
    """A single attempt at something, just made."""

    class Meta:
        model = Throttle

    key = factory.Sequence(lambda number: f"key {number}")
    attempts = 1
    seen_at = factory.LazyFunction(now)
