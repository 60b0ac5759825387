"""The documentation of the API, for people and for programs, without anything from another host."""

from pathlib import Path
from typing import Any

import click
import flask_swagger_ui
import orjson
from flask import Blueprint, Response, current_app, render_template, send_from_directory

from resources.http.openapi import document
from resources.http.problems import pages

PROBLEMS_INTRODUCTION = """# Problems

Every answer of 400 and above is a problem (RFC 9457, `application/problem+json`). Decide by its `code`, which never
changes; show its `detail`; report its `request_id`. `errors` names each fault with a `pointer` that begins with
`/json`, `/body`, `/query`, `/headers` or `/path`. Made by `make openapi`; do not edit.
"""
SETTINGS_INTRODUCTION = """# Settings

Each is an environment variable, or a file named by the same variable with `_FILE` added. `flask doctor` shows the
values in force and where they come from. Made by `make openapi`; do not edit.

| variable | meaning |
| --- | --- |"""

docs = Blueprint("docs", __name__, template_folder="templates", cli_group=None)

SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"
FOLDER = Path(__file__).resolve().parent.parent / "docs"
# Swagger UI styles its elements inline and draws its icons from data addresses.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)


def serve_document(version: Blueprint) -> None:
    """Add the OpenAPI document of a version of the API to it."""

    @version.get("/openapi.json")
    def openapi() -> Response:
        """Return the document, made once."""
        made = current_app.extensions.setdefault("openapi", {})
        if version.name not in made:
            made[version.name] = orjson.dumps(_document(version.name))
        headers = {"Cache-Control": "public, max-age=300"}
        return Response(made[version.name], headers=headers, content_type="application/json")


@docs.get("/docs")
def swagger_ui() -> Response:
    """Show the document as a page on which it can be tried."""
    return Response(render_template("swagger.html"), headers={"Content-Security-Policy": POLICY})


@docs.get("/docs/assets/<path:name>")
def asset(name: str) -> Response:
    """Serve Swagger UI's own files."""
    return send_from_directory(SWAGGER_UI, name, max_age=86_400)


@docs.cli.command("openapi")
@click.option("--write", is_flag=True, help="Rewrite the committed documents in docs/ instead of printing.")
def openapi_command(write: bool) -> None:
    """Print the OpenAPI document of version 1, or rewrite it, the list of problems and that of the settings."""
    documents = committed_documents()
    if not write:
        click.echo(documents["openapi.json"], nl=False)
        return
    for name, text in documents.items():
        (FOLDER / name).write_text(text, "utf-8")


def committed_documents() -> dict[str, str]:
    """Return what `docs/` holds that is made from the code, by file name."""
    problems = [
        f"## `{page['code']}`\n\n{page['status']} · {page['title']}\n\n{page['explanation']}\n" for page in pages()
    ]
    settings = [f"| `{name}` | {meaning} |" for name, _, _, meaning in current_app.config["SETTINGS_TABLE"]]
    return {
        "openapi.json": _committed("api_v1"),
        "problems.md": "\n".join([PROBLEMS_INTRODUCTION, *problems]),
        "settings.md": "\n".join([SETTINGS_INTRODUCTION, *settings]) + "\n",
    }


def _committed(blueprint: str) -> str:
    """Return a document without the address of an installation, and easy to compare."""
    neutral = {**_document(blueprint), "servers": [{"url": "/"}]}
    return orjson.dumps(neutral, option=orjson.OPT_INDENT_2).decode() + "\n"


def _document(blueprint: str) -> dict[str, Any]:
    return document(current_app, blueprint=blueprint, version=current_app.config["VERSION"])
