"""Webhooks: adding, listing, reading, changing and removing endpoints, and giving them new secrets."""

from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import bindparam, func, select, update
from standardwebhooks import WebhookVerificationError

from models import Delivery, Webhook
from models.base import db, now
from models.statements import execute, unit_of_work
from service import events
from tests.endpoints import WEBHOOKS, verified
from tests.factories.webhook import DeliveryFactory, WebhookFactory
from tests.resources.answers import links, pointers

URL = "https://hooks.example.com/rollcall"
EVENTS = "/api/v1/events"
MEMBERS = [
    *("id", "url", "description", "event_types", "is_active", "disabled_reason", "disabled_at", "failing_since"),
    *("previous_secret_until", "version", "created_at", "updated_at"),
]
END_OVERLAP = update(Webhook).values(previous_secret_until=bindparam("moment"))


def a_webhook(**fields):
    return {"url": URL, **fields}


def at(webhook):
    return f"{WEBHOOKS}/{webhook.id}"


def ids(response):
    return [webhook["id"] for webhook in response.json["webhooks"]]


def number_of(app, table):
    with app.app_context():
        return db.session.scalar(select(func.count()).select_from(table))


@pytest.fixture
def happened(as_admin):
    """Return a function that returns the events of webhooks, the first of all first."""

    def read():
        return [event for event in as_admin.get(EVENTS).json["events"] if event["type"].startswith("webhook.")]

    return read


# Adding


def test_admin_adds_a_webhook(as_admin):
    response = as_admin.post(WEBHOOKS, json=a_webhook())

    assert response.status_code == 201
    webhook = dict(response.json)
    secret = webhook.pop("secret")
    assert list(webhook) == MEMBERS
    assert (webhook["url"], webhook["description"], webhook["event_types"]) == (URL, "", ["*"])
    assert webhook["is_active"] is True and webhook["disabled_at"] is webhook["disabled_reason"] is None
    assert webhook["failing_since"] is webhook["previous_secret_until"] is None
    assert secret.startswith("whsec_") and len(b64decode(secret.removeprefix("whsec_"))) == 32
    assert response.headers["Location"] == f"http://localhost{WEBHOOKS}/{webhook['id']}"
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Cache-Control"] == "no-store"
    assert as_admin.get(f"{WEBHOOKS}/{webhook['id']}").json == webhook


def test_webhook_has_what_it_is_given(as_admin):
    given = a_webhook(description="For the CRM, by Ünal", event_types=["post.*", "user.created"])

    response = as_admin.post(WEBHOOKS, json=given)

    assert {name: response.json[name] for name in given} == given


def test_every_type_can_be_asked_for_but_the_ping_which_comes_unasked(as_admin):
    types = [type_ for type_ in events.TYPES if type_ != "webhook.ping"]

    for type_ in [*types, "user.*", "session.*", "post.*", "webhook.*", "*"]:
        made = as_admin.post(WEBHOOKS, json=a_webhook(event_types=[type_]))
        assert made.json["event_types"] == [type_]
        assert as_admin.delete(f"{WEBHOOKS}/{made.json['id']}").status_code == 204

    asked = as_admin.post(WEBHOOKS, json=a_webhook(event_types=types[::-1]))
    assert asked.json["event_types"] == types


def test_secret_is_shown_once_and_nowhere_else(endpoints, as_admin, admin):
    endpoint = endpoints.add(event_types=["*"])
    endpoints.tell()
    key = endpoint.secret.removeprefix("whsec_")

    answers = [
        as_admin.get(endpoint.path),
        as_admin.get(WEBHOOKS),
        as_admin.get(f"{endpoint.path}/deliveries"),
        as_admin.patch(endpoint.path, json={"description": "New"}),
        as_admin.get(EVENTS),
        as_admin.get("/api/v1/me/export"),
        as_admin.get(f"/api/v1/users/{admin.id}/events"),
        as_admin.post(f"{endpoint.path}/ping"),
    ]

    assert [answer.status_code for answer in answers] == [200] * 7 + [202]
    assert not [answer for answer in answers if key in answer.text or '"secret"' in answer.text]


