"""The OpenAPI 3.1 document, generated from the declarations that run: parsers, schemas, field maps and policies."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask

from resources.http.api import VERBS
from resources.http.arguments import RequestParser
from resources.http.components import answer_schema, body_schema, input_schema, problem_schema
from resources.http.deprecation import deprecation_of, describe
from resources.http.links import template
from resources.http.problems import catalogue, status_of

MAX_ID = 2**63 - 1
BYTES = {"type": "string", "format": "binary"}  # As OpenAPI 3.0 has it, and generators of clients still read it.
HEADERS = {
    "X-Request-ID": "The request's id, for your logs and ours.",
    "ETag": "The item's version, for If-Match and If-None-Match.",
    "Location": "Where the new item is.",
    "Idempotency-Replayed": "`true` where the answer is one that was given before to the same `Idempotency-Key`.",
    "Link": "The neighbouring pages (RFC 8288): first, prev, next, last.",
    "Retry-After": "Seconds to wait before trying again.",
    "WWW-Authenticate": "How to say who you are (RFC 6750).",
    "RateLimit-Policy": "How many requests (`q`) you may send in how many seconds (`w`), by each limit that counts; "
    "absent where none does.",
    "RateLimit": "How many of those are left (`r`), and for how many seconds (`t`).",
}
EVERYWHERE = ("X-Request-ID", "RateLimit-Policy", "RateLimit")
INTRODUCTION = """Accounts and sign-in behind a versioned REST API.

