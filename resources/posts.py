"""Posts: what a user has written."""

from flask_restful import fields

from resources.fields import Moment
from resources.http import types
from resources.http.api import Resource
from resources.http.arguments import RequestParser, parse_args, use_kwargs
from resources.http.auth import current_identity, requires
from resources.http.conditional import if_match
from resources.http.marshal import marshal_with, no_content
from resources.http.paging import PageParser
from resources.http.schema import Name, StrictSchema, Text
from resources.http.shapes import FieldMap
from service import posts
from service.normal import MANY_LINES
from service.permissions import Permission

post_fields = FieldMap(
    "Post",
    {
        "id": fields.Integer,
        "user_id": fields.Integer,
        "title": fields.String,
        "content": fields.String,
        "version": fields.Integer,
        "created_at": Moment,
        "updated_at": Moment,
    },
)

post_view = RequestParser()
post_view.add_argument("fields", type=types.Several(post_fields), help="The members to show.")
post_page = PageParser(posts.SORTS, post_fields)


class PostInput(StrictSchema):
    """A whole post."""

    title = Name(1, 200, required=True)
    content = Text(1, 30_000, pattern=MANY_LINES, required=True)


class PostPatch(StrictSchema):
    """A merge patch: what is absent stays."""

    title = Name(1, 200)
    content = Text(1, 30_000, pattern=MANY_LINES)


class UserPostList(Resource):
    @requires(Permission.POSTS_READ, or_own=True)
    @parse_args(post_page)
    @marshal_with(post_fields, envelope="posts")
    def get(self, user_id, page):
        """List a user's posts."""
        return posts.page_of_user(user_id, page, actor=current_identity())

    @requires(Permission.POSTS_WRITE, or_own=True)
    @use_kwargs(PostInput())
    @marshal_with(post_fields, status=201, location="postitem")
    def post(self, user_id, **values):
        """Write a post for a user."""
        return posts.write(actor=current_identity(), user_id=user_id, **values)


class PostItem(Resource):
    @requires(Permission.POSTS_READ, or_own=True)
    @parse_args(post_view)
    @marshal_with(post_fields)
    def get(self, post_id):
        """Read a post."""
        return posts.read(post_id, actor=current_identity())

    @requires(Permission.POSTS_WRITE, or_own=True)
    @if_match
    @use_kwargs(PostInput())
    @marshal_with(post_fields)
    def put(self, post_id, **values):
        """Replace a post."""
        return posts.change(post_id, actor=current_identity(), **values)

    @requires(Permission.POSTS_WRITE, or_own=True)
    @if_match
    @use_kwargs(PostPatch())
    @marshal_with(post_fields)
    def patch(self, post_id, **values):
        """Change some of a post."""
        return posts.change(post_id, actor=current_identity(), **values)

    @requires(Permission.POSTS_WRITE, or_own=True)
    @if_match
    @no_content
    def delete(self, post_id, **precondition):
        """Delete a post."""
        posts.delete(post_id, actor=current_identity(), **precondition)
