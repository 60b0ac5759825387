"""Who asks: every verb is `requires(...)` or `public`."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import g, request

from resources.http.api import note
from resources.http.arguments import RequestParser
from resources.http.limits import admit
from service import credentials
from service.errors import AuthenticationRequired, Forbidden
from service.identity import ANONYMOUS, Identity
from service.permissions import Permission

Verb = Callable[..., Any]
_no_parameters = RequestParser()


def requires(
    permission: Permission | None = None, *, or_own: bool = False, or_anonymous: bool = False
) -> Callable[[Verb], Verb]:
    """Let only those call who are signed in and hold the permission; where none is named, any person but no program.

    `or_own` lets in everybody who is signed in, because the operation itself lets them at what is theirs and at
    nothing else; `or_anonymous` also those who send no credential.
    """

    def decorate(function: Verb) -> Verb:
        open_to_all = permission is None or or_own or or_anonymous
        costly = _is_costly(function)

        @wraps(function)
        def verb(*args: Any, **kwargs: Any) -> Any:
            identity = _admitted(or_anonymous, costly)
            if not open_to_all and permission not in identity.permissions:
                raise Forbidden
            if permission is None and identity.key_id is not None:
                raise Forbidden("Only a person can do this, and this is a key.")
            g.identity = identity
            _refuse_stray_parameters(function)
            return function(*args, **kwargs)

        note(verb, access="anonymous" if or_anonymous else "bearer", permission=permission, or_own=or_own)
        return verb

    return decorate


def public(function: Verb) -> Verb:
    """Let everybody call; a credential is not looked at."""
    costly = _is_costly(function)

    @wraps(function)
    def verb(*args: Any, **kwargs: Any) -> Any:
        admit(costly=costly)
        _refuse_stray_parameters(function)
        return function(*args, **kwargs)

    note(verb, access="public")
    return verb


def current_identity() -> Identity:
    """Return who asks."""
    identity: Identity = g.identity
    return identity


def _admitted(or_anonymous: bool, costly: bool | str) -> Identity:
    """Return who asks, counted against their limit; a bad credential counts against that of the address."""
    try:
        identity = _identify(or_anonymous)
    except AuthenticationRequired:
        admit()
        raise
    admit(identity, costly=costly)
    return identity


def _identify(or_anonymous: bool) -> Identity:
    credential = request.environ.get("HTTP_AUTHORIZATION")
    if credential is None and or_anonymous:
        return ANONYMOUS
    scheme, _, token = (credential or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise AuthenticationRequired
    return credentials.identify(token.strip())


def _is_costly(function: Verb) -> bool | str:
    """Return what `costly` or `costly_with` said of a verb."""
    found: bool | str = getattr(function, "operation", {}).get("costly", False)
    return found


def _refuse_stray_parameters(function: Verb) -> None:
    """Refuse a query string where the verb has no parser that would."""
    if request.query_string and "query" not in getattr(function, "operation", {}):
        _no_parameters.parse_args()
