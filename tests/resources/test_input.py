"""Hostile bodies and headers, sent to every route that takes one: each is refused as it should be, and nothing done."""

import gzip
import re
from io import BytesIO

import orjson
import pytest
from markupsafe import escape

from tests.client import Client
from tests.factories.post import PostFactory
from tests.factories.user import PASSWORD
from tests.resources.answers import pointers

JSON = {"Content-Type": "application/json"}
LIMIT = 1_048_576

# A good body for every route that reads one.
BODIES = {
    ("POST", "/api/v1/users"): {
        "email": "new@example.com",
        "name": "New Person",
        "password": "a good password",
        "role": "member",
        "is_active": True,
        "external_id": "E-1",
        "metadata": {"a": 1},
        "private_metadata": {"b": 2},
    },
    ("PUT", "/api/v1/users/<int:user_id>"): {
        "email": "new@example.com",
        "name": "New Person",
        "role": "member",
        "is_active": True,
        "external_id": "E-1",
        "metadata": {"a": 1},
        "private_metadata": {"b": 2},
    },
    ("PATCH", "/api/v1/users/<int:user_id>"): {
        "email": "new@example.com",
        "name": "New Person",
        "role": "member",
        "is_active": True,
        "external_id": "E-1",
        "metadata": {"a": 1},
        "private_metadata": {"b": 2},
    },
    ("POST", "/api/v1/users/<int:user_id>/posts"): {"title": "A title", "content": "Some words."},
    ("PUT", "/api/v1/posts/<int:post_id>"): {"title": "A title", "content": "Some words."},
    ("PATCH", "/api/v1/posts/<int:post_id>"): {"title": "A title", "content": "Some words."},
    ("PATCH", "/api/v1/me"): {"name": "New Name", "metadata": {"a": 1}, "role": "member", "is_active": True},
    ("POST", "/api/v1/me/password"): {"current_password": PASSWORD, "password": "another pass phrase"},
    ("POST", "/api/v1/me/email"): {"current_password": PASSWORD, "email": "new@example.com"},
    ("POST", "/api/v1/auth/login"): {
        "email": "new@example.com",
        "password": PASSWORD,
        "transport": "body",
        "remember": True,
    },
    ("POST", "/api/v1/auth/refresh"): {"refresh_token": f"rr_{'a' * 43}"},
    ("POST", "/api/v1/auth/password/forgot"): {"email": "new@example.com"},
    ("POST", "/api/v1/auth/password/reset"): {
        "token": "a token",
        "email": "new@example.com",
        "code": "1234 5678",
        "password": "another pass phrase",
    },
    ("POST", "/api/v1/auth/email/verify"): {"token": "a token", "email": "new@example.com", "code": "1234 5678"},
    ("POST", "/api/v1/auth/email/resend"): {"email": "new@example.com"},
    ("POST", "/api/v1/webhooks"): {
        "url": "https://hooks.example.com/new",
        "description": "For the CRM",
        "event_types": ["user.*"],
    },
    ("PATCH", "/api/v1/webhooks/<int:webhook_id>"): {
        "url": "https://hooks.example.com/new",
        "description": "For the CRM",
        "event_types": ["user.*"],
        "is_active": True,
    },
    ("POST", "/api/v1/service-accounts"): {"name": "New Program", "scopes": ["users:read"]},
    ("PATCH", "/api/v1/service-accounts/<int:service_account_id>"): {"name": "New Name", "scopes": ["users:read"]},
    ("POST", "/api/v1/service-accounts/<int:service_account_id>/keys"): {"expires_at": "2126-01-31T12:00:00Z"},
}
WITHOUT_BODY = {
    ("POST", "/api/v1/auth/logout"),
    ("POST", "/api/v1/users/<int:user_id>/restore"),
    ("POST", "/api/v1/users/<int:user_id>/erase"),
    ("POST", "/api/v1/webhooks/<int:webhook_id>/secret"),
    ("POST", "/api/v1/webhooks/<int:webhook_id>/ping"),
    ("POST", "/api/v1/webhooks/<int:webhook_id>/deliveries/<int:delivery_id>/redeliver"),
}
# What reads a picture, and what reads the form of a program: test_avatars.py and test_oauth.py try those.
WITH_ANOTHER_BODY = {
    ("PUT", "/api/v1/users/<int:user_id>/avatar"),
    *(("POST", f"/oauth/{verb}") for verb in ("token", "revoke", "introspect")),
}
# What reads the form of a page for people.
FORMS = {
    ("POST", "/account/confirm"): {"token": "a token"},
    ("POST", "/account/reset"): {"token": "a token", "password": "another pass phrase"},
}

