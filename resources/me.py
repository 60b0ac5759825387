"""Me: the signed-in person's own account, with no more rights than anybody has over their own."""

from flask_restful import fields

from resources.fields import JsonObject, Moment, Nullable, NullableMoment, avatar_fields, user_fields
from resources.http import types
from resources.http.api import Resource
from resources.http.arguments import RequestParser, parse_args, use_kwargs
from resources.http.auth import current_identity, requires
from resources.http.conditional import if_match
from resources.http.limits import costly
from resources.http.marshal import accepted, marshal_with, no_content
from resources.http.schema import Choice, Email, Flag, Name, NewPassword, Password, StrictSchema
from resources.http.schema import JsonObject as JsonObjectInput
from resources.http.shapes import FieldMap
from service import account, lifecycle, passwords, users
from service.normal import NAME_LENGTH
from service.permissions import ROLES

me_view = RequestParser()
me_view.add_argument("fields", type=types.Several(user_fields), help="The members to show.")


class MePatch(StrictSchema):
    """A merge patch of one's own account; `role` and `is_active` are known only to be refused with a reason (403)."""

    name = Name(*NAME_LENGTH)
    public_metadata = JsonObjectInput(data_key="metadata", patch=True)
    role = Choice(ROLES)
    is_active = Flag()


class PasswordChange(StrictSchema):
    """A new password, and the present one as a proof."""

    current_password = Password(passwords.MAX_LENGTH, required=True)
    password = NewPassword(passwords.MAX_LENGTH, required=True)


class EmailChange(StrictSchema):
    """A new address, and the password as a proof."""

    current_password = Password(passwords.MAX_LENGTH, required=True)
    email = Email(required=True)


held_user_fields = {**user_fields, "private_metadata": JsonObject}
held_post_fields = {
    "id": fields.Integer,
    "title": fields.String,
    "content": fields.String,
    "version": fields.Integer,
    "created_at": Moment,
    "updated_at": Moment,
}
held_session_fields = {
    "id": fields.Integer,
    "amr": fields.List(fields.String),
    "transport": fields.String,
    "remember": fields.Boolean,
    "address": Nullable,
    "user_agent": Nullable,
    "created_at": Moment,
    "last_used_at": Moment,
    "expires_at": Moment,
    "ended_at": NullableMoment,
}
held_letter_fields = {
    "purpose": fields.String,
    "email": fields.String,
    "created_at": Moment,
    "expires_at": Moment,
}
held_event_fields = {
    "type": fields.String,
    "address": Nullable,
    "data": JsonObject,
    "created_at": Moment,
}
export_fields = FieldMap(
    "Export",
    {
        "exported_at": Moment,
        "user": fields.Nested(FieldMap("HeldUser", held_user_fields)),
        "posts": fields.List(fields.Nested(FieldMap("HeldPost", held_post_fields))),
        "sessions": fields.List(fields.Nested(FieldMap("HeldSession", held_session_fields))),
        "avatars": fields.List(fields.Nested(avatar_fields)),
        "letters": fields.List(fields.Nested(FieldMap("HeldLetter", held_letter_fields))),
        "events": fields.List(fields.Nested(FieldMap("HeldEvent", held_event_fields))),
    },
)


class Me(Resource):
    @requires()
    @parse_args(me_view)
    @marshal_with(user_fields)
    def get(self):
        """Read your own account."""
        return users.read(current_identity().user_id, actor=current_identity())

    @requires()
    @if_match
    @use_kwargs(MePatch())
    @marshal_with(user_fields)
    def patch(self, **values):
        """Change some of your own account."""
        me = current_identity()
        return users.change(me.user_id, actor=me.without_permissions(), **values)

    @requires()
    @if_match
    @no_content
    def delete(self, **precondition):
        """Delete your own account; all sessions end at once."""
        me = current_identity()
        users.delete(me.user_id, actor=me.without_permissions(), **precondition)


class MyPassword(Resource):
    @requires()
    @costly
    @use_kwargs(PasswordChange())
    @no_content
    def post(self, **values):
        """Change your password; your other sessions end."""
        account.change_password(actor=current_identity(), **values)


class MyEmail(Resource):
    @requires()
    @costly
    @use_kwargs(EmailChange())
    @accepted
    def post(self, **values):
        """Change your e-mail address, once a letter to the new one is answered."""
        return account.change_email(actor=current_identity(), **values)


class MyExport(Resource):
    @requires()
    @costly
    @marshal_with(export_fields)
    def get(self):
        """Read everything that is held about you."""
        return lifecycle.export(actor=current_identity())
