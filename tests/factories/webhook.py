"""Webhooks, and their deliveries."""

from datetime import timedelta

import factory

from models import Delivery, Webhook
from models.base import now
from tests.factories.base import RowFactory
from tests.factories.event import EventFactory


class WebhookFactory(RowFactory):
    """An endpoint that wants everything, from the first event on; traits: disabled, failing."""

    class Meta:
        model = Webhook

    class Params:
        disabled = factory.Trait(disabled_at=factory.LazyFunction(now), disabled_reason="by_request")
        failing = factory.Trait(failing_since=factory.LazyFunction(lambda: now() - timedelta(hours=21)))

    url = factory.Sequence(lambda number: f"https://hooks{number}.example.com/rollcall")
    event_types = ["*"]


class DeliveryFactory(RowFactory):
    """An event on its way to an endpoint, without the job that takes it there; traits: delivered, failed, old."""

    class Meta:
        model = Delivery

    class Params:
        webhook = factory.SubFactory(WebhookFactory)
        event = factory.SubFactory(EventFactory, position=factory.Sequence(lambda number: number + 1))
        tried = factory.Trait(
            attempts=1,
            attempted_at=factory.LazyFunction(now),
            duration_ms=12,
            next_attempt_at=None,
        )
        delivered = factory.Trait(tried=True, state="delivered", response_status=204)
        failed = factory.Trait(tried=True, state="failed", attempts=9, response_status=500)
        old = factory.Trait(created_at=factory.LazyFunction(lambda: now() - timedelta(days=31)))

    webhook_id = factory.SelfAttribute("webhook.id")
    event_id = factory.SelfAttribute("event.id")
    next_attempt_at = factory.LazyFunction(now)