LINES = {
    *("email", "name", "password", "external_id", "title", "current_password", "refresh_token", "token", "code"),
    *("url", "description", "expires_at"),
}
OBJECTS = {"metadata", "private_metadata"}
FLAGS = {"is_active", "remember"}
CHOICES = {"role", "transport", "event_types", "scopes"}


@pytest.fixture
def send(app, frank_app, contract, client, admin, member, nothing_changes):
    """Return a function that sends to a route, as an admin, to an application with and without TESTING.

    What is sent is made anew for each request, from the route. Nothing may change, and the two answers are alike.
    """
    post = PostFactory(author=member)
    token = client.as_(admin).token

    def send(route, make):
        method, rule = route
        path = rule.replace("<int:user_id>", str(member.id)).replace("<int:post_id>", str(post.id))
        path = re.sub(r"<int:\w+>", "1", path)  # A body is refused before it is looked for what that is about.
        with nothing_changes():
            answers = [Client(one, contract, token).send(method, path, **make(route)) for one in (app, frank_app)]
        assert answers[0].problem == answers[1].problem
        return answers[0]

    return send


@pytest.fixture
def send_everywhere(send):
    """Return a function that sends to every route that reads a body, and returns the answer of each."""
    return lambda make: {" ".join(route): send(route, make) for route in BODIES}


def everywhere(*problem):
    """Return the problem as that of every route that reads a body."""
    return dict.fromkeys(map(" ".join, BODIES), problem)


def problems(answers):
    return {route: response.problem for route, response in answers.items()}


def good(route):
    return orjson.dumps(BODIES[route])


def test_every_route_that_changes_something_is_tried(app):
    writes = {
        (method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods & {"POST", "PUT", "PATCH"}
    }

    assert writes == BODIES.keys() | WITHOUT_BODY | WITH_ANOTHER_BODY | FORMS.keys()


ENDLESS = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}


def chunked(body):
    """Return what makes a request of a body in chunks, whose length nobody announced."""
    return {"headers": JSON, "environ_overrides": {"wsgi.input": BytesIO(body), **ENDLESS}}


# What is not JSON

