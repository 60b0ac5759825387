"""What an answer costs: the statements of each operation, one of which says who asks."""

import pytest

from models import statements as of_models
from tests.factories.event import EventFactory
from tests.factories.post import PostFactory
from tests.factories.user import UserFactory
from tests.operations import BY_FORM, operations_of, prepared, table

# Statements of an admin's request, or of a program's that says who it is in a form. What begins and ends a transaction,
# and an advisory lock, is not counted.
TABLE = """
GET     /                                                       0
GET     /.well-known/jwks.json                                  0
GET     /api/v1/openapi.json                                    0
GET     /docs                                                   0
GET     /docs/assets/<path:name>                                0
GET     /health                                                 0
GET     /health/ready                                           2
GET     /problems                                               0
GET     /problems/<name>                                        0
GET     /static/<path:filename>                                 0
GET     /avatars/<file>                                         0

GET     /.well-known/oauth-authorization-server                 0
POST    /oauth/token                                            3
POST    /oauth/revoke                                           3
POST    /oauth/introspect                                       3

GET     /account/confirm                                        0
POST    /account/confirm                                        7
GET     /account/reset                                          0
POST    /account/reset                                          13

POST    /api/v1/auth/login                                      13
POST    /api/v1/auth/refresh                                    8
POST    /api/v1/auth/logout                                     3
POST    /api/v1/auth/password/forgot                            5
POST    /api/v1/auth/password/reset                             13
POST    /api/v1/auth/email/verify                               7
POST    /api/v1/auth/email/resend                               5

GET     /api/v1/me                                              2
PATCH   /api/v1/me                                              4
DELETE  /api/v1/me                                              7
POST    /api/v1/me/password                                     15
POST    /api/v1/me/email                                        12
GET     /api/v1/me/export                                       9
GET     /api/v1/me/sessions                                     3
DELETE  /api/v1/me/sessions                                     3
DELETE  /api/v1/me/sessions/<int:session_id>                    4
GET     /api/v1/me/events                                       5

GET     /api/v1/users                                           2
POST    /api/v1/users                                           3
GET     /api/v1/users/<int:user_id>                             2
PUT     /api/v1/users/<int:user_id>                             7
PATCH   /api/v1/users/<int:user_id>                             4
DELETE  /api/v1/users/<int:user_id>                             6
POST    /api/v1/users/<int:user_id>/restore                     4
POST    /api/v1/users/<int:user_id>/erase                       15

GET     /api/v1/users/<int:user_id>/sessions                    3
DELETE  /api/v1/users/<int:user_id>/sessions                    4
DELETE  /api/v1/users/<int:user_id>/sessions/<int:session_id>   4

GET     /api/v1/users/<int:user_id>/avatar                      2
PUT     /api/v1/users/<int:user_id>/avatar                      9
DELETE  /api/v1/users/<int:user_id>/avatar                      5

GET     /api/v1/users/<int:user_id>/posts                       3
POST    /api/v1/users/<int:user_id>/posts                       4
GET     /api/v1/posts/<int:post_id>                             2
PUT     /api/v1/posts/<int:post_id>                             4
PATCH   /api/v1/posts/<int:post_id>                             4
DELETE  /api/v1/posts/<int:post_id>                             4

GET     /api/v1/events                                          5
GET     /api/v1/users/<int:user_id>/events                      5

GET     /api/v1/webhooks                                        2
POST    /api/v1/webhooks                                        7
GET     /api/v1/webhooks/<int:webhook_id>                       2
PATCH   /api/v1/webhooks/<int:webhook_id>                       4
DELETE  /api/v1/webhooks/<int:webhook_id>                       5
POST    /api/v1/webhooks/<int:webhook_id>/secret                4
POST    /api/v1/webhooks/<int:webhook_id>/ping                  3
GET     /api/v1/webhooks/<int:webhook_id>/deliveries            3
POST    /api/v1/webhooks/<int:webhook_id>/deliveries/<int:delivery_id>/redeliver 5

GET     /api/v1/service-accounts                                2
POST    /api/v1/service-accounts                                3
GET     /api/v1/service-accounts/<int:service_account_id>       2
PATCH   /api/v1/service-accounts/<int:service_account_id>       4
DELETE  /api/v1/service-accounts/<int:service_account_id>       4
GET     /api/v1/service-accounts/<int:service_account_id>/keys  3
POST    /api/v1/service-accounts/<int:service_account_id>/keys  5
DELETE  /api/v1/service-accounts/<int:service_account_id>/keys/<int:key_id> 5
"""

