"""What would break a client is found in the document of the API, and what would not is let pass."""

import copy
import json
import os
import subprocess
from datetime import date
from pathlib import Path

import pytest

from docs.breaking import breaking_changes, main
from tests.servers import ROOT, inherited

TODAY = date(2026, 6, 30)
NOTE = {"$ref": "#/components/schemas/Note"}
INPUT = {"$ref": "#/components/schemas/NoteInput"}
DOCUMENT = {
    "security": [{"bearer": []}],
    "paths": {
        "/notes": {
            "get": {
                "parameters": [
                    {"name": "size", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
                    {"name": "sort", "in": "query", "schema": {"type": "string", "enum": ["id", "-id"]}},
                    {"name": "q", "in": "query", "schema": {"type": "string", "maxLength": 80}},
                    {
                        "name": "fields",
                        "in": "query",
                        "schema": {"type": "string", "pattern": "^(?:a|b)(?:,(?:a|b))*$"},
                    },
                ],
                "responses": {
                    "200": {
                        "headers": {"Link": {"schema": {"type": "string"}}},
                        "content": {"application/json": {"schema": {"type": "array", "items": NOTE}}},
                    },
                    "401": {},
                },
            },
            "post": {
                "requestBody": {"required": True, "content": {"application/json": {"schema": INPUT}, "text/plain": {}}},
                "responses": {"201": {"content": {"application/json": {"schema": NOTE}}}, "422": {}},
            },
        },
        "/notes/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {"security": [], "responses": {"200": {"content": {"application/json": {"schema": NOTE}}}}},
            "patch": {
                "requestBody": {"content": {"application/json": {"schema": INPUT}}},
                "responses": {"204": {}},
            },
            "delete": {"deprecated": True, "x-sunset": "2026-07-01", "responses": {"204": {}}},
        },
    },
    "components": {
        "schemas": {
            "Note": {
                "type": "object",
                "required": ["id", "state", "text"],
                "properties": {
                    "id": {"type": "integer"},
                    "state": {"type": "string", "enum": ["new", "old"]},
                    "code": {"anyOf": [{"type": "string", "enum": ["x", "y"]}, {"type": "string"}]},
                    "text": {"type": ["string", "null"]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "at": {"type": "string", "format": "date-time"},
                },
                "additionalProperties": False,
            },
            "NoteInput": {
                "type": "object",
                "required": ["text"],
                "properties": {
                    "text": {"type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[a-z]+$"},
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 9},
                    "size": {"type": ["integer", "null"]},
                    "weight": {"type": "number"},
                    "more": {
                        "type": "object",
                        "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
                    },
                },
                "additionalProperties": False,
            },
        }
    },
}

NOTES, A_NOTE = "paths./notes", "paths./notes/{id}"
SIZE, SORT, Q, FIELDS = (f"{NOTES}.get.parameters.{number}.schema" for number in range(4))
OUTPUT, TAKEN = "components.schemas.Note", "components.schemas.NoteInput"
GONE = object()

