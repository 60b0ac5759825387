"""Statements, compiled once by SQLAlchemy and run on the driver itself; and the unit of work, which is a transaction.

SQLAlchemy knows the words and the types of each database; executing, which costs five times as much there as in the
driver, is left to the driver.
"""

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from operator import attrgetter, methodcaller
from typing import Any, Protocol

from sqlalchemy import Delete, Dialect, Engine, Insert, Select, Update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

from models.base import db

AnySelect = Select[*tuple[Any, ...]]
NOTHING: Mapping[str, Any] = {}
BEGIN = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}
FETCH, COUNT = methodcaller("fetchall"), attrgetter("rowcount")
AnyStatement = AnySelect | Insert | Update | Delete


class Record(Protocol):
    """A row; its columns are attributes."""

    def __getattr__(self, name: str) -> Any: ...


class Statement:
    """A statement in the words of one database, with what its parameters and columns need on the way there and back."""

    def __init__(self, statement: AnyStatement, dialect: Dialect) -> None:
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
        # PostgreSQL comes to plan a prepared statement for any values at all; a search must be planned for its own.
        own_plan = statement.get_execution_options().get("own_plan") and dialect.name == "postgresql"
        self.options = {"prepare": False} if own_plan else {}
        # Locking a row is for changing it, and lasts as long as the transaction.
        self.changes = not isinstance(statement, Select) or statement._for_update_arg is not None
        columns = statement.exported_columns
        self.from_driver = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self.converts = any(self.from_driver)
        names = [column.key or "value" for column in columns]
        self.make: Callable[[Any], Any] = namedtuple("Row", names, rename=True)._make  # type: ignore[attr-defined]

    def values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters as the driver takes them."""
        if parameters.keys() != self.wanted:
            raise TypeError(f"The statement takes {sorted(self.wanted)}, not {sorted(parameters)}.")
        values = {**self.fixed, **parameters}
        for name, process in self.to_driver.items():
            values[name] = process(values[name])
        return values

    def rows(self, found: Sequence[Any]) -> Sequence[Record]:
        """Return rows of the driver as records."""
        if self.converts:
            found = [[p(v) if p else v for p, v in zip(self.from_driver, row, strict=True)] for row in found]
        return [*map(self.make, found)]


class Work:
    """A unit of work; its transaction begins with the first statement that changes or locks something.

    After a statement that failed nothing more is done in it, whoever caught the error: PostgreSQL would say that it
    commits, and roll back.
    """

    def __init__(self) -> None:
        self.connection: PoolProxiedConnection | None = None
        self.error: Exception | None = None
        self.afterwards: list[Callable[[], object]] = []

    def begin(self, engine: Engine) -> PoolProxiedConnection:
        """Return the connection of the transaction, which has begun.

        SQLite's is for writing from the start: a deferred one lets two processes read and then overwrite each other.
        """
        if self.connection is None:
            connection = _checked_out(engine)
            try:
                _run(engine, connection, BEGIN[engine.dialect.name])
            except SQLAlchemyError:
                connection.close()
                raise
            self.connection = connection
        return self.connection

    def run(self, engine: Engine, sql: str, *values: Any, **options: Any) -> Any:
        """Run a statement in the transaction."""
        if self.error:
            raise self.error
        try:
            return _run(engine, self.begin(engine), sql, *values, **options)
        except SQLAlchemyError as error:
            self.error = error
            raise

    def commit(self) -> None:
        """Make what was done last."""
        if self.connection is not None or self.error:
            self.run(db.engine, "COMMIT")

    def close(self) -> None:
        """Give the connection back to the pool, which undoes what was not committed."""
        if self.connection is not None:
            self.connection.close()


_current: ContextVar[Work | None] = ContextVar("unit of work", default=None)


@contextmanager
def unit_of_work() -> Iterator[None]:
    """Commit what was done inside, once, or nothing at all; an error that `keeps_changes` commits and goes on up.

    One inside another is on its own, and must come before the other has begun its transaction, or it could wait for it.
    """
    around = _current.get()
    if around is not None and around.connection is not None:
        raise RuntimeError("A unit of work inside another must come before the first change of that.")
    work = Work()
    outer = _current.set(work)
    is_kept = False
    try:
        yield
        is_kept = True
    except Exception as error:
        is_kept = getattr(error, "keeps_changes", False)
        raise
    finally:
        try:
            if is_kept:
                work.commit()
        finally:
            _current.reset(outer)
            work.close()
        for function in work.afterwards if is_kept else ():
            function()


def after_commit(function: Callable[[], object]) -> None:
    """Call a function when the running unit of work has been committed; if it is not, then not."""
    _begun().afterwards.append(function)


def serialise(purpose: str) -> None:
    """Let only one unit of work at a time go past here for this purpose; SQLite's writers already queue."""
    engine, work = db.engine, _begun()
    if engine.dialect.name == "postgresql":
        work.run(engine, "SELECT pg_advisory_xact_lock(hashtext(%(purpose)s))", {"purpose": purpose})
    else:
        work.begin(engine)


