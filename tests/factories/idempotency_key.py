"""Idempotency keys."""

import factory

from models import IdempotencyKey
from tests.factories.base import RowFactory


class IdempotencyKeyFactory(RowFactory):
    """The answer to a request that created something, just kept."""

    class Meta:
        model = IdempotencyKey

    key = factory.Sequence(lambda number: f"key {number}")
    fingerprint = "what was sent"
    status = 201
    headers = {"Content-Type": "application/json"}
    body = b"{}"