# Where the new document differs, what is there then, and what is said of it for one of the operations.
BREAKING = {
    "path": (A_NOTE, GONE, "GET /notes/{id}: is gone"),
    "verb": (f"{NOTES}.post", GONE, "POST /notes: is gone"),
    "status": (f"{NOTES}.get.responses.401", GONE, "GET /notes: answer 401 is gone"),
    "type of answer": (f"{NOTES}.get.responses.200.content", {}, "answer 200 as application/json is gone"),
    "header": (f"{NOTES}.get.responses.200.headers", {}, "GET /notes: answer 200 Link is gone"),
    "type of header": (
        f"{NOTES}.get.responses.200.headers.Link.schema.type",
        "integer",
        "Link was string and is now i",
    ),
    "member of an answer": (f"{OUTPUT}.properties.tags", GONE, "GET /notes: answer 200[].tags is gone"),
    "member of an answer, perhaps": (f"{OUTPUT}.required", ["id", "text"], "answer 200.state may now be missing"),
    "type of a member": (f"{OUTPUT}.properties.id.type", "string", "answer 200.id was integer and is now string"),
    "null in an answer": (f"{OUTPUT}.properties.id.type", ["integer", "null"], "answer 200.id was integer and is now "),
    "items of an answer": (f"{OUTPUT}.properties.tags.items", {"type": "integer"}, "answer 200.tags[] was string"),
    "anything in an answer": (f"{OUTPUT}.properties.id", {}, "answer 200.id was integer and is now anything"),
    "more words in an answer": (f"{OUTPUT}.properties.state.enum", ["new", "old", "gone"], "state has another enum"),
    "form of an answer": (f"{OUTPUT}.properties.at.format", "date", "answer 200.at has another format"),
    "no form in an answer": (f"{OUTPUT}.properties.at.format", GONE, "answer 200.at has another format"),
    "another choice in an answer": (
        f"{OUTPUT}.properties.code.anyOf",
        [{"type": "string"}, {"type": "integer"}],
        "answer 200.code may now be such a integer",
    ),
    "parameter": (f"{NOTES}.get.parameters", [], "GET /notes: query parameter size is gone"),
    "required parameter": (f"{NOTES}.get.parameters.0.required", True, "query parameter size is now required"),
    "new required parameter": (
        f"{NOTES}.post.parameters",
        [{"name": "way", "in": "query", "required": True, "schema": {}}],
        "POST /notes: query parameter way is now required",
    ),
    "type of a parameter": (f"{Q}.type", "integer", "query parameter q was string and is now integer"),
    "least of a parameter": (f"{SIZE}.minimum", 2, "query parameter size has another minimum"),
    "most of a parameter": (f"{SIZE}.maximum", 99, "query parameter size has another maximum"),
    "first least of a parameter": (f"{Q}.minLength", 1, "query parameter q has another minLength"),
    "words of a parameter": (f"{SORT}.enum", ["id"], "query parameter sort has another enum"),
    "first words of a parameter": (f"{Q}.enum", ["a"], "query parameter q has another enum"),
    "words in a pattern": (f"{FIELDS}.pattern", "^(?:a)(?:,(?:a))*$", "query parameter fields has another pattern"),
    "pattern": (f"{Q}.pattern", "^.$", "query parameter q has another pattern"),
    "place of a parameter": (f"{A_NOTE}.parameters.0.name", "note_id", "path parameter note_id is now required"),
    "body": (f"{A_NOTE}.patch.requestBody", {}, "PATCH /notes/{id}: body as application/json is gone"),
    "type of body": (f"{NOTES}.post.requestBody.content.text/plain", GONE, "POST /notes: body as text/plain is gone"),
    "required body": (f"{A_NOTE}.patch.requestBody.required", True, "PATCH /notes/{id}: a body is now required"),
    "member of a body": (f"{TAKEN}.properties.kind", GONE, "POST /notes: body.kind is gone"),
    "required member": (f"{TAKEN}.required", ["text", "kind"], "POST /notes: body.kind is now required"),
    "type of a member of a body": (f"{TAKEN}.properties.size.type", "integer", "body.size was integer or null and is"),
    "whole numbers only": (f"{TAKEN}.properties.weight.type", "integer", "body.weight was number and is now integer"),
    "longest member": (f"{TAKEN}.properties.text.maxLength", 99, "body.text has another maxLength"),
    "shortest member": (f"{TAKEN}.properties.text.minLength", 2, "body.text has another minLength"),
    "pattern of a member": (f"{TAKEN}.properties.text.pattern", "^[a-y]+$", "body.text has another pattern"),
    "form of a member": (f"{TAKEN}.properties.text.format", "email", "body.text has another format"),
    "items": (f"{TAKEN}.properties.tags.items.maxLength", 3, "body.tags[] has another maxLength"),
    "most items": (f"{TAKEN}.properties.tags.maxItems", 8, "body.tags has another maxItems"),
    "distinct items": (f"{TAKEN}.properties.tags.uniqueItems", True, "body.tags has another uniqueItems"),
    "choice": (
        f"{TAKEN}.properties.more.additionalProperties.anyOf",
        [{"type": "string"}],
        "may no longer be such a b",
    ),
    "further members": (f"{TAKEN}.properties.more.additionalProperties", False, "body.more takes no longer any member"),
    "names": (f"{TAKEN}.properties.more.propertyNames", {"maxLength": 9}, "body.more, names has another maxLength"),
    "what is not understood": (f"{TAKEN}.properties.text.not", {"const": "x"}, "has another not, which is not underst"),
    "open to all": (f"{A_NOTE}.get.security", GONE, "GET /notes/{id}: a call of nobody known is no longer let in"),
    "credential": ("security", [{"key": []}], "GET /notes: bearer is no longer let in"),
    "sooner": (f"{A_NOTE}.delete.x-sunset", "2026-06-30", "DELETE /notes/{id}: ends on 2026-06-30, sooner than was"),
    "before its end": (f"{A_NOTE}.delete", GONE, "DELETE /notes/{id}: is gone"),
}
HARMLESS = {
    "nothing": ("info", {"version": "9"}),
    "path": ("paths./new", {"get": {"responses": {}}}),
    "verb": (f"{NOTES}.put", {"responses": {}}),
    "status": (f"{NOTES}.get.responses.403", {}),
    "header": (f"{NOTES}.get.responses.200.headers.ETag", {"schema": {"type": "string"}}),
    "member of an answer": (f"{OUTPUT}.properties.new", {"type": "string"}),
    "member that is always there": (f"{OUTPUT}.required", ["id", "state", "text", "tags"]),
    "never null": (f"{OUTPUT}.properties.text.type", "string"),
    "fewer words in an answer": (f"{OUTPUT}.properties.state.enum", ["new"]),
    "more words of an open choice": (f"{OUTPUT}.properties.code.anyOf.0.enum", ["x", "y", "z"]),
    "parameter": (f"{NOTES}.post.parameters", [{"name": "way", "in": "query", "schema": {"type": "string"}}]),
    "bounds of a parameter": (f"{SIZE}", {"type": "integer", "minimum": 0, "maximum": 101}),
    "no bounds": (f"{SIZE}", {"type": "number"}),
    "more types": (f"{SIZE}", {}),
    "words of a parameter": (f"{SORT}.enum", ["id", "-id", "at"]),
    "words in a pattern": (f"{FIELDS}.pattern", "^(?:a|c|b)(?:,(?:a|b|c))*$"),
    "pattern": (f"{TAKEN}.properties.text.pattern", GONE),
    "member of a body": (f"{TAKEN}.properties.new", {"type": "string"}),
    "member that may be missing": (f"{TAKEN}.required", []),
    "null": (f"{TAKEN}.properties.kind.type", ["string", "null"]),
    "choice": (f"{TAKEN}.properties.more.additionalProperties.anyOf.2", {"type": "null"}),
    "further members": (f"{TAKEN}.additionalProperties", True),
    "body that may be missing": (f"{NOTES}.post.requestBody.required", False),
    "type of body": (f"{NOTES}.post.requestBody.content.text/html", {}),
    "credential": ("security", [{"bearer": []}, {"key": []}]),
    "open to all": (f"{NOTES}.get.security", []),
    "that it ends": (f"{NOTES}.get.deprecated", True),
    "later": (f"{A_NOTE}.delete.x-sunset", "2027-07-01"),
    "words for people": (f"{OUTPUT}.description", "A note."),
}


