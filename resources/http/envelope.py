"""What is round every request: its id, the refusal of malformed addresses, headers of the answer, and one log line."""

import logging
import re
import secrets
import time
from urllib.parse import unquote_to_bytes

from flask import Flask, Response, current_app, g, request

from resources.http.problems import BadRequest
from service.errors import NotFound

log = logging.getLogger("rollcall.request")

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)
ENCODED_SLASH = re.compile(rb"%2f|%5c", re.IGNORECASE)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
PORT = re.compile(r":[0-9]{1,5}\Z")
QUIET = frozenset({"health.alive", "health.ready"})


def init_envelope(app: Flask) -> None:
    """Put the envelope round every request of the application."""
    always = dict(HEADERS)
    if app.config["PUBLIC_URL"].startswith("https://"):
        always["Strict-Transport-Security"] = "max-age=63072000; includeSubDomains"

    app.before_request(_open)

    @app.after_request
    def _close(response: Response) -> Response:
        headers = response.headers
        present = {name.lower() for name, _ in headers}
        for name, value in always.items():
            if name.lower() not in present:
                headers.add(name, value)
        headers.add("X-Request-ID", g.request_id)
        if "vary" in present:
            response.vary.add("Origin")
        else:
            headers.add("Vary", "Origin")
        if request.method == "OPTIONS" and response.status_code == 200:
            response.status_code = 204
            del response.headers["Content-Type"]
        _log(response)
        return response


def _open() -> None:
    """Name the request; raises BadRequest or NotFound for an address that is not what it seems."""
    g.started = time.perf_counter()
    # Here and below straight from the environment: in `request.headers`, a header that is absent costs an exception.
    environ = request.environ
    given = environ.get("HTTP_X_REQUEST_ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
    raw = environ.get("RAW_URI", "/")
    if raw.startswith("//") or not raw.startswith("/"):
        raise NotFound  # The server would cut off the host, or the slashes, and answer for another address.
    if "%" in raw or not raw.isascii():
        _check_address(raw.encode("latin-1", "replace"))
    if "HTTP_" in environ:
        raise BadRequest("A header line is folded.")  # The server's parser takes such a line for a header without name.
    _check_host(environ.get("HTTP_HOST"), environ.get("SERVER_PROTOCOL"))


def _check_host(host: str | None, protocol: str | None) -> None:
    """Refuse a host that is not ours; only before HTTP/1.1 could it be left out (RFC 9112 §3.2)."""
    if host is None and protocol == "HTTP/1.0":
        return
    if PORT.sub("", host or "").lower() not in current_app.config["ALLOWED_HOSTS"]:
        raise BadRequest("The host is not served here.")


def _check_address(raw: bytes) -> None:
    """Refuse bytes that are not UTF-8, and a slash in disguise, which would reach another resource."""
    path, _, query = raw.partition(b"?")
    try:
        unquote_to_bytes(path).decode()
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        raise BadRequest("The address is not UTF-8.") from None
    if ENCODED_SLASH.search(path):
        raise NotFound


def _log(response: Response) -> None:
    """Write the request's line: never a body, an address of a person, or a credential."""
    level = logging.DEBUG if request.endpoint in QUIET else logging.INFO
    if not log.isEnabledFor(level):
        return
    identity = g.get("identity")
    facts = {
        "request_id": g.request_id,
        "method": request.method,
        "route": request.url_rule.rule if request.url_rule else None,
        "status": response.status_code,
        "ms": round((time.perf_counter() - g.started) * 1000, 2),
        "actor": identity.user_id if identity else None,
    }
    log.log(level, "request", extra=facts)