NOT_JSON = {
    "nothing": b"",
    "space": b" \n",
    "half an object": b"{",
    "something behind": b'{"a":1}x',
    "two objects": b"{}{}",
    "single quotes": b"{'a':1}",
    "comma behind": b'{"a":1,}',
    "comment": b'{"a":1}//',
    "comment before": b"/**/{}",
    "bare name": b"{a:1}",
    "form": b"a=1&b=2",
    "xml": b"<a/>",
    "NaN": b'{"name":NaN}',
    "Infinity": b'{"name":Infinity}',
    "-Infinity": b'{"name":-Infinity}',
    "huge exponent": b'{"name":1e400}',
    "nan in a list": b'{"metadata":{"a":[NaN]}}',
    "hexadecimal": b'{"name":0x1}',
    "leading zero": b'{"name":01}',
    "plus": b'{"name":+1}',
    "5000 digits": b'{"name":' + b"9" * 5000 + b"}",
    "5000 digits and colons": b'{"a":"::::","name":' + b"9" * 5000 + b"}",
    "same name twice": b'{"name":"Ann","name":"Bob"}',
    "same name escaped": b'{"name":"Ann","\\u006eame":"Bob"}',
    "same name, same value": b'{"email":"a@example.com","email":"a@example.com"}',
    "same name below": b'{"metadata":{"a":1,"a":2}}',
    "same name far below": b'{"metadata":{"l":[{"a":1,"a":2}]}}',
    "same name and colons": b'{"name":"a:b:c","name":":"}',
    "same empty name": b'{"":1,"":2}',
    "same name, __proto__": b'{"__proto__":1,"__proto__":2}',
    "100000 lists": b"[" * 100_000,
    "100000 closed lists": b"[" * 100_000 + b"]" * 100_000,
    "50000 objects": b'{"a":' * 50_000,
    "1000 closed objects": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "17 levels": b'{"a":' + b"[" * 16 + b"]" * 16 + b"}",
    "17 levels in metadata": b'{"metadata":' + b'{"a":' * 16 + b"1" + b"}" * 17,
    "byte order mark": b'\xef\xbb\xbf{"name":"Ann"}',
    "UTF-16": '{"name":"Ann"}'.encode("utf-16"),
    "UTF-16 without mark": '{"name":"Ann"}'.encode("utf-16-le"),
    "UTF-32": '{"name":"Ann"}'.encode("utf-32"),
    "Latin-1": '{"name":"Renée"}'.encode("latin-1"),
    "cut character": b'{"name":"\xc3"}',
    "overlong slash": b'{"name":"\xc0\xaf"}',
    "surrogate in bytes": b'{"name":"\xed\xa0\x80"}',
    "lone surrogate": b'{"name":"a\\ud800"}',
    "lone low surrogate": b'{"name":"a\\udc00b"}',
    "surrogates turned round": b'{"name":"\\udc00\\ud800"}',
    "lone surrogate as name": b'{"\\ud800":1}',
    "raw control character": b'{"name":"a\x00b"}',
    "raw line break": b'{"name":"a\nb"}',
    "bad escape": b'{"name":"\\x41"}',
    "zero byte behind": b"{}\x00",
    "gzip": gzip.compress(b'{"name":"Ann"}'),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_body_that_is_not_json_is_refused(send_everywhere, body):
    answers = send_everywhere(lambda route: {"data": body, "headers": JSON})

    assert problems(answers) == everywhere(400, "malformed_body")
    assert all(len(response.data) < 1000 for response in answers.values())


def test_malformed_json_is_pointed_at(send_everywhere):
    answers = send_everywhere(lambda route: {"data": b'{"name": "Ann",\n "a" 1}', "headers": JSON})

    assert all("line 2, column 6" in response.json["detail"] for response in answers.values())


@pytest.mark.parametrize("body", [b"null", b"true", b"5", b"1.5", b'"x"', b"[]", b"[{}]", b'["name"]', b"[[]]"])
def test_body_that_is_no_object_is_refused(send_everywhere, body):
    answers = send_everywhere(lambda route: {"data": body, "headers": JSON})

    assert problems(answers) == everywhere(422, "invalid")
    assert all(pointers(response) == ["/json"] for response in answers.values())


def test_json_patch_is_refused(send_everywhere):
    patch = b'[{"op":"replace","path":"/role","value":"admin"}]'

    as_json = send_everywhere(lambda route: {"data": patch, "headers": JSON})
    as_itself = send_everywhere(
        lambda route: {"data": patch, "headers": {"Content-Type": "application/json-patch+json"}}
    )

    assert problems(as_json) == everywhere(422, "invalid")
    assert problems(as_itself) == everywhere(415, "unsupported_media_type")


# Types and sizes


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/octet-stream",
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
        "application/json; charset=nosuch",
        "application/json; charset=latin-1",
        "application/jsonx",
        "application/problem+json",
        "application/json, text/plain",
        "json",
        "*/*",
        "",
        None,
    ],
)
def test_body_of_another_type_is_refused(send_everywhere, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}

    answers = send_everywhere(lambda route: {"data": good(route), "headers": headers})

    assert problems(answers) == everywhere(415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="UTF-8"',
        "application/json ; charset=utf-8",
    ],
)
def test_every_spelling_of_json_in_utf_8_is_read(as_member, content_type):
    response = as_member.patch("/api/v1/me", data=b'{"name":"Maria"}', headers={"Content-Type": content_type})

    assert response.status_code == 200
    assert response.json["name"] == "Maria"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "x"])
