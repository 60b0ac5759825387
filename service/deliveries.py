"""Deliveries: each event on its way to each endpoint that wants it, tried for about a day.

The form and the signature are those of Standard Webhooks (https://www.standardwebhooks.com).
"""

import logging
from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import InstrumentedAttribute

from models import Delivery, Event, Webhook
from models.base import now
from models.paging import Page, PageRequest, page_of
from models.rows import delete_some, insert_row, update_row
from models.statements import Record, execute, fetch_all, fetch_one, unit_of_work
from service import feed, webhooks
from service.errors import DeliveryPending, NotFound, WebhookDisabled
from service.identity import Identity
from service.jobs.queue import enqueue
from service.outcomes import Accepted

log = logging.getLogger("rollcall.deliveries")

KEPT = timedelta(days=30)
STATES = ("pending", "delivered", "failed")
SORTS: dict[str, InstrumentedAttribute[Any]] = {"id": Delivery.id}

_IS_BEHIND = select(Webhook.id).where(Webhook.disabled_at.is_(None), Webhook.position < bindparam("last")).limit(1)
_BEHIND = (
    select(Webhook)
    .where(Webhook.disabled_at.is_(None), Webhook.position < bindparam("last"))
    .order_by(Webhook.position)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_NEXT_EVENTS = (
    select(Event.id, Event.position, Event.type, Event.subject_id)
    .where(Event.position > bindparam("after"), Event.position <= bindparam("last"))
    .order_by(Event.position)
    .limit(200)
)
_ADVANCE = update(Webhook).where(Webhook.id == bindparam("webhook_id")).values(position=bindparam("new_position"))
_OF_WEBHOOK = (
    select(
        *(Delivery.id, Event.position.label("event_id"), Event.type.label("event_type"), Delivery.state),
        *(Delivery.attempts, Delivery.response_status, Delivery.duration_ms, Delivery.error),
        *(Delivery.next_attempt_at, Delivery.attempted_at, Delivery.created_at),
    )
    .join(Event, Event.id == Delivery.event_id)
    .where(Delivery.webhook_id == bindparam("webhook_id"))
)
_OF_WEBHOOK_IN_STATE = _OF_WEBHOOK.where(Delivery.state == bindparam("state"))
_LOCKED = select(Delivery).where(Delivery.id == bindparam("delivery_id")).with_for_update()
_FORGET_OLD = delete_some(Delivery, Delivery.created_at < bindparam("before"), Delivery.state != "pending")


def fan_out() -> bool:
    """Make the deliveries of the next events for the endpoint that is furthest behind; tell whether there was one."""
    last = feed.last_position()
    if fetch_one(_IS_BEHIND, last=last) is None:
        return False
    with unit_of_work():
        webhook = fetch_one(_BEHIND, last=last)
        if webhook is None:
            return False  # Another worker is at it.
        following = fetch_all(_NEXT_EVENTS, after=webhook.position, last=last)
        for event in following:
            if webhooks.wants(webhook, event):
                _prepare(webhook, event.id)
        execute(_ADVANCE, webhook_id=webhook.id, new_position=following[-1].position if following else last)
    return True


def page_of_webhook(webhook_id: int, page: PageRequest, *, state: str | None = None) -> Page:
    """Return a page of an endpoint's deliveries; raises NotFound."""
    webhooks.read(webhook_id)
    if state is None:
        return page_of(_OF_WEBHOOK, page, SORTS, webhook_id=webhook_id)
    return page_of(_OF_WEBHOOK_IN_STATE, page, SORTS, webhook_id=webhook_id, state=state)


def redeliver(webhook_id: int, delivery_id: int, *, actor: Identity) -> Accepted:
    """Deliver once more what was delivered or given up; raises NotFound, WebhookDisabled, DeliveryPending."""
    webhook = webhooks.locked(webhook_id)
    if webhook.disabled_at is not None:
        raise WebhookDisabled
    delivery = fetch_one(_LOCKED, delivery_id=delivery_id)
    if delivery is None or delivery.webhook_id != webhook_id:
        raise NotFound
    if delivery.state == "pending":
        raise DeliveryPending
    update_row(Delivery, delivery, state="pending", next_attempt_at=now())
    _ask_for(delivery)
    log.info("delivery asked for again", extra={"delivery": delivery.id, "actor": actor.user_id})
    return Accepted("The delivery is on its way; it shows how it went.")


def forget_old() -> int:
    """Remove deliveries that came to an end long ago, and return how many, in the running unit of work."""
    return execute(_FORGET_OLD, before=now() - KEPT)


def _prepare(webhook: Record, event_id: int) -> None:
    moment = now()
    _ask_for(insert_row(Delivery, webhook_id=webhook.id, event_id=event_id, next_attempt_at=moment))


def _ask_for(delivery: Record) -> None:
    enqueue("deliver", lane=webhooks.lane_of(delivery.webhook_id), delivery_id=delivery.id)