def fetch_all(statement: AnyStatement, **parameters: Any) -> Sequence[Record]:
    """Run a statement and return all rows, inside the running unit of work.

    A read before the first change there, or with no unit of work, is on its own and without a transaction. The
    statement must be made once, with its parameters as `bindparam`: what is compiled for it is kept, and a value
    written into it would be kept as well.
    """
    ready = _statement(statement, db.engine.dialect)
    return ready.rows(_executed(ready, parameters, FETCH))


def fetch_one(statement: AnyStatement, **parameters: Any) -> Record | None:
    """Run a statement and return the only row, or None."""
    rows = fetch_all(statement, **parameters)
    return rows[0] if rows else None


def execute(statement: AnyStatement, **parameters: Any) -> int:
    """Run a statement that gives no rows, and return the number of those it changed."""
    count: int = _executed(_statement(statement, db.engine.dialect), parameters, COUNT)
    return count


@lru_cache(maxsize=2048)
def _statement(statement: AnyStatement, dialect: Dialect) -> Statement:
    return Statement(statement, dialect)


def _executed(statement: Statement, parameters: dict[str, Any], result: Callable[[Any], Any]) -> Any:
    """Run a statement where it belongs, and take the result from the driver's cursor."""
    engine, values, work = db.engine, statement.values(parameters), _current.get()
    if statement.changes:
        return _begun().run(engine, statement.sql, values, result, **statement.options)
    if work is not None and (work.connection is not None or work.error):
        return work.run(engine, statement.sql, values, result, **statement.options)
    connection = _checked_out(engine)
    try:
        return _run(engine, connection, statement.sql, values, result, **statement.options)
    finally:
        connection.close()


def _begun() -> Work:
    work = _current.get()
    if work is None:
        raise RuntimeError("What changes or locks something belongs into a unit of work.")
    return work


def _checked_out(engine: Engine) -> PoolProxiedConnection:
    """Return a connection of the pool; raises DBAPIError where the database is away, TimeoutError where all are out."""
    try:
        return engine.raw_connection()
    except engine.dialect.loaded_dbapi.Error as error:
        raise _translated(engine, error, "", is_lost=True) from error


def _run(
    engine: Engine,
    connection: PoolProxiedConnection,
    sql: str,
    values: Mapping[str, Any] = NOTHING,
    result: Callable[[Any], Any] = COUNT,
    **options: Any,
) -> Any:
    """Execute on the driver, and take the result while the connection is ours; raises DBAPIError."""
    driver: Any = connection.dbapi_connection
    try:
        return result(driver.execute(sql, values, **options))
    except engine.dialect.loaded_dbapi.Error as error:
        is_lost = engine.dialect.is_disconnect(error, driver, None)
        if is_lost:
            connection.invalidate(error)
            engine.dispose()  # The others have most likely been lost with it.
        raise _translated(engine, error, sql, is_lost=is_lost) from error


def _translated(engine: Engine, error: Exception, sql: str, *, is_lost: bool) -> Exception:
    driver = engine.dialect.loaded_dbapi
    return DBAPIError.instance(sql, None, error, driver.Error, connection_invalidated=is_lost, dialect=engine.dialect)
