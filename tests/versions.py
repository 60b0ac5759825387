"""Versions of the API beside the first, as the product may have them one day: what comes after it, and what is to end.

In version 2 the `name` of a user is called `display_name`. In version 0 everything is as in version 1, but ends.
"""

from dataclasses import replace
from datetime import date

from flask import Blueprint
from flask_restful import fields

from resources import auth, users
from resources.docs import serve_document
from resources.fields import user_fields as former_fields
from resources.http import types
from resources.http.api import Api, Resource
from resources.http.arguments import parse_args, use_kwargs
from resources.http.auth import current_identity, public, requires
from resources.http.conditional import if_match
from resources.http.deprecation import deprecated
from resources.http.marshal import marshal_with, no_content
from resources.http.schema import Name
from resources.http.shapes import FieldMap
from service import users as accounts
from service.normal import NAME_LENGTH
from service.permissions import Permission

RENAMED = {"name": ("display_name", fields.String(attribute="name"))}
SORTS = [{"name": "display_name"}.get(sort, sort) for sort in accounts.SORTS]
ENDING = {"since": date(2026, 1, 31), "sunset": date(2027, 1, 31)}

user_fields = FieldMap("User", dict(RENAMED.get(name, (name, field)) for name, field in former_fields.items()))
user_view = users.user_view.copy().replace_argument(
    "fields", type=types.Several(user_fields), help="The members to show."
)
user_page = users.user_page.copy()
user_page.replace_argument("fields", type=types.Several(user_fields), help="The members of each item to show.")
user_page.replace_argument(
    "sort", type=types.Choice([way for sort in SORTS for way in (sort, f"-{sort}")]), default="id", help="The order."
)


class UserCreate(users.UserCreate):
    """A new user."""

    name = Name(*NAME_LENGTH, required=True, data_key="display_name")


class UserReplacement(users.UserReplacement):
    """All that can be written of a user."""

    name = Name(*NAME_LENGTH, required=True, data_key="display_name")


class UserPatch(users.UserPatch):
    """A merge patch."""

    name = Name(*NAME_LENGTH, data_key="display_name")


class UserList(users.UserList):
    @requires(Permission.USERS_READ)
    @parse_args(user_page)
    @marshal_with(user_fields, envelope="users")
    def get(self, page, **filters):
        """List users."""
        return accounts.search(replace(page, sort=page.sort.replace("display_name", "name")), **filters)

    @requires(Permission.USERS_WRITE, or_anonymous=True)
    @use_kwargs(UserCreate())
    @marshal_with(user_fields, status=201, location="useritem", or_accepted=True)
    def post(self, **values):
        """Create a user."""
        return accounts.create(actor=current_identity(), **values)


class UserItem(users.UserItem):
    @requires(Permission.USERS_READ, or_own=True)
    @parse_args(user_view)
    @marshal_with(user_fields)
    def get(self, user_id):
        """Read a user."""
        return accounts.read(user_id, actor=current_identity())

    @requires(Permission.USERS_WRITE, or_own=True)
    @if_match
    @use_kwargs(UserReplacement())
    @marshal_with(user_fields)
    def put(self, user_id, **values):
        """Replace a user."""
        return accounts.replace(user_id, actor=current_identity(), **values)

    @requires(Permission.USERS_WRITE, or_own=True)
    @if_match
    @use_kwargs(UserPatch())
    @marshal_with(user_fields)
    def patch(self, user_id, **values):
        """Change some of a user."""
        return accounts.change(user_id, actor=current_identity(), **values)


def version_2() -> Blueprint:
    """Return a version 2 of the API."""
    blueprint = Blueprint("api_v2", __name__, url_prefix="/api/v2")
    serve_document(blueprint)
    api = Api(blueprint)
    api.add_resource(UserList, "/users")
    api.add_resource(UserItem, "/users/<int:user_id>")
    return blueprint


class FormerUserList(users.UserList):
    get = deprecated(**ENDING, successor="/api/v1/users")(users.UserList.get)
    post = deprecated(**ENDING, link="https://example.com/news/1")(users.UserList.post)


class FormerUserItem(users.UserItem):
    get = deprecated(**ENDING, successor="/api/v1/users/{user_id}")(users.UserItem.get)
    patch = deprecated(**ENDING)(users.UserItem.patch)
    delete = deprecated(**ENDING)(users.UserItem.delete)


class FormerLogin(auth.Login):
    post = deprecated(**ENDING, successor="/api/v1/auth/login")(auth.Login.post)


class Breaking(Resource):
    @deprecated(**ENDING)
    @public
    @no_content
    def post(self):
        """Fail."""
        raise LookupError


def version_0() -> Blueprint:
    """Return a version of the API that is to end."""
    blueprint = Blueprint("api_v0", __name__, url_prefix="/api/v0")
    serve_document(blueprint)
    api = Api(blueprint)
    api.add_resource(FormerUserList, "/users")
    api.add_resource(FormerUserItem, "/users/<int:user_id>", endpoint="useritem")
    api.add_resource(FormerLogin, "/auth/login")
    api.add_resource(Breaking, "/breaking")
    return blueprint
