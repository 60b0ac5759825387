"""Avatars."""

from secrets import token_hex
from typing import Any

import factory

from models import Avatar
from service import avatars, storage
from tests.factories.base import Bound, RowFactory
from tests.factories.user import UserFactory
from tests.pictures import a_picture


class AvatarFactory(RowFactory):
    """An avatar whose pictures are in storage."""

    class Meta:
        model = Avatar

    class Params:
        user = factory.SubFactory(UserFactory)

    user_id = factory.SelfAttribute("user.id")
    state = "ready"
    name = factory.LazyFunction(lambda: token_hex(16))

    @classmethod
    def _create(cls, model_class: type, *args: Any, **kwargs: Any) -> Any:
        with Bound.app.app_context():
            for size, file in avatars.addresses(kwargs["name"]).items():
                storage.put(f"avatars/{file}", a_picture("WEBP", (size, size)))
        return super()._create(model_class, *args, **kwargs)
