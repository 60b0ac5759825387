"""The OpenAPI document says what the code does: its routes, who may call them, what they take and what they answer."""

import re

import pytest
from flask_restful import fields
from openapi_spec_validator import validate

from resources.docs import FOLDER, committed_documents
from resources.http.paging import FeedParser
from resources.http.problems import catalogue, page_path, status_of

URLS = """
/
/.well-known/jwks.json
/.well-known/oauth-authorization-server
/account/confirm
/account/reset
/api/v1/auth/email/resend
/api/v1/auth/email/verify
/api/v1/auth/login
/api/v1/auth/logout
/api/v1/auth/password/forgot
/api/v1/auth/password/reset
/api/v1/auth/refresh
/api/v1/events
/api/v1/me
/api/v1/me/email
/api/v1/me/events
/api/v1/me/export
/api/v1/me/password
/api/v1/me/sessions
/api/v1/me/sessions/<int:session_id>
/api/v1/openapi.json
/api/v1/posts/<int:post_id>
/api/v1/service-accounts
/api/v1/service-accounts/<int:service_account_id>
/api/v1/service-accounts/<int:service_account_id>/keys
/api/v1/service-accounts/<int:service_account_id>/keys/<int:key_id>
/api/v1/users
/api/v1/users/<int:user_id>
/api/v1/users/<int:user_id>/avatar
/api/v1/users/<int:user_id>/erase
/api/v1/users/<int:user_id>/events
/api/v1/users/<int:user_id>/posts
/api/v1/users/<int:user_id>/restore
/api/v1/users/<int:user_id>/sessions
/api/v1/users/<int:user_id>/sessions/<int:session_id>
/api/v1/webhooks
/api/v1/webhooks/<int:webhook_id>
/api/v1/webhooks/<int:webhook_id>/deliveries
/api/v1/webhooks/<int:webhook_id>/deliveries/<int:delivery_id>/redeliver
/api/v1/webhooks/<int:webhook_id>/ping
/api/v1/webhooks/<int:webhook_id>/secret
/avatars/<file>
/docs
/docs/assets/<path:name>
/health
/health/ready
/oauth/introspect
/oauth/revoke
/oauth/token
/problems
/problems/<name>
/static/<path:filename>
""".split()
SECRETS = {
    *("password", "password_hash", "email_key", "name_key", "deleted_at", "erased_at", "ended_at", "sid", "jti"),
    *("token", "token_hash", "code_hash", "details", "network", "idle_expires_at", "secret", "key", "key_hash"),
}
# What is given to one alone: to a person what is held of them, to an admin a key or the secret of a webhook, once.
HELD = {
    "get_my_export": {"ended_at"},
    "post_key_list": {"key"},
    "post_webhook_list": {"secret"},
    "post_webhook_secret": {"secret"},
}
# What asks for a refresh token where others ask for an access token, or take none.
BY_REFRESH_TOKEN = {("post", "/api/v1/auth/refresh"), ("post", "/api/v1/auth/logout")}
VERBS = ("get", "post", "put", "patch", "delete")
BYTES = {"type": "string", "format": "binary"}
FORMATS = {"binary", "date-time"}  # Of which the length is bounded otherwise.


@pytest.fixture
def document(contract):
    """Return the generated document."""
    return contract.document


@pytest.fixture
def operations(document):
    """Return every operation of the document as {(verb, path): operation}."""
    return {(verb, path): item[verb] for path, item in document["paths"].items() for verb in VERBS if verb in item}


@pytest.fixture
def verbs(app):
    """Return what the code declares for each operation, in the same form."""
    found = {}
    for rule in app.url_map.iter_rules():
        resource = getattr(app.view_functions[rule.endpoint], "view_class", None)
        for verb in VERBS:
            if resource is not None and hasattr(resource, verb):
                found[verb, template(rule.rule)] = getattr(resource, verb).operation
    return found


def template(rule):
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def resolved(document, node):
    while "$ref" in node:
        found = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def nodes(document, node, seen=()):
    """Walk through a schema and all that it refers to."""
    if isinstance(node, dict):
        if (reference := node.get("$ref")) and reference not in seen:
            yield from nodes(document, resolved(document, node), (*seen, reference))
        yield node
        for inner in node.values():
            yield from nodes(document, inner, seen)
    elif isinstance(node, list):
        for inner in node:
            yield from nodes(document, inner, seen)


# Routes


def test_urls_are_these(app):
    assert sorted({rule.rule for rule in app.url_map.iter_rules()}) == URLS


