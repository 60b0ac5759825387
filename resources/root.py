"""What lies round the API: the service document, the public signing keys, and a page for each kind of problem."""

from typing import Any

from flask import Blueprint, Response, current_app, render_template

from resources.http.links import address_of
from resources.http.problems import pages
from service import tokens
from service.errors import NotFound

root = Blueprint("root", __name__, template_folder="templates", static_folder="static", static_url_path="/static")

PAGE_POLICY = "default-src 'none'; style-src 'self'; frame-ancestors 'none'"


@root.get("/")
def service_document() -> dict[str, Any]:
    """Say what this is and where its parts are."""
    return {
        "name": "Rollcall",
        "version": current_app.config["VERSION"],
        "links": {
            "api": current_app.config["PUBLIC_URL"] + "/api/v1",
            "documentation": address_of("docs.swagger_ui"),
            "openapi": address_of("api_v1.openapi"),
            "problems": address_of("root.problem_list"),
            "health": address_of("health.alive"),
            "ready": address_of("health.ready"),
            "jwks": address_of("root.jwks"),
            "oauth": address_of("oauth.metadata"),
        },
    }


@root.get("/.well-known/jwks.json")
def jwks() -> tuple[dict[str, Any], dict[str, str]]:
    """Publish the keys with which access tokens can be checked (RFC 7517)."""
    return {"keys": tokens.public_keys()}, {"Cache-Control": "public, max-age=300"}


@root.get("/problems")
def problem_list() -> Response:
    """List every kind of problem."""
    return _page("problems.html", problems=pages())


@root.get("/problems/<name>")
def problem_page(name: str) -> Response:
    """Explain one kind of problem."""
    for page in pages():
        if page["path"] == f"/problems/{name}":
            return _page("problem.html", problem=page)
    raise NotFound


def _page(template: str, **values: Any) -> Response:
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "public, max-age=300"}
    return Response(render_template(template, **values), headers=headers)
