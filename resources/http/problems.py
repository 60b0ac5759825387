"""Every answer of 400 and above, as a problem (RFC 9457): the one place where a refusal becomes a status."""

import logging
from collections.abc import Iterator
from typing import Any

import orjson
from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from service.database_errors import refusal_from
from service.errors import (
    AuthenticationRequired,
    Conflict,
    Forbidden,
    Invalid,
    InvalidToken,
    NotFound,
    RateLimited,
    Refusal,
    TooManyAttempts,
    Unavailable,
    VersionMismatch,
)

log = logging.getLogger("rollcall.problems")


class BadRequest(Refusal):
    """The request cannot be read: an address or a header is malformed, or the host is not served here."""

    code = "bad_request"
    title = "The request is malformed"


class InvalidParameter(BadRequest):
    """A parameter of the query string or a header is unknown, repeated, or has a value that is not allowed.

    `errors` names each.
    """

    code = "invalid_parameter"
    title = "Some parameters are not valid"


class MalformedBody(BadRequest):
    """The body is not JSON: `detail` says where reading stopped.

    Not accepted either: NaN, duplicate names, more than 16 levels, bytes that are not UTF-8, a body that ended
    early.
    """

    code = "malformed_body"
    title = "The body is not JSON"


class MethodNotAllowed(Refusal):
    """The resource does not know this method; `Allow` lists those it knows."""

    code = "method_not_allowed"
    title = "The method is not offered here"


class NotAcceptable(Refusal):
    """Answers are `application/json`, which the `Accept` header rules out. Nothing was done."""

    code = "not_acceptable"
    title = "Answers are application/json only"


class PayloadTooLarge(Refusal):
    """The body is larger than 1 MiB."""

    code = "payload_too_large"
    title = "The body is too large"


class UnsupportedMediaType(Refusal):
    """Send the body uncompressed, in UTF-8, with `Content-Type: application/json`.

    PATCH also takes `application/merge-patch+json`. A picture is sent as it is, with its own type.
    """

    code = "unsupported_media_type"
    title = "The body has a type that is not read here"


class PreconditionRequired(Refusal):
    """Changes are accepted here only with `If-Match`, so that no update is lost. Read the item and send its ETag."""

    code = "precondition_required"
    title = "Send If-Match with the item's ETag"


class InternalError(Refusal):
    """The fault is ours and has been logged under the `request_id`; report it with that."""

    code = "internal_error"
    title = "Something went wrong here"


MOST_FAULTS = 100  # Named in one answer, which must not grow with what was sent.
STATUS: dict[type[Refusal], int] = {
    BadRequest: 400,
    AuthenticationRequired: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    NotAcceptable: 406,
    Conflict: 409,
    VersionMismatch: 412,
    PayloadTooLarge: 413,
    UnsupportedMediaType: 415,
    Invalid: 422,
    PreconditionRequired: 428,
    TooManyAttempts: 429,
    RateLimited: 429,
    InternalError: 500,
    Unavailable: 503,
}
BY_STATUS = {status: refusal for refusal, status in STATUS.items()}


def catalogue() -> list[type[Refusal]]:
    """List every kind of problem, by status and code."""
    return sorted(_kinds(Refusal), key=lambda kind: (status_of(kind), kind.code))


def _kinds(kind: type[Refusal]) -> Iterator[type[Refusal]]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds(child)


def status_of(kind: type[Refusal]) -> int:
    """Return the status of a kind of refusal: its own, or that of the nearest kind above it."""
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def page_path(kind: type[Refusal]) -> str:
    """Return the path of the page that explains a kind of refusal."""
    return f"/problems/{kind.code.replace('_', '-')}"


def pages() -> list[dict[str, Any]]:
    """Return what there is to say about each kind of problem."""
    return [
        {
            "code": kind.code,
            "path": page_path(kind),
            "status": status_of(kind),
            "title": kind.title,
            "explanation": " ".join((kind.__doc__ or "").split()),
        }
        for kind in catalogue()
    ]


def problem(refusal: Refusal) -> Response:
    """Return the answer to a refusal."""
    kind = type(refusal)
    status = status_of(kind)
    body = {
        "type": current_app.config["PUBLIC_URL"] + page_path(kind),
        "title": refusal.title,
        "status": status,
        "code": refusal.code,
        "detail": refusal.detail,
        "instance": request.path,
        "request_id": g.request_id,
    }
    if refusal.faults:
        body["errors"] = [fault._asdict() for fault in refusal.faults[:MOST_FAULTS]]
    response = Response(orjson.dumps(body), status, content_type="application/problem+json")
    response.headers["Cache-Control"] = "no-store"
    if status == 401:
        error = ', error="invalid_token"' if isinstance(refusal, InvalidToken) else ""
        response.headers["WWW-Authenticate"] = f'Bearer realm="rollcall"{error}'
    if status in (429, 503):
        response.headers["Retry-After"] = str(getattr(refusal, "retry_after", 1))
    return response


def init_problems(app: Flask) -> None:
    """Answer every refusal of ours, of Flask's and of the database as a problem."""
    app.register_error_handler(Refusal, problem)
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(SQLAlchemyError, _database_problem)


def _http_problem(error: HTTPException) -> Response:
    """Answer what Flask and Werkzeug refuse; unhandled errors arrive here as InternalServerError, already logged."""
    if error.response is not None:
        return error.response
    kind = BY_STATUS.get(error.code or 500, BadRequest if (error.code or 500) < 500 else InternalError)
    response = problem(kind())
    for name, value in error.get_headers():
        if name not in {"Content-Type", "WWW-Authenticate"}:
            response.headers.setdefault(name, value)
    return response


def _database_problem(error: SQLAlchemyError) -> Response:
    refusal = refusal_from(error)
    if refusal is None:
        raise error
    if isinstance(refusal, Unavailable):
        log.warning("database unavailable", extra={"request_id": g.request_id, "error": type(error).__name__})
    return problem(refusal)
