"""Reading input: `RequestParser` for the query string and headers, `use_kwargs` and `use_content` for bodies."""

import json
from collections.abc import Callable, Iterator
from copy import copy
from functools import wraps
from typing import Any, NoReturn

import marshmallow
import orjson
from flask import Request, g, request
from flask_restful import reqparse
from gunicorn.http.errors import ParseException
from webargs.flaskparser import FlaskParser

from resources.http.api import note
from resources.http.problems import InvalidParameter, MalformedBody, PayloadTooLarge, UnsupportedMediaType
from service.errors import Fault, Invalid

MAX_DEPTH = 16


class RequestParser(reqparse.RequestParser):
    """Flask-RESTful's RequestParser made strict.

    It reads one location, `args` (the query string) or `headers`; a type is one of `resources.http.types`, which also
    says its JSON Schema. In a query string, unknown and repeated parameters are refused. All faults are named at once.
    """

    def __init__(self, location: str = "args") -> None:
        super().__init__(bundle_errors=True)
        self.location = location
        self.root = "query" if location == "args" else "headers"

    def add_argument(self, name: str, **kwargs: Any) -> "RequestParser":
        kwargs.setdefault("store_missing", "default" in kwargs)
        return super().add_argument(name, location=self.location, **kwargs)

    def copy(self) -> "RequestParser":
        """Return a parser with the same arguments, some of which another version of the API may replace."""
        other = copy(self)
        other.args = [*self.args]
        return other

    def replace_argument(self, name: str, **kwargs: Any) -> "RequestParser":
        place = [argument.name for argument in self.args].index(name)
        self.add_argument(name, **kwargs)
        self.args[place] = self.args.pop()
        return self

    def parse_args(self, req: Request | None = None, strict: bool = True, http_error_code: int = 400) -> dict[str, Any]:
        """Return the converted arguments; raises InvalidParameter."""
        source = getattr(req or request, self.location)
        faults = [*self._strangers(source)] if self.location == "args" else []
        values = self.namespace_class()
        for argument in self.args:
            given = source.getlist(argument.name)
            if not given:
                if argument.store_missing:
                    values[argument.dest or argument.name] = argument.default
                continue
            if len(given) > 1:
                faults.append(self._fault(argument.name, "repeated", "Send it once."))
                continue
            try:
                values[argument.dest or argument.name] = argument.type(given[0])
            except ValueError as error:
                faults.append(self._fault(argument.name, "invalid", str(error)))
        if faults:
            raise InvalidParameter(faults=faults)
        return values

    def _strangers(self, source: Any) -> Iterator[Fault]:
        known = {argument.name for argument in self.args}
        for name in source:
            if name not in known:
                yield self._fault(name, "unknown", "Not a parameter here.")

    def _fault(self, name: str, code: str, detail: str) -> Fault:
        return Fault(f"/{self.root}/{_token(name)}", code, detail)


def parse_args(parser: RequestParser) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Pass what the parser finds in the query string or headers to the verb, as keywords.

    `fields` is kept for `marshal_with`: it is about the answer, and no operation needs to know.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def verb(*args: Any, **kwargs: Any) -> Any:
            values = parser.parse_args()
            if "fields" in values:
                g.only = frozenset(values.pop("fields"))
            return function(*args, **kwargs, **values)

        note(verb, **{"query" if parser.location == "args" else "headers": parser})
        return verb

    return decorate


class BodyParser(FlaskParser):
    """webargs' parser with a strict reader of JSON: what it accepts means one thing to everybody."""

    def __init__(self, *, or_nothing: bool = False) -> None:
        super().__init__()
        self.or_nothing = or_nothing

    def load_json(self, req: Request, schema: marshmallow.Schema) -> Any:
        """Return the body's object; raises PayloadTooLarge, UnsupportedMediaType, MalformedBody, Invalid."""
        body = _body_of(req)
        if not body and "Content-Type" not in req.headers:
            if self.or_nothing:
                return {}
            raise MalformedBody("A JSON body is needed.")
        if not _is_json(req) or _is_encoded(req):
            raise UnsupportedMediaType
        return _object_of(body)

    def handle_error(
        self, error: marshmallow.ValidationError, req: Request, schema: marshmallow.Schema, **kwargs: Any
    ) -> NoReturn:
        raise Invalid(faults=[*_faults(error.normalized_messages(), "")])


