"""`marshal_with`: field maps are the only way out."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import orjson
from flask import Response, g, request

from models.paging import Page
from resources.http.api import note
from resources.http.conditional import etag, is_known
from resources.http.idempotency import idempotent
from resources.http.links import item_address
from resources.http.paging import neighbours
from resources.http.shapes import FieldMap, shape_for
from service.feed import Stretch
from service.identity import ANONYMOUS
from service.outcomes import Accepted

Verb = Callable[..., Any]


def marshal_with(
    field_map: FieldMap,
    envelope: str | None = None,
    *,
    status: int = 200,
    location: str | None = None,
    or_accepted: bool = False,
) -> Callable[[Verb], Verb]:
    """Shape what the verb returns by a field map, and answer with it; with `or_accepted`, an Accepted is answered 202.

    A Page, or a Stretch of a feed, becomes a list under `envelope`. An item whose map has `version` carries its ETag,
    and is answered 304 to who has it already. `location` is the endpoint at which a created item is found.
    """

    def decorate(function: Verb) -> Verb:
        @wraps(function)
        def verb(*args: Any, **kwargs: Any) -> Response:
            result = function(*args, **kwargs)
            if or_accepted and isinstance(result, Accepted):
                return _accepted(result)
            if isinstance(result, (Page, Stretch)):
                shape = _shape(field_map)
                members, headers = neighbours(result)
                return _answer({envelope: [shape(item) for item in result.items], **members}, status, headers)
            return _item(result, field_map, status, location)

        if status == 201:
            verb = idempotent(verb)
        note(verb, fields=field_map, envelope=envelope, status=status, location=location, or_accepted=or_accepted)
        return verb

    return decorate


def no_content(function: Verb) -> Verb:
    """Answer 204, with neither body nor type."""

    @wraps(function)
    def verb(*args: Any, **kwargs: Any) -> Response:
        function(*args, **kwargs)
        return _empty(204, {})

    note(verb, status=204)
    return verb


def accepted(function: Verb) -> Verb:
    """Answer 202 with what the verb returns, an Accepted."""

    @wraps(function)
    def verb(*args: Any, **kwargs: Any) -> Response:
        return _accepted(function(*args, **kwargs))

    note(verb, status=202)
    return verb


def _accepted(result: Accepted) -> Response:
    return _answer({"status": "accepted", "detail": result.detail}, 202, {})


def _item(item: Any, field_map: FieldMap, status: int, location: str | None) -> Response:
    headers = {}
    if "version" in field_map and "only" not in g:  # A part of an item is not the item, and has no ETag.
        headers["ETag"] = etag(item.version)
        if request.method in ("GET", "HEAD") and is_known(item.version):
            return _empty(304, headers | {"Cache-Control": "private, no-cache"})
    if location:
        headers["Location"] = item_address(location, item.id)
    return _answer(_shape(field_map)(item), status, headers)


def _shape(field_map: FieldMap) -> Callable[[Any], Any]:
    return shape_for(field_map, g.get("identity", ANONYMOUS).permissions, g.get("only"))


def _answer(body: Any, status: int, headers: dict[str, str]) -> Response:
    caching = "private, no-cache" if request.method in ("GET", "HEAD") else "no-store"
    return Response(
        orjson.dumps(body, option=orjson.OPT_UTC_Z),
        status,
        {**headers, "Cache-Control": caching},
        content_type="application/json",
    )


def _empty(status: int, headers: dict[str, str]) -> Response:
    response = Response(b"", status, headers)
    del response.headers["Content-Type"]
    return response
