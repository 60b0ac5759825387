"""Calls of deprecated operations."""

import factory

from models import DeprecatedCall
from models.base import now
from tests.factories.base import RowFactory


class DeprecatedCallFactory(RowFactory):
    """A call of somebody unknown, just made."""

    class Meta:
        model = DeprecatedCall

    day = factory.LazyAttribute(lambda call: call.last_at.date())
    operation = "GET /api/v0/users"
    key_id = 0
    user_id = 0
    calls = 1
    last_at = factory.LazyFunction(now)