def test_encoded_body_is_refused(send_everywhere, encoding):
    headers = {**JSON, "Content-Encoding": encoding}

    real = send_everywhere(lambda route: {"data": gzip.compress(good(route)), "headers": headers})
    fake = send_everywhere(lambda route: {"data": good(route), "headers": headers})

    assert problems(real) == problems(fake) == everywhere(415, "unsupported_media_type")


def test_body_over_the_limit_is_refused(send_everywhere):
    announced = {"CONTENT_LENGTH": str(10**12)}

    sent = send_everywhere(lambda route: {"data": good(route).ljust(LIMIT + 1), "headers": JSON})
    said = send_everywhere(lambda route: {"data": b"{}", "headers": JSON, "environ_overrides": announced})

    assert problems(sent) == problems(said) == everywhere(413, "payload_too_large")


@pytest.mark.parametrize("beyond", [1, 1_572_864])
def test_chunked_body_over_the_limit_is_refused_and_never_cut(send_everywhere, beyond):
    answers = send_everywhere(lambda route: chunked(good(route).ljust(LIMIT + beyond)))

    assert problems(answers) == everywhere(413, "payload_too_large")


def test_body_at_the_limit_is_read(as_member):
    body = b'{"name":"Maria"}'.ljust(LIMIT)

    assert as_member.patch("/api/v1/me", data=body, headers=JSON).status_code == 200
    assert as_member.patch("/api/v1/me", **chunked(body)).status_code == 200


def test_body_that_ends_early_is_refused(send_everywhere):
    def cut(route):
        length = str(len(good(route)) + 50)
        return {"data": good(route), "headers": JSON, "environ_overrides": {"CONTENT_LENGTH": length}}

    answers = send_everywhere(cut)

    assert problems(answers) == everywhere(400, "malformed_body")


def test_body_that_breaks_off_is_refused(send_everywhere):
    class Broken(BytesIO):
        def read(self, size=-1):
            raise OSError("The client has gone.")

    answers = send_everywhere(lambda route: {"headers": JSON, "environ_overrides": {"wsgi.input": Broken(), **ENDLESS}})

    assert problems(answers) == everywhere(400, "malformed_body")


@pytest.mark.parametrize("length", ["-1", "abc", "+2", "0x2", "2_0", "", "1" * 5000])
def test_malformed_length_is_refused(send_everywhere, length):
    announced = {"CONTENT_LENGTH": length}

    answers = send_everywhere(lambda route: {"data": good(route), "headers": JSON, "environ_overrides": announced})

    assert {response.status_code for response in answers.values()} <= {400, 413}


@pytest.mark.parametrize(
    "accept",
    ["application/xml", "text/html", "*/*;q=0", "application/json;q=0", "application/json;q=0, */*", "image/*"],
)
def test_answer_of_another_type_is_not_to_be_had(send_everywhere, accept):
    answers = send_everywhere(lambda route: {"json": BODIES[route], "headers": {"Accept": accept}})

    assert problems(answers) == everywhere(406, "not_acceptable")


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "application/json",
        "application/json, text/plain, */*",
        "text/html, application/json;q=0.5",
        "text/html,*/*;q=0.1",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "garbage, */*",
    ],
)
def test_answer_in_json_is_given_to_all_who_take_it(as_member, accept):
    response = as_member.get("/api/v1/me", headers={"Accept": accept})

    assert response.status_code == 200
    assert response.mimetype == "application/json"


