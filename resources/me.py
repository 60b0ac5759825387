"""Me: the signed-in person's own account, with no more rights than anybody has over their own."""

from resources.fields import user_fields
from resources.http import types
from resources.http.api import Resource
from resources.http.arguments import RequestParser, parse_args, use_kwargs
from resources.http.auth import current_identity, requires
from resources.http.conditional import if_match
from resources.http.marshal import marshal_with, no_content
from resources.http.schema import Choice, Flag, JsonObject, Name, StrictSchema
from service import users
from service.normal import NAME_LENGTH
from service.permissions import ROLES

me_view = RequestParser()
me_view.add_argument("fields", type=types.Several(user_fields), help="The members to show.")


class MePatch(StrictSchema):
    """A merge patch of one's own account; `role` and `is_active` are known only to be refused with a reason (403)."""

    name = Name(*NAME_LENGTH)
    public_metadata = JsonObject(data_key="metadata", patch=True)
    role = Choice(ROLES)
    is_active = Flag()


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
