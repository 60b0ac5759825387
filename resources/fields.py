"""Output types and shapes that several resources share."""

from flask_restful import fields

from resources.http.shapes import FieldMap, Restricted
from service.permissions import Permission


class Moment(fields.Raw):
    """A time, written as RFC 3339 in UTC with a Z."""

    __schema__ = {"type": "string", "format": "date-time"}


class NullableMoment(Moment):
    """A time, or null."""

    __schema__ = {"type": ["string", "null"], "format": "date-time"}


class Nullable(fields.String):
    """A string, or null."""

    __schema__ = {"type": ["string", "null"]}


class JsonObject(fields.Raw):
    """A JSON object as it was given."""

    __schema__ = {"type": "object"}


user_fields = FieldMap(
    "User",
    {
        "id": fields.Integer,
        "email": fields.String,
        "name": fields.String,
        "role": fields.String,
        "is_active": fields.Boolean,
        "email_verified": fields.Boolean,
        "external_id": Nullable,
        "metadata": JsonObject(attribute="public_metadata"),
        "private_metadata": Restricted(Permission.USERS_PRIVATE),
        "version": fields.Integer,
        "created_at": Moment,
        "updated_at": Moment,
    },
)
