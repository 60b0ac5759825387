"""Webhooks: the endpoints that are told what happened, and the secrets by which they know that it is us."""

from base64 import b64encode
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from flask import current_app
from sqlalchemy import bindparam, func, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import InstrumentedAttribute

from models import Delivery, Job, User, Webhook
from models.base import now
from models.paging import Page, PageRequest, page_of
from models.rows import delete_row, differing, insert_row, update_row
from models.statements import Record, execute, fetch_all, fetch_one, serialise
from service import egress, events, feed
from service.errors import Fault, Invalid, NotFound, TooManyWebhooks, VersionMismatch, WebhookDisabled
from service.identity import Identity
from service.jobs.queue import enqueue
from service.keyed import keyed_hash
from service.outcomes import Accepted

MOST = 20
OVERLAP = timedelta(hours=24)  # For which the secret before the present one stays good.
MOST_TOLD = 10  # Admins, of an endpoint that is given up.
EVERYTHING = "*"
# What an endpoint may ask for: everything, everything about a kind of thing, or one type.
EVENT_TYPES = (
    EVERYTHING,
    *dict.fromkeys(f"{type_.partition('.')[0]}.*" for type_ in events.TYPES),
    *(type_ for type_ in events.TYPES if type_ != "webhook.ping"),
)
SORTS: dict[str, InstrumentedAttribute[Any]] = {"id": Webhook.id}

_ALL = select(Webhook)
_COUNT = select(func.count().label("number")).select_from(Webhook)
_BY_ID = select(Webhook).where(Webhook.id == bindparam("webhook_id"))
_LOCKED = _BY_ID.with_for_update()
_GIVE_UP_WAITING = (
    update(Delivery)
    .where(Delivery.webhook_id == bindparam("of_webhook"), Delivery.state == "pending")
    .values(state="failed", error="webhook_disabled", next_attempt_at=None)
)
_DROP_JOBS = delete_from(Job).where(Job.lane == bindparam("lane"), Job.leased.is_(False))
_ADMINS = (
    select(User.id)
    .where(User.role == "admin", User.is_active, User.deleted_at.is_(None))
    .order_by(User.id)
    .limit(MOST_TOLD)
)


def create(*, actor: Identity, url: str, event_types: Sequence[str] = (EVERYTHING,), description: str = "") -> Record:
    """Add an endpoint, which is told what happens from now on; raises Invalid, TooManyWebhooks."""
    _check_url(url)
    feed.publish()  # What has happened already is not for it.
    serialise("webhooks")
    found = fetch_one(_COUNT)
    if found is not None and found.number >= MOST:
        raise TooManyWebhooks
    webhook = insert_row(
        Webhook,
        url=url,
        event_types=_in_order(event_types),
        description=description,
        creator_id=actor.user_id,
        position=feed.last_position(),
    )
    events.record("webhook.created", webhook, actor=actor)
    return webhook


def page(wanted: PageRequest) -> Page:
    """Return a page of the endpoints."""
    return page_of(_ALL, wanted, SORTS)


def read(webhook_id: int) -> Record:
    """Return an endpoint; raises NotFound."""
    found = fetch_one(_BY_ID, webhook_id=webhook_id)
    if found is None:
        raise NotFound
    return found


def change(webhook_id: int, *, actor: Identity, expected: Collection[int] | None = None, **fields: Any) -> Record:
    """Set the given fields; an endpoint that is made active again is told what happens from then on.

    Raises NotFound, VersionMismatch, Invalid.
    """
    if "url" in fields:
        _check_url(fields["url"])
    if "event_types" in fields:
        fields["event_types"] = _in_order(fields["event_types"])
    if fields.get("is_active"):
        feed.publish()
    webhook = locked(webhook_id, expected=expected)
    is_active = fields.pop("is_active", webhook.disabled_at is None)
    if is_active and webhook.disabled_at is not None:
        fields |= {"disabled_at": None, "disabled_reason": None, "failing_since": None}
        fields["position"] = feed.last_position()
        execute(_GIVE_UP_WAITING, of_webhook=webhook_id)  # It is from before.
        execute(_DROP_JOBS, lane=lane_of(webhook_id))
    elif not is_active and webhook.disabled_at is None:
        fields |= {"disabled_at": now(), "disabled_reason": "by_request"}
    changed = update_row(Webhook, webhook, **fields)
    if changed.version != webhook.version:
        names = differing(Webhook, webhook, changed, fields)
        events.record("webhook.updated", changed, actor=actor, changed=_as_shown(names))
    return changed


