"""Cookies: the refresh token of a browser client, which no script can read, and the mark of a known device.

A cookie is sent whether or not the page meant it to be. So where it counts, the page must come from an origin that is
listed, and show the CSRF token, which is bound to the session.
"""

import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Response, after_this_request, current_app, request

from resources.http.api import note
from service import refresh
from service.errors import AuthenticationRequired, Forbidden, InvalidToken
from service.grants import Grant, csrf_token
from service.sessions import REMEMBERED

REFRESH, DEVICE = "rollcall-refresh", "rollcall-device"


class UntrustedPage(Forbidden):
    """A request that relies on a cookie came from a page that is not trusted, or without its CSRF token.

    Send it from an origin listed in CORS_ORIGINS, with the `csrf_token` of the sign-in as `X-CSRF-Token`.
    """

    code = "untrusted_page"
    title = "The page may not use the cookie"


def or_cookie(function: Callable[..., Any]) -> Callable[..., Any]:
    """Say in the documentation that the verb also takes the cookie."""
    note(function, cookie=True)
    return function


def hand_out(grant: Grant) -> Grant:
    """Set the cookies that belong to a grant, and return it; raises UntrustedPage."""
    session = grant.session
    if session.transport == "cookie":
        check_origin()
        age = int((session.idle_expires_at - session.last_used_at).total_seconds())
        _set(REFRESH, grant.secret, age if session.remember else None)
    if grant.device:
        _set(DEVICE, grant.device, int(REMEMBERED.absolute.total_seconds()))
    return grant


def device() -> str | None:
    """Return the mark of a known device, if the client has one."""
    return request.cookies.get(_name(DEVICE))


def refresh_token(given: str | None) -> str:
    """Return the refresh token of the body or, where it has none, of the cookie.

    Raises AuthenticationRequired, InvalidToken, UntrustedPage.
    """
    return _of_cookie()[0] if given is None else given


def session_id() -> int:
    """Return the session whose refresh token is in the cookie; raises what `refresh_token` raises."""
    return _of_cookie()[1]


def forget() -> None:
    """Remove the refresh token from a client that has one."""
    if _name(REFRESH) in request.cookies:

        @after_this_request
        def remove(response: Response) -> Response:
            if response.status_code < 400:  # What was not committed must not take the cookie away.
                response.delete_cookie(_name(REFRESH), **_attributes())
            return response


def check_origin() -> None:
    """Refuse a page whose origin is neither listed nor our own; raises UntrustedPage."""
    own = urlsplit(current_app.config["PUBLIC_URL"])
    if request.headers.get("Origin") not in {*current_app.config["CORS_ORIGINS"], f"{own.scheme}://{own.netloc}"}:
        raise UntrustedPage("The page's origin is not one that may use cookies here.")


def _of_cookie() -> tuple[str, int]:
    token = request.cookies.get(_name(REFRESH))
    if token is None:
        raise AuthenticationRequired
    check_origin()
    session_id = refresh.session_of(token)
    if session_id is None:
        raise InvalidToken
    if not hmac.compare_digest(request.headers.get("X-CSRF-Token", "").encode(), csrf_token(session_id).encode()):
        raise UntrustedPage("X-CSRF-Token is missing, or belongs to another session.")
    return token, session_id


def _set(name: str, value: str, age: int | None) -> None:
    @after_this_request
    def set_cookie(response: Response) -> Response:
        if response.status_code < 400:  # What was not committed is nothing to keep.
            response.set_cookie(_name(name), value, max_age=age, **_attributes())
        return response


def _name(name: str) -> str:
    """Return a cookie's name; over https with the prefix that binds it to this very host (RFC 6265bis §4.1.3.2)."""
    return f"__Host-{name}" if _is_secure() else name


def _attributes() -> dict[str, Any]:
    return {"path": "/", "httponly": True, "secure": _is_secure(), "samesite": current_app.config["COOKIE_SAMESITE"]}


def _is_secure() -> bool:
    return bool(current_app.config["PUBLIC_URL"].startswith("https://"))
