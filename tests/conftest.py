"""What every test may ask for: an application on each database, a client, and proof that nothing happened."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import delete, event, select

from config.development import new_signing_key
from config.settings import Settings, load
from models import User
from models.base import db
from models.migrations import upgrade_alone
from models.statements import execute, unit_of_work
from resources.app import create_app
from service import passwords
from tests.client import Client
from tests.contract import Contract
from tests.databases import application
from tests.factories.base import Bound
from tests.factories.user import UserFactory
from tests.servers import PostgreSQL, create_database, start_postgresql

POSTGRESQL = "ROLLCALL_TEST_POSTGRESQL"
SECRET_KEY = "only for tests: 0123456789 abcdefghijklmnopqrstuvwxyz"
SIGNING_KEY = new_signing_key()
EMPTYING = [delete(table) for table in reversed(db.metadata.sorted_tables)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=("sqlite", "postgresql", "both"), default="both", help="Run on which.")


def pytest_configure(config: pytest.Config) -> None:
    """Start one PostgreSQL for the whole run, before any worker."""
    if hasattr(config, "workerinput") or config.getoption("--database") == "sqlite" or config.option.collectonly:
        return
    config.stash[server_key] = server = start_postgresql()
    if server is not None:
        os.environ[POSTGRESQL] = server.url


def pytest_unconfigure(config: pytest.Config) -> None:
    if server := config.stash.get(server_key, None):
        server.stop()


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.getoption("--database") != "sqlite" and POSTGRESQL not in os.environ:
        return "PostgreSQL: skipped, there are no binaries for this platform"
    return None


server_key = pytest.StashKey[PostgreSQL | None]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what touches a database on each."""
    if "database_kind" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--database")
        kinds = ["sqlite", "postgresql"] if wanted == "both" else [wanted]
        metafunc.parametrize("database_kind", kinds, scope="session")


@pytest.fixture(scope="session")
def make_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, str], str]:
    """Return a function that makes an empty database of a kind and returns its URL."""

    def make(kind: str, name: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('database') / name}.db"
        if POSTGRESQL not in os.environ:
            pytest.skip("there are no PostgreSQL binaries for this platform")
        return create_database(os.environ[POSTGRESQL], f"{name}_{worker_id}")

    return make


@pytest.fixture(scope="session")
def settings_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    """Return a function that makes settings for a database, with further variables."""
    files = tmp_path_factory.mktemp("files").as_uri()

    def make(database_url: str, **variables: str) -> Settings:
        environ = {
            "APP_ENV": "testing",
            "DATABASE_URL": database_url,
            "SECRET_KEY": SECRET_KEY,
            "SIGNING_KEYS": SIGNING_KEY,
            "PUBLIC_URL": "http://localhost",
            "STORAGE_URL": files,
            **variables,
        }
        return load(environ, dotenv=Path("/nonexistent"))

    return make


@pytest.fixture(scope="session")
def migrated_app(
    database_kind: str, make_database: Callable[[str, str], str], settings_for: Callable[..., Settings]
) -> Flask:
    """Return an application on a database of its own, shared by the tests of this process."""
    app = create_app(settings_for(make_database(database_kind, "suite")))
    with app.app_context():
        upgrade_alone(app.config["SQLALCHEMY_DATABASE_URI"])
    return app


@pytest.fixture(scope="session")
def contract(migrated_app: Flask) -> Contract:
    """Return the judge of every answer."""
    return Contract(migrated_app)


@pytest.fixture
def app(migrated_app: Flask) -> Iterator[Flask]:
    """Return the application with empty tables; whatever a test commits is gone after it."""
    Bound.app = migrated_app
    # More than any test has threads; one in which there is no place takes them away.
    migrated_app.extensions["password_places"] = passwords.places(64)
    configuration = dict(migrated_app.config)
    yield migrated_app
    migrated_app.config.update(configuration)
    with migrated_app.app_context(), unit_of_work():
        for statement in EMPTYING:
            execute(statement)


