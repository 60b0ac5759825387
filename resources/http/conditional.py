"""Conditional requests (RFC 9110 §13): an item's ETag is its version, the same for everybody who asks."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import current_app, request

from resources.http.api import note
from resources.http.arguments import RequestParser
from resources.http.problems import PreconditionRequired
from resources.http.types import EntityTags

_if_match = RequestParser("headers").add_argument(
    "If-Match", type=EntityTags(), dest="expected", help="Change the item only if this is still its ETag; else 412."
)


def if_match(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass the versions that `If-Match` names to the verb, as `expected`; operations decide on them in their UPDATE."""

    @wraps(function)
    def verb(*args: Any, **kwargs: Any) -> Any:
        if "If-Match" not in request.headers and current_app.config["REQUIRE_IF_MATCH"]:
            raise PreconditionRequired
        return function(*args, **kwargs, **_if_match.parse_args())

    note(verb, headers=_if_match)
    return verb


def etag(version: int) -> str:
    """Return the entity tag of a version."""
    return f'"{version}"'


def is_known(version: int) -> bool:
    """Tell whether `If-None-Match` says that the client has this version already."""
    known = request.environ.get("HTTP_IF_NONE_MATCH")
    if known is None:
        return False
    versions = EntityTags()(known)
    return versions is None or version in versions
