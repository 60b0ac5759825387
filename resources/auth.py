"""Signing in, staying signed in and signing out; and the answers to letters."""

from flask_restful import fields

from resources.fields import Nullable, user_fields
from resources.http import cookies
from resources.http.api import Resource
from resources.http.arguments import use_kwargs
from resources.http.auth import current_identity, public, requires
from resources.http.limits import costly
from resources.http.marshal import accepted, marshal_with, no_content
from resources.http.schema import Choice, Email, Flag, NewPassword, Password, StrictSchema, Text
from resources.http.shapes import FieldMap
from service import account, passwords, refresh, sessions, sign_in

grant_fields = FieldMap(
    "Grant",
    {
        "access_token": fields.String,
        "token_type": fields.String,
        "expires_in": fields.Integer,
        "refresh_token": Nullable,
        "csrf_token": Nullable,
        "user": fields.Nested(user_fields),
    },
)


class Credentials(StrictSchema):
    """An e-mail address and its password; whether the refresh token comes in the body or as a cookie."""

    email = Text(1, 320, required=True)
    password = Password(passwords.MAX_LENGTH, required=True)
    transport = Choice(["body", "cookie"])
    remember = Flag()


class RefreshInput(StrictSchema):
    """The refresh token, unless it is in the cookie."""

    refresh_token = Text(1, 2048)


class Address(StrictSchema):
    """An e-mail address."""

    email = Email(required=True)


class Proof(StrictSchema):
    """What a letter gave: the token of its link; or the address and the code."""

    token = Text(1, 200)
    email = Email()
    code = Text(1, 20)


class PasswordReset(Proof):
    """A new password, and what the letter gave."""

    password = NewPassword(passwords.MAX_LENGTH, required=True)


class Login(Resource):
    @public
    @costly
    @use_kwargs(Credentials())
    @marshal_with(grant_fields)
    def post(self, **credentials):
        """Sign in: exchange an e-mail address and password for tokens."""
        if credentials.get("transport") == "cookie":
            cookies.check_origin()  # Before the password is looked at, which would count as an attempt.
        return cookies.hand_out(sign_in.sign_in(**credentials, device=cookies.device()))


class Refresh(Resource):
    @public
    @use_kwargs(RefreshInput(), or_nothing=True)
    @marshal_with(grant_fields)
    @cookies.or_cookie
    def post(self, refresh_token=None):
        """Exchange a refresh token for its successor and a new access token."""
        return cookies.hand_out(refresh.exchange(cookies.refresh_token(refresh_token)))


class Logout(Resource):
    @requires(or_anonymous=True)
    @no_content
    @cookies.or_cookie
    def post(self):
        """Sign out: end the session of the access token or of the cookie; its tokens are refused from then on."""
        identity = current_identity()
        sessions.sign_out(identity.session_id or cookies.session_id(), actor=identity)
        cookies.forget()


class PasswordForgot(Resource):
    @public
    @costly
    @use_kwargs(Address())
    @accepted
    def post(self, **values):
        """Ask for a letter with which a new password can be set."""
        return account.forgot_password(**values)


class PasswordRenewal(Resource):
    @public
    @costly
    @use_kwargs(PasswordReset())
    @no_content
    def post(self, **values):
        """Set a new password with what the letter gave; every session ends."""
        account.reset_password(**values)


class EmailVerify(Resource):
    @public
    @use_kwargs(Proof())
    @no_content
    def post(self, **values):
        """Confirm an address with what the letter gave: of a registration, an account or a change of address."""
        account.verify_email(**values)


class EmailResend(Resource):
    @public
    @costly
    @use_kwargs(Address())
    @accepted
    def post(self, **values):
        """Ask for the letter that confirms an address once more."""
        return account.resend(**values)
