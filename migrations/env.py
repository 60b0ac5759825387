"""How Alembic runs the migrations: on the application's database, without its time-outs, each in a transaction."""

from typing import Any

from alembic import context
from flask import current_app
from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool

from models.base import JsonObject, Moment, db
from models.migrations import create_sqlite_file

# Indexes that only PostgreSQL has, which the models therefore do not name.
POSTGRESQL_ONLY = {"ix_users_search"}


def include_object(_item: Any, name: str | None, kind: str, *_: Any) -> bool:
    """Leave out of the comparison with the models what stands in migrations only."""
    return not (kind == "index" and name in POSTGRESQL_ONLY)


def render_item(kind: str, item: Any, _context: Any) -> str | bool:
    """Write our own types as what they are in the database."""
    if kind == "type" and isinstance(item, Moment):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, JsonObject):
        return "sa.JSON()"
    return False


def run() -> None:
    """Run the migrations that are wanted."""
    url = current_app.config["SQLALCHEMY_DATABASE_URI"]
    create_sqlite_file(url)
    engine = create_engine(url, poolclass=NullPool)
    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite:
        event.listen(engine, "connect", _explicit_transactions)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=db.metadata,
            render_as_batch=is_sqlite,
            transactional_ddl=True,
            transaction_per_migration=True,
            compare_type=True,
            include_object=include_object,
            render_item=render_item,
        )
        with context.begin_transaction():
            context.run_migrations()
        if is_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()):
            raise RuntimeError(f"{len(broken)} rows refer to rows that are gone.")


def _explicit_transactions(connection: Any, _record: Any) -> None:
    # Rebuilding a table would otherwise delete every row that refers to it, by ON DELETE CASCADE.
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.isolation_level = None


run()
