"""Api and Resource: Flask-RESTful's, with one kind of error, one unit of work a call, and no verb without a policy."""

import ipaddress
from collections.abc import Callable
from typing import Any

import flask_restful
import orjson
from flask import Response, g, request
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError

from models.statements import unit_of_work
from resources.http.problems import NotAcceptable
from service.errors import Refusal
from service.identity import Client, remember_client

VERBS = ("get", "post", "put", "patch", "delete")
SAFE = frozenset({"GET", "HEAD"})
ANY_ANSWER = frozenset({"", "*/*", "application/json", "application/json, text/plain, */*"})


class Api(flask_restful.Api):
    """An Api whose errors all go to the application's own handlers, in tests as in production."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.representations["application/json"] = _output_json

    def error_router(self, original_handler: Callable[..., Any], e: Exception) -> Any:
        return original_handler(e)


def _output_json(data: Any, code: int, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(data) if data is not None else b"", code, headers, content_type="application/json")


class Resource(flask_restful.Resource):
    """A Resource each of whose verbs says who may call it, by `requires` or `public`, or does not load."""

    init_every_request = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for verb in VERBS:
            method = getattr(cls, verb, None)
            if method is not None and "access" not in getattr(method, "operation", {}):
                raise TypeError(f"{cls.__name__}.{verb} declares neither requires(...) nor public.")

    def dispatch_request(self, *args: Any, **kwargs: Any) -> ResponseReturnValue:
        """Run the verb; one that may change something runs in one unit of work."""
        if request.environ.get("HTTP_ACCEPT", "") not in ANY_ANSWER and not _takes_json():
            raise NotAcceptable
        if request.method in SAFE:
            return self.get(*args, **kwargs)
        verb = getattr(self, request.method.lower())
        return in_one_unit_of_work(lambda: verb(*args, **kwargs))


def in_one_unit_of_work(operation: Callable[[], Any]) -> Any:
    """Run an operation in one unit of work, which knows where the request comes from."""
    remember_client(Client(_address(), _user_agent(), g.request_id))
    try:
        with unit_of_work():
            return operation()
    except (Refusal, SQLAlchemyError) as error:
        if (answer := g.get("after_failure", _none)(error)) is not None:
            return answer
        raise


def _none(_: Exception) -> None:
    """Know of no other answer."""


def _address() -> str | None:
    """Return the client's address, if what the server or a trusted proxy says of it is one."""
    try:
        return str(ipaddress.ip_address(request.remote_addr or ""))
    except ValueError:
        return None


def _user_agent() -> str | None:
    """Return what the client says it is, without what could not be kept."""
    given = request.environ.get("HTTP_USER_AGENT", "")
    return "".join(letter for letter in given if letter.isascii() and letter.isprintable())[:400] or None


def _takes_json() -> bool:
    """Tell whether the client takes JSON (RFC 9110 §12.5.1): the most specific range that covers it decides."""
    ranges = [(value.partition(";")[0].strip().lower(), quality) for value, quality in request.accept_mimetypes]
    for covering in ("application/json", "application/*", "*/*"):
        if qualities := [quality for value, quality in ranges if value == covering]:
            return max(qualities) > 0
    return False


def note(function: Callable[..., Any], **facts: Any) -> None:
    """Leave facts on a verb, from which its documentation is made."""
    function.operation = {**getattr(function, "operation", {}), **facts}  # type: ignore[attr-defined]
