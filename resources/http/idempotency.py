"""Idempotency-Key: a request that creates something can be sent again without doing it twice."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import orjson
from flask import Response, g, request
from sqlalchemy.exc import OperationalError

from resources.http.api import note
from resources.http.arguments import RequestParser
from resources.http.types import Token
from service import idempotency
from service.errors import IdempotencyKeyInUse
from service.identity import ANONYMOUS, current_client
from service.keyed import mark
from service.throttle import network_of

HEADER = "Idempotency-Key"
KEPT_HEADERS = ("Content-Type", "Location", "ETag")
REPEATED = {"Cache-Control": "no-store", "Idempotency-Replayed": "true"}
SHOWN_ONCE = frozenset({"secret", "key"})  # Members that are kept nowhere, and null in an answer that is repeated.

_header = RequestParser(location="headers")
_header.add_argument(
    HEADER,
    type=Token(1, 255),
    dest="key",
    help="A value of your own, such as a UUID; the same request with it again gets the same answer for 24 hours.",
)


def idempotent(verb: Callable[..., Response]) -> Callable[..., Response]:
    """Answer a request whose key was answered before with that answer, and keep the answer to one that was not."""

    @wraps(verb)
    def run(*args: Any, **kwargs: Any) -> Response:
        if HEADER not in request.headers:
            return verb(*args, **kwargs)
        sent = _header.parse_args()["key"]
        key = mark("idempotency", _caller(), request.path, sent)
        # A keyed hash, because there may be a password in it.
        fingerprint = mark("request", orjson.dumps([args[1:], kwargs], option=orjson.OPT_SORT_KEYS).hex())
        g.after_failure = lambda error: _answered_meanwhile(key, fingerprint, error)
        if answer := _kept(key, fingerprint):
            return answer
        response = verb(*args, **kwargs)
        _keep(key, fingerprint, response)
        return response

    note(run, headers=_header, idempotent=True)
    return run


def _caller() -> str:
    """Return whose key it is: nobody finds an answer by the key of another."""
    identity = g.get("identity", ANONYMOUS)
    if identity.user_id:
        return f"user {identity.user_id}"
    if identity.service_account_id:
        return f"program {identity.service_account_id}"
    return f"network {network_of(current_client().address)}"


def _kept(key: str, fingerprint: str) -> Response | None:
    kept = idempotency.find(key, fingerprint)
    return Response(kept.body, kept.status, {**kept.headers, **REPEATED}) if kept else None


def _keep(key: str, fingerprint: str, response: Response) -> None:
    body = orjson.loads(response.get_data())
    shown = {name: None if name in SHOWN_ONCE else value for name, value in body.items()}
    idempotency.keep(
        key,
        fingerprint,
        user_id=body.get("id") if "email" in body else body.get("user_id"),
        status=response.status_code,
        headers={name: response.headers[name] for name in KEPT_HEADERS if name in response.headers},
        body=orjson.dumps(shown),
    )


def _answered_meanwhile(key: str, fingerprint: str, error: Exception) -> Response | None:
    """Return the answer of who was quicker with the same key, if that is why this one failed."""
    answer = _kept(key, fingerprint)
    if answer is None and isinstance(error, OperationalError):
        raise IdempotencyKeyInUse from None  # It holds what we waited for in vain.
    return answer
