"""Who may do what: every method of every route, for everybody who may ask."""

import pytest

from tests.factories.post import PostFactory
from tests.factories.user import UserFactory
from tests.operations import ADMIN_EMAIL, BODIES, address, operations_of, table

# What a path names is the member's own, who is `self`. The request is a good one.
#                                             anonymous  self  other  support  admin
TABLE = """
GET     /                                           200   200    200      200    200
GET     /.well-known/jwks.json                      200   200    200      200    200
GET     /api/v1/openapi.json                        200   200    200      200    200
GET     /docs                                       200   200    200      200    200
GET     /docs/assets/<path:name>                    200   200    200      200    200
GET     /health                                     200   200    200      200    200
GET     /health/ready                               200   200    200      200    200
GET     /problems                                   200   200    200      200    200
GET     /problems/<name>                            200   200    200      200    200
GET     /static/<path:filename>                     200   200    200      200    200

POST    /api/v1/auth/login                          200   200    200      200    200
POST    /api/v1/auth/logout                         401   204    204      204    204

GET     /api/v1/me                                  401   200    200      200    200
PATCH   /api/v1/me                                  401   200    200      200    200
DELETE  /api/v1/me                                  401   204    204      204    204

GET     /api/v1/users                               401   403    403      200    200
POST    /api/v1/users                               201   201    201      201    201
GET     /api/v1/users/<int:user_id>                 401   200    404      200    200
PUT     /api/v1/users/<int:user_id>                 401   403    404      403    200
PATCH   /api/v1/users/<int:user_id>                 401   200    404      403    200
DELETE  /api/v1/users/<int:user_id>                 401   204    404      403    204

GET     /api/v1/users/<int:user_id>/posts           401   200    404      200    200
POST    /api/v1/users/<int:user_id>/posts           401   201    404      403    201
GET     /api/v1/posts/<int:post_id>                 401   200    404      200    200
PUT     /api/v1/posts/<int:post_id>                 401   200    404      403    200
PATCH   /api/v1/posts/<int:post_id>                 401   200    404      403    200
DELETE  /api/v1/posts/<int:post_id>                 401   204    404      403    204
"""

WHO = ["anonymous", "self", "other", "support", "admin"]
ROWS = {operation: dict(zip(WHO, map(int, cells), strict=True)) for operation, cells in table(TABLE).items()}
CELLS = [(method, rule, who, status) for (method, rule), row in ROWS.items() for who, status in row.items()]


@pytest.fixture
def people(client, admin, support, member, other):
    """Return a client for each of those who ask; a second admin lets the first one go."""
    UserFactory(email=ADMIN_EMAIL, admin=True)
    signed_in = {"self": member, "other": other, "support": support, "admin": admin}
    return {"anonymous": client, **{who: client.as_(user) for who, user in signed_in.items()}}


@pytest.fixture
def path_of(member):
    """Return a function that makes a rule an address of what is the member's."""
    post = PostFactory(author=member)
    return lambda rule: address(rule, member, post)


def test_table_holds_every_method_of_every_route(app):
    assert ROWS.keys() == operations_of(app)


@pytest.mark.parametrize(("method", "rule", "who", "status"), CELLS, ids=[f"{who} {m} {r}" for m, r, who, _ in CELLS])
def test_access(people, path_of, nothing_changes, method, rule, who, status):
    body = BODIES.get((method, rule))

    if status < 300:
        answer = people[who].send(method, path_of(rule), json=body, buffered=True)
    else:
        with nothing_changes():
            answer = people[who].send(method, path_of(rule), json=body, buffered=True)

    assert answer.status_code == status


@pytest.mark.parametrize("who", ["anonymous", "self", "other", "support", "admin"])
def test_head_is_answered_as_get_and_options_for_all(people, path_of, nothing_changes, who):
    for method, rule in ROWS:
        with nothing_changes():
            options = people[who].send("OPTIONS", path_of(rule))
            head = people[who].head(path_of(rule), buffered=True)

        assert (options.status_code, options.data) == (204, b""), rule
        if method == "GET":
            assert (head.status_code, head.data) == (ROWS[method, rule][who], b""), rule


def test_method_that_is_not_in_the_table_is_not_offered(people, path_of, nothing_changes):
    rules = {rule for _, rule in ROWS}
    missing = [(method, rule) for method in ("GET", "POST", "PUT", "PATCH", "DELETE") for rule in rules]

    with nothing_changes():
        answers = {
            (method, rule): people["admin"].send(method, path_of(rule), json={}).problem
            for method, rule in missing
            if (method, rule) not in ROWS
        }

    assert {*answers.values()} == {(405, "method_not_allowed")}
