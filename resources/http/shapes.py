"""Field maps, compiled: the output of `flask_restful.marshal`, without its cost for each member of each item."""

from collections.abc import Callable, Mapping
from copy import copy
from functools import lru_cache
from keyword import iskeyword
from typing import Any

import flask_restful
from flask_restful import fields

from service.errors import Forbidden
from service.permissions import Permission

Shape = Callable[[Any], Mapping[str, Any]]
# Fields that return a value of this very type as it is.
EXACT = {fields.String.format: "str", fields.Integer.format: "int", fields.Boolean.format: "bool"}


class FieldMap(dict[str, Any]):
    """A field map with the name that its shape has in the documentation."""

    def __init__(self, name: str, members: Mapping[str, Any]) -> None:
        super().__init__(members)
        self.name = name

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)  # A map is made once, at import, and is equal to itself only.

    def __eq__(self, other: object) -> bool:
        return self is other


class Restricted(fields.Raw):
    """A field that only holders of a permission see; for others it does not exist."""

    def __init__(self, permission: Permission, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.permission = permission


@lru_cache(maxsize=1024)
def shape_for(field_map: FieldMap, permissions: frozenset[str], only: frozenset[str] | None) -> Shape:
    """Return the function that shapes an item for a caller with these permissions, with `only` some members.

    Raises Forbidden where `only` names a member that the caller may not see.
    """
    shown = _visible(field_map, permissions)
    if only and (hidden := only - shown.keys()):
        raise Forbidden(f"{', '.join(sorted(hidden))} needs another permission.")
    return compiled({name: field for name, field in shown.items() if not only or name in only})


def _visible(members: Mapping[str, Any], permissions: frozenset[str]) -> dict[str, Any]:
    """Leave out what needs other permissions, also from maps within the map."""
    visible = {}
    for name, field in members.items():
        if isinstance(field, Restricted) and field.permission not in permissions:
            continue
        visible[name] = _without(field, permissions)
    return visible


def _without(field: Any, permissions: frozenset[str]) -> Any:
    """Return a field without what needs other permissions, wherever in it that stands."""
    if isinstance(field, dict):
        return _visible(field, permissions)
    if isinstance(field, fields.Nested):
        field = copy(field)
        field.nested = _visible(field.nested, permissions)
    elif isinstance(field, fields.List):
        field = copy(field)
        field.container = _without(field.container, permissions)
    return field


def compiled(members: Mapping[str, Any]) -> Shape:
    """Return a function equal to `flask_restful.marshal(item, members)`.

    It reads attributes straight away where the library would first ask what kind of thing it has; whatever it does
    not know, a dict or a missing attribute among it, is left to the library.
    """
    scope: dict[str, Any] = {}
    parts = [f"{name!r}: {_expression(name, field, scope)}" for name, field in members.items()]
    fast: Shape = eval(f"lambda item: {{{', '.join(parts)}}}", scope)  # noqa: S307 (only names of ours)

    def shape(item: Any) -> Mapping[str, Any]:
        if not isinstance(item, (dict, list)):
            try:
                return fast(item)
            except AttributeError:
                pass
        result: Mapping[str, Any] = flask_restful.marshal(item, members)
        return result

    return shape


def _expression(name: str, field: Any, scope: dict[str, Any]) -> str:
    """Return the expression for one member, and put what it needs into the scope."""
    field = field() if isinstance(field, type) else field
    slot = f"field{len(scope)}"
    if isinstance(field, dict):  # A map within a map is about the same item.
        scope[slot] = compiled(field)
        return f"{slot}(item)"
    scope[slot] = field
    by_library = f"{slot}.output({name!r}, item)"
    attribute = name if field.attribute is None else field.attribute
    if not isinstance(attribute, str) or not attribute.isidentifier() or iskeyword(attribute):
        return by_library
    if type(field) is fields.Nested:
        scope[f"{slot}_shape"] = compiled(field.nested)
        one = f"(value := item.{attribute}) is not None and type(value) not in (list, tuple)"
        return f"{slot}_shape(value) if {one} else {by_library}"
    # The library gives a field's default for None, and its `format` of anything else.
    scope[f"{slot}_default"] = field.default
    otherwise = f"({slot}_default if value is None else {by_library})"
    if type(field).output is fields.Raw.output and (exact := EXACT.get(type(field).format)):
        return f"(value if type(value := item.{attribute}) is {exact} else {otherwise})"
    if type(field).output is fields.Raw.output and type(field).format is fields.Raw.format:
        return f"({slot}_default if (value := item.{attribute}) is None else value)"
    return by_library
