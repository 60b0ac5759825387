"""Further applications on the database of the test, and clients that have signed in."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from flask import Flask

from config.settings import Settings
from models import User
from models.base import db
from resources.app import create_app
from service import egress
from tests.client import Client
from tests.endpoints import Endpoints


@pytest.fixture
def another_app(app: Flask, settings_for: Callable[..., Settings]) -> Iterator[Callable[..., Flask]]:
    """Return a function that makes a further application, with other settings, on the same database or another."""
    made = []

    def make(database_url: str | None = None, **variables: str) -> Flask:
        made.append(create_app(settings_for(database_url or app.config["DATABASE_URL"], **variables)))
        return made[-1]

    yield make
    for other in made:
        with other.app_context():
            db.engine.dispose()


@pytest.fixture(scope="session")
def frank_app(migrated_app: Flask, settings_for: Callable[..., Settings]) -> Iterator[Flask]:
    """Return an application that answers what it did not foresee, as in production, instead of telling the test."""
    app = create_app(settings_for(migrated_app.config["DATABASE_URL"]))
    app.config.update(TESTING=False, PROPAGATE_EXCEPTIONS=False)
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def as_member(client: Client, member: User) -> Client:
    """Return a client that is signed in as the member."""
    return client.as_(member)


@pytest.fixture
def as_support(client: Client, support: User) -> Client:
    """Return a client that is signed in as the one with the support role."""
    return client.as_(support)


@pytest.fixture
def as_admin(client: Client, admin: User) -> Client:
    """Return a client that is signed in as the admin."""
    return client.as_(admin)


@pytest.fixture
def endpoints(app: Flask, as_admin: Client, member: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoints]:
    """Return what adds endpoints, lets things happen to the member, and has the endpoints told; no host has failed."""
    monkeypatch.setattr(egress, "circuits", egress.Circuits())
    with ExitStack() as stack:
        yield Endpoints(app, as_admin, member.id, stack)
