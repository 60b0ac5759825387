"""Rows: adding, changing and removing one, each by a single statement that returns it as it is then."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Delete, Insert, Table, Update, bindparam, delete, insert, select, update
from sqlalchemy.orm.exc import StaleDataError

from models.base import Base, Moment, now
from models.statements import Record, execute, fetch_one

AnyTable = type[Base]
SOME = 1000  # Rows.


def insert_row(table: AnyTable, **values: Any) -> Record:
    """Add a row and return it; what is not given has its column's default."""
    moment = now()  # All its times are one.
    defaults = {name: make(moment) for name, make in _defaults(table).items() if name not in values}
    row = fetch_one(_insert(table), **_as_new(defaults | values))
    assert row is not None
    return row


def update_row(table: AnyTable, row: Record, **values: Any) -> Record:
    """Change a row to these values and return it as it is then; the same row if nothing differs.

    Where the table has them, `version` goes up by one and `updated_at` becomes the present. Raises StaleDataError
    where the row is gone or another version.
    """
    columns = _columns(table)
    values = {n: v for n, v in values.items() if not columns[n].type.compare_values(getattr(row, n), v)}
    if not values:
        return row
    place = {"row_id": row.id}
    if "updated_at" in columns:
        values.setdefault("updated_at", now())
    if "version" in columns:
        place["row_version"] = row.version
    changed = fetch_one(_update(table, frozenset(values)), **place, **_as_new(values))
    if changed is None:
        raise StaleDataError
    return changed


def differing(table: AnyTable, before: Record, after: Record, names: Iterable[str]) -> list[str]:
    """Return in which of these columns two rows differ, as the database sees it."""
    columns = _columns(table)
    return sorted(n for n in names if not columns[n].type.compare_values(getattr(before, n), getattr(after, n)))


def delete_row(table: AnyTable, row: Record) -> None:
    """Remove a row."""
    execute(_delete(table), row_id=row.id)


def delete_some(table: Any, *conditions: ColumnElement[bool]) -> Delete:
    """Return the statement that removes some of the rows that meet conditions, and of no other process's work any.

    Where there are many they go in several steps, each of which is short.
    """
    ids = select(table.id).where(*conditions).limit(SOME).with_for_update(skip_locked=True)
    return delete(table).where(table.id.in_(ids))


def _as_new(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in values.items()}


@lru_cache
def _columns(table: AnyTable) -> Mapping[str, Column[Any]]:
    return dict(_table(table).columns)


def _table(table: AnyTable) -> Table:
    found = table.__table__
    assert isinstance(found, Table)
    return found


@lru_cache
def _defaults(table: AnyTable) -> Mapping[str, Callable[[datetime], Any]]:
    """Return what makes the value of each column that the database does not fill by itself."""
    return {name: _default(column) for name, column in _columns(table).items() if name != "id"}


def _default(column: Column[Any]) -> Callable[[datetime], Any]:
    default: Any = column.default
    if default is None:
        return lambda moment: None
    if isinstance(column.type, Moment):
        return lambda moment: moment
    value = default.arg
    return (lambda moment: value(None)) if callable(value) else (lambda moment: value)


@lru_cache
def _insert(table: AnyTable) -> Insert:
    new = {name: bindparam(f"new_{name}", type_=_columns(table)[name].type) for name in _defaults(table)}
    return insert(table).values(new).returning(*_columns(table).values())


@lru_cache(maxsize=1024)
def _update(table: AnyTable, names: frozenset[str]) -> Update:
    columns = _columns(table)
    changed = update(table).where(columns["id"] == bindparam("row_id"))
    new: dict[str, Any] = {n: bindparam(f"new_{n}", type_=columns[n].type) for n in sorted(names)}
    if "version" in columns:
        changed = changed.where(columns["version"] == bindparam("row_version"))
        new["version"] = columns["version"] + 1
    return changed.values(new).returning(*columns.values())


@lru_cache
def _delete(table: AnyTable) -> Delete:
    return delete(table).where(_columns(table)["id"] == bindparam("row_id"))