# Fields

WRONG_TYPES = {"text": "x", "number": 5, "fraction": 1.5, "true": True, "list": ["x"], "object": {"$ne": None}}
WRONG_FOR = {
    **{field: WRONG_TYPES.keys() - {"text"} for field in (*LINES, "content")},
    **{field: WRONG_TYPES.keys() - {"object"} for field in OBJECTS},
    **{field: WRONG_TYPES.keys() - {"true"} for field in FLAGS},
    **{field: WRONG_TYPES.keys() for field in CHOICES},
}


def each_field(wanted):
    """Run a test for each field of each route's body that is among those wanted."""
    fields = [(route, field) for route, body in BODIES.items() for field in body if field in wanted]
    return pytest.mark.parametrize(
        ("route", "field"), fields, ids=lambda value: value if isinstance(value, str) else " ".join(value)
    )


def with_value(field, value):
    """Return how to make a good body of a route with another value in a field."""
    return lambda route: {"json": {**BODIES[route], field: value}}


@each_field(WRONG_FOR)
def test_value_of_another_type_is_refused(send, route, field):
    for kind in WRONG_FOR[field]:
        response = send(route, with_value(field, WRONG_TYPES[kind]))

        assert response.problem == (422, "invalid"), kind
        assert pointers(response)[0].startswith(f"/json/{field}"), kind


@each_field(WRONG_FOR.keys() - {"external_id"})
def test_null_is_refused_where_it_means_nothing(send, route, field):
    response = send(route, with_value(field, None))

    assert response.problem == (422, "invalid")
    assert pointers(response) == [f"/json/{field}"]


UNSEEN = [
    "a\x00b", "a\x07b", "a\x1bb", "a\x7fb", "a\x85b", "a\x9fb", "a\u00adb", "a\u061cb", "a\u180eb", "a\u200bb",
    "a\u200eb", "a\u2028b", "a\u2029b", "a\u202eb", "a\u2060b", "a\u2066b", "a\ufeffb", "a\ufffdb", "a\uffffb",
    "a\U000e0041b", "a\x0bb", "a\x0cb",
]  # fmt: skip
BREAKS = ["a\tb", "a\nb", "a\rb", "a\r\nBcc: b@example.com"]


@each_field(LINES | {"content"})
def test_characters_that_cannot_be_seen_are_refused(send, route, field):
    for value in UNSEEN if field == "content" else [*UNSEEN, *BREAKS]:
        response = send(route, with_value(field, value))

        assert response.problem == (422, "invalid"), ascii(value)
        assert pointers(response) == [f"/json/{field}"], ascii(value)


@each_field(WRONG_FOR.keys() - FLAGS)
def test_megabyte_in_a_field_is_refused(send, route, field):
    values = {"metadata": {"a": "x" * 1_000_000}, "private_metadata": {"a": ["x" * 1_000_000]}}

    response = send(route, with_value(field, values.get(field, "x" * 1_000_000)))

    assert response.problem == (422, "invalid")
    assert pointers(response)[0].startswith(f"/json/{field}")
    assert len(response.data) < 1000


@pytest.mark.parametrize("name", ["unknown", "__proto__", "constructor", "user", "is_admin", "a/b~c", "", "Name", "😀"])
def test_unknown_field_is_named(send_everywhere, name):
    answers = send_everywhere(lambda route: {"json": {**BODIES[route], name: {"role": "admin"}}})

    assert problems(answers) == everywhere(422, "invalid")
    pointer = f"/json/{name.replace('~', '~0').replace('/', '~1')}"
    assert all(pointers(response) == [pointer] for response in answers.values())


def test_ten_thousand_fields_are_refused(send):
    body = {f"field{number}": number for number in range(10_000)}

    response = send(("PATCH", "/api/v1/me"), lambda route: {"json": body})

    assert response.problem == (422, "invalid")


