"""Signing in and out."""

from flask_restful import fields

from resources.fields import user_fields
from resources.http.api import Resource
from resources.http.arguments import use_kwargs
from resources.http.auth import current_identity, public, requires
from resources.http.marshal import marshal_with, no_content
from resources.http.schema import Password, StrictSchema, Text
from resources.http.shapes import FieldMap
from service import passwords, sessions

grant_fields = FieldMap(
    "Grant",
    {
        "access_token": fields.String,
        "token_type": fields.String,
        "expires_in": fields.Integer,
        "user": fields.Nested(user_fields),
    },
)


class Credentials(StrictSchema):
    """An e-mail address and its password."""

    email = Text(1, 320, required=True)
    password = Password(passwords.MAX_LENGTH, required=True)


class Login(Resource):
    @public
    @use_kwargs(Credentials())
    @marshal_with(grant_fields)
    def post(self, **credentials):
        """Sign in: exchange an e-mail address and password for an access token."""
        return sessions.sign_in(**credentials)


class Logout(Resource):
    @requires()
    @no_content
    def post(self):
        """Sign out: end the session; its access token is refused from then on."""
        sessions.sign_out(actor=current_identity())
