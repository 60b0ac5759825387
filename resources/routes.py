"""Every URL of the API: the table of contents."""

from flask import Blueprint

from resources.auth import Login, Logout
from resources.http.api import Api
from resources.me import Me
from resources.posts import PostItem, UserPostList
from resources.users import UserItem, UserList


def version_1() -> Blueprint:
    """Return version 1 of the API."""
    blueprint = Blueprint("api_v1", __name__, url_prefix="/api/v1")
    api = Api(blueprint)
    api.add_resource(UserList, "/users")
    api.add_resource(UserItem, "/users/<int:user_id>")
    api.add_resource(UserPostList, "/users/<int:user_id>/posts")
    api.add_resource(PostItem, "/posts/<int:post_id>")
    api.add_resource(Me, "/me")
    api.add_resource(Login, "/auth/login")
    api.add_resource(Logout, "/auth/logout")
    return blueprint