_parsers = {or_nothing: BodyParser(or_nothing=or_nothing) for or_nothing in (False, True)}


def use_kwargs(
    schema: marshmallow.Schema, *, or_nothing: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Pass the body's fields to the verb, as keywords; with `or_nothing`, there need not be a body."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        verb = _parsers[or_nothing].use_kwargs(schema)(function)
        note(verb, body=schema, body_required=not or_nothing)
        return verb

    return decorate


def use_content(*types: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Pass the body to the verb as it is, as `content`, if it says that it is of one of these types."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def verb(*args: Any, **kwargs: Any) -> Any:
            content = _body_of(request)
            if request.mimetype not in types or _is_encoded(request):
                raise UnsupportedMediaType(f"Send the body uncompressed, as {', '.join(types)}.")
            return function(*args, **kwargs, content=content)

        note(verb, content_types=types)
        return verb

    return decorate


def _is_encoded(req: Request) -> bool:
    return req.headers.get("Content-Encoding", "identity") != "identity"


def _is_json(req: Request) -> bool:
    """Tell whether the body says that it is JSON in UTF-8; for PATCH, it may say that it is a merge patch."""
    wanted = {"application/json", "application/merge-patch+json"} if req.method == "PATCH" else {"application/json"}
    return req.mimetype in wanted and req.mimetype_params.get("charset", "utf-8").lower() == "utf-8"


def _body_of(req: Request) -> bytes:
    """Read the whole body, or refuse it; a longer one is never cut."""
    limit: int = req.max_content_length or 0
    length = req.content_length
    chunked = length is None and req.environ.get("wsgi.input_terminated", False)
    if length is not None and length > limit:
        raise PayloadTooLarge
    try:
        body: bytes = req.environ["wsgi.input"].read(limit + 1 if chunked else length or 0)
    except (OSError, ParseException):
        # What the server says of it would hold parts of the body, which belong in no log.
        raise MalformedBody("The body did not arrive whole.") from None
    if chunked and len(body) > limit:
        raise PayloadTooLarge
    if not chunked and len(body) < (length or 0):
        raise MalformedBody("The body ended early.")
    return body


def _object_of(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"{error.msg}: line {error.lineno}, column {error.colno}.") from None
    names, depth = _measure(value)
    if depth > MAX_DEPTH:
        raise MalformedBody(f"More than {MAX_DEPTH} levels.")
    # orjson keeps the last of two equal names. There can be two only where there are more colons than names.
    if body.count(b":") != names:
        json.loads(body, object_pairs_hook=_distinct)
    if not isinstance(value, dict):
        raise Invalid(faults=[Fault("/json", "invalid_type", "The body must be a JSON object.")])
    return value


def _measure(value: Any) -> tuple[int, int]:
    """Count an object's names and levels, without recursion."""
    names, depth, level = 0, 0, [value]
    while level := [container for container in level if isinstance(container, (dict, list))]:
        depth += 1
        names += sum(len(container) for container in level if isinstance(container, dict))
        level = [v for c in level for v in (c.values() if isinstance(c, dict) else c)]
    return names, depth


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise MalformedBody(f"The name {name[:80]!r} stands twice in one object.")
        found[name] = value
    return found


def _faults(messages: Any, path: str) -> Iterator[Fault]:
    """Turn marshmallow's messages, nested as the input is, into faults with JSON Pointers (RFC 6901)."""
    for name, inner in messages.items():
        below = path if name == "_schema" else f"{path}/{_token(str(name))}"
        if isinstance(inner, dict):
            yield from _faults(inner, below)
        else:
            for message in inner:
                yield Fault(below, getattr(message, "code", "invalid"), str(message))


def _token(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
