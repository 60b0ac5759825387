"""The documentation of the API, for people and for programs, without anything from another host."""

from pathlib import Path

import click
import flask_swagger_ui
import orjson
from flask import Blueprint, Response, current_app, render_template, send_from_directory

from resources.http.openapi import document

docs = Blueprint("docs", __name__, template_folder="templates", cli_group=None)

SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"
COMMITTED = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"
# Swagger UI styles its elements inline and draws its icons from data addresses.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)


@docs.get("/api/v1/openapi.json")
def openapi_v1() -> Response:
    """Return the OpenAPI document of version 1, made once."""
    extensions = current_app.extensions
    if "openapi_v1" not in extensions:
        extensions["openapi_v1"] = orjson.dumps(_document())
    headers = {"Cache-Control": "public, max-age=300"}
    return Response(extensions["openapi_v1"], headers=headers, content_type="application/json")


@docs.get("/docs")
def swagger_ui() -> Response:
    """Show the document as a page on which it can be tried."""
    return Response(render_template("swagger.html"), headers={"Content-Security-Policy": POLICY})


@docs.get("/docs/assets/<path:name>")
def asset(name: str) -> Response:
    """Serve Swagger UI's own files."""
    return send_from_directory(SWAGGER_UI, name, max_age=86_400)


@docs.cli.command("openapi")
@click.option("--write", is_flag=True, help="Rewrite the committed copy instead of printing.")
def openapi_command(write: bool) -> None:
    """Print the OpenAPI document of version 1."""
    text = committed_form(_document())
    if write:
        COMMITTED.write_text(text, "utf-8")
    else:
        click.echo(text, nl=False)


def committed_form(content: dict) -> str:
    """Return the document as it is committed: without the address of an installation, and easy to compare."""
    neutral = {**content, "servers": [{"url": "/"}]}
    return orjson.dumps(neutral, option=orjson.OPT_INDENT_2).decode() + "\n"


def _document() -> dict:
    return document(current_app, blueprint="api_v1", version=current_app.config["VERSION"])