Sign in with `POST {root}/auth/login`, send the access token as `Authorization: Bearer …`, and read every refusal by
its stable `code` (RFC 9457). Lists go on with `next_cursor`; items carry an `ETag` for `If-None-Match` and `If-Match`.
"""


def document(app: Flask, *, blueprint: str, version: str) -> dict[str, Any]:
    """Return the document of one version of the API."""
    plugin = MarshmallowPlugin(schema_name_resolver=lambda schema: type(schema).__name__)
    spec = APISpec(
        title="Rollcall",
        version=version,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={
            "description": INTRODUCTION.format(root=app.blueprints[blueprint].url_prefix),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        servers=[{"url": app.config["PUBLIC_URL"]}],
        security=[{"bearer": []}],
    )
    plugin.converter.add_attribute_function(lambda _, field, **__: input_schema(spec, field))
    bearer = {"type": "http", "scheme": "bearer", "description": "An access token, or a key of a service account."}
    spec.components.security_scheme("bearer", bearer)
    cookie = {"type": "apiKey", "in": "cookie", "name": "__Host-rollcall-refresh"}
    spec.components.security_scheme("refreshCookie", cookie)
    spec.components.schema("Problem", problem_schema(spec))
    for name, description in HEADERS.items():
        kind = "integer" if name == "Retry-After" else "string"
        spec.components.header(name, {"description": description, "schema": {"type": kind}})

    tags = {}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        resource = getattr(app.view_functions[rule.endpoint], "view_class", None)
        if resource is None or not rule.endpoint.startswith(f"{blueprint}."):
            continue
        noun = resource.__module__.rpartition(".")[2]
        tags[noun] = inspect.getdoc(inspect.getmodule(resource)) or ""
        verbs = [verb for verb in VERBS if hasattr(resource, verb)]
        operations = {verb: _operation(spec, resource, verb, noun, of_item=bool(rule.arguments)) for verb in verbs}
        parameters = [_path_parameter(name) for name in sorted(rule.arguments)]
        spec.path(path=template(rule), operations=operations, parameters=parameters)
    for noun, description in tags.items():
        spec.tag({"name": noun, "description": description})
    return spec.to_dict()


def _operation(spec: APISpec, resource: Any, verb: str, noun: str, *, of_item: bool) -> dict[str, Any]:
    method = getattr(resource, verb)
    facts = {**method.operation, "of_item": of_item}
    operation: dict[str, Any] = {
        "operationId": _snake(f"{verb}{resource.__name__}"),
        "tags": [noun],
        "summary": (inspect.getdoc(method) or "").splitlines()[0].rstrip("."),
        "description": " ".join([_who(facts), *_cost(facts)]),
        "parameters": [*_parameters(verb, facts)],
        "responses": _responses(spec, verb, facts),
    }
    if facts["access"] != "bearer":
        operation["security"] = [] if facts["access"] == "public" else [{"bearer": []}, {}]
    if facts.get("cookie"):
        bearer = [] if facts["access"] == "public" else [{"bearer": []}]
        operation["security"] = [*bearer, {"refreshCookie": []}, *([{}] if facts.get("body") else [])]
    if schema := facts.get("body"):
        media = {"schema": body_schema(spec, schema)}
        types = ["application/json", *(["application/merge-patch+json"] if verb == "patch" else [])]
        operation["requestBody"] = {"required": facts["body_required"], "content": dict.fromkeys(types, media)}
    elif types := facts.get("content_types"):
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": BYTES} for kind in types}}
    if deprecation := deprecation_of(resource, verb):
        describe(spec, operation, deprecation)
    return operation


def _who(facts: Mapping[str, Any]) -> str:
    if facts["access"] == "public":
        return "Open to all."
    permission = facts["permission"]
    if permission is None:
        return "Needs a sign-in, or the cookie of one." if facts.get("cookie") else "Needs a sign-in."
    if facts["access"] == "anonymous":
        return f"Open to all within bounds; more with the permission `{permission}`."
    own = ", or what is your own" if facts["or_own"] else ""
    return f"Needs the permission `{permission}`{own}."


def _cost(facts: Mapping[str, Any]) -> Iterator[str]:
    if costly := facts.get("costly"):
        when = "" if costly is True else f" where it has `{costly}`"
        yield f"Counts by the limit for costly requests as well{when}."


def _parameters(verb: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for place, key in (("query", "query"), ("header", "headers")):
        parser: RequestParser | None = facts.get(key)
        for argument in parser.args if parser else ():
            schema = dict(argument.type.schema)
            if argument.default is not None:
                schema["default"] = argument.default
            yield {"name": argument.name, "in": place, "description": argument.help, "schema": schema}
    if facts.get("cookie"):
        text = "With the cookie: the `csrf_token` of the sign-in."
        yield {"name": "X-CSRF-Token", "in": "header", "description": text, "schema": {"type": "string"}}
    if verb == "get" and _has_etag(facts):
        schema = {"type": "string"}
        text = "Answer 304 if this is still the item's ETag."
        yield {"name": "If-None-Match", "in": "header", "description": text, "schema": schema}


def _has_etag(facts: Mapping[str, Any]) -> bool:
    return "version" in facts.get("fields", {}) and not facts.get("envelope")


def _responses(spec: APISpec, verb: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    headers = [*EVERYWHERE]
    headers += ["ETag"] if _has_etag(facts) else []
    headers += ["Location"] if facts.get("location") else []
    headers += ["Idempotency-Replayed"] if facts.get("idempotent") else []
    headers += ["Link"] if facts.get("envelope") else []
    answer: dict[str, Any] = {"description": "Done.", "headers": _headers(*headers)}
    if facts["status"] == 202 and not facts.get("fields"):
        answer = _accepted_answer(spec)
    if field_map := facts.get("fields"):
        answer["content"] = {"application/json": {"schema": answer_schema(spec, field_map, facts)}}
    responses: dict[str, Any] = {str(facts["status"]): answer}
    if facts.get("or_accepted"):
        responses["202"] = _accepted_answer(spec)
    if verb == "get" and _has_etag(facts):
        responses["304"] = {"description": "You have it already.", "headers": _headers(*EVERYWHERE, "ETag")}
    for status in _refusals(verb, facts):
        responses[str(status)] = _problem_answer(spec, status)
    return responses


def _accepted_answer(spec: APISpec) -> dict[str, Any]:
    if "Accepted" not in spec.components.schemas:
        members = {"status": {"type": "string", "enum": ["accepted"]}, "detail": {"type": "string"}}
        schema = {"type": "object", "properties": members, "required": [*members], "additionalProperties": False}
        spec.components.schema("Accepted", schema)
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}}
    description = "Taken on, and done soon; `detail` says how to learn of it."
    return {"description": description, "headers": _headers(*EVERYWHERE), "content": content}


def _refusals(verb: str, facts: Mapping[str, Any]) -> list[int]:
    found = {400, 406, 429, 500, 503}
    if facts["access"] != "public" or facts.get("body"):
        found.add(401)
    if facts["access"] != "public":
        found |= {403, 404} if facts["or_own"] or facts["permission"] is None else {403}
    if facts.get("body") or facts.get("content_types"):
        found |= {403, 413, 415, 422}
    if verb != "get":
        found |= {404, 409}
    if facts["of_item"]:
        found.add(404)
    if "headers" in facts and not facts.get("idempotent"):
        found |= {412, 428}
    return sorted(found)


def _problem_answer(spec: APISpec, status: int) -> dict[str, Any]:
    name = f"Problem{status}"
    if name not in spec.components.responses:
        spec.components.response(name, _problem_response(status))
    return {"$ref": f"#/components/responses/{name}"}


def _problem_response(status: int) -> dict[str, Any]:
    kinds = [kind for kind in catalogue() if status_of(kind) == status]
    extra = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}.get(status, [])
    return {
        "description": " ".join(f"`{kind.code}`: {kind.title}." for kind in kinds),
        "headers": _headers(*EVERYWHERE, *extra),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
