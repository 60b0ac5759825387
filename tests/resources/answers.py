"""What tests read out of answers."""

import re
from typing import Any

from werkzeug.test import TestResponse


def pointers(response: TestResponse) -> list[str]:
    """Return where the faults of a problem are."""
    return [fault["pointer"] for fault in response.json["errors"]]


def links(response: TestResponse) -> dict[str, str]:
    """Return the addresses of a Link header by their relation, without the host."""
    return {
        name: target for target, name in re.findall(r'<http://localhost([^>]*)>; rel="(\w+)"', response.headers["Link"])
    }


def anonymous_form(response: TestResponse) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return all that an answer says apart from ids: two that are equal in this cannot be told apart."""
    body = {name: value for name, value in response.json.items() if name != "request_id"}
    body["instance"] = re.sub(r"\d+", "#", body["instance"])
    headers = {name: value for name, value in response.headers if name not in {"X-Request-ID", "Content-Length"}}
    return response.status_code, body, headers
