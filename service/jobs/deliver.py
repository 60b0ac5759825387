"""Delivering: an event is told to an endpoint, again and again for about a day if need be.

The form and the signature are those of Standard Webhooks (https://www.standardwebhooks.com).
"""

import hmac
import random
import time
from base64 import b64encode
from datetime import timedelta
from typing import NamedTuple

import orjson
from flask import current_app
from sqlalchemy import bindparam, select

from models import Delivery, Event, Webhook
from models.base import now
from models.rows import update_row
from models.statements import Record, fetch_one, unit_of_work
from service import egress, webhooks
from service.egress import CallFailed
from service.errors import NotFound
from service.jobs import queue
from service.jobs.queue import JobFailed

# How long to wait after the first attempt, the second, and so on; about a day in all.
WAITS = [timedelta(seconds=seconds) for seconds in (5, 60, 300, 1800, 3600, 3 * 3600, 7 * 3600, 13 * 3600)]
LONGEST_RETRY_AFTER = timedelta(hours=1)
SUSTAINED = timedelta(hours=20)  # Who has taken nothing for so long, when a delivery is given up, is given up as well.
GONE = 410
BUSY = frozenset({429, 503})

_PENDING = select(Delivery).where(Delivery.id == bindparam("delivery_id"), Delivery.state == "pending")
_IN_ATTEMPT = _PENDING.where(Delivery.attempts == bindparam("attempts")).with_for_update()
_EVENT = select(Event).where(Event.id == bindparam("event_id"))


class Outcome(NamedTuple):
    """How an attempt went: what the endpoint answered, or why there is no answer."""

    seconds: float
    status: int | None = None
    error: str | None = None
    retry_after: timedelta | None = None

    @property
    def is_success(self) -> bool:
        """Tell whether the endpoint took it."""
        return self.status is not None and 200 <= self.status < 300


def deliver(job: Record) -> None:
    """Tell an endpoint of an event, and note how that went."""
    delivery = fetch_one(_PENDING, delivery_id=job.arguments["delivery_id"])
    event = fetch_one(_EVENT, event_id=delivery.event_id) if delivery else None
    if delivery is None or event is None:
        return
    try:
        webhook = webhooks.read(delivery.webhook_id)
        outcome = _attempt(job, webhook, event) if webhook.disabled_at is None else None
        wait = _noted(delivery, outcome)
    except NotFound:
        return  # The endpoint was removed meanwhile, and its deliveries with it.
    if outcome and wait:
        raise JobFailed(outcome.error or f"status {outcome.status}", retry_in=wait)


def payload(event: Record) -> bytes:
    """Return what an endpoint is told of an event; whom it is about it looks up by `user_id`."""
    data = {
        "id": event.position,
        "user_id": event.user_id,
        "subject_id": event.subject_id,
        "version": event.version,
        "changed": event.data.get("changed", []),
        "actor_id": event.actor_id,
    }
    told = {"type": event.type, "timestamp": event.created_at, "data": data}
    return orjson.dumps(told, option=orjson.OPT_UTC_Z)


def signed(webhook: Record, message_id: str, content: bytes) -> dict[str, str]:
    """Return the headers that say which message it is, when it was sent, and that it is from us."""
    moment = str(int(time.time()))
    message = b".".join((message_id.encode(), moment.encode(), content))
    signatures = [b64encode(hmac.digest(key, message, "sha256")).decode() for key in webhooks.signing_keys(webhook)]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": moment,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _attempt(job: Record, webhook: Record, event: Record) -> Outcome:
    """Call the endpoint; raises JobFailed where it has failed so often of late that it is left alone for a while."""
    content = payload(event)
    headers = {"Content-Type": "application/json", **signed(webhook, f"evt_{event.position}", content)}
    allowed_hosts = current_app.config["WEBHOOK_ALLOWED_HOSTS"]
    began = time.monotonic()
    try:
        answer = egress.post(webhook.url, content=content, headers=headers, allowed_hosts=allowed_hosts)
    except CallFailed as failure:
        if failure.retry_in is None:
            return Outcome(time.monotonic() - began, error=failure.reason)
        with unit_of_work():
            queue.put_off(job.lane, now() + failure.retry_in)
        raise JobFailed(failure.reason, retry_in=failure.retry_in) from None
    return Outcome(answer.seconds, status=answer.status, retry_after=answer.retry_after)


def _noted(delivery: Record, outcome: Outcome | None) -> timedelta | None:
    """Write down how an attempt went, or that there was none, and return how long to wait for the next one."""
    is_last = outcome is None or outcome.status == GONE or delivery.attempts >= len(WAITS)
    wait = _wait(delivery.attempts, outcome) if outcome and not outcome.is_success and not is_last else None
    with unit_of_work():
        webhook = webhooks.locked(delivery.webhook_id)
        held = fetch_one(_IN_ATTEMPT, delivery_id=delivery.id, attempts=delivery.attempts)
        if held is None:
            return None  # Somebody else has made this attempt meanwhile.
        if outcome is None:
            update_row(Delivery, held, state="failed", error="webhook_disabled", next_attempt_at=None)
            return None
        update_row(
            Delivery,
            held,
            state="delivered" if outcome.is_success else "pending" if wait else "failed",
            attempts=held.attempts + 1,
            response_status=outcome.status,
            duration_ms=round(outcome.seconds * 1000),
            error=outcome.error,
            attempted_at=now(),
            next_attempt_at=now() + wait if wait else None,
        )
        _judge(webhook, outcome, is_last)
    return wait


def _judge(webhook: Record, outcome: Outcome, is_last: bool) -> None:
    """Keep in mind since when an endpoint has taken nothing, and give it up when that is too long."""
    failing_since = None if outcome.is_success else webhook.failing_since or now()
    webhook = update_row(Webhook, webhook, failing_since=failing_since)
    if webhook.disabled_at is not None:
        return  # By request, while it was called.
    if outcome.status == GONE:
        webhooks.disable(webhook, "gone")
    elif is_last and failing_since is not None and failing_since < now() - SUSTAINED:
        webhooks.disable(webhook, "failing")


def _wait(attempts: int, outcome: Outcome) -> timedelta:
    wait = WAITS[attempts] * random.uniform(0.9, 1.1)  # noqa: S311 (only spreads them)
    if outcome.status in BUSY and outcome.retry_after is not None:
        return max(wait, min(outcome.retry_after, LONGEST_RETRY_AFTER))
    return wait
