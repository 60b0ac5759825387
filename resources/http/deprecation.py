"""Deprecation: an operation that is to end says so in each of its answers, and who still calls it is counted."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import cache, wraps
from typing import Any, NamedTuple
from urllib.parse import quote

from apispec import APISpec
from flask import Flask, Response, current_app, g, request
from werkzeug.http import http_date

from resources.http.api import VERBS, note
from resources.http.links import template
from service import deprecations
from service.identity import ANONYMOUS

Verb = Callable[..., Any]

# Who is turned away for coming too often, or since the database is away, is not to cause a statement more.
NOT_COUNTED = frozenset({429, 503})
HEADERS = {
    "Deprecation": "Since when the operation is deprecated: `@` and seconds since 1970 (RFC 9745).",
    "Sunset": "When the operation ends; from then on it may be gone (RFC 8594).",
    "Link": "Where this is explained (`deprecation`), what to call instead (`successor-version`), neighbouring pages.",
}


class Deprecation(NamedTuple):
    """That an operation is to end: since when that is known, when it ends, what to call instead, and where to read."""

    since: date
    sunset: date
    successor: str | None
    link: str


class Operation(NamedTuple):
    """A deprecated operation, as it is called in documents."""

    name: str
    deprecation: Deprecation
    is_public: bool


def deprecated(
    *, since: date, sunset: date, successor: str | None = None, link: str = "/docs"
) -> Callable[[Verb], Verb]:
    """Say of a verb, above all else that is said of it, that it is to end; each of its answers tells so.

    `successor` is the path of what to call instead, with this one's arguments in braces; `link` is where it is
    explained: an address, or a path here. A class that inherits the verb, as in a later version of the API, does not
    inherit its end.
    """
    if sunset < since:
        raise ValueError("An operation does not end before it is deprecated (RFC 9745 §4).")

    def decorate(function: Verb) -> Verb:
        @wraps(function)  # A function of its own, since the one below may stand in another version as well.
        def verb(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        note(verb, deprecation=Deprecation(since, sunset, successor, link))
        return verb

    return decorate


def deprecation_of(resource: type, verb: str) -> Deprecation | None:
    """Return what is said of the end of a verb, if anything is."""
    found: Deprecation | None = getattr(vars(resource).get(verb), "operation", {}).get("deprecation")
    return found


def init_deprecation(app: Flask) -> None:
    """Add the headers to the answers of deprecated operations, refusals among them, and count who calls those."""
    operations = cache(lambda: dict(_operations(app)))
    app.extensions["deprecated_operations"] = lambda: {
        operation.name: operation.deprecation.sunset for operation in operations().values()
    }

    @app.after_request
    def _tell(response: Response) -> Response:
        operation = operations().get((request.endpoint, request.method))
        if operation is not None:
            _add_headers(response, operation.deprecation)
            _count(response, operation)
        return response


def describe(spec: APISpec, operation: dict[str, Any], deprecation: Deprecation) -> None:
    """Say in the documentation of an operation that it is to end."""
    for name, description in HEADERS.items():
        if _component(name) not in spec.components.headers:
            spec.components.header(_component(name), {"description": description, "schema": {"type": "string"}})
    instead = f" Call `{deprecation.successor}` instead." if deprecation.successor else ""
    operation["deprecated"] = True
    operation["x-sunset"] = f"{deprecation.sunset}"
    operation["description"] += f" Deprecated since {deprecation.since}, ends on {deprecation.sunset}.{instead}"
    operation["responses"] = {status: _described(spec, response) for status, response in operation["responses"].items()}


def _operations(app: Flask) -> Iterator[tuple[tuple[str, str], Operation]]:
    """Yield what is deprecated, by endpoint and method."""
    for rule in app.url_map.iter_rules():
        resource = getattr(app.view_functions[rule.endpoint], "view_class", None)
        for verb in VERBS if resource else ():
            if deprecation := deprecation_of(resource, verb):
                is_public = getattr(resource, verb).operation["access"] == "public"
                operation = Operation(f"{verb.upper()} {template(rule)}", deprecation, is_public)
                for method in ("GET", "HEAD") if verb == "get" else (verb.upper(),):
                    yield (rule.endpoint, method), operation


def _add_headers(response: Response, deprecation: Deprecation) -> None:
    headers = response.headers
    headers["Deprecation"] = f"@{_midnight(deprecation.since).timestamp():.0f}"
    headers["Sunset"] = http_date(_midnight(deprecation.sunset))
    links = [f'<{_address(deprecation.link)}>; rel="deprecation"']
    if deprecation.successor:
        arguments = {name: quote(str(value), safe="") for name, value in (request.view_args or {}).items()}
        successor = deprecation.successor.format(**arguments)
        links.append(f'<{_address(successor)}>; rel="successor-version"')
    headers["Link"] = ", ".join([*headers.getlist("Link"), *links])


def _count(response: Response, operation: Operation) -> None:
    """Count who was let in; of who was not, nothing is known."""
    caller = g.get("identity", ANONYMOUS if operation.is_public else None)
    if caller is not None and response.status_code not in NOT_COUNTED:
        deprecations.count(operation.name, caller=caller)


def _midnight(day: date) -> datetime:
    """Return when a day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _address(place: str) -> str:
    """Return an address, which may be given as a path here."""
    return f"{current_app.config['PUBLIC_URL']}{place}" if place.startswith("/") else place


def _described(spec: APISpec, response: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with the headers; one that others share is described a second time, with them."""
    if shared := response.get("$ref"):
        name = shared.rpartition("/")[2]
        if f"{name}Deprecated" not in spec.components.responses:
            spec.components.response(f"{name}Deprecated", _described(spec, spec.components.responses[name]))
        return {"$ref": f"{shared}Deprecated"}
    added = {name: {"$ref": f"#/components/headers/{_component(name)}"} for name in HEADERS}
    return {**response, "headers": {**response["headers"], **added}}


def _component(name: str) -> str:
    """Return what a header is called in the documentation, where others have a Link with less in it."""
    return "DeprecationLink" if name == "Link" else name
