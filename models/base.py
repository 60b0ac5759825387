"""The declarative base, its types, and the connection to the database."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import psycopg
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    JSON,
    BigInteger,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Integer,
    MetaData,
    String,
    event,
)
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import DeclarativeBase, registry
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

IDLE_SECONDS = 5  # A connection that lay idle longer is tried before it is used.

Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in an INTEGER key.


def ByteOrdered(length: int) -> String:  # noqa: N802 (it reads as a type)
    """Text that sorts by code point on every database, whatever its locale."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class Moment(TypeDecorator[datetime]):
    """An aware time, kept in UTC; SQLite keeps it without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A time without a zone cannot be kept.")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """Return what makes a value read from the database aware, where the driver does not."""
        if dialect.name != "sqlite":
            return None
        read: Any = dialect.type_descriptor(DateTime()).result_processor(dialect, coltype)
        return lambda value: read(value).replace(tzinfo=UTC) if value is not None else None


class JsonObject(TypeDecorator[dict[str, Any]]):
    """A JSON object, kept as text with its numbers and order; two are equal when their JSON is."""

    impl = JSON
    cache_ok = True

    def compare_values(self, x: Any, y: Any) -> bool:
        return orjson.dumps(x) == orjson.dumps(y)  # In Python, 1 and true would be equal.


class Base(DeclarativeBase):
    """Every table's base."""

    registry = registry(metadata=MetaData(naming_convention=NAMING))


db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})

# Type checkers do not see that db.Model is Base.
if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model


def now() -> datetime:
    """Return the current time, aware and in UTC."""
    return datetime.now(UTC)


def engine_options(url: str, *, pool_size: int) -> dict[str, Any]:
    """Return the engine's settings for a database URL: a pool as large as the threads that use it, bounded waits."""
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": 1,
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
    }
    if url.startswith("sqlite"):
        return options | {"connect_args": {"timeout": 5}, "paramstyle": "named"}
    bounds = "statement_timeout=1500 lock_timeout=1000 idle_in_transaction_session_timeout=5000 timezone=utc"
    return options | {
        "connect_args": {
            "autocommit": True,  # Of one statement; a unit of work begins by saying so.
            "connect_timeout": 2,
            "tcp_user_timeout": 3000,
            "options": " ".join(f"-c {bound}" for bound in bounds.split()),
        },
    }


def driver_url(url: str) -> str:
    """Name the driver, and let only a migration make a new SQLite file: a lost file must not become an empty one."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return f"sqlite:///file:{rest.removeprefix('/')}?mode=rw&uri=true"
    return f"postgresql+psycopg://{rest}"


def init_database(app: Flask) -> None:
    """Bind the database to an application whose configuration holds its URL and options."""
    db.init_app(app)
    with app.app_context():
        engine = db.engine
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    else:
        _ping_if_idle(engine)
    event.listen(engine, "begin", _begin)
    # A connection shared by two processes would mix their answers.
    os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # That is autocommit, as on PostgreSQL.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last commits in a power cut.
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Begin a transaction, which the driver, being in autocommit, does not do by itself.

    SQLite's is for writing from the start: a deferred one lets two processes read and then overwrite each other.
    """
    if not connection.get_execution_options().get("alone"):
        statement = "BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "BEGIN"
        connection.exec_driver_sql(statement)


def _ping_if_idle(engine: Engine) -> None:
    """Try connections that have lain idle: a ping at every use would cost as much as the query it is for."""

    @event.listens_for(engine, "checkin")
    def note_return(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["returned"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ping(connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("returned", time.monotonic()) > IDLE_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except psycopg.OperationalError as error:
                raise DisconnectionError from error  # The pool drops it and tries the next.
