"""Pages of a query: by key, whose cost does not grow with depth, or by number, for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from models.base import fetch_all

Key = tuple[Any, int]
Sorts = Mapping[str, InstrumentedAttribute[Any]]


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """Which page is wanted.

    `sort` names a column, with a leading minus for descending; `key` is the (sort value, id) of the row to go on
    from, forwards or, with `backwards`, towards the start; `number` asks for a numbered page instead.
    """

    size: int
    sort: str
    key: Key | None = None
    backwards: bool = False
    number: int | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page's rows, the keys to go on from in both directions, and, if numbered, the count of all rows."""

    items: Sequence[Row[Any]]
    next_key: Key | None = None
    previous_key: Key | None = None
    total: int | None = None


def page_of(statement: Select[Any], wanted: PageRequest, sorts: Sorts) -> Page:
    """Run a SELECT as one page in a total order: the sort's column, then id."""
    name = wanted.sort.removeprefix("-")
    columns = list(dict.fromkeys((sorts[name], sorts["id"])))
    if wanted.number is not None:
        return _numbered(statement, wanted, columns)

    descending = wanted.sort.startswith("-") != wanted.backwards
    if wanted.key is not None:
        place = tuple_(*wanted.key[-len(columns) :])
        order = tuple_(*columns)
        statement = statement.where(order < place if descending else order > place)
    statement = statement.order_by(*(c.desc() if descending else c for c in columns)).limit(wanted.size + 1)

    found = fetch_all(statement)
    items, more = found[: wanted.size], len(found) > wanted.size
    if wanted.backwards:
        items = items[::-1]
    before, after = (more, wanted.key is not None) if wanted.backwards else (wanted.key is not None, more)
    return Page(
        items=items,
        next_key=_key_of(items[-1], columns) if after and items else None,
        previous_key=_key_of(items[0], columns) if before and items else None,
    )


def _numbered(statement: Select[Any], wanted: PageRequest, columns: list[InstrumentedAttribute[Any]]) -> Page:
    """Read a page by offset; only ids are skipped over, and the rows joined to the few that remain."""
    assert wanted.number is not None
    descending = wanted.sort.startswith("-")
    order = [c.desc() if descending else c for c in columns]
    id_column = columns[-1]
    total = fetch_all(select(func.count()).select_from(statement.with_only_columns(id_column).subquery()))[0][0]
    offset = (wanted.number - 1) * wanted.size
    ids = statement.with_only_columns(id_column).order_by(*order).limit(wanted.size).offset(offset).subquery()
    wide = select(*statement.selected_columns).join(ids, ids.c.id == id_column).order_by(*order)
    items = fetch_all(wide) if offset < total else []
    more = offset + len(items) < total
    return Page(items=items, next_key=_key_of(items[-1], columns) if more and items else None, total=total)


def _key_of(row: Row[Any], columns: list[InstrumentedAttribute[Any]]) -> Key:
    return row._mapping[columns[0].key], row._mapping["id"]
