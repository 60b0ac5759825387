"""Reads: statements that are compiled once and run on the driver itself, outside a transaction if none has begun."""

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from sqlalchemy import Dialect, Select
from sqlalchemy.exc import DBAPIError

from models.base import db

AnySelect = Select[*tuple[Any, ...]]


class Record(Protocol):
    """A row; its columns are attributes."""

    def __getattr__(self, name: str) -> Any: ...


class Reading:
    """A SELECT in the words of one database, with what its parameters and columns need on the way there and back.

    SQLAlchemy compiles it and knows the types; executing it, which SQLAlchemy makes five times as dear as the driver
    does, is left to the driver.
    """

    def __init__(self, statement: AnySelect, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        if compiled.post_compile_params:
            raise TypeError("A list as a parameter (IN) changes the statement: compare with = or in a subquery.")
        self.sql = str(compiled)
        self.fixed = {name: bind.value for bind, name in compiled.bind_names.items() if not bind.required}
        self.wanted = {name for bind, name in compiled.bind_names.items() if bind.required}
        self.to_driver = {
            name: process
            for bind, name in compiled.bind_names.items()
            if (process := bind.type.dialect_impl(dialect).bind_processor(dialect))
        }
        columns = statement.selected_columns
        self.from_driver = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        names = [column.key or "value" for column in columns]
        self.make: Callable[[Any], Any] = namedtuple("Row", names, rename=True)._make  # type: ignore[attr-defined]

    def run(self, connection: Any, parameters: dict[str, Any]) -> Sequence[Record]:
        """Return all rows."""
        if parameters.keys() != self.wanted:
            raise TypeError(f"The statement takes {sorted(self.wanted)}, not {sorted(parameters)}.")
        values = {**self.fixed, **parameters}
        for name, process in self.to_driver.items():
            values[name] = process(values[name])
        rows = connection.execute(self.sql, values).fetchall()
        if any(self.from_driver):
            rows = [[p(v) if p else v for p, v in zip(self.from_driver, row, strict=True)] for row in rows]
        return [*map(self.make, rows)]


@lru_cache(maxsize=2048)
def _reading(statement: AnySelect, dialect: Dialect) -> Reading:
    return Reading(statement, dialect)


def fetch_all(statement: AnySelect, **parameters: Any) -> Sequence[Record]:
    """Return all rows: inside the running unit of work if it has begun, else at once and without a transaction.

    The statement must be made once, with its parameters as `bindparam`: what is compiled for it is kept, and a value
    written into it would be kept as well.
    """
    if db.session.registry.has() and db.session().in_transaction():
        return db.session.execute(statement, parameters).all()
    engine = db.engine
    reading = _reading(statement, engine.dialect)
    driver = engine.dialect.loaded_dbapi
    connection = None
    try:
        connection = engine.raw_connection()
        return reading.run(connection.dbapi_connection, parameters)
    except driver.Error as error:
        lost = connection is None or engine.dialect.is_disconnect(error, connection.dbapi_connection, None)
        if connection is not None and lost:
            connection.invalidate(error)
            engine.dispose()  # The others have most likely been lost with it.
        raise DBAPIError.instance(
            reading.sql, None, error, driver.Error, connection_invalidated=lost, dialect=engine.dialect
        ) from error
    finally:
        if connection is not None:
            connection.close()


def fetch_one(statement: AnySelect, **parameters: Any) -> Record | None:
    """Return the only row, or None."""
    rows = fetch_all(statement, **parameters)
    return rows[0] if rows else None
