"""The schema's history: where a database stands in it, and how it is brought to the end, by one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask_migrate import upgrade
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from models.base import db

FOLDER = Path(__file__).resolve().parent.parent / "migrations"
LOCK = 7_266_551  # Any number, as long as every instance takes the same.


@cache
def head() -> str | None:
    """Return the newest revision that this code knows."""
    return ScriptDirectory(str(FOLDER)).get_current_head()


def current() -> str | None:
    """Return the revision that the database has, or None for an empty one."""
    with db.engine.connect().execution_options(alone=True) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade_alone(url: str) -> None:
    """Bring the database to the newest revision; several processes that start at once wait for each other."""
    create_sqlite_file(url)
    with _lock(url):
        if current() != head():
            upgrade(str(FOLDER))


def create_sqlite_file(url: str) -> None:
    """Make the file of a new SQLite database, for this user's eyes only; the service itself never makes one."""
    if path := sqlite_path(url):
        path.touch(mode=0o600, exist_ok=True)


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL."""
    database = make_url(url).database
    return Path(database.removeprefix("file:")) if database and url.startswith("sqlite") else None


@contextmanager
def _lock(url: str) -> Iterator[None]:
    if path := sqlite_path(url):
        with path.with_name(f"{path.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    # Its own connection, without the service's time-outs, since another replica's migration may take a while; and
    # without a transaction, which would lie idle all that time.
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        yield
