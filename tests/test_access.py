"""Who may do what: every method of every route, for everybody who may ask."""

from contextlib import nullcontext

import pytest

from tests.factories.api_key import key_of
from tests.factories.post import PostFactory
from tests.factories.service_account import ServiceAccountFactory
from tests.factories.user import UserFactory
from tests.operations import BY_FORM, FORMS, operations_of, prepared, table

# What a path names is the member's own, who is `self`; only who is restored or erased has been deleted before.
# `key` is a program that may do whatever a program can, `reader` one that may only read: only people have an account,
# and only they make keys. The request is a good one.
#                                                         anonymous  self  other  support  admin  key  reader
TABLE = """
GET     /                                                       200   200   200      200    200  200    200
GET     /.well-known/jwks.json                                  200   200   200      200    200  200    200
GET     /api/v1/openapi.json                                    200   200   200      200    200  200    200
GET     /docs                                                   200   200   200      200    200  200    200
GET     /docs/assets/<path:name>                                200   200   200      200    200  200    200
GET     /health                                                 200   200   200      200    200  200    200
GET     /health/ready                                           200   200   200      200    200  200    200
GET     /problems                                               200   200   200      200    200  200    200
GET     /problems/<name>                                        200   200   200      200    200  200    200
GET     /static/<path:filename>                                 200   200   200      200    200  200    200
GET     /avatars/<file>                                         200   200   200      200    200  200    200

GET     /.well-known/oauth-authorization-server                 200   200   200      200    200  200    200
POST    /oauth/token                                            200   400   400      400    400  400    400
POST    /oauth/revoke                                           200   400   400      400    400  400    400
POST    /oauth/introspect                                       200   400   400      400    400  400    400

GET     /account/confirm                                        200   200   200      200    200  200    200
POST    /account/confirm                                        200   200   200      200    200  200    200
GET     /account/reset                                          200   200   200      200    200  200    200
POST    /account/reset                                          200   200   200      200    200  200    200

POST    /api/v1/auth/login                                      200   200   200      200    200  200    200
POST    /api/v1/auth/refresh                                    200   200   200      200    200  200    200
POST    /api/v1/auth/logout                                     401   204   204      204    204  403    403
POST    /api/v1/auth/password/forgot                            202   202   202      202    202  202    202
POST    /api/v1/auth/password/reset                             204   204   204      204    204  204    204
POST    /api/v1/auth/email/verify                               204   204   204      204    204  204    204
POST    /api/v1/auth/email/resend                               202   202   202      202    202  202    202

GET     /api/v1/me                                              401   200   200      200    200  403    403
PATCH   /api/v1/me                                              401   200   200      200    200  403    403
DELETE  /api/v1/me                                              401   204   204      204    204  403    403
POST    /api/v1/me/password                                     401   204   204      204    204  403    403
POST    /api/v1/me/email                                        401   202   202      202    202  403    403
GET     /api/v1/me/export                                       401   200   200      200    200  403    403
GET     /api/v1/me/sessions                                     401   200   200      200    200  403    403
DELETE  /api/v1/me/sessions                                     401   204   204      204    204  403    403
DELETE  /api/v1/me/sessions/<int:session_id>                    401   204   404      404    404  403    403
GET     /api/v1/me/events                                       401   200   200      200    200  403    403

GET     /api/v1/users                                           401   403   403      200    200  200    200
POST    /api/v1/users                                           201   201   201      201    201  201    201
GET     /api/v1/users/<int:user_id>                             401   200   404      200    200  200    200
PUT     /api/v1/users/<int:user_id>                             401   403   404      403    200  200    403
PATCH   /api/v1/users/<int:user_id>                             401   200   404      403    200  200    403
DELETE  /api/v1/users/<int:user_id>                             401   204   404      403    204  204    403
POST    /api/v1/users/<int:user_id>/restore                     401   403   403      403    200  200    403
POST    /api/v1/users/<int:user_id>/erase                       401   403   403      403    204  204    403

GET     /api/v1/users/<int:user_id>/sessions                    401   200   404      403    200  200    403
DELETE  /api/v1/users/<int:user_id>/sessions                    401   204   404      403    204  204    403
DELETE  /api/v1/users/<int:user_id>/sessions/<int:session_id>   401   204   404      403    204  204    403

GET     /api/v1/users/<int:user_id>/avatar                      401   200   404      200    200  200    200
PUT     /api/v1/users/<int:user_id>/avatar                      401   202   404      403    202  202    403
DELETE  /api/v1/users/<int:user_id>/avatar                      401   204   404      403    204  204    403

GET     /api/v1/users/<int:user_id>/posts                       401   200   404      200    200  200    200
POST    /api/v1/users/<int:user_id>/posts                       401   201   404      403    201  201    403
GET     /api/v1/posts/<int:post_id>                             401   200   404      200    200  200    200
PUT     /api/v1/posts/<int:post_id>                             401   200   404      403    200  200    403
PATCH   /api/v1/posts/<int:post_id>                             401   200   404      403    200  200    403
DELETE  /api/v1/posts/<int:post_id>                             401   204   404      403    204  204    403

GET     /api/v1/events                                          401   403   403      200    200  200    200
GET     /api/v1/users/<int:user_id>/events                      401   200   404      200    200  200    200

GET     /api/v1/webhooks                                        401   403   403      403    200  200    200
POST    /api/v1/webhooks                                        401   403   403      403    201  201    403
GET     /api/v1/webhooks/<int:webhook_id>                       401   403   403      403    200  200    200
PATCH   /api/v1/webhooks/<int:webhook_id>                       401   403   403      403    200  200    403
DELETE  /api/v1/webhooks/<int:webhook_id>                       401   403   403      403    204  204    403
POST    /api/v1/webhooks/<int:webhook_id>/secret                401   403   403      403    200  200    403
POST    /api/v1/webhooks/<int:webhook_id>/ping                  401   403   403      403    202  202    403
GET     /api/v1/webhooks/<int:webhook_id>/deliveries            401   403   403      403    200  200    200
POST /api/v1/webhooks/<int:webhook_id>/deliveries/<int:delivery_id>/redeliver 401 403 403 403 202 202 403

GET     /api/v1/service-accounts                                401   403   403      403    200  403    403
POST    /api/v1/service-accounts                                401   403   403      403    201  403    403
GET     /api/v1/service-accounts/<int:service_account_id>       401   403   403      403    200  403    403
PATCH   /api/v1/service-accounts/<int:service_account_id>       401   403   403      403    200  403    403
DELETE  /api/v1/service-accounts/<int:service_account_id>       401   403   403      403    204  403    403
GET     /api/v1/service-accounts/<int:service_account_id>/keys  401   403   403      403    200  403    403
POST    /api/v1/service-accounts/<int:service_account_id>/keys  401   403   403      403    201  403    403
DELETE  /api/v1/service-accounts/<int:service_account_id>/keys/<int:key_id> 401 403 403  403  204 403    403
"""