@pytest.mark.parametrize("number", ["2147483648", "9223372036854775808", f"1{'0' * 30}", "-1", "1E3", "-0", "1.0"])
def test_number_is_nowhere_taken_for_a_text(send_everywhere, number):
    def numbered(route):
        text = next(iter(BODIES[route].values())).encode()
        return {"data": good(route).replace(b'"%s"' % text, number.encode(), 1), "headers": JSON}

    answers = send_everywhere(numbered)

    assert problems(answers) == everywhere(422, "invalid")


# Headers and parameters


@pytest.mark.parametrize("query", ["role=admin", "a=1&a=1", "=", "%00=1", "a/b=1", "callback=x", "😀"])
def test_parameter_of_a_write_is_refused(send_everywhere, query):
    answers = send_everywhere(lambda route: {"query_string": query, "json": BODIES[route]})

    assert problems(answers) == everywhere(400, "invalid_parameter")
    named = {pointer for response in answers.values() for pointer in pointers(response)}
    assert all(pointer.startswith("/query/") and pointer.count("/") == 2 for pointer in named)


def test_bytes_beyond_ascii_in_headers_do_no_harm(send_everywhere):
    odd = {"User-Agent": "\xff\x80", "X-Odd": "\x85", "Cookie": "a=\xff; b", "Referer": "\xe2\x80\xa8", "Range": "\xff"}

    answers = send_everywhere(lambda route: {"data": b"{", "headers": {**JSON, **odd}})

    assert problems(answers) == everywhere(400, "malformed_body")


@pytest.mark.parametrize("accept", ["\xff", ";;;q=x", "application/json;q=abc", "a" * 10_000, ",,,", "application"])
def test_malformed_accept_is_refused_or_does_no_harm(send_everywhere, accept):
    answers = send_everywhere(lambda route: {"data": b"[]", "headers": {**JSON, "Accept": accept}})

    assert {response.status_code for response in answers.values()} <= {406, 422}


def test_body_of_a_request_that_needs_none_is_not_looked_at(as_member, member):
    for body in (b"{", b'{"q":"nothing"}', b"\xff"):
        read = as_member.get("/api/v1/me", data=body, headers=JSON)

        assert read.json["id"] == member.id

    assert as_member.post("/api/v1/auth/logout", data=b"{", headers=JSON).status_code == 204


# Forms


def test_form_with_anything_else_than_a_good_token_does_nothing(send):
    for route, form in FORMS.items():
        for field, value in [(field, value) for field in form for value in ["", "x" * 1025, *UNSEEN, *BREAKS]]:
            response = send(route, lambda route, field=field, value=value: {"data": {**FORMS[route], field: value}})

            assert (response.status_code, response.mimetype) == (200, "text/html")
            assert 'role="alert"' in response.text and len(response.data) < 5000


@pytest.mark.parametrize("token", ['"><script>alert(1)</script>', "{{7*7}}", "'onfocus=alert(1) autofocus='"])
def test_what_a_form_is_given_is_shown_as_text(client, token):
    for _, path in FORMS:
        for page in (client.get(path, query_string={"token": token}), client.post(path, data={"token": token})):
            assert f'value="{escape(token)}"' in page.text


def test_body_that_is_no_form_does_nothing(send):
    sent = {
        "json": {"data": good(("POST", "/api/v1/auth/email/verify")), "headers": JSON},
        "bytes": {"data": bytes(range(256)), "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        "cut": {"data": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        "no boundary": {"data": b"token=x", "headers": {"Content-Type": "multipart/form-data"}},
        "nothing": {},
    }
    for route in FORMS:
        for kind, more in sent.items():
            response = send(route, lambda route, more=more: more)

            assert response.status_code in (200, 400, 413), kind


def test_form_over_the_limit_is_refused(send):
    for route in FORMS:
        response = send(route, lambda route: {"data": {**FORMS[route], "more": "x" * LIMIT}})

        assert response.problem == (413, "payload_too_large")
