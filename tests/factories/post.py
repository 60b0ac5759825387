"""Posts."""

import factory

from models import Post
from tests.factories.base import RowFactory
from tests.factories.user import UserFactory


class PostFactory(RowFactory):
    """A post; its author is made if none is given."""

    class Meta:
        model = Post

    class Params:
        author = factory.SubFactory(UserFactory)

    user_id = factory.SelfAttribute("author.id")
    title = factory.Sequence(lambda number: f"Post {number}")
    content = "Some words."