def changed(place, value):
    """Return the document with another value in a place, whose parts a dot separates."""
    document = node = copy.deepcopy(DOCUMENT)
    *way, last = place.split(".")
    for part in way:
        node = node[int(part) if isinstance(node, list) else part]
    if isinstance(node, list):
        node.insert(int(last), value)
    elif value is GONE:
        del node[last]
    else:
        node[last] = value
    return document


def found(new, *, today=TODAY):
    return breaking_changes(DOCUMENT, new, today=today)


@pytest.mark.parametrize(("place", "value", "told"), BREAKING.values(), ids=BREAKING)
def test_what_breaks_a_client_is_found(place, value, told):
    assert [change for change in found(changed(place, value)) if told in change]


@pytest.mark.parametrize(("place", "value"), HARMLESS.values(), ids=HARMLESS)
def test_what_breaks_nobody_passes(place, value):
    assert found(changed(place, value)) == []


def test_what_was_announced_may_be_gone_when_its_day_has_come():
    new = changed(f"{A_NOTE}.delete", GONE)

    assert found(new, today=date(2026, 7, 1)) == []
    assert found(new, today=date(2026, 6, 30)) == ["DELETE /notes/{id}: is gone"]


def test_each_operation_that_is_concerned_is_named():
    assert found(changed(f"{OUTPUT}.properties.at", GONE)) == [
        "GET /notes: answer 200[].at is gone",
        "POST /notes: answer 201.at is gone",
        "GET /notes/{id}: answer 200.at is gone",
    ]


