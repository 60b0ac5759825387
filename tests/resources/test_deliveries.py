"""Deliveries: what endpoints are told, what becomes of each telling, and telling once more."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from sqlalchemy import bindparam, func, select, update
from standardwebhooks import WebhookVerificationError

from models import Delivery, Event, Webhook
from models.base import db, now
from models.rows import insert_row
from models.statements import execute, unit_of_work
from service import addresses, deliveries, egress
from service.jobs import queue, runner
from service.jobs.deliver import WAITS
from tests.endpoints import WEBHOOKS, verified
from tests.factories.event import EventFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.factories.webhook import DeliveryFactory, WebhookFactory
from tests.letters import Mailbox
from tests.receivers import Internet, listening, read_request, self_signed_context, written
from tests.resources.answers import links, pointers
from tests.servers import free_port

USERS = "/api/v1/users"
EVENTS = "/api/v1/events"
DAY = timedelta(days=1)
MEMBERS = [
    *("id", "event_id", "event_type", "state", "attempts", "response_status", "duration_ms", "error"),
    *("next_attempt_at", "attempted_at", "created_at"),
]
FAILING_SINCE = update(Webhook).values(failing_since=bindparam("moment"))
PROGRESS = select(
    Webhook.position,
    select(func.count()).select_from(Delivery).where(Delivery.webhook_id == Webhook.id).scalar_subquery(),
).where(Webhook.id == bindparam("webhook_id"))
LEASES_OVER = update(queue.Job).where(queue.Job.leased).values(run_at=bindparam("moment"))


@pytest.fixture
def mailbox(app, tmp_path):
    return Mailbox(app, tmp_path)


@pytest.fixture
def canary():
    """Return a receiver that nobody may call."""
    with listening(lambda connection, stopped: None) as listener:
        yield listener
        assert listener.connections == 0


@pytest.fixture
def later(monkeypatch):
    """Return a function that puts forward the clock by which deliveries are signed."""
    ahead, present = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: present() + ahead[0])
    return lambda seconds: ahead.append(ahead.pop() + seconds)


@pytest.fixture
def egress_clock(monkeypatch):
    """Return a function that puts forward the clock by which hosts that fail are left alone."""
    ahead = [0.0]
    monkeypatch.setattr(egress, "clock", lambda: time.monotonic() + ahead[0])
    return lambda seconds: ahead.append(ahead.pop() + seconds)


@pytest.fixture
def quick(monkeypatch):
    """Make every time of a call short."""
    for name, seconds in {"CONNECT": 0.2, "STEP": 0.3, "TOTAL": 0.6}.items():
        monkeypatch.setattr(egress, name, seconds)
    monkeypatch.setattr(addresses, "LOOK_UP", 0.2)


def failing_since(app, moment):
    """Let every endpoint have failed since a moment."""
    with app.app_context(), unit_of_work():
        execute(FAILING_SINCE, moment=moment)


def until(moment):
    """Return how long it takes until a moment that an answer names."""
    return datetime.fromisoformat(moment) - now()


def is_about(wait, expected):
    """Tell whether a wait, of which some seconds may be over, is the expected one or up to a tenth more or less."""
    return expected * 0.9 - timedelta(seconds=10) < wait <= expected * 1.1


def states(endpoint):
    return [(delivery["state"], delivery["attempts"], delivery["error"]) for delivery in endpoint.deliveries()]


class Undone(Exception):
    """What a unit of work may meet after its change."""


def happen_and_be_undone(user):
    with unit_of_work():
        insert_row(Event, type="user.updated", user_id=user.id, subject_id=user.id)
        raise Undone


def types_in_feed(as_admin):
    return [event["type"] for event in as_admin.get(EVENTS).json["events"]]


# What endpoints are told


def test_an_event_is_told_and_can_be_verified(endpoints, as_admin, admin, member):
    endpoint = endpoints.add()
    endpoints.happen()

    endpoints.tell()

    (event,) = as_admin.get(f"{EVENTS}?type=user.updated").json["events"]
    assert endpoint.told() == [
        {
            "type": "user.updated",
            "timestamp": event["created_at"],
            "data": {
                "id": event["id"],
                "user_id": member.id,
                "subject_id": member.id,
                "version": 2,
                "changed": ["name"],
                "actor_id": admin.id,
            },
        }
    ]
    (request,) = endpoint.requests
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == f"evt_{event['id']}"


def test_who_changes_a_telling_or_knows_another_secret_is_not_believed(endpoints):
    endpoint, other = endpoints.add(), endpoints.add()
    endpoints.happen()
    endpoints.tell()
    (request,) = endpoint.requests
    told = {**request.headers, "webhook-timestamp": str(int(request.headers["webhook-timestamp"]) - 1)}
    forged = [
        request._replace(body=request.body.replace(b"user.updated", b"user.deleted")),
        request._replace(headers={**request.headers, "webhook-id": "evt_999"}),
        request._replace(headers=told),
    ]

    for lie in forged:
        with pytest.raises(WebhookVerificationError):
            verified(endpoint.secret, lie)
    with pytest.raises(WebhookVerificationError):
        verified(other.secret, request)


@pytest.mark.parametrize("seconds", [-600, 600])
def test_what_was_signed_at_another_time_is_refused_by_who_receives_it(endpoints, later, seconds):
    endpoint = endpoints.add()
    endpoints.happen()
    later(seconds)

    endpoints.tell()

    with pytest.raises(WebhookVerificationError, match="timestamp too"):
        endpoint.told()


def test_an_endpoint_is_told_what_it_asks_for_and_nothing_else(endpoints, as_admin, member):
    everything = endpoints.add(event_types=["*"])
    of_users = endpoints.add(event_types=["user.*"])
    of_posts = endpoints.add(event_types=["post.created", "post.deleted"])
    post = as_admin.post(f"{USERS}/{member.id}/posts", json={"title": "A title", "content": "Some words."}).json
    as_admin.patch(f"/api/v1/posts/{post['id']}", json={"title": "Another"})
    endpoints.happen()
    as_admin.delete(f"/api/v1/posts/{post['id']}")

    endpoints.tell()

    webhooks = ["webhook.created"] * 3
    assert everything.types() == [*webhooks, "post.created", "post.updated", "user.updated", "post.deleted"]
    assert of_users.types() == ["user.updated"]
    assert of_posts.types() == ["post.created", "post.deleted"]
    assert everything.told()[-1] == of_posts.told()[-1]


def test_an_endpoint_is_told_in_the_order_of_the_feed_each_event_once(endpoints, as_admin):
    endpoint = endpoints.add()
    endpoints.happen(5)
    endpoints.tell()
    endpoints.happen(3)
    endpoints.tell()
    endpoints.tell_later()

    feed = as_admin.get(f"{EVENTS}?type=user.updated").json["events"]
    assert [event["data"]["id"] for event in endpoint.told()] == [event["id"] for event in feed]
    assert len(feed) == 8 and endpoints.jobs() == []


def test_an_endpoint_is_told_nothing_from_before_it_was_added(endpoints):
    endpoints.happen(2)
    first = endpoints.add()
    endpoints.happen()
    second = endpoints.add()

    endpoints.tell()

    assert [event["data"]["version"] for event in first.told()] == [4]
    assert second.told() == []


def test_an_endpoint_is_told_nothing_from_before_it_was_added_however_much_had_happened(app, endpoints, member):
    with app.app_context(), unit_of_work():
        for _ in range(1100):
            insert_row(Event, type="user.updated", user_id=member.id, subject_id=member.id)

    endpoint = endpoints.add()
    endpoints.happen()
    endpoints.tell()

    assert len(endpoint.told()) == 1


def test_a_change_that_is_refused_or_undone_is_not_told(endpoints, as_admin, member):
    endpoint = endpoints.add(event_types=["*"])
    endpoints.tell()
    told = endpoint.ids()

    taken = as_admin.post(USERS, json={"email": member.email, "name": "Again", "password": PASSWORD})
    stale = as_admin.patch(f"{USERS}/{member.id}", json={"name": "New"}, headers={"If-Match": '"9"'})
    with pytest.raises(Undone), endpoints.app.app_context():
        happen_and_be_undone(member)

    assert (taken.problem, stale.problem) == ((409, "email_taken"), (412, "version_mismatch"))
    assert endpoints.tell() == 0
    assert endpoint.ids() == told


def test_nothing_personal_is_told(endpoints, client, as_admin):
    """Somebody lives through everything that there are events of; of what only they have, nothing leaves."""
    endpoint = endpoints.add(event_types=["*"])
    person = {"email": "Canary.Bird@example.com", "name": "Kanarienvogel", "password": "millet and hemp seed"}
    seen = {"User-Agent": "Aviary/7.7", "X-Request-ID": "chirp-chirp-chirp"}
    where = {"REMOTE_ADDR": "203.0.113.77"}
    client.post(USERS, json=person, headers=seen, environ_overrides=where)
    body = {"email": person["email"], "password": person["password"]}
    token = client.post("/api/v1/auth/login", json=body, headers=seen, environ_overrides=where).json["access_token"]
    bird = client.with_token(token)
    user_id = bird.get("/api/v1/me").json["id"]
    text = {"title": "A chirp", "content": "That nobody else would write"}
    bird.patch("/api/v1/me", json={"name": "Wellensittich"}, headers=seen, environ_overrides=where)
    post = bird.post(f"{USERS}/{user_id}/posts", json=text, headers=seen, environ_overrides=where).json
    bird.patch(f"/api/v1/posts/{post['id']}", json={"title": "A trill"}, headers=seen)
    new = {"current_password": person["password"], "password": "sunflower and flax seed"}
    assert bird.post("/api/v1/me/password", json=new, headers=seen).status_code == 204
    as_admin.patch(f"{USERS}/{user_id}", json={"external_id": "ext-canary", "metadata": {"cage": "gilded"}})
    as_admin.delete(f"{USERS}/{user_id}")
    as_admin.post(f"{USERS}/{user_id}/erase")

    endpoints.tell()

    said = b"".join(bytes(str(request), "utf-8") for request in endpoint.requests).lower()
    own = "canary kanarienvogel wellensittich example.com millet sunflower aviary chirp 203.0.113.77 nobody trill cage"
    assert [word for word in own.split() if word.encode() in said] == []
    assert {"user.created", "session.created", "user.updated", "post.created", "user.erased"} <= {*endpoint.types()}
    for event in endpoint.told():
        assert event.keys() == {"type", "timestamp", "data"}
        assert event["data"].keys() == {"id", "user_id", "subject_id", "version", "changed", "actor_id"}


# Trying an endpoint


def test_ping_comes_to_the_one_endpoint_whatever_it_asks_for(endpoints, as_admin):
    endpoint, other, everything = endpoints.add(), endpoints.add(), endpoints.add(event_types=["*"])

    response = as_admin.post(f"{endpoint.path}/ping")
    endpoints.tell()

    assert response.status_code == 202
    assert endpoint.types() == ["webhook.ping"]
    assert endpoint.told()[0]["data"]["subject_id"] == endpoint.id
    assert other.types() == [] and "webhook.ping" not in everything.types()


def test_disabled_endpoint_is_not_pinged(as_admin, nothing_changes):
    webhook = WebhookFactory(disabled=True)

    with nothing_changes():
        response = as_admin.post(f"{WEBHOOKS}/{webhook.id}/ping")

    assert response.problem == (409, "webhook_disabled")


def test_endpoint_is_told_what_happens_to_webhooks_also_to_itself(endpoints, as_admin):
    endpoint = endpoints.add(event_types=["webhook.*"])
    as_admin.patch(endpoint.path, json={"description": "New"})
    as_admin.post(f"{endpoint.path}/secret")
    other = endpoints.add()
    as_admin.delete(other.path)

    endpoints.tell()

    assert endpoint.types() == [
        "webhook.created",
        "webhook.updated",
        "webhook.secret_rotated",
        "webhook.created",
        "webhook.deleted",
    ]
    assert [event["data"]["subject_id"] for event in endpoint.told()] == [endpoint.id] * 3 + [other.id] * 2


# How it goes


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_whatever_is_2xx_is_delivered(endpoints, status):
    endpoint = endpoints.add(status)
    endpoints.happen()

    endpoints.tell()

    delivery = endpoint.delivery()
    assert list(delivery) == MEMBERS
    assert (delivery["state"], delivery["attempts"], delivery["response_status"]) == ("delivered", 1, status)
    assert delivery["error"] is None and delivery["next_attempt_at"] is None
    assert delivery["event_type"] == "user.updated" and delivery["duration_ms"] >= 0
    assert delivery["attempted_at"] >= delivery["created_at"]
    assert endpoints.jobs() == [] and endpoint.shown()["failing_since"] is None


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 409, 418, 500, 502, 503])
def test_whatever_else_is_tried_again(endpoints, status):
    endpoint = endpoints.add(status)
    endpoints.happen()
    endpoints.tell()
    failed = endpoint.delivery()
    assert until(endpoint.shown()["failing_since"]) > -timedelta(minutes=1)

    endpoints.tell_later()

    assert (failed["state"], failed["attempts"], failed["response_status"]) == ("pending", 1, status)
    assert failed["error"] is None and is_about(until(failed["next_attempt_at"]), timedelta(seconds=5))
    assert states(endpoint) == [("delivered", 2, None)]
    assert endpoint.delivery()["response_status"] == 204


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_a_failure_and_is_not_followed(endpoints, canary, status):
    endpoint = endpoints.add((status, {"Location": canary.url}))
    endpoints.happen()

    endpoints.tell()

    delivery = endpoint.delivery()
    assert (delivery["state"], delivery["attempts"], delivery["response_status"]) == ("pending", 1, status)


def test_what_is_told_again_is_the_same_at_another_time(endpoints, later):
    endpoint = endpoints.add(500, b"")
    endpoints.happen()
    endpoints.tell()
    later(60)
    endpoints.tell_later()
    later(60)

    endpoints.tell_later()

    assert states(endpoint) == [("delivered", 3, None)]
    bodies, headers = zip(*[(request.body, request.headers) for request in endpoint.requests], strict=True)
    assert len({*bodies}) == len({header["webhook-id"] for header in headers}) == 1
    moments = [int(header["webhook-timestamp"]) for header in headers]
    assert all(second - first >= 60 for first, second in pairwise(moments))
    assert len({header["webhook-signature"] for header in headers}) == 3


def test_an_endpoint_that_keeps_failing_is_tried_nine_times_over_a_day(endpoints):
    endpoint = endpoints.add(*[500] * 20)
    endpoints.happen()
    endpoints.tell()
    waits = []

    while (delivery := endpoint.delivery())["state"] == "pending":
        (job,) = endpoints.jobs()
        wait = until(delivery["next_attempt_at"])
        assert is_about(wait, WAITS[len(waits)]) and abs(job.run_at - now() - wait) < timedelta(seconds=10)
        assert endpoints.tell() == 0
        waits.append(wait)
        endpoints.tell_later()

    assert len(endpoint.requests) == delivery["attempts"] == 9
    assert waits == sorted(waits) and sum(WAITS, timedelta(0)) >= DAY
    assert (delivery["state"], delivery["response_status"], delivery["next_attempt_at"]) == ("failed", 500, None)
    assert endpoints.jobs() == [] and endpoints.tell_later() == 0
    assert endpoint.shown()["is_active"] is True  # It has not failed for long enough.


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (429, "120", 120),
        (503, "120", 120),
        (429, "7200", 3600),
        (503, "999999999", 3600),
        (429, "1", 5),
        (429, "soon", 5),
        (500, "120", 5),
        (404, "120", 5),
    ],
)
def test_an_endpoint_that_is_busy_says_for_how_long_within_an_hour(endpoints, status, value, seconds):
    endpoint = endpoints.add((status, {"Retry-After": value}))
    endpoints.happen()

    endpoints.tell()

    delivery = endpoint.delivery()
    assert (delivery["state"], delivery["response_status"]) == ("pending", status)
    assert is_about(until(delivery["next_attempt_at"]), timedelta(seconds=seconds))


def test_an_endpoint_that_is_busy_may_name_a_moment(endpoints):
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    endpoint = endpoints.add((503, {"Retry-After": date}))
    endpoints.happen()

    endpoints.tell()

    assert is_about(until(endpoint.delivery()["next_attempt_at"]), timedelta(minutes=10))


def never_answers(connection, stopped):
    read_request(connection)
    stopped.wait()


def test_an_endpoint_that_does_not_answer_in_time_has_failed(endpoints, quick):
    endpoint = endpoints.add(talk=never_answers)
    endpoints.happen()

    endpoints.tell()

    assert states(endpoint) == [("pending", 1, "time_out")]
    assert endpoint.delivery()["response_status"] is None and endpoint.shown()["failing_since"] is not None


def test_an_endpoint_that_cannot_be_reached_has_failed(endpoints):
    endpoint = endpoints.add(url=f"http://127.0.0.1:{free_port()}/hook")
    endpoints.happen()

    endpoints.tell()

    assert states(endpoint) == [("pending", 1, "connection_failed")]


@pytest.mark.parametrize(("answer", "error"), [(b"", "connection_failed"), (b"hello\r\n\r\n", "invalid_answer")])
def test_an_endpoint_that_speaks_no_http_has_failed(endpoints, answer, error):
    endpoint = endpoints.add(answer)
    endpoints.happen()

    endpoints.tell()

    assert states(endpoint) == [("pending", 1, error)]


def test_an_endpoint_whose_name_leads_nowhere_or_inside_has_failed_and_no_more_is_said(endpoints, canary, monkeypatch):
    internet = Internet(monkeypatch)
    internet.names["inside.example.com"] = [["10.0.0.7"], ["93.184.216.34", "10.0.0.7"], ["93.184.216.34"]]
    internet.names["hooks.example.com"] = [["93.184.216.34"]]
    internet.places = {(host, 443): canary.port for host in ("10.0.0.7", "127.0.0.1")}
    inside = endpoints.add(url="https://inside.example.com/hook")
    nowhere = endpoints.add(url="https://nowhere.example.com/hook")
    with listening(never_answers, context=self_signed_context("hooks.example.com")) as listener:
        internet.places["93.184.216.34", 443] = listener.port
        unproven = endpoints.add(url="https://hooks.example.com/hook")
        endpoints.happen()

        endpoints.tell()
        endpoints.tell_later()

    assert states(inside) == [("pending", 2, "address_refused")]
    assert states(nowhere) == [("pending", 2, "no_such_host")]
    assert states(unproven) == [("pending", 2, "tls_failed")]
    assert not [call for call in internet.calls if call[0] == "10.0.0.7"]
    shown = str(inside.deliveries() + nowhere.deliveries() + unproven.deliveries())
    assert "10.0.0.7" not in shown and "93.184" not in shown


def test_a_host_that_is_no_longer_allowed_is_not_called(app, endpoints):
    endpoint = endpoints.add()
    endpoints.happen()
    app.config["WEBHOOK_ALLOWED_HOSTS"] = ()

    endpoints.tell()

    assert endpoint.requests == [] and states(endpoint) == [("pending", 1, "address_refused")]


def test_an_endpoint_that_moves_is_told_at_its_new_address(endpoints, as_admin):
    endpoint, other = endpoints.add(500), endpoints.add(event_types=["post.*"])
    endpoints.happen()
    endpoints.tell()

    assert as_admin.patch(endpoint.path, json={"url": other.url}).status_code == 200
    endpoints.tell_later()

    assert len(endpoint.requests) == len(other.requests) == 1
    assert other.requests[0].headers["webhook-id"] == endpoint.requests[0].headers["webhook-id"]
    assert verified(endpoint.secret, other.requests[0])["type"] == "user.updated"


# Giving an endpoint up


def test_an_endpoint_that_is_gone_is_disabled_at_once_and_admins_get_a_letter(
    endpoints, as_admin, admin, support, mailbox
):
    second = UserFactory(admin=True)
    UserFactory(admin=True, suspended=True)
    UserFactory(admin=True, deleted=True)
    endpoint, other = endpoints.add(410), endpoints.add(event_types=["webhook.disabled"])
    endpoints.happen(3)

    endpoints.tell()
    endpoints.tell()

    shown = endpoint.shown()
    assert (shown["is_active"], shown["disabled_reason"]) == (False, "gone")
    assert len(endpoint.requests) == 1 and endpoints.jobs() == []
    assert states(endpoint) == [("failed", 1, None), *[("failed", 0, "webhook_disabled")] * 2]
    assert endpoint.deliveries()[0]["response_status"] == 410
    assert other.types() == ["webhook.disabled"] and other.told()[0]["data"]["subject_id"] == endpoint.id
    letters = mailbox.arrived()
    assert sorted(letter.to for letter in letters) == sorted([admin.email, second.email])
    assert {letter.subject for letter in letters} == {"A webhook gets no more deliveries"}
    assert all(endpoint.url in letter.text and "410" in letter.text for letter in letters)


def test_an_endpoint_that_has_taken_nothing_for_long_is_disabled_with_the_last_attempt(
    app, endpoints, as_admin, admin, mailbox
):
    endpoint = endpoints.add(*[500] * 20)
    endpoints.happen()
    endpoints.tell()
    failing_since(app, now() - timedelta(hours=21))
    for _ in range(7):
        endpoints.tell_later()
        assert endpoint.shown()["is_active"] is True
    endpoints.happen()

    endpoints.tell_later()
    endpoints.tell_later()

    shown = endpoint.shown()
    assert (shown["is_active"], shown["disabled_reason"]) == (False, "failing")
    assert states(endpoint) == [("failed", 9, None), ("failed", 0, "webhook_disabled")]
    assert types_in_feed(as_admin).count("webhook.disabled") == 1
    (letter,) = mailbox.arrived()
    assert letter.to == admin.email and endpoint.url in letter.text and "410" not in letter.text


def test_success_lets_the_failures_of_before_be_forgotten(app, endpoints):
    endpoint = endpoints.add(500, 500, 204, 500)
    endpoints.happen()
    endpoints.tell()
    failing_since(app, since := now() - timedelta(hours=30))
    endpoints.tell_later()
    kept = endpoint.shown()["failing_since"]

    endpoints.tell_later()
    forgotten = endpoint.shown()["failing_since"]
    endpoints.happen()
    endpoints.tell()

    assert datetime.fromisoformat(kept) == since and forgotten is None
    assert until(endpoint.shown()["failing_since"]) > -timedelta(minutes=1)


def test_what_waits_for_an_endpoint_that_is_disabled_is_given_up_without_a_call(endpoints, as_admin):
    endpoint = endpoints.add(500)
    endpoints.happen(2)
    endpoints.tell()
    as_admin.patch(endpoint.path, json={"is_active": False})
    endpoints.happen()

    endpoints.tell_later()

    assert len(endpoint.requests) == 2 and endpoints.jobs() == []
    assert states(endpoint) == [("failed", 1, "webhook_disabled"), ("delivered", 1, None)]


def test_an_endpoint_that_is_made_active_again_is_told_what_happens_from_then_on(endpoints, as_admin):
    endpoint = endpoints.add(500)
    endpoints.happen()
    endpoints.tell()
    as_admin.patch(endpoint.path, json={"is_active": False})
    endpoints.happen()
    as_admin.patch(endpoint.path, json={"is_active": True})
    endpoints.happen()

    endpoints.tell_later()

    assert [event["data"]["version"] for event in endpoint.told()] == [2, 4]
    assert states(endpoint) == [("failed", 1, "webhook_disabled"), ("delivered", 1, None)]
    assert endpoints.jobs() == []


# What happens meanwhile


def while_it_is_told(act, answer=204):
    """Return how an endpoint talks that does something before it answers."""

    def talk(connection, stopped):
        read_request(connection)
        act()
        connection.sendall(written(answer))

    return talk


@pytest.mark.parametrize("answer", [204, 500, 410])
def test_removing_an_endpoint_while_it_is_told_ends_the_matter_quietly(
    endpoints, as_admin, caplog, nothing_changes, answer
):
    endpoint = endpoints.add(talk=while_it_is_told(lambda: as_admin.delete(endpoint.path), answer))
    endpoints.happen(2)

    endpoints.tell()

    assert as_admin.delete(endpoint.path).problem == (404, "not_found")
    assert endpoints.jobs() == []
    assert "job" not in caplog.text
    with nothing_changes(but="events"):
        assert endpoints.tell_later() == 0


def test_what_waits_for_an_endpoint_that_is_removed_ends_quietly(endpoints, as_admin, caplog):
    endpoint = endpoints.add(500, 500, 500)
    endpoints.happen(3)
    endpoints.tell()
    caplog.clear()
    as_admin.delete(endpoint.path)

    endpoints.tell_later()

    assert endpoints.jobs() == [] and len(endpoint.requests) == 3
    assert caplog.text == ""


def test_what_waited_for_an_endpoint_that_was_removed_is_not_taken_for_anothers(endpoints, as_admin):
    removed = endpoints.add(500)
    endpoints.happen()
    endpoints.tell()
    as_admin.delete(removed.path)
    endpoint = endpoints.add(500, 500, 500)  # On SQLite, it and its delivery have the numbers of those before.
    endpoints.happen()
    endpoints.tell()

    endpoints.tell_later()

    assert len(endpoint.requests) == 2 and states(endpoint) == [("pending", 2, None)]
    assert len(endpoints.jobs()) == 1


@pytest.mark.parametrize("answer", [410, 500])
def test_an_endpoint_that_is_disabled_while_it_is_told_stays_as_it_was_asked_for(
    app, endpoints, as_admin, mailbox, answer
):
    off = {"is_active": False}
    endpoint = endpoints.add(talk=while_it_is_told(lambda: as_admin.patch(endpoint.path, json=off), answer))
    endpoints.happen()

    endpoints.tell()
    endpoints.tell_later()

    assert endpoint.shown()["disabled_reason"] == "by_request"
    assert "webhook.disabled" not in types_in_feed(as_admin) and mailbox.arrived() == []
    assert endpoint.delivery()["state"] == "failed" and endpoints.jobs() == []


def test_changing_an_endpoint_while_it_is_told_is_no_conflict(endpoints, as_admin, caplog):
    new = {"description": "New"}
    endpoint = endpoints.add(talk=while_it_is_told(lambda: as_admin.patch(endpoint.path, json=new), 500))
    endpoints.happen()

    endpoints.tell()

    assert states(endpoint) == [("pending", 1, None)]
    assert endpoint.shown()["description"] == "New" and endpoint.shown()["failing_since"] is not None
    assert "broke off" not in caplog.text


@pytest.mark.parametrize(("late", "second"), [(500, 204), (204, 500), (410, 204)])
def test_who_comes_back_after_the_lease_notes_nothing(app, endpoints, late, second):
    asked, answered = threading.Event(), threading.Event()
    first = [True]

    def talk(connection, stopped):
        read_request(connection)
        if first and first.pop():
            asked.set()
            answered.wait(10)
            connection.sendall(written(late))
        else:
            connection.sendall(written(second))

    endpoint = endpoints.add(talk=talk)
    endpoints.happen()
    endpoints.prepare()

    def run():
        with app.app_context():
            return runner.run_next()

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(run)
        assert asked.wait(10)
        assert run() is False  # It is leased.
        with app.app_context(), unit_of_work():
            execute(LEASES_OVER, moment=now() - timedelta(seconds=1))
        assert run() is True
        noted, shown, jobs = endpoint.deliveries(), endpoint.shown(), endpoints.jobs()
        answered.set()
        assert slow.result() is True

    assert states(endpoint) == [("delivered", 1, None) if second == 204 else ("pending", 1, None)]
    assert (endpoint.deliveries(), endpoint.shown(), endpoints.jobs()) == (noted, shown, jobs)


# Hosts that fail


def test_a_host_that_fails_five_times_is_left_alone_for_a_while_and_others_are_not(endpoints, egress_clock):
    failing, healthy = endpoints.add(*[b""] * 5), endpoints.add()
    endpoints.happen(8)

    endpoints.tell()
    endpoints.tell()

    assert len(failing.requests) == 5
    tried = [("pending", 1, "connection_failed")] * 5
    assert states(failing) == [*tried, *[("pending", 0, None)] * 3]
    assert len(healthy.requests) == 8 and states(healthy) == [("delivered", 1, None)] * 8
    waits = [job.run_at - now() for job in endpoints.jobs() if job.lane == f"webhook {failing.id}"]
    assert len(waits) == 8 and all(timedelta(0) < wait < timedelta(seconds=31) for wait in waits)
    egress_clock(31)
    endpoints.tell_later()
    assert {state for state, *_ in states(failing)} == {"delivered"}
    assert Counter(failing.ids()).keys() == {*healthy.ids()} and failing.shown()["failing_since"] is None


def test_a_host_that_is_left_alone_is_tried_by_a_single_call(endpoints, egress_clock):
    endpoint = endpoints.add(*[b""] * 6)
    endpoints.happen(8)
    endpoints.tell()
    egress_clock(31)

    endpoints.tell_later()

    assert len(endpoint.requests) == 6
    assert sum(attempts for _, attempts, _ in states(endpoint)) == 6
    assert len(endpoints.jobs()) == 8


def test_an_endpoint_that_answers_with_errors_is_not_left_alone(endpoints):
    endpoint = endpoints.add(*[500] * 8)
    endpoints.happen(8)

    endpoints.tell()

    assert len(endpoint.requests) == 8


# Lists, and once more


def test_deliveries_are_listed_in_order_by_pages_and_by_state(as_admin):
    webhook = WebhookFactory()
    made = [DeliveryFactory(webhook=webhook, **{trait: True}) for trait in ("delivered", "failed", "delivered")]
    made.append(DeliveryFactory(webhook=webhook))
    DeliveryFactory()
    path = f"{WEBHOOKS}/{webhook.id}/deliveries"

    def ids(response):
        return [delivery["id"] for delivery in response.json["deliveries"]]

    first = as_admin.get(f"{path}?per_page=3")
    second = as_admin.get(links(first)["next"])
    of_state = {state: ids(as_admin.get(f"{path}?state={state}")) for state in ("pending", "delivered", "failed")}
    part = as_admin.get(f"{path}?state=delivered&per_page=1&sort=-id&fields=state,attempts")
    rest = as_admin.get(links(part)["next"])
    numbered = as_admin.get(f"{path}?page=2&per_page=3")

    numbers = [delivery.id for delivery in made]
    assert ids(first) + ids(second) == numbers and len(ids(first)) == 3
    assert numbered.json["deliveries"] == second.json["deliveries"]
    assert (numbered.json["page"], numbered.json["pages"], numbered.json["total"]) == (2, 2, 4)
    assert of_state == {"pending": numbers[3:], "delivered": [numbers[0], numbers[2]], "failed": [numbers[1]]}
    assert part.json["deliveries"] == rest.json["deliveries"] == [{"state": "delivered", "attempts": 1}]


@pytest.mark.parametrize("query", ["state=lost", "state=", "sort=state", "fields=body", "per_page=101"])
def test_bad_parameter_of_the_list_is_named(as_admin, query):
    webhook = WebhookFactory()

    response = as_admin.get(f"{WEBHOOKS}/{webhook.id}/deliveries?{query}")

    assert response.problem == (400, "invalid_parameter")
    assert pointers(response) == [f"/query/{query.partition('=')[0]}"]


def test_cursor_of_another_webhooks_deliveries_or_of_another_state_is_refused(as_admin):
    webhook, other = WebhookFactory(), WebhookFactory()
    DeliveryFactory.create_batch(2, webhook=webhook)
    DeliveryFactory.create_batch(2, webhook=other)
    cursor = as_admin.get(f"{WEBHOOKS}/{webhook.id}/deliveries?per_page=1").json["next_cursor"]

    answers = [
        as_admin.get(f"{WEBHOOKS}/{other.id}/deliveries?per_page=1&cursor={cursor}"),
        as_admin.get(f"{WEBHOOKS}/{webhook.id}/deliveries?per_page=1&state=pending&cursor={cursor}"),
    ]

    assert [response.problem for response in answers] == [(400, "invalid_parameter")] * 2


def test_what_was_delivered_is_delivered_once_more_under_the_same_id(endpoints, as_admin):
    endpoint = endpoints.add()
    endpoints.happen(2)
    endpoints.tell()
    first, _ = endpoint.deliveries()

    response = as_admin.post(f"{endpoint.path}/deliveries/{first['id']}/redeliver")
    waiting = endpoint.deliveries()[0]
    endpoints.tell()

    assert response.status_code == 202
    assert (waiting["state"], waiting["attempts"]) == ("pending", 1) and waiting["next_attempt_at"] is not None
    assert states(endpoint) == [("delivered", 2, None), ("delivered", 1, None)]
    one, _, again = endpoint.requests
    assert (again.headers["webhook-id"], again.body) == (one.headers["webhook-id"], one.body)
    assert len(endpoint.told()) == 3


def test_what_was_given_up_is_tried_once_more(endpoints, as_admin):
    endpoint = endpoints.add(*[500] * 10)
    endpoints.happen()
    endpoints.tell()
    for _ in range(8):
        endpoints.tell_later()
    path = f"{endpoint.path}/deliveries/{endpoint.delivery()['id']}/redeliver"

    answers = []
    for _ in range(2):
        answers.append(as_admin.post(path).status_code)
        endpoints.tell()
        answers.append(states(endpoint))
        assert endpoints.tell_later() == 0

    assert answers == [202, [("failed", 10, None)], 202, [("delivered", 11, None)]]


def test_what_is_on_its_way_is_not_delivered_once_more(as_admin, nothing_changes):
    delivery = DeliveryFactory()

    with nothing_changes():
        response = as_admin.post(f"{WEBHOOKS}/{delivery.webhook_id}/deliveries/{delivery.id}/redeliver")

    assert response.problem == (409, "delivery_pending")


def test_nothing_is_delivered_once_more_to_a_disabled_endpoint(as_admin, nothing_changes):
    delivery = DeliveryFactory(webhook=WebhookFactory(disabled=True), delivered=True)

    with nothing_changes():
        response = as_admin.post(f"{WEBHOOKS}/{delivery.webhook_id}/deliveries/{delivery.id}/redeliver")

    assert response.problem == (409, "webhook_disabled")


def test_delivery_of_another_webhook_looks_like_a_missing_one(as_admin, nothing_changes):
    mine, other = DeliveryFactory(delivered=True), DeliveryFactory(delivered=True)

    with nothing_changes():
        answers = [
            as_admin.post(f"{WEBHOOKS}/{mine.webhook_id}/deliveries/{delivery_id}/redeliver")
            for delivery_id in (other.id, 999999)
        ]

    assert [response.problem for response in answers] == [(404, "not_found")] * 2


def test_of_two_who_ask_for_it_at_once_one_is_told_that_it_is_on_its_way(app, as_admin):
    delivery = DeliveryFactory(delivered=True)
    path = f"{WEBHOOKS}/{delivery.webhook_id}/deliveries/{delivery.id}/redeliver"

    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda _: as_admin.post(path).problem, range(4))]

    assert sorted(answers, key=str) == [(409, "delivery_pending")] * 3 + [None]


# Making deliveries


def test_workers_that_make_deliveries_at_once_make_each_once(app, endpoints):
    made = [endpoints.add() for _ in range(3)]
    endpoints.happen(10)
    start = threading.Barrier(4)

    def work(_):
        start.wait()
        return endpoints.tell()

    with ThreadPoolExecutor(4) as pool:
        counts = [*pool.map(work, range(4))]
    endpoints.tell()

    assert sum(counts) <= 30
    for endpoint in made:
        assert states(endpoint) == [("delivered", 1, None)] * 10
        assert len({*endpoint.ids()}) == len(endpoint.ids()) == 10
        assert sorted(endpoint.ids(), key=lambda id_: int(id_[4:])) == endpoint.ids()


def test_an_endpoint_that_is_far_behind_catches_up_in_steps(app, member):
    webhook = WebhookFactory(event_types=["user.*"])
    with app.app_context(), unit_of_work():
        for number in range(450):
            type_ = "post.created" if number % 3 else "user.updated"
            insert_row(Event, type=type_, position=number + 1, user_id=member.id, subject_id=member.id)

    steps = []
    with app.app_context():
        while deliveries.fan_out():
            steps.append(db.session.execute(PROGRESS, {"webhook_id": webhook.id}).one())
            db.session.rollback()

    assert steps == [(200, 67), (400, 134), (450, 150)]


def test_the_endpoint_that_is_furthest_behind_is_the_first_to_be_caught_up(app):
    for position in (1, 2):
        EventFactory(position=position)
    WebhookFactory(position=1)
    far = WebhookFactory(position=0)
    WebhookFactory(position=1)

    with app.app_context():
        deliveries.fan_out()
        assert {*db.session.scalars(select(Delivery.webhook_id))} == {far.id}


def test_a_disabled_endpoint_has_no_deliveries_made(app):
    EventFactory(position=1)
    WebhookFactory(disabled=True)

    with app.app_context():
        assert deliveries.fan_out() is False


def test_old_deliveries_are_removed_but_those_on_their_way_stay(app):
    kept = [DeliveryFactory(old=True), DeliveryFactory(delivered=True), DeliveryFactory(failed=True)]
    DeliveryFactory(delivered=True, old=True)
    DeliveryFactory(failed=True, old=True)

    with app.app_context(), unit_of_work():
        assert deliveries.forget_old() == 2

    with app.app_context():
        assert [*db.session.scalars(select(Delivery.id).order_by(Delivery.id))] == [row.id for row in kept]
