"""Pages of a query: by key, whose cost does not grow with depth, or by number, for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Integer, bindparam, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from models.statements import AnySelect, Record, fetch_all

Key = tuple[Any, int]
Columns = tuple[InstrumentedAttribute[Any], ...]
Sorts = Mapping[str, InstrumentedAttribute[Any]]
PLACE = ("place_0", "place_1")


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

    items: Sequence[Record]
    next_key: Key | None = None
    previous_key: Key | None = None
    total: int | None = None


def page_of(statement: AnySelect, wanted: PageRequest, sorts: Sorts, **parameters: Any) -> Page:
    """Run a SELECT as one page in a total order: the sort's column, then id.

    The statement should be made once, with its parameters as `bindparam`; what is made of it is kept.
    """
    name = wanted.sort.removeprefix("-")
    columns = tuple(dict.fromkeys((sorts[name], sorts["id"])))
    if wanted.number is not None:
        return _numbered(statement, wanted, columns, parameters)

    descending = wanted.sort.startswith("-") != wanted.backwards
    if wanted.key is not None:
        parameters |= zip(PLACE, wanted.key[-len(columns) :], strict=False)
    by_key = _by_key(statement, columns, descending, wanted.key is not None)
    found = fetch_all(by_key, **parameters, limit=wanted.size + 1)
    items, more = found[: wanted.size], len(found) > wanted.size
    if wanted.backwards:
        items = items[::-1]
    before, after = (more, wanted.key is not None) if wanted.backwards else (wanted.key is not None, more)
    return Page(
        items=items,
        next_key=_key_of(items[-1], columns) if after and items else None,
        previous_key=_key_of(items[0], columns) if before and items else None,
    )


@lru_cache(maxsize=512)
def _by_key(statement: AnySelect, columns: Columns, descending: bool, goes_on: bool) -> AnySelect:
    """Return the statement in order, cut to a number of rows, and beginning after a place if it goes on from one."""
    if goes_on:
        order = tuple_(*columns)
        place = tuple_(*(bindparam(name, type_=c.type) for name, c in zip(PLACE, columns, strict=False)))
        statement = statement.where(order < place if descending else order > place)
    return statement.order_by(*_directed(columns, descending)).limit(bindparam("limit", type_=Integer))


def _numbered(statement: AnySelect, wanted: PageRequest, columns: Columns, parameters: dict[str, Any]) -> Page:
    """Read a page by offset, and count all."""
    assert wanted.number is not None
    count, by_number = _by_number(statement, columns, wanted.sort.startswith("-"))
    total = fetch_all(count, **parameters)[0].total
    offset = (wanted.number - 1) * wanted.size
    items = fetch_all(by_number, **parameters, limit=wanted.size, offset=offset) if offset < total else []
    more = offset + len(items) < total
    return Page(items=items, next_key=_key_of(items[-1], columns) if more and items else None, total=total)


@lru_cache(maxsize=512)
def _by_number(statement: AnySelect, columns: Columns, descending: bool) -> tuple[AnySelect, AnySelect]:
    """Return the statement's count, and its page: only ids are skipped over, and whole rows joined to what remains."""
    id_column = columns[-1]
    ids = statement.with_only_columns(id_column, maintain_column_froms=True)
    skipped = ids.limit(bindparam("limit", type_=Integer)).offset(bindparam("offset", type_=BigInteger))
    order = _directed(columns, descending)
    page = skipped.order_by(*order).subquery()
    wide = statement.join(page, page.c[id_column.key] == id_column).order_by(*order)
    count = select(func.count().label("total")).select_from(ids.subquery())
    return count.execution_options(own_plan=True), wide.execution_options(own_plan=True)


def _directed(columns: Columns, descending: bool) -> list[Any]:
    return [column.desc() if descending else column for column in columns]


def _key_of(row: Record, columns: Columns) -> Key:
    return getattr(row, columns[0].key), row.id
