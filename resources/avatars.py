"""Avatars: the picture of a user, in four sizes, at addresses that open without signing in."""

from flask import Blueprint, Response, request

from resources.fields import avatar_fields
from resources.http.api import Resource
from resources.http.arguments import use_content
from resources.http.auth import current_identity, requires
from resources.http.limits import costly
from resources.http.marshal import marshal_with, no_content
from service import avatars
from service.permissions import Permission

KINDS = ("image/png", "image/jpeg", "image/webp", "image/gif")
# The name is new with every picture; pages of any site may show it, and none may run it.
FOR_EVERYBODY = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}

avatar_files = Blueprint("avatar_files", __name__)


class UserAvatar(Resource):
    @requires(Permission.USERS_READ, or_own=True)
    @marshal_with(avatar_fields)
    def get(self, user_id):
        """Read where a user's picture is, and how far it has come."""
        return avatars.read(user_id, actor=current_identity())

    @requires(Permission.USERS_WRITE, or_own=True)
    @costly
    @use_content(*KINDS)
    @marshal_with(avatar_fields, status=202)
    def put(self, user_id, content):
        """Give a user a picture, of which small squares are made soon."""
        return avatars.upload(user_id, actor=current_identity(), content=content)

    @requires(Permission.USERS_WRITE, or_own=True)
    @no_content
    def delete(self, user_id):
        """Remove a user's picture."""
        avatars.remove(user_id, actor=current_identity())


@avatar_files.get("/avatars/<file>")
def picture(file: str) -> Response:
    """Serve a picture."""
    response = Response(avatars.picture(file), content_type="image/webp", headers=FOR_EVERYBODY)
    response.set_etag(file.removesuffix(".webp"))
    return response.make_conditional(request)