@pytest.fixture
def narrow(app: Flask, settings_for: Callable[..., Settings]) -> Iterator[Flask]:
    """Return an application on the same database that has a single connection."""
    with application(settings_for(app.config["DATABASE_URL"], THREADS="1"), migrated=False) as narrow:
        yield narrow


@pytest.fixture
def outside(app: Flask) -> Iterator[Any]:
    """Return a connection to the same database that is not the application's, and waits for no lock on SQLite."""
    url = app.config["DATABASE_URL"]
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
    else:
        connection = psycopg.connect(url, autocommit=True)
    yield connection
    connection.close()


@pytest.fixture
def client(app: Flask, contract: Contract) -> Client:
    """Return a client that has not signed in."""
    return Client(app, contract)


@pytest.fixture
def member(app: Flask) -> User:
    """Return a member."""
    return UserFactory(name="Mia Member")


@pytest.fixture
def other(app: Flask) -> User:
    """Return another member."""
    return UserFactory(name="Otto Other")


@pytest.fixture
def support(app: Flask) -> User:
    """Return somebody with the support role."""
    return UserFactory(name="Sam Support", support=True)


@pytest.fixture
def admin(app: Flask) -> User:
    """Return an admin."""
    return UserFactory(name="Ada Admin", admin=True)


@pytest.fixture
def snapshot(app: Flask) -> Callable[[], dict[str, list[Any]]]:
    """Return a function that reads every row of every table."""

    def take() -> dict[str, list[Any]]:
        with app.app_context():
            return {
                table.name: [*db.session.execute(select(table).order_by(table.c.id))]
                for table in db.metadata.sorted_tables
            }

    return take


@pytest.fixture
def nothing_changes(snapshot: Callable[[], dict[str, list[Any]]]) -> Callable[..., AbstractContextManager[None]]:
    """Return a context in which no row of any table may change, but for those of the table that `but` names."""

    @contextmanager
    def context(*, but: str | None = None) -> Iterator[None]:
        before = snapshot()
        yield
        after = snapshot()
        assert {name: after[name] for name in after if name != but} == {n: before[n] for n in before if n != but}

    return context


class Statements(list[Any]):
    """The statements that reached the driver, but for those that begin with what is left out."""

    def __init__(self, left_out: tuple[str, ...]) -> None:
        super().__init__()
        self.left_out = left_out

    def collect(self, statement: Any) -> None:
        if not str(statement).startswith(self.left_out):
            self.append(statement)

    def collect_from_sqlite(self, statement: str) -> None:
        """Collect what SQLite says that it does; it says a DELETE once more for each foreign key that cascades."""
        if not (statement.startswith("DELETE") and statement in self[-1:]):
            self.collect(statement)


@pytest.fixture
def queries(app: Flask) -> Callable[..., AbstractContextManager[list[Any]]]:
    """Return a context that collects the statements that reach the driver, however they are sent.

    What begins and ends a transaction, and an advisory lock, is left out unless it is asked for.
    """

    @contextmanager
    def context(of: Flask = app, *, with_transactions: bool = False) -> Iterator[list[Any]]:
        statements = Statements(() if with_transactions else ("BEGIN", "COMMIT", "ROLLBACK", "SELECT pg_advisory"))

        class Cursor(psycopg.Cursor):
            def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
                statements.collect(query)
                return super().execute(query, *args, **kwargs)

        def watch(connection: Any, *_: Any) -> None:
            if isinstance(connection, sqlite3.Connection):
                connection.set_trace_callback(statements.collect_from_sqlite)
            else:
                connection.cursor_factory = Cursor

        def leave(connection: Any, *_: Any) -> None:
            if isinstance(connection, sqlite3.Connection):
                connection.set_trace_callback(None)
            elif connection is not None:
                connection.cursor_factory = psycopg.Cursor

        with of.app_context():
            engine = db.engine
        event.listen(engine, "checkout", watch)
        event.listen(engine, "checkin", leave)
        try:
            yield statements
        finally:
            event.remove(engine, "checkout", watch)
            event.remove(engine, "checkin", leave)

    return context
