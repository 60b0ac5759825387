"""Webhooks: who is told what happened, and how the telling goes."""

from flask_restful import fields

from resources.fields import Moment, Nullable, NullableId, NullableMoment
from resources.http import types
from resources.http.api import Resource
from resources.http.arguments import RequestParser, parse_args, use_kwargs
from resources.http.auth import current_identity, requires
from resources.http.conditional import if_match
from resources.http.marshal import accepted, marshal_with, no_content
from resources.http.paging import PageParser
from resources.http.schema import Choices, Flag, StrictSchema, Text
from resources.http.shapes import FieldMap
from service import deliveries, webhooks
from service.permissions import Permission


class IsActive(fields.Raw):
    """Whether it is told anything: it has not been disabled."""

    __schema__ = {"type": "boolean"}

    def output(self, key, obj):
        return obj.disabled_at is None


class Secret(fields.Raw):
    """What the endpoint verifies signatures with; shown when it is made, and null ever after."""

    __schema__ = {"type": ["string", "null"]}

    def output(self, key, obj):
        return webhooks.secret_of(obj)


webhook_fields = FieldMap(
    "Webhook",
    {
        "id": fields.Integer,
        "url": fields.String,
        "description": fields.String,
        "event_types": fields.List(fields.String),
        "is_active": IsActive,
        "disabled_reason": Nullable,
        "disabled_at": NullableMoment,
        "failing_since": NullableMoment,
        "previous_secret_until": NullableMoment,
        "version": fields.Integer,
        "created_at": Moment,
        "updated_at": Moment,
    },
)
new_webhook_fields = FieldMap("NewWebhook", {**webhook_fields, "secret": Secret})
delivery_fields = FieldMap(
    "Delivery",
    {
        "id": fields.Integer,
        "event_id": fields.Integer,
        "event_type": fields.String,
        "state": fields.String,
        "attempts": fields.Integer,
        "response_status": NullableId,
        "duration_ms": NullableId,
        "error": Nullable,
        "next_attempt_at": NullableMoment,
        "attempted_at": NullableMoment,
        "created_at": Moment,
    },
)

webhook_view = RequestParser()
webhook_view.add_argument("fields", type=types.Several(webhook_fields), help="The members to show.")
webhook_page = PageParser(webhooks.SORTS, webhook_fields)
delivery_page = PageParser(deliveries.SORTS, delivery_fields)
delivery_page.add_argument("state", type=types.Choice(deliveries.STATES), help="Only deliveries in this state.")


class WebhookInput(StrictSchema):
    """A whole webhook."""

    url = Text(8, 2048, required=True)
    description = Text(0, 200)
    event_types = Choices(webhooks.EVENT_TYPES)


class WebhookPatch(StrictSchema):
    """A merge patch: what is absent stays."""

    url = Text(8, 2048)
    description = Text(0, 200)
    event_types = Choices(webhooks.EVENT_TYPES)
    is_active = Flag()


class WebhookList(Resource):
    @requires(Permission.WEBHOOKS_READ)
    @parse_args(webhook_page)
    @marshal_with(webhook_fields, envelope="webhooks")
    def get(self, page):
        """List webhooks."""
        return webhooks.page(page)

    @requires(Permission.WEBHOOKS_WRITE)
    @use_kwargs(WebhookInput())
    @marshal_with(new_webhook_fields, status=201, location="webhookitem")
    def post(self, **values):
        """Add a webhook; the answer shows its secret, once."""
        return webhooks.create(actor=current_identity(), **values)


class WebhookItem(Resource):
    @requires(Permission.WEBHOOKS_READ)
    @parse_args(webhook_view)
    @marshal_with(webhook_fields)
    def get(self, webhook_id):
        """Read a webhook."""
        return webhooks.read(webhook_id)

    @requires(Permission.WEBHOOKS_WRITE)
    @if_match
    @use_kwargs(WebhookPatch())
    @marshal_with(webhook_fields)
    def patch(self, webhook_id, **values):
        """Change some of a webhook; made active again, it is told what happens from then on."""
        return webhooks.change(webhook_id, actor=current_identity(), **values)

    @requires(Permission.WEBHOOKS_WRITE)
    @if_match
    @no_content
    def delete(self, webhook_id, **precondition):
        """Remove a webhook and its deliveries."""
        webhooks.delete(webhook_id, actor=current_identity(), **precondition)


class WebhookSecret(Resource):
    @requires(Permission.WEBHOOKS_WRITE)
    @marshal_with(new_webhook_fields)
    def post(self, webhook_id):
        """Make a new secret; for a day, deliveries are signed with the one before as well."""
        return webhooks.rotate_secret(webhook_id, actor=current_identity())


class WebhookPing(Resource):
    @requires(Permission.WEBHOOKS_WRITE)
    @accepted
    def post(self, webhook_id):
        """Try a webhook: send it an event that says nothing else."""
        return webhooks.ping(webhook_id, actor=current_identity())


class WebhookDeliveryList(Resource):
    @requires(Permission.WEBHOOKS_READ)
    @parse_args(delivery_page)
    @marshal_with(delivery_fields, envelope="deliveries")
    def get(self, webhook_id, page, state=None):
        """List a webhook's deliveries, and how the last attempt at each went."""
        return deliveries.page_of_webhook(webhook_id, page, state=state)


class WebhookRedelivery(Resource):
    @requires(Permission.WEBHOOKS_WRITE)
    @accepted
    def post(self, webhook_id, delivery_id):
        """Deliver once more what was delivered or given up."""
        return deliveries.redeliver(webhook_id, delivery_id, actor=current_identity())