def test_no_url_ends_in_a_slash_or_has_an_argument_of_two_meanings(app):
    for rule in app.url_map.iter_rules():
        assert rule.rule == "/" or not rule.rule.endswith("/")
        assert re.fullmatch(r"[a-z0-9_/.:<>-]+", rule.rule)


def test_document_holds_every_operation_of_the_api(operations, verbs):
    assert operations.keys() == verbs.keys()
    assert {path for _, path in operations} == {
        template(url) for url in URLS if url.startswith("/api/v1/") and not url.endswith(".json")
    }


def test_path_parameters_are_declared_where_they_stand(document):
    for path, item in document["paths"].items():
        declared = {parameter["name"]: parameter for parameter in item.get("parameters", [])}

        assert declared.keys() == {*re.findall(r"{(\w+)}", path)}
        for parameter in declared.values():
            assert parameter["in"] == "path" and parameter["required"] is True
            assert parameter["schema"] == {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}


# The document


def test_document_is_valid(document, client):
    validate(document)
    validate(client.get("/api/v1/openapi.json").json)


def test_committed_documents_are_those_that_are_generated(app):
    with app.app_context():
        generated = committed_documents()

    for name, text in generated.items():
        assert (FOLDER / name).read_text("utf-8") == text, f"{name} is out of date: run make openapi"


def test_every_operation_is_described(operations):
    ids = [operation["operationId"] for operation in operations.values()]

    assert len(ids) == len(set(ids))
    for operation in operations.values():
        assert operation["summary"] and operation["description"] and operation["tags"]
        assert not operation["summary"].endswith(".")
        assert all(parameter["description"] for parameter in operation["parameters"])


def test_every_reference_leads_somewhere_and_nothing_is_left_over(document):
    referred = {node["$ref"] for node in nodes(document, document["paths"]) if "$ref" in node}
    components = {
        f"#/components/{kind}/{name}"
        for kind, members in document["components"].items()
        if kind != "securitySchemes"
        for name in members
    }

    assert referred == components


def test_every_word_to_choose_has_a_name_in_a_generated_client(document):
    choices = [node for node in nodes(document, document["paths"]) if isinstance(node.get("enum"), list)]

    assert any("-id" in choice["enum"] for choice in choices) and any("*" in choice["enum"] for choice in choices)
    for choice in choices:
        names = choice.get("x-enum-varnames", choice["enum"])
        assert len(set(names)) == len(choice["enum"]) and all(name.isidentifier() for name in names)


# Problems


@pytest.mark.parametrize("kind", catalogue(), ids=lambda kind: kind.code)
def test_every_kind_of_problem_is_documented(app, client, document, kind):
    answer = document["components"]["responses"].get(f"Problem{status_of(kind)}")

    assert answer is None or f"`{kind.code}`" in answer["description"]
    assert kind.code in document["components"]["schemas"]["ProblemCode"]["enum"]
    assert f"## `{kind.code}`" in (FOLDER / "problems.md").read_text("utf-8")
    assert client.get(page_path(kind)).status_code == 200


def test_document_knows_no_other_problem(document):
    codes = document["components"]["schemas"]["ProblemCode"]["enum"]

    assert codes == [kind.code for kind in catalogue()]


def test_every_operation_may_fail_in_the_ways_common_to_all(operations):
    for operation in operations.values():
        assert {"400", "406", "500", "503"} <= operation["responses"].keys()
        if "requestBody" in operation:
            assert {"413", "415", "422"} <= operation["responses"].keys()


# Security


def test_document_says_who_must_sign_in(app, client, document, operations, nothing_changes):
    for (verb, path), operation in operations.items():
        security = operation.get("security", document["security"])
        address = re.sub(r"{\w+}", "1", path)

        with nothing_changes():
            anonymous = client.send(verb.upper(), address, json={})
            with_garbage = client.with_token("garbage").send(verb.upper(), address, json={})

        refused = ((401, "authentication_required"), (401, "invalid_token"))
        expected = {"bearer": refused, "either": (None, refused[1]), "public": (None, None)}
        kind = "public" if {"bearer": []} not in security else "either" if {} in security else "bearer"
        got = tuple(answer.problem if answer.problem in refused else None for answer in (anonymous, with_garbage))
        if (verb, path) in BY_REFRESH_TOKEN:
            assert anonymous.problem == refused[0]
            assert with_garbage.problem == refused[0 if kind == "public" else 1]
        else:
            assert got == expected[kind], f"{verb} {path}"