WHO = ["anonymous", "self", "other", "support", "admin", "key", "reader"]
READING = ["users:read", "posts:read", "events:read", "webhooks:read"]
ROWS = {operation: dict(zip(WHO, map(int, cells), strict=True)) for operation, cells in table(TABLE).items()}
CELLS = [(method, rule, who, status) for (method, rule), row in ROWS.items() for who, status in row.items()]


@pytest.fixture
def people(client, admin, support, member, other):
    """Return a client for each of those who ask; a second admin, who made the programs, lets the first one go."""
    maker = UserFactory(admin=True)
    signed_in = {"self": member, "other": other, "support": support, "admin": admin}
    programs = {
        "key": ServiceAccountFactory(maker=maker),
        "reader": ServiceAccountFactory(maker=maker, scopes=READING),
    }
    return {
        "anonymous": client,
        **{who: client.as_(user) for who, user in signed_in.items()},
        **{who: client.with_token(key_of(program)) for who, program in programs.items()},
    }


@pytest.fixture
def ready(member):
    """Return a function that makes what a good request about the member needs, and returns the request."""
    post = PostFactory(author=member)
    return lambda method, rule: prepared(method, rule, member, post)


def test_table_holds_every_method_of_every_route(app):
    assert ROWS.keys() == operations_of(app)


@pytest.mark.parametrize(("method", "rule", "who", "status"), CELLS, ids=[f"{who} {m} {r}" for m, r, who, _ in CELLS])
def test_access(people, ready, nothing_changes, method, rule, who, status):
    path, sent = ready(method, rule)

    with nullcontext() if status < 300 else nothing_changes():
        answer = people[who].send(method, path, buffered=True, **sent)

    assert answer.status_code == status
    if (method, rule) in FORMS.keys() - BY_FORM:
        assert 'role="status"' in answer.text  # The page says that it is done.


@pytest.mark.parametrize("who", WHO)
def test_head_is_answered_as_get_and_options_for_all(people, ready, nothing_changes, who):
    for method, rule in ROWS:
        path, _ = ready(method, rule)

        with nothing_changes():
            options = people[who].send("OPTIONS", path)
            head = people[who].head(path, buffered=True)

        assert (options.status_code, options.data) == (204, b""), rule
        if method == "GET":
            assert (head.status_code, head.data) == (ROWS[method, rule][who], b""), rule


def test_method_that_is_not_in_the_table_is_not_offered(people, ready, nothing_changes):
    paths = {rule: ready(method, rule).path for method, rule in ROWS}
    missing = [(method, rule) for method in ("GET", "POST", "PUT", "PATCH", "DELETE") for rule in paths]

    with nothing_changes():
        answers = {
            (method, rule): people["admin"].send(method, paths[rule], json={}).problem
            for method, rule in missing
            if (method, rule) not in ROWS
        }

    assert {*answers.values()} == {(405, "method_not_allowed")}