ROWS = {operation: int(count) for operation, (count,) in table(TABLE).items()}


@pytest.fixture
def ready(client):
    """Return a function that makes what a good request of an admin needs, and returns how to send it."""
    UserFactory(admin=True)  # Lets the one who asks go.

    def make(method, rule):
        admin = UserFactory(admin=True)
        user = admin if "/me/" in rule else UserFactory()
        EventFactory(user=user)  # Who reads it first publishes it.
        path, sent = prepared(method, rule, user, PostFactory(author=user))
        sender = client if (method, rule) in BY_FORM else client.as_(admin)
        return lambda: sender.send(method, path, buffered=True, **sent)

    return make


def test_table_holds_every_method_of_every_route(app):
    assert ROWS.keys() == operations_of(app)


@pytest.mark.parametrize(("method", "rule"), ROWS, ids=map(" ".join, ROWS))
def test_operation_costs_no_more_statements(ready, queries, method, rule):
    send = ready(method, rule)

    with queries() as statements:
        response = send()

    assert response.status_code < 300
    assert len(statements) == ROWS[method, rule], "\n".join(map(str, statements))


@pytest.mark.parametrize(
    "path",
    ["/api/v1/users", "/api/v1/users?sort=-name&role=member", "/api/v1/users?q=person", "/api/v1/users?fields=id"],
)
def test_longer_list_costs_no_more_statements(client, admin, queries, path):
    as_admin = client.as_(admin)
    UserFactory.create_batch(5, password_hash=None)

    with queries() as statements:
        as_admin.get(path)

    assert len(statements) == 2


def test_search_in_another_order_costs_one_statement_to_see_how_many_match(client, admin, queries):
    as_admin = client.as_(admin)

    with queries() as statements:
        as_admin.get("/api/v1/users?sort=-name&q=person")

    assert len(statements) == 3


@pytest.mark.parametrize(
    ("path", "count"), [("/api/v1/events", 4), ("/api/v1/events?after=1", 3), ("/api/v1/me/events", 4)]
)
def test_events_that_others_have_published_cost_no_change(client, admin, queries, path, count):
    as_admin = client.as_(admin)
    EventFactory(user=admin, position=1)

    with queries() as statements:
        as_admin.get(path)

    assert len(statements) == count
    assert not [statement for statement in statements if "UPDATE" in str(statement)]


def test_numbered_page_costs_one_statement_for_the_count(client, admin, queries):
    as_admin = client.as_(admin)

    with queries() as statements:
        as_admin.get("/api/v1/users?page=1")

    assert len(statements) == 3


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"Authorization": "Bearer a.b.c"}, 401), ({"Accept": "text/html"}, 406)]
)
def test_stranger_costs_no_statement(client, queries, headers, status):
    with queries() as statements:
        response = client.get("/api/v1/me", headers=headers)

    assert response.status_code == status
    assert statements == []


def test_malformed_body_costs_no_more_than_knowing_who_sends_it(client, admin, queries):
    as_admin = client.as_(admin)

    with queries() as statements:
        as_admin.patch("/api/v1/me", data=b"{", headers={"Content-Type": "application/json"})

    assert len(statements) == 1


@pytest.mark.parametrize(("method", "rule"), ROWS, ids=map(" ".join, ROWS))
def test_no_statement_is_compiled_for_one_request_only(ready, method, rule):
    for _ in range(2):  # The first is counted as an attempt, the second beside it.
        ready(method, rule)()
    before = of_models._statement.cache_info().misses

    answers = [ready(method, rule)() for _ in range(2)]

    assert of_models._statement.cache_info().misses == before
    assert all(answer.status_code < 300 for answer in answers)
