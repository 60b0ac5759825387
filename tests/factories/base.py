"""What the factories share: each row is committed in the application of the running test."""

from typing import Any

import factory
from flask import Flask

from models.base import db


class Bound:
    """The application whose database the factories write to; set by the `app` fixture."""

    app: Flask


class RowFactory(factory.Factory):
    """A factory whose rows are committed and can be read on without a session."""

    class Meta:
        abstract = True

    @classmethod
    def _create(cls, model_class: type, *args: Any, **kwargs: Any) -> Any:
        row = model_class(*args, **kwargs)
        with Bound.app.app_context():
            db.session.add(row)
            db.session.commit()
            db.session.refresh(row)
            db.session.expunge(row)
        return row
