"""Output types and shapes that several resources share."""

from flask_restful import fields

from resources.http.links import address_of
from resources.http.shapes import FieldMap, Restricted
from service import avatars
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


class NullableId(fields.Raw):
    """A whole number, or null."""

    __schema__ = {"type": ["integer", "null"]}


class JsonObject(fields.Raw):
    """A JSON object as it was given."""

    __schema__ = {"type": "object"}


class PictureAddresses(fields.Raw):
    """The address of a picture in each size, or null where none is shown."""

    __schema__ = {
        "type": ["object", "null"],
        "properties": {str(size): {"type": "string", "format": "uri"} for size in avatars.SIZES},
        "required": [str(size) for size in avatars.SIZES],
        "additionalProperties": False,
    }

    def format(self, value):
        files = avatars.addresses(value)
        return {str(size): address_of("avatar_files.picture", file=file) for size, file in files.items()}


avatar_fields = FieldMap(
    "Avatar",
    {
        "user_id": fields.Integer,
        "state": fields.String,
        "urls": PictureAddresses(attribute="name"),
        "error": Nullable,
        "created_at": Moment,
        "updated_at": Moment,
    },
)

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
