"""Sessions: the devices on which somebody is signed in."""

from flask_restful import fields

from resources.fields import Moment, Nullable
from resources.http.api import Resource
from resources.http.arguments import parse_args
from resources.http.auth import current_identity, requires
from resources.http.marshal import marshal_with, no_content
from resources.http.paging import PageParser
from resources.http.shapes import FieldMap
from service import sessions
from service.permissions import Permission


class Device(fields.Raw):
    """What a person would call the device, from what it says of itself."""

    __schema__ = {"type": "string"}

    def format(self, value):
        return sessions.device_of(value)


class IsCurrent(fields.Raw):
    """Whether it is the session in which this is asked."""

    __schema__ = {"type": "boolean"}

    def format(self, value):
        return value == current_identity().session_id


session_fields = FieldMap(
    "Session",
    {
        "id": fields.Integer,
        "is_current": IsCurrent(attribute="id"),
        "device": Device(attribute="user_agent", default="Unknown device"),
        "user_agent": Nullable,
        "address": Nullable,
        "amr": fields.List(fields.String),
        "transport": fields.String,
        "remember": fields.Boolean,
        "created_at": Moment,
        "last_used_at": Moment,
        "expires_at": Moment,
    },
)
session_page = PageParser(sessions.SORTS, session_fields)


class MySessionList(Resource):
    @requires()
    @parse_args(session_page)
    @marshal_with(session_fields, envelope="sessions")
    def get(self, page):
        """List your own live sessions."""
        return sessions.page_of_user(current_identity().user_id, page, actor=current_identity())

    @requires()
    @no_content
    def delete(self):
        """End all your other sessions."""
        sessions.end_others(actor=current_identity())


class MySession(Resource):
    @requires()
    @no_content
    def delete(self, session_id):
        """End one of your own sessions."""
        sessions.end_one(current_identity().user_id, session_id, actor=current_identity())


class UserSessionList(Resource):
    @requires(Permission.USERS_WRITE, or_own=True)
    @parse_args(session_page)
    @marshal_with(session_fields, envelope="sessions")
    def get(self, user_id, page):
        """List a user's live sessions."""
        return sessions.page_of_user(user_id, page, actor=current_identity())

    @requires(Permission.USERS_WRITE, or_own=True)
    @no_content
    def delete(self, user_id):
        """End all sessions of a user."""
        sessions.end_all_of(user_id, actor=current_identity())


class UserSession(Resource):
    @requires(Permission.USERS_WRITE, or_own=True)
    @no_content
    def delete(self, user_id, session_id):
        """End a session of a user."""
        sessions.end_one(user_id, session_id, actor=current_identity())