def test_document_names_the_permission_that_is_asked(operations, verbs):
    for key, operation in operations.items():
        permission = verbs[key].get("permission")

        assert (f"`{permission}`" in operation["description"]) == (permission is not None)


# Answers and bodies


def test_answers_hold_the_fields_that_are_declared_and_no_others(document, operations, verbs):
    for key, operation in operations.items():
        declared = verbs[key].get("fields")
        answer = operation["responses"][str(verbs[key]["status"])]
        if declared is None:
            assert ("content" in answer) == (verbs[key]["status"] == 202)
            continue
        schema = resolved(document, answer["content"]["application/json"]["schema"])
        if envelope := verbs[key].get("envelope"):
            is_feed = isinstance(verbs[key].get("query"), FeedParser)
            others = {"next_after"} if is_feed else {"next_cursor", "page", "pages", "total"}
            assert schema["properties"].keys() == {envelope, *others}
            schema = resolved(document, schema["properties"][envelope]["items"])
        assert_same_members(document, schema, declared)


def assert_same_members(document, schema, declared):
    assert list(schema["properties"]) == list(declared)
    assert schema["additionalProperties"] is False
    for name, field in declared.items():
        member = schema["properties"][name]
        if isinstance(field, fields.List):
            field, member = field.container, member["items"]
        if isinstance(field, fields.Nested):
            assert_same_members(document, resolved(document, member), field.nested)


def test_what_is_taken_on_is_answered_alike_everywhere(document, operations):
    answers = {
        path: operation["responses"].get("202") for (verb, path), operation in operations.items() if verb == "post"
    }
    accepted = {path: answer for path, answer in answers.items() if answer}

    assert accepted.keys() == {
        "/api/v1/auth/password/forgot",
        "/api/v1/auth/email/resend",
        "/api/v1/me/email",
        "/api/v1/users",
        "/api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
        "/api/v1/webhooks/{webhook_id}/ping",
    }
    for answer in accepted.values():
        schema = resolved(document, answer["content"]["application/json"]["schema"])
        assert schema["properties"].keys() == {"status", "detail"} == {*schema["required"]}
        assert schema["additionalProperties"] is False


def test_no_answer_has_a_place_for_a_secret(document, operations):
    for operation in operations.values():
        hidden = SECRETS - HELD.get(operation["operationId"], set())
        for response in operation["responses"].values():
            for node in nodes(document, response):
                assert hidden.isdisjoint(node.get("properties", {}))


def test_bodies_take_the_fields_that_are_declared_and_no_others(document, operations, verbs):
    for key, operation in operations.items():
        schema, types = verbs[key].get("body"), verbs[key].get("content_types")
        assert ("requestBody" in operation) == (schema is not None or types is not None)
        if types:
            assert operation["requestBody"] == {
                "required": True,
                "content": {kind: {"schema": BYTES} for kind in types},
            }
        if schema is None:
            continue
        for media in operation["requestBody"]["content"].values():
            body = resolved(document, media["schema"])

            assert body["properties"].keys() == {field.data_key or name for name, field in schema.fields.items()}
            assert {*body.get("required", [])} == {
                field.data_key or name for name, field in schema.fields.items() if field.required
            }
            assert body["additionalProperties"] is False


def test_parameters_are_those_that_are_read(operations, verbs):
    for key, operation in operations.items():
        facts = verbs[key]
        read = {("query", argument.name) for argument in getattr(facts.get("query"), "args", ())}
        read |= {("header", argument.name) for argument in getattr(facts.get("headers"), "args", ())}
        read |= {("header", "X-CSRF-Token")} if facts.get("cookie") else set()
        documented = {(parameter["in"], parameter["name"]) for parameter in operation["parameters"]}

        assert documented - {("header", "If-None-Match")} == read
        reads_an_item = key[0] == "get" and "version" in facts["fields"] and not facts["envelope"]
        assert (("header", "If-None-Match") in documented) == reads_an_item


def test_every_text_that_is_taken_is_bounded(document, operations):
    for operation in operations.values():
        for node in nodes(document, operation.get("requestBody", {})):
            if "string" in str(node.get("type")) and "enum" not in node and node.get("format") not in FORMATS:
                assert node["maxLength"] <= 30_000
            if node.get("type") == "array":
                assert node["maxItems"] <= 100
            if node.get("type") == "number":
                assert node["maximum"] == -node["minimum"]
