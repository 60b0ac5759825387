"""Idempotency-Key: what creates something does so once, however often and however many at once it is sent."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy import bindparam, update

from models import IdempotencyKey
from models.base import now
from models.statements import execute, unit_of_work
from service import upkeep
from tests.factories.user import UserFactory

USERS, WEBHOOKS = "/api/v1/users", "/api/v1/webhooks"
AGED = update(IdempotencyKey).values(created_at=bindparam("moment"))
numbers = count(1)


def with_key(key="4f5c1a52-0d3b-4c0e-9a53-3d9a1c5f2f10"):
    return {"Idempotency-Key": key}


def a_person(**fields):
    return {"email": f"somebody{next(numbers)}@example.org", "name": "New Person", **fields}


def answer_of(response):
    """Return what must be the same each time."""
    named = {name: response.headers.get(name) for name in ("Content-Type", "Location", "ETag")}
    return response.status_code, response.json, named


@pytest.fixture
def posts(member):
    return f"{USERS}/{member.id}/posts"


@pytest.fixture
def a_day_later(app):
    """Let a day pass over every answer that is kept."""

    def pass_over():
        with app.app_context(), unit_of_work():
            execute(AGED, moment=now() - timedelta(hours=24, seconds=1))

    return pass_over


# One at a time


def test_the_same_request_again_gets_the_same_answer_and_does_nothing(as_admin, nothing_changes):
    body = a_person(password="violet harbour tuesday")
    first = as_admin.post(USERS, json=body, headers=with_key())

    with nothing_changes():
        again = as_admin.post(USERS, json=body, headers=with_key())

    assert first.status_code == 201 and "Idempotency-Replayed" not in first.headers
    assert answer_of(again) == answer_of(first)
    assert again.headers["Idempotency-Replayed"] == "true" and again.headers["Cache-Control"] == "no-store"


def test_the_answer_is_that_of_the_first_time_whatever_has_happened_since(as_admin):
    body = a_person()
    first = as_admin.post(USERS, json=body, headers=with_key())
    as_admin.patch(f"{USERS}/{first.json['id']}", json={"name": "Another Name"})

    again = as_admin.post(USERS, json=body, headers=with_key())

    assert answer_of(again) == answer_of(first)


def test_spelling_and_order_of_a_body_do_not_matter(as_admin, nothing_changes):
    person = a_person()
    as_admin.post(USERS, json=person, headers=with_key("one"))
    turned_round = dict(reversed(person.items()))

    with nothing_changes():
        again = as_admin.post(USERS, json=turned_round, headers=with_key('"one"'))

    assert again.headers["Idempotency-Replayed"] == "true"


def test_another_body_with_the_same_key_is_refused(as_admin, nothing_changes):
    as_admin.post(USERS, json=a_person(), headers=with_key())

    with nothing_changes():
        other = as_admin.post(USERS, json=a_person(), headers=with_key())

    assert other.problem == (422, "idempotency_key_reused")
    assert other.json["errors"][0]["pointer"] == "/headers/Idempotency-Key"


def test_another_key_is_another_request(as_member, posts):
    body = {"title": "A title", "content": "Some words."}

    ids = [as_member.post(posts, json=body, headers=with_key(key)).json["id"] for key in ("one", "two")]

    assert len(set(ids)) == 2


def test_a_key_belongs_to_who_sends_it_and_to_where(as_member, as_admin, posts):
    body = {"title": "A title", "content": "Some words."}
    elsewhere = f"{USERS}/{UserFactory().id}/posts"

    ids = {
        as_member.post(posts, json=body, headers=with_key()).json["id"],
        as_admin.post(posts, json=body, headers=with_key()).json["id"],
        as_admin.post(elsewhere, json=body, headers=with_key()).json["id"],
    }

    assert len(ids) == 3


def test_a_key_is_the_same_in_another_session(client, member, posts):
    body = {"title": "A title", "content": "Some words."}

    answers = [client.as_(member).post(posts, json=body, headers=with_key()) for _ in range(2)]

    assert answers[0].json == answers[1].json


def test_nobody_finds_the_answer_to_a_stranger_on_another_network(client):
    body = a_person(password="violet harbour tuesday")
    office, home = ({"environ_base": {"REMOTE_ADDR": address}} for address in ("192.0.2.1", "198.51.100.1"))

    first = client.post(USERS, json=body, headers=with_key(), **office)
    again = client.post(USERS, json=body, headers=with_key(), **office)
    from_elsewhere = client.post(USERS, json=body, headers=with_key(), **home)

    assert (first.status_code, answer_of(again)) == (201, answer_of(first))
    assert from_elsewhere.problem == (409, "email_taken")


def test_a_refusal_is_not_kept(as_admin):
    taken = UserFactory().email
    refused = as_admin.post(USERS, json=a_person(email=taken), headers=with_key())

    corrected = as_admin.post(USERS, json=a_person(), headers=with_key())

    assert refused.problem == (409, "email_taken")
    assert corrected.status_code == 201 and "Idempotency-Replayed" not in corrected.headers


def test_without_a_key_nothing_is_kept(as_admin, snapshot):
    as_admin.post(USERS, json=a_person())

    assert snapshot()["idempotency_keys"] == []


@pytest.mark.parametrize("key", ["", '""', "a b", "ä", "x" * 256, '"unfinished x'])
def test_what_is_no_key_is_refused(as_admin, nothing_changes, key):
    with nothing_changes():
        refused = as_admin.post(USERS, json=a_person(), headers=with_key(key))

    assert refused.problem == (400, "invalid_parameter")
    assert refused.json["errors"][0]["pointer"] == "/headers/Idempotency-Key"


def test_after_a_day_the_key_is_new(as_member, posts, a_day_later):
    body = {"title": "A title", "content": "Some words."}
    first = as_member.post(posts, json=body, headers=with_key())
    a_day_later()

    again = as_member.post(posts, json=body, headers=with_key())

    assert again.status_code == 201 and again.json["id"] != first.json["id"]


def test_upkeep_removes_what_is_a_day_old(app, as_member, posts, a_day_later, snapshot):
    for number in range(3):
        as_member.post(posts, json={"title": "A title", "content": "Words."}, headers=with_key(f"key {number}"[4:]))
    a_day_later()
    as_member.post(posts, json={"title": "A title", "content": "Words."}, headers=with_key("young"))

    with app.app_context():
        removed = upkeep.run()

    assert removed["idempotency keys"] == 3 and len(snapshot()["idempotency_keys"]) == 1


# What is kept


def test_a_secret_is_shown_the_first_time_only_and_kept_nowhere(as_admin, snapshot):
    body = {"url": "https://partner.example/hook"}
    first = as_admin.post(WEBHOOKS, json=body, headers=with_key())

    again = as_admin.post(WEBHOOKS, json=body, headers=with_key())

    assert first.json["secret"].startswith("whsec_")
    assert again.json == {**first.json, "secret": None}
    assert first.json["secret"] not in repr(snapshot())


def test_neither_key_nor_password_is_kept(as_admin, snapshot):
    body = a_person(password="violet harbour tuesday")
    as_admin.post(USERS, json=body, headers=with_key("a-key-of-mine"))

    kept = repr(snapshot()["idempotency_keys"])

    assert "a-key-of-mine" not in kept and "violet" not in kept


def test_what_is_kept_of_a_person_goes_when_they_are_erased(as_admin, snapshot):
    user = as_admin.post(USERS, json=a_person(), headers=with_key()).json
    as_admin.delete(f"{USERS}/{user['id']}")

    as_admin.post(f"{USERS}/{user['id']}/erase")

    assert snapshot()["idempotency_keys"] == []


# Many at once


@pytest.mark.parametrize("noun", ["users", "posts", "webhooks"])
def test_of_many_at_once_one_is_made_and_all_get_its_answer(as_admin, posts, snapshot, noun):
    path, body = {
        "users": (USERS, a_person(password="violet harbour tuesday")),
        "posts": (posts, {"title": "A title", "content": "Some words."}),
        "webhooks": (WEBHOOKS, {"url": "https://partner.example/hook"}),
    }[noun]
    before = len(snapshot()[noun])

    with ThreadPoolExecutor(7) as pool:
        answers = list(pool.map(lambda _: as_admin.post(path, json=body, headers=with_key()), range(21)))

    assert {answer.problem or answer.status_code for answer in answers} == {201}
    bodies = [{name: value for name, value in answer.json.items() if name != "secret"} for answer in answers]
    assert all(body == bodies[0] for body in bodies)
    assert sorted(answer.headers.get("Idempotency-Replayed", "") for answer in answers) == [""] + ["true"] * 20
    after = snapshot()
    assert len(after[noun]) == before + 1 and len(after["idempotency_keys"]) == 1
    assert [row for row in after["events"] if f"{noun[:-1]}.created" in row] == after["events"][-1:]


def test_who_waits_in_vain_for_the_first_is_told_that_it_runs(as_member, posts, a_day_later, outside, snapshot):
    if not hasattr(outside, "transaction"):
        pytest.skip("SQLite waits for five seconds")
    body = {"title": "A title", "content": "Some words."}
    as_member.post(posts, json=body, headers=with_key())
    a_day_later()
    before = snapshot()["posts"]

    with outside.transaction():  # As if the first were still at work: what it has not committed yet is in the way.
        outside.execute("UPDATE idempotency_keys SET status = status")
        waited = as_member.post(posts, json=body, headers=with_key())

    assert waited.problem == (409, "idempotency_key_in_use")
    assert snapshot()["posts"] == before
