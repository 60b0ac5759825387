"""Every answer that the suite sees is held to the generated OpenAPI document, and to what holds for all answers."""

from typing import Any

from flask import Flask
from jsonschema import Draft202012Validator, FormatChecker
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from resources.http.openapi import document

# In an answer that is repeated, and in those to requests that are counted.
SOMETIMES = {"Idempotency-Replayed", "RateLimit-Policy", "RateLimit"}


class Contract:
    """The generated document of an application, as a judge of its answers."""

    def __init__(self, app: Flask, blueprint: str = "api_v1") -> None:
        self.app = app
        with app.app_context():
            self.document = document(app, blueprint=blueprint, version="test")

    def check(self, method: str, path: str, response: TestResponse) -> None:
        """Assert that an answer is one that the document promises."""
        assert response.headers["X-Request-ID"]
        assert "Origin" in response.headers["Vary"]
        assert ("RateLimit" in response.headers) == ("RateLimit-Policy" in response.headers)
        if response.status_code in (204, 304):
            assert response.data == b"" and "Content-Type" not in response.headers
        if response.status_code in (400, 401) and path.startswith("/oauth/"):
            check_oauth_refusal(response)
            return
        if response.status_code >= 400:
            assert response.mimetype == "application/problem+json"
            if method != "HEAD":
                self._validate({"$ref": "#/components/schemas/Problem"}, response.json)
                self._validate({"$ref": "#/components/schemas/ProblemCode"}, response.json["code"])
                assert response.json["status"] == response.status_code
        if response.status_code == 401:
            assert response.headers["WWW-Authenticate"].startswith("Bearer ")
        if response.status_code in (429, 503):
            assert int(response.headers["Retry-After"]) > 0
        operation = self._operation(method, path)
        if operation is not None:
            self._check_promised(operation, method, response)

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        """Return the operation that answers a request, or None where it is not one of the document's."""
        adapter = self.app.url_map.bind("localhost")
        try:
            rule, _ = adapter.match(path.partition("?")[0], method=method, return_rule=True)
        except HTTPException:
            return None
        template = rule.rule.replace("<int:", "{").replace(">", "}")
        verb = "get" if method == "HEAD" else method.lower()
        operation: dict[str, Any] | None = self.document["paths"].get(template, {}).get(verb)
        return operation

    def _check_promised(self, operation: dict[str, Any], method: str, response: TestResponse) -> None:
        promised = operation["responses"].get(str(response.status_code))
        assert promised, f"{response.status_code} is not among the answers of {operation['operationId']}"
        promised = self._resolved(promised)
        for name in promised.get("headers", {}).keys() - SOMETIMES:
            if name != "ETag" or "fields=" not in (response.request.query_string or b"").decode("latin-1"):
                assert name in response.headers, f"{name} is promised"
        content = promised.get("content")
        if content and method != "HEAD":
            assert response.mimetype in content
            self._validate(content[response.mimetype]["schema"], response.json)

    def _resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        reference = node.get("$ref")
        if not reference:
            return node
        found: Any = self.document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return dict(found)

    def _validate(self, schema: dict[str, Any], value: Any) -> None:
        whole = {**schema, "components": self.document["components"]}
        Draft202012Validator(whole, format_checker=FormatChecker()).validate(value)


def check_oauth_refusal(response: TestResponse) -> None:
    """Assert that a program is refused in the form that is agreed for OAuth (RFC 6749 §5.2)."""
    assert response.mimetype == "application/json"
    assert response.json.keys() == {"error", "error_description"}
    assert response.headers["Cache-Control"] == "no-store"
    assert (response.json["error"] == "invalid_client") == (response.status_code == 401)
    assert (response.headers.get("WWW-Authenticate") == 'Basic realm="rollcall"') == (response.status_code == 401)