def test_a_schema_within_itself_has_an_end():
    tree = {"type": "object", "properties": {"below": NOTE}}

    assert found(changed(f"{OUTPUT}.properties.below", tree)) == []


def test_our_own_document_breaks_nobody_who_knows_it_and_does_without_a_member_or_a_bound():
    ours = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))
    less, narrower = copy.deepcopy(ours), copy.deepcopy(ours)
    for name in ("User", "UserPart"):
        del less["components"]["schemas"][name]["properties"]["email"]
    narrower["components"]["schemas"]["UserCreate"]["properties"]["name"]["maxLength"] -= 1

    assert breaking_changes(ours, ours, today=TODAY) == []
    assert "GET /api/v1/users: answer 200.users[].email is gone" in breaking_changes(ours, less, today=TODAY)
    assert breaking_changes(ours, narrower, today=TODAY) == ["POST /api/v1/users: body.name has another maxLength"]


# Against the last tag


@pytest.fixture
def project(tmp_path):
    """Return a folder under git that holds the document of an API."""
    git(tmp_path, "init", "-q")
    (tmp_path / "docs").mkdir()
    commit(tmp_path, DOCUMENT)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    somebody = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *arguments], cwd=folder, env=inherited() | somebody | alone, check=True)


def commit(folder: Path, document) -> None:
    (folder / "docs" / "openapi.json").write_text(json.dumps(document))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", "A change")


def test_where_there_is_no_tag_yet_everything_passes(project, capsys):
    commit(project, {})

    assert main(project) == 0
    assert capsys.readouterr().out == "There is no tag yet with which to compare the documents of the API.\n"


def test_it_is_the_last_tag_that_counts(project, capsys):
    commit(project, changed(f"{NOTES}.post", GONE))
    git(project, "tag", "v2")
    commit(project, changed(NOTES, GONE))

    assert main(project) == 1
    assert capsys.readouterr().out == "Compared with v2.\ndocs/openapi.json: GET /notes: is gone, since v2\n"


def test_what_is_not_committed_counts_and_what_is_harmless_passes(project, capsys):
    git(project, "tag", "v1")
    path = project / "docs" / "openapi.json"
    path.write_text(json.dumps(changed("paths./new", {"get": {"responses": {}}})))
    assert main(project) == 0

    path.write_text(json.dumps(changed(NOTES, GONE)))
    assert main(project) == 1


def test_a_release_is_compared_with_the_one_before(project):
    git(project, "tag", "v1")
    commit(project, changed(NOTES, GONE))
    git(project, "tag", "v2")

    assert main(project) == 1


def test_a_version_that_is_gone_counts_with_all_that_was_in_it(project, capsys):
    (project / "docs" / "openapi_v2.json").write_text(json.dumps(DOCUMENT))
    commit(project, DOCUMENT)
    git(project, "tag", "v1")
    (project / "docs" / "openapi_v2.json").unlink()

    assert main(project) == 1
    assert "docs/openapi_v2.json: GET /notes: is gone, since v1" in capsys.readouterr().out