def test_secret_is_kept_nowhere(as_admin, snapshot):
    made = as_admin.post(WEBHOOKS, json=a_webhook(), headers={"Idempotency-Key": "again"}).json
    rotated = as_admin.post(f"{WEBHOOKS}/{made['id']}/secret").json
    keys = [b64decode(shown["secret"].removeprefix("whsec_")) for shown in (made, rotated)]

    kept = str(snapshot())

    assert URL in kept
    forms = [form for key in keys for form in (b64encode(key).decode(), key.hex(), str(key), str([*key]))]
    assert [form for form in forms if form in kept] == []


def test_each_webhook_has_a_secret_of_its_own_also_one_that_is_given_the_number_of_another(as_admin):
    secrets = []
    for _ in range(3):
        made = [as_admin.post(WEBHOOKS, json=a_webhook()).json for _ in range(2)]
        secrets += [webhook["secret"] for webhook in made]
        for webhook in made:
            as_admin.delete(f"{WEBHOOKS}/{webhook['id']}")

    assert len(set(secrets)) == 6


def test_twenty_first_webhook_is_refused(as_admin, nothing_changes):
    WebhookFactory.create_batch(20)

    with nothing_changes():
        response = as_admin.post(WEBHOOKS, json=a_webhook())

    assert response.problem == (409, "too_many_webhooks")


def test_disabled_webhook_counts_and_a_removed_one_does_not(as_admin):
    webhooks = [*WebhookFactory.create_batch(19), WebhookFactory(disabled=True)]

    assert as_admin.post(WEBHOOKS, json=a_webhook()).problem == (409, "too_many_webhooks")
    assert as_admin.delete(at(webhooks[0])).status_code == 204
    assert as_admin.post(WEBHOOKS, json=a_webhook()).status_code == 201


def test_of_thirty_that_are_added_at_once_there_are_twenty(app, as_admin):
    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(lambda _: as_admin.post(WEBHOOKS, json=a_webhook()), range(30))]

    assert sorted(answer.status_code for answer in answers) == [201] * 20 + [409] * 10
    assert {answer.problem for answer in answers} == {None, (409, "too_many_webhooks")}
    assert number_of(app, Webhook) == 20


# What is not taken


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "javascript:alert(1)",
        "hooks.example.com",
        "https://",
        "https://localhost/",
        "https://hooks/",
        "https://hooks.internal/",
        "https://hooks.example.com./",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://127.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://user:word@hooks.example.com/",
        "https://hooks.example.com@10.0.0.1/",
        "https://hooks.example.com:8080/",
        "https://hooks.example.com:22/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com\\@10.0.0.1/",
        "https://hooks.example.com/a b",
        "https://hoóks.example.com/",
        "https://１２７.0.0.1/",
    ],
)
def test_url_that_may_not_be_called_is_refused(as_admin, nothing_changes, url):
    webhook = WebhookFactory()

    with nothing_changes():
        answers = [
            as_admin.post(WEBHOOKS, json=a_webhook(url=url)),
            as_admin.patch(at(webhook), json={"url": url}),
        ]

    for response in answers:
        assert response.problem == (422, "invalid")
        assert pointers(response) == ["/json/url"]


@pytest.mark.parametrize(
    "url",
    [
        "https://users.example.com/",
        "https://users.example.com/api/v1/users",
        "https://USERS.example.COM/",
        "https://users.example.com:443/",
        "https://users.example.com:8443/",
    ],
)
def test_service_does_not_call_itself(app, as_admin, nothing_changes, url):
    app.config["PUBLIC_URL"] = "https://users.example.com"
    webhook = WebhookFactory()

    with nothing_changes():
        answers = [
            as_admin.post(WEBHOOKS, json=a_webhook(url=url)),
            as_admin.patch(at(webhook), json={"url": url}),
        ]

    for response in answers:
        assert response.problem == (422, "invalid")
        assert pointers(response) == ["/json/url"]


def test_host_that_is_not_public_is_called_only_where_the_setting_names_it(app, as_admin):
    urls = ["http://127.0.0.1:5000/", "http://127.0.0.1:5001/", "http://localhost:5000/"]

    before = [as_admin.post(WEBHOOKS, json=a_webhook(url=url)).status_code for url in urls]
    app.config["WEBHOOK_ALLOWED_HOSTS"] = ("127.0.0.1:5000",)
    after = [as_admin.post(WEBHOOKS, json=a_webhook(url=url)).status_code for url in urls]

    assert before == [422, 422, 422]
    assert after == [201, 422, 422]


