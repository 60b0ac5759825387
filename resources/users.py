"""Users: the people and partners who have an account."""

from resources.fields import user_fields
from resources.http import types
from resources.http.api import Resource
from resources.http.arguments import RequestParser, parse_args, use_kwargs
from resources.http.auth import current_identity, requires
from resources.http.conditional import if_match
from resources.http.limits import costly, costly_with
from resources.http.marshal import marshal_with, no_content
from resources.http.paging import PageParser
from resources.http.schema import Choice, Email, Flag, JsonObject, Name, NewPassword, StrictSchema
from service import lifecycle, passwords, users
from service.normal import NAME_LENGTH
from service.permissions import ROLES, Permission

user_view = RequestParser()
user_view.add_argument("fields", type=types.Several(user_fields), help="The members to show.")

user_page = PageParser(users.SORTS, user_fields)
user_page.add_argument("q", type=types.Line(1, 120), help="Part of the name or e-mail address, in any case.")
user_page.add_argument("email", type=types.Line(1, 320), help="This e-mail address, however it is spelled.")
user_page.add_argument("external_id", type=types.Line(1, 120), help="This external_id exactly.")
user_page.add_argument("role", type=types.Choice(ROLES), help="This role.")
user_page.add_argument("is_active", type=types.Flag(), help="Only active users, or only suspended ones.")
for moment in ("created_after", "created_before", "updated_after", "updated_before"):
    user_page.add_argument(moment, type=types.Moment(), help="Bounds a time; the bound itself is outside.")


class UserCreate(StrictSchema):
    """A new user; without `users:write`, only email, name, password and metadata may be given."""

    email = Email(required=True)
    name = Name(*NAME_LENGTH, required=True)
    password = NewPassword(passwords.MAX_LENGTH)
    role = Choice(ROLES)
    is_active = Flag()
    external_id = Name(1, 120, allow_none=True)
    public_metadata = JsonObject(data_key="metadata")
    private_metadata = JsonObject()


class UserReplacement(StrictSchema):
    """All that can be written of a user; what may be left out is then empty."""

    email = Email(required=True)
    name = Name(*NAME_LENGTH, required=True)
    role = Choice(ROLES, required=True)
    is_active = Flag(required=True)
    external_id = Name(1, 120, allow_none=True, load_default=None)
    public_metadata = JsonObject(data_key="metadata", load_default=dict)
    private_metadata = JsonObject()


class UserPatch(StrictSchema):
    """A merge patch: what is absent stays; metadata is merged, and a member that is null goes."""

    email = Email()
    name = Name(*NAME_LENGTH)
    role = Choice(ROLES)
    is_active = Flag()
    external_id = Name(1, 120, allow_none=True)
    public_metadata = JsonObject(data_key="metadata", patch=True)
    private_metadata = JsonObject(patch=True)


class UserList(Resource):
    @requires(Permission.USERS_READ)
    @costly_with("q")
    @parse_args(user_page)
    @marshal_with(user_fields, envelope="users")
    def get(self, page, **filters):
        """List users."""
        return users.search(page, **filters)

    @requires(Permission.USERS_WRITE, or_anonymous=True)
    @costly
    @use_kwargs(UserCreate())
    @marshal_with(user_fields, status=201, location="useritem", or_accepted=True)
    def post(self, **values):
        """Create a user, or register as one where registration is open."""
        return users.create(actor=current_identity(), **values)


class UserItem(Resource):
    @requires(Permission.USERS_READ, or_own=True)
    @parse_args(user_view)
    @marshal_with(user_fields)
    def get(self, user_id):
        """Read a user."""
        return users.read(user_id, actor=current_identity())

    @requires(Permission.USERS_WRITE, or_own=True)
    @if_match
    @use_kwargs(UserReplacement())
    @marshal_with(user_fields)
    def put(self, user_id, **values):
        """Replace a user."""
        return users.replace(user_id, actor=current_identity(), **values)

    @requires(Permission.USERS_WRITE, or_own=True)
    @if_match
    @use_kwargs(UserPatch())
    @marshal_with(user_fields)
    def patch(self, user_id, **values):
        """Change some of a user."""
        return users.change(user_id, actor=current_identity(), **values)

    @requires(Permission.USERS_WRITE, or_own=True)
    @if_match
    @no_content
    def delete(self, user_id, **precondition):
        """Delete a user; all sessions end at once."""
        users.delete(user_id, actor=current_identity(), **precondition)


class UserRestoration(Resource):
    @requires(Permission.USERS_WRITE)
    @marshal_with(user_fields)
    def post(self, user_id):
        """Restore a deleted user."""
        return lifecycle.restore(user_id, actor=current_identity())


class UserErasure(Resource):
    @requires(Permission.USERS_WRITE)
    @no_content
    def post(self, user_id):
        """Erase a deleted user: everything personal goes, for ever."""
        lifecycle.erase(user_id, actor=current_identity())
