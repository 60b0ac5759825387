"""Applications on databases of their own, for tests that lock, lose or rebuild one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from flask import Flask

from config.settings import Settings
from models.base import db
from models.migrations import upgrade_alone
from resources.app import create_app

numbers = count(1)


def new_database(make_database: Callable[[str, str], str], kind: str) -> str:
    """Make an empty database under a name that no other test has, and return its URL."""
    return make_database(kind, f"own_{next(numbers)}")


@contextmanager
def application(settings: Settings, *, migrated: bool = True) -> Iterator[Flask]:
    """Make an application, with its tables unless told otherwise; at the end let go of its connections."""
    app = create_app(settings)
    try:
        if migrated:
            migrate(app)
        yield app
    finally:
        with app.app_context():
            db.engine.dispose()


def migrate(app: Flask) -> None:
    """Bring an application's database to the newest revision."""
    with app.app_context():
        upgrade_alone(app.config["SQLALCHEMY_DATABASE_URI"])
