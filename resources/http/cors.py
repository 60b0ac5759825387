"""Which browser origins may call: those that are spelled out in CORS_ORIGINS, and no others."""

import re
from datetime import timedelta

from flask import Flask
from flask_cors import CORS

ASKED = [
    *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-CSRF-Token", "X-Request-ID"),
]
EXPOSED = [
    *("ETag", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"),
    *("Deprecation", "Sunset", "Idempotency-Replayed", "WWW-Authenticate"),
]


def init_cors(app: Flask) -> None:
    """Answer the listed origins; without any, no browser page may read an answer."""
    # As patterns that match each to the letter: of plain strings, Flask-CORS would ignore the case, and guess that
    # one with the brackets of an IPv6 address is a pattern.
    origins = [re.compile(re.escape(origin) + r"\Z") for origin in app.config["CORS_ORIGINS"]]
    if origins:
        CORS(
            app,
            origins=origins,
            methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=ASKED,
            expose_headers=EXPOSED,
            max_age=timedelta(hours=1),
            send_wildcard=False,
            supports_credentials=True,  # For the cookie of a session; nothing else here looks at one.
            always_send=False,
        )
