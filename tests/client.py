"""The client of the tests: a front door, each request in a context of its own, each answer held to the contract."""

import contextvars
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from models import User
from service import tokens
from tests.contract import Contract
from tests.factories.session import SessionFactory


class Client:
    """Sends requests to the application as nobody, or `as_(user)`."""

    def __init__(self, app: Flask, contract: Contract, token: str | None = None) -> None:
        self.app, self.contract, self.token = app, contract, token

    def as_(self, user: User) -> "Client":
        """Return a client that is signed in as a user, in a new session."""
        session = SessionFactory(user=None, user_id=user.id)
        with self.app.app_context():
            token = tokens.issue(user_id=user.id, session_id=session.id)
        return self.with_token(token)

    def with_token(self, token: str) -> "Client":
        """Return a client that sends an access token."""
        return Client(self.app, self.contract, token)

    def get(self, path: str, **kwargs: Any) -> TestResponse:
        return self.send("GET", path, **kwargs)

    def head(self, path: str, **kwargs: Any) -> TestResponse:
        return self.send("HEAD", path, **kwargs)

    def post(self, path: str, **kwargs: Any) -> TestResponse:
        return self.send("POST", path, **kwargs)

    def put(self, path: str, **kwargs: Any) -> TestResponse:
        return self.send("PUT", path, **kwargs)

    def patch(self, path: str, **kwargs: Any) -> TestResponse:
        return self.send("PATCH", path, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> TestResponse:
        return self.send("DELETE", path, **kwargs)

    def send(self, method: str, path: str, *, headers: dict[str, str] | None = None, **kwargs: Any) -> TestResponse:
        """Send a request; the answer has `problem`, its (status, code) if it is one."""
        headers = dict(headers or {})
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        # A context of its own: otherwise `g` and the session would live on, and a forgotten commit look right.
        # Without a jar, which would throw away a Cookie header.
        request, browser = contextvars.Context(), self.app.test_client(use_cookies=False)
        response: Any = request.run(lambda: browser.open(path, method=method, headers=headers, **kwargs))
        is_problem = response.mimetype == "application/problem+json" and method != "HEAD"
        response.problem = (response.status_code, response.json["code"]) if is_problem else None
        self.contract.check(method, path, response)
        return response