def test_on_ones_own_machine_another_port_is_another_service(app, as_admin):
    app.config.update(PUBLIC_URL="http://localhost:8000", WEBHOOK_ALLOWED_HOSTS=("localhost",))

    other = as_admin.post(WEBHOOKS, json=a_webhook(url="http://localhost:5000/"))
    ours = as_admin.post(WEBHOOKS, json=a_webhook(url="http://localhost:8000/"))

    assert other.status_code == 201
    assert ours.problem == (422, "invalid") and pointers(ours) == ["/json/url"]


@pytest.mark.parametrize(
    "field",
    ["secret", "owner_id", "creator_id", "disabled_at", "disabled_reason", "failing_since", "id", "position"],
)
def test_field_that_is_not_for_the_caller_is_unknown(as_admin, nothing_changes, field):
    webhook = WebhookFactory()

    with nothing_changes():
        answers = [
            as_admin.post(WEBHOOKS, json=a_webhook(**{field: 1})),
            as_admin.patch(at(webhook), json={field: 1}),
        ]

    for response in answers:
        assert response.problem == (422, "invalid")
        assert [(fault["pointer"], fault["code"]) for fault in response.json["errors"]] == [
            (f"/json/{field}", "unknown_field")
        ]


def test_webhook_cannot_be_added_as_disabled(as_admin, nothing_changes):
    with nothing_changes():
        response = as_admin.post(WEBHOOKS, json=a_webhook(is_active=False))

    assert pointers(response) == ["/json/is_active"]