def rotate_secret(webhook_id: int, *, actor: Identity) -> Record:
    """Give an endpoint a new secret; for a day, deliveries are signed with the one before as well. Raises NotFound."""
    webhook = locked(webhook_id)
    rotated = update_row(
        Webhook, webhook, secret_serial=webhook.secret_serial + 1, previous_secret_until=now() + OVERLAP
    )
    events.record("webhook.secret_rotated", rotated, actor=actor)
    return rotated


def ping(webhook_id: int, *, actor: Identity) -> Accepted:
    """Send an endpoint an event that says nothing but that it works; raises NotFound, WebhookDisabled."""
    webhook = locked(webhook_id)
    if webhook.disabled_at is not None:
        raise WebhookDisabled
    events.record("webhook.ping", webhook, actor=actor)
    return Accepted("A ping is on its way; the endpoint's deliveries show how it went.")


def delete(webhook_id: int, *, actor: Identity, expected: Collection[int] | None = None) -> None:
    """Remove an endpoint and its deliveries; raises NotFound, VersionMismatch."""
    webhook = locked(webhook_id, expected=expected)
    delete_row(Webhook, webhook)
    execute(_DROP_JOBS, lane=lane_of(webhook_id))  # On SQLite, its number may be given again.
    events.record("webhook.deleted", webhook, actor=actor)


def disable(webhook: Record, reason: str) -> None:
    """Give up an endpoint whose row is locked, in the running unit of work, and tell the admins by mail."""
    disabled = update_row(Webhook, webhook, disabled_at=now(), disabled_reason=reason)
    events.record("webhook.disabled", disabled)
    for admin in fetch_all(_ADMINS):
        enqueue("webhook_disabled", user_id=admin.id, webhook_id=webhook.id)


def lane_of(webhook_id: int) -> str:
    """Return the lane in which the jobs of an endpoint stand."""
    return f"webhook {webhook_id}"


def wants(webhook: Record, event: Record) -> bool:
    """Tell whether an endpoint is to be told of an event."""
    if event.type == "webhook.ping":
        return bool(event.subject_id == webhook.id)
    return not {EVERYTHING, f"{event.type.partition('.')[0]}.*", event.type}.isdisjoint(webhook.event_types)


def secret_of(webhook: Record) -> str:
    """Return an endpoint's secret, as it is given out."""
    return "whsec_" + b64encode(_key(webhook, webhook.secret_serial)).decode()


def signing_keys(webhook: Record) -> list[bytes]:
    """Return the keys with which to sign now: that of the present secret, and for a while of the one before."""
    keys = [_key(webhook, webhook.secret_serial)]
    if webhook.previous_secret_until is not None and webhook.previous_secret_until > now():
        keys.append(_key(webhook, webhook.secret_serial - 1))
    return keys


def locked(webhook_id: int, *, expected: Collection[int] | None = None) -> Record:
    """Return an endpoint for changing, with the row locked until the unit of work ends.

    Raises NotFound, VersionMismatch.
    """
    webhook = fetch_one(_LOCKED, webhook_id=webhook_id)
    if webhook is None:
        raise NotFound
    if expected is not None and webhook.version not in expected:
        raise VersionMismatch
    return webhook


def _key(webhook: Record, serial: int) -> bytes:
    return keyed_hash("webhook", f"{webhook.id}\0{webhook.created_at.isoformat()}\0{serial}".encode())


def _check_url(url: str) -> None:
    """Refuse (Invalid) an address that is not to be called, our own among them."""
    allowed_hosts = current_app.config["WEBHOOK_ALLOWED_HOSTS"]
    refusal = egress.check_url(url, allowed_hosts=allowed_hosts)
    if refusal is None:
        theirs, ours = urlsplit(url), urlsplit(current_app.config["PUBLIC_URL"])
        # Where hosts are allowed by name, which is development, another port of ours is another service.
        if theirs.hostname == ours.hostname and (theirs.port == ours.port or not allowed_hosts):
            refusal = "This service does not call itself."
    if refusal:
        raise Invalid(faults=[Fault("/json/url", "refused", refusal)])


def _in_order(event_types: Sequence[str]) -> list[str]:
    return [type_ for type_ in EVENT_TYPES if type_ in event_types]


def _as_shown(names: Sequence[str]) -> list[str]:
    hidden = {"disabled_at", "disabled_reason", "failing_since", "position"}
    return sorted({*names} - hidden | ({"is_active"} if "disabled_at" in names else set()))
