"""Components of the OpenAPI document: the schemas of answers, bodies and problems, to which its operations refer."""

import inspect
from collections.abc import Mapping
from typing import Any

import marshmallow
from apispec import APISpec
from flask_restful import fields

from resources.http.paging import FeedParser
from resources.http.problems import catalogue, page_path
from resources.http.shapes import FieldMap, Restricted

OUTPUT = {fields.Integer: {"type": "integer"}, fields.String: {"type": "string"}, fields.Boolean: {"type": "boolean"}}


def answer_schema(spec: APISpec, field_map: FieldMap, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the body of an answer: an item, or a list or feed of items."""
    partial = any(argument.name == "fields" for argument in getattr(facts.get("query"), "args", ()))
    item = _component(spec, field_map, partial=partial)
    if not (envelope := facts.get("envelope")):
        return item
    items = {envelope: {"type": "array", "items": item}}
    if isinstance(facts.get("query"), FeedParser):
        place = {"type": "integer", "description": "Where to go on: `after` of the next request."}
        return _list_schema(spec, f"{field_map.name}Feed", items | {"next_after": place}, [envelope, "next_after"])
    members = items | {
        "next_cursor": {"type": ["string", "null"], "description": "Where the next page begins; null at the end."},
        "page": {"type": "integer", "description": "With `page` only."},
        "pages": {"type": "integer", "description": "With `page` only."},
        "total": {"type": "integer", "description": "With `page` only."},
    }
    return _list_schema(spec, f"{field_map.name}List", members, [envelope, "next_cursor"])


def _list_schema(spec: APISpec, name: str, members: dict[str, Any], always: list[str]) -> dict[str, Any]:
    if name not in spec.components.schemas:
        schema = {"type": "object", "properties": members, "required": always, "additionalProperties": False}
        spec.components.schema(name, schema)
    return {"$ref": f"#/components/schemas/{name}"}


def _component(spec: APISpec, field_map: FieldMap, *, partial: bool) -> dict[str, Any]:
    """Describe a field map once; a partial one is what `fields=` leaves of it."""
    name = f"{field_map.name}Part" if partial else field_map.name
    if name not in spec.components.schemas:
        members = {key: _output_schema(spec, field) for key, field in field_map.items()}
        always = [key for key, field in field_map.items() if not isinstance(field, Restricted)]
        schema = {"type": "object", "properties": members, "additionalProperties": False}
        spec.components.schema(name, schema if partial else schema | {"required": always})
    return {"$ref": f"#/components/schemas/{name}"}


def _output_schema(spec: APISpec, field: Any) -> dict[str, Any]:
    kind = field if isinstance(field, type) else type(field)
    if kind is fields.Nested:
        return _component(spec, field.nested, partial=False)
    if kind is fields.List:
        return {"type": "array", "items": _output_schema(spec, field.container)}
    if kind is Restricted:
        return {"type": "object", "description": f"Shown to holders of `{field.permission}`."}
    return dict(getattr(kind, "__schema__", None) or OUTPUT[kind])


def body_schema(spec: APISpec, schema: marshmallow.Schema) -> dict[str, Any]:
    """Describe a body that is read."""
    name = type(schema).__name__
    if name not in spec.components.schemas:
        spec.components.schema(name, schema=schema)
        found = spec.components.schemas[name]
        found["additionalProperties"] = False
        found["description"] = inspect.getdoc(type(schema)) or ""
    return {"$ref": f"#/components/schemas/{name}"}


def input_schema(spec: APISpec, field: Any) -> dict[str, Any]:
    """Describe a member of a body that is read."""
    if name := getattr(field, "component", None):
        if name not in spec.components.schemas:
            spec.components.schema(name, field.json_schema())
        return {"$ref": f"#/components/schemas/{name}"}
    schema = field.json_schema()
    return {**schema, "type": [schema["type"], "null"]} if field.allow_none else schema


def problem_schema(spec: APISpec) -> dict[str, Any]:
    """Describe a problem (RFC 9457); there may come to be more codes, of which a client need know nothing."""
    text = {"type": "string"}
    spec.components.schema("ProblemCode", {**text, "enum": [kind.code for kind in catalogue()]})
    fault = {
        "type": "object",
        "properties": {"pointer": text, "code": text, "detail": text},
        "required": ["pointer", "code", "detail"],
        "additionalProperties": False,
    }
    members = {
        "type": {"type": "string", "description": f"A page about it, such as `…{page_path(catalogue()[0])}`."},
        "title": text,
        "status": {"type": "integer"},
        "code": {"anyOf": [{"$ref": "#/components/schemas/ProblemCode"}, text]},
        "detail": text,
        "instance": text,
        "request_id": text,
        "errors": {"type": "array", "items": fault},
    }
    required = [name for name in members if name != "errors"]
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}