@pytest.mark.parametrize(
    ("field", "value", "pointer"),
    [
        ("url", None, ""),
        ("url", 5, ""),
        ("url", [URL], ""),
        ("url", "", ""),
        ("url", f"https://hooks.example.com/{'a' * 2048}", ""),
        ("description", None, ""),
        ("description", 5, ""),
        ("description", "d" * 201, ""),
        ("description", "two\nlines", ""),
        ("event_types", None, ""),
        ("event_types", [], ""),
        ("event_types", "user.*", ""),
        ("event_types", {"user.*": True}, ""),
        ("event_types", ["user.*", "user.*"], ""),
        ("event_types", ["user.unheard_of"], "/0"),
        ("event_types", ["user.*", "User.created"], "/1"),
        ("event_types", ["webhook.ping"], "/0"),
        ("event_types", ["**"], "/0"),
        ("event_types", [5], "/0"),
        ("event_types", [None], "/0"),
        ("event_types", [["user.*"]], "/0"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_field_is_named(as_admin, nothing_changes, field, value, pointer):
    webhook = WebhookFactory()

    with nothing_changes():
        answers = [
            as_admin.post(WEBHOOKS, json=a_webhook(**{field: value})),
            as_admin.patch(at(webhook), json={field: value}),
        ]

    for response in answers:
        assert response.problem == (422, "invalid")
        assert pointers(response) == [f"/json/{field}{pointer}"]


@pytest.mark.parametrize("value", [None, "true", 1, []])
def test_active_is_true_or_false(as_admin, nothing_changes, value):
    webhook = WebhookFactory()

    with nothing_changes():
        response = as_admin.patch(at(webhook), json={"is_active": value})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/is_active"]


def test_webhook_needs_a_url(as_admin, nothing_changes):
    with nothing_changes():
        response = as_admin.post(WEBHOOKS, json={})

    assert response.problem == (422, "invalid")
    assert pointers(response) == ["/json/url"]


# Lists and reading


def test_list_goes_forwards_and_back(as_admin):
    webhooks = WebhookFactory.create_batch(5)

    first = as_admin.get(f"{WEBHOOKS}?per_page=3")
    second = as_admin.get(links(first)["next"])
    back = as_admin.get(links(second)["prev"])
    newest = as_admin.get(f"{WEBHOOKS}?sort=-id&per_page=1")

    assert ids(first) + ids(second) == [webhook.id for webhook in webhooks]
    assert (len(ids(first)), ids(back)) == (3, ids(first))
    assert ids(newest) == [webhooks[-1].id]
    assert list(first.json["webhooks"][0]) == MEMBERS


@pytest.mark.parametrize("query", ["sort=url", "fields=secret", "state=pending", "per_page=0", "is_active=true"])
def test_bad_parameter_of_the_list_is_named(as_admin, query):
    response = as_admin.get(f"{WEBHOOKS}?{query}")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == [f"/query/{query.partition('=')[0]}"]


def test_webhook_is_read_with_its_etag(as_admin):
    webhook = WebhookFactory()

    got = as_admin.get(at(webhook))
    known = as_admin.get(at(webhook), headers={"If-None-Match": got.headers["ETag"]})
    part = as_admin.get(f"{at(webhook)}?fields=url")

    assert (got.status_code, got.headers["ETag"], known.status_code) == (200, '"1"', 304)
    assert got.headers["Cache-Control"] == "private, no-cache"
    assert part.json == {"url": webhook.url}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/secret"),
        ("POST", "/ping"),
        ("GET", "/deliveries"),
        ("POST", "/deliveries/1/redeliver"),
    ],
)
def test_missing_webhook_is_not_found(as_admin, nothing_changes, method, path):
    DeliveryFactory(delivered=True)

    with nothing_changes():
        response = as_admin.send(method, f"{WEBHOOKS}/999999{path}", **({"json": {}} if method == "PATCH" else {}))

    assert response.problem == (404, "not_found")


# Changing


def test_change_leaves_what_it_does_not_name(as_admin):
    webhook = WebhookFactory(description="Old", event_types=["user.*"])

    response = as_admin.patch(at(webhook), json={"description": ""})

    assert response.status_code == 200
    assert (response.json["description"], response.json["event_types"], response.json["url"]) == (
        "",
        ["user.*"],
        webhook.url,
    )
    assert response.json["version"] == 2 and response.headers["ETag"] == '"2"'
    assert datetime.fromisoformat(response.json["updated_at"]) > webhook.updated_at
    assert as_admin.get(at(webhook)).json == response.json


@pytest.mark.parametrize("body", [{}, {"is_active": True}, {"event_types": ["*"]}, {"description": ""}], ids=str)
def test_change_that_changes_nothing_keeps_the_version(as_admin, nothing_changes, body):
    webhook = WebhookFactory()

    with nothing_changes():
        response = as_admin.patch(at(webhook), json=body)

    assert response.status_code == 200
    assert response.headers["ETag"] == '"1"'


@pytest.mark.parametrize("tag", ['"2"', 'W/"9"', "garbage"])
def test_change_is_refused_when_the_etag_is_not_current(as_admin, nothing_changes, tag):
    webhook = WebhookFactory()

    with nothing_changes():
        answers = [
            as_admin.patch(at(webhook), json={"description": "New"}, headers={"If-Match": tag}),
            as_admin.delete(at(webhook), headers={"If-Match": tag}),
        ]

    assert [response.problem for response in answers] == [(412, "version_mismatch")] * 2


def test_change_is_made_when_the_etag_is_current(as_admin):
    webhook = WebhookFactory()

    changed = as_admin.patch(at(webhook), json={"description": "New"}, headers={"If-Match": '"1"'})
    deleted = as_admin.delete(at(webhook), headers={"If-Match": changed.headers["ETag"]})

    assert (changed.status_code, deleted.status_code) == (200, 204)


def test_if_match_is_demanded_where_it_is_required(app, as_admin, nothing_changes):
    app.config["REQUIRE_IF_MATCH"] = True
    webhook = WebhookFactory()

    with nothing_changes():
        answers = [as_admin.patch(at(webhook), json={"description": "New"}), as_admin.delete(at(webhook))]

    assert [response.problem for response in answers] == [(428, "precondition_required")] * 2


def test_webhook_is_disabled_and_made_active_again(as_admin, happened):
    webhook = WebhookFactory()

    off = as_admin.patch(at(webhook), json={"is_active": False}).json
    on = as_admin.patch(at(webhook), json={"is_active": True}).json

    assert (off["is_active"], off["disabled_reason"], off["version"]) == (False, "by_request", 2)
    assert abs(datetime.fromisoformat(off["disabled_at"]) - now()) < timedelta(minutes=1)
    assert (on["is_active"], on["disabled_reason"], on["disabled_at"], on["version"]) == (True, None, None, 3)
    assert [(event["type"], event["changed"]) for event in happened()] == [("webhook.updated", ["is_active"])] * 2


def test_webhook_that_was_failing_begins_anew_when_it_is_made_active_again(as_admin):
    webhook = WebhookFactory(disabled=True, failing=True, disabled_reason="failing")

    response = as_admin.patch(at(webhook), json={"is_active": True})

    assert response.json["is_active"] is True
    assert response.json["failing_since"] is response.json["disabled_reason"] is None


def test_disabling_again_changes_nothing(as_admin, nothing_changes):
    webhook = WebhookFactory(disabled=True, disabled_reason="gone")

    with nothing_changes():
        response = as_admin.patch(at(webhook), json={"is_active": False})

    assert (response.status_code, response.json["disabled_reason"]) == (200, "gone")


def test_removed_webhook_is_gone_with_its_deliveries(app, as_admin):
    webhook = WebhookFactory()
    DeliveryFactory.create_batch(2, webhook=webhook)
    other = DeliveryFactory(delivered=True)

    response = as_admin.delete(at(webhook))

    assert response.status_code == 204
    assert as_admin.delete(at(webhook)).problem == (404, "not_found")
    assert ids(as_admin.get(WEBHOOKS)) == [other.webhook_id]
    with app.app_context():
        assert [*db.session.scalars(select(Delivery.id))] == [other.id]


def test_each_change_leaves_an_event(as_admin, admin, happened):
    webhook_id = as_admin.post(WEBHOOKS, json=a_webhook()).json["id"]
    as_admin.patch(f"{WEBHOOKS}/{webhook_id}", json={"event_types": ["user.*"], "url": f"{URL}/new", "description": ""})
    as_admin.post(f"{WEBHOOKS}/{webhook_id}/secret")
    as_admin.post(f"{WEBHOOKS}/{webhook_id}/ping")
    as_admin.delete(f"{WEBHOOKS}/{webhook_id}")

    left = happened()

    assert [(event["type"], event["version"], event["changed"]) for event in left] == [
        ("webhook.created", 1, []),
        ("webhook.updated", 2, ["event_types", "url"]),
        ("webhook.secret_rotated", 3, []),
        ("webhook.ping", 3, []),
        ("webhook.deleted", 3, []),
    ]
    assert {(event["subject_id"], event["actor_id"], event["user_id"]) for event in left} == {
        (webhook_id, admin.id, None)
    }


# Secrets


def test_for_a_day_both_secrets_verify_and_then_only_the_new_one(app, endpoints, as_admin):
    endpoint = endpoints.add()
    old = endpoint.secret

    rotated = as_admin.post(f"{endpoint.path}/secret")
    endpoints.happen()
    endpoints.tell()
    with app.app_context(), unit_of_work():
        execute(END_OVERLAP, moment=now() - timedelta(seconds=1))
    endpoints.happen()
    endpoints.tell()

    assert rotated.status_code == 200 and rotated.headers["Cache-Control"] == "no-store"
    new = rotated.json["secret"]
    overlap = datetime.fromisoformat(rotated.json["previous_secret_until"]) - now()
    assert timedelta(hours=23, minutes=59) < overlap <= timedelta(hours=24)
    during, after = endpoint.requests
    assert verified(old, during) == verified(new, during)
    assert verified(new, after)
    with pytest.raises(WebhookVerificationError):
        verified(old, after)
    assert len(after.headers["webhook-signature"].split()) == 1


def test_only_the_secret_before_the_present_one_stays_good(endpoints, as_admin):
    endpoint = endpoints.add()
    first = endpoint.secret

    second, third = (as_admin.post(f"{endpoint.path}/secret").json["secret"] for _ in range(2))
    endpoints.happen()
    endpoints.tell()

    (request,) = endpoint.requests
    assert verified(second, request) == verified(third, request)
    with pytest.raises(WebhookVerificationError):
        verified(first, request)
    assert len({first, second, third}) == 3


def test_disabled_webhook_can_be_given_a_new_secret(as_admin):
    webhook = WebhookFactory(disabled=True)

    response = as_admin.post(f"{at(webhook)}/secret")

    assert response.status_code == 200 and response.json["secret"].startswith("whsec_")
    assert response.json["is_active"] is False
