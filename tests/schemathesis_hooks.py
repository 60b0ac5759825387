"""How Schemathesis signs in: as an admin whose token is renewed when a case has ended it, as some cases rightly do.

Environment: TARGET (the server's address), ADMIN_CREATE (a JSON list: the command that makes an admin, to which an
e-mail address is added).
"""

import json
import os
import subprocess
from itertools import count
from typing import Any

import requests
import schemathesis
from hypothesis import strategies

from tests.pictures import TYPES, a_picture

TARGET = os.environ["TARGET"]
PASSWORD = "correct horse battery staple"
HARD_TO_GUESS = "vK7qzR2wXb9mTn4hPj6sLd8fGc3y" * 40
numbers = count(1)
tokens: list[str] = []
for kind, media_type in TYPES.items():
    schemathesis.openapi.media_type(media_type, strategies.just(a_picture(kind)))


def new_admin_token() -> str:
    """Make another admin, and sign in as them, from another network than the cases with their wrong passwords."""
    number = next(numbers)
    email = f"tester{os.getpid()}-{number}@example.com"
    subprocess.run([*json.loads(os.environ["ADMIN_CREATE"]), email], check=True, capture_output=True)
    credentials, network = {"email": email, "password": PASSWORD}, {"X-Forwarded-For": f"10.0.0.{number % 256}"}
    answer = requests.post(f"{TARGET}/api/v1/auth/login", json=credentials, headers=network, timeout=30)
    return str(answer.json()["access_token"])


def is_alive(token: str) -> bool:
    """Tell whether a token is still accepted."""
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"{TARGET}/api/v1/users?per_page=1", headers=headers, timeout=30).status_code == 200


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Mend what no schema can demand: a password hard to guess, a public address, a time to come, a new key."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    (case.headers or {}).pop("Idempotency-Key", None)
    (case.query or {}).pop("wait", None)  # It may wait, for many seconds, and there is nothing to see in that.
    if case.operation.label == "POST /api/v1/users" and "password" in case.body:
        case.body["password"] = HARD_TO_GUESS[: len(case.body["password"])]
    if "/webhooks" in case.operation.label and isinstance(case.body, dict) and "url" in case.body:
        case.body["url"] = "https://partner.example/hook"
    if "/keys" in case.operation.label and isinstance(case.body, dict) and "expires_at" in case.body:
        case.body["expires_at"] = "2999-12-31T23:59:59Z"


@schemathesis.auth(refresh_interval=None)
class AdminToken:
    """The token of an admin, new whenever a case has ended the last one."""

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
        if not tokens or not is_alive(tokens[-1]):
            tokens.append(new_admin_token())
        return tokens[-1]

    def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
