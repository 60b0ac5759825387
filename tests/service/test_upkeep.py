"""Upkeep: each task removes what is over and nothing else, however much there is and however many are at it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import insert

from models import OAuthToken, RefreshToken, Throttle
from models.base import db, now
from service import upkeep
from tests.factories.api_key import ApiKeyFactory
from tests.factories.deprecated_call import DeprecatedCallFactory
from tests.factories.event import EventFactory
from tests.factories.idempotency_key import IdempotencyKeyFactory
from tests.factories.oauth_token import OAuthTokenFactory
from tests.factories.one_time_token import OneTimeTokenFactory
from tests.factories.refresh_token import RefreshTokenFactory
from tests.factories.session import SessionFactory
from tests.factories.throttle import ThrottleFactory
from tests.factories.user import UserFactory
from tests.factories.webhook import DeliveryFactory

WORKERS = 4


def ago(**time):
    return now() - timedelta(**time)


# What each task finds, by its name: rows whose time is over, and rows that are almost as old or of another kind.
OVER = {
    "one-time tokens": lambda: [
        OneTimeTokenFactory(expired=True),
        OneTimeTokenFactory(expires_at=ago(days=30)),
    ],
    "throttles": lambda: [ThrottleFactory(seen_at=ago(days=1, seconds=1))],
    "idempotency keys": lambda: [IdempotencyKeyFactory(created_at=ago(hours=24, seconds=1))],
    "OAuth tokens": lambda: [OAuthTokenFactory(old=True), OAuthTokenFactory(old=True, revoked=True)],
    "sessions": lambda: [
        SessionFactory(expires_at=ago(days=90, seconds=1)),
        SessionFactory(expires_at=ago(days=91), ended=True),
    ],
    "deliveries": lambda: [DeliveryFactory(delivered=True, old=True), DeliveryFactory(failed=True, old=True)],
    "events": lambda: [EventFactory(position=1001, created_at=ago(days=401))],
    "deprecated calls": lambda: [DeprecatedCallFactory(last_at=ago(days=367))],
    "deleted users": lambda: [UserFactory(deleted_at=ago(days=30, seconds=1))],
}
NOT_OVER = {
    "one-time tokens": lambda: [OneTimeTokenFactory(expires_at=now() + timedelta(minutes=1))],
    "throttles": lambda: [ThrottleFactory(seen_at=ago(hours=23, minutes=59))],
    "idempotency keys": lambda: [IdempotencyKeyFactory(created_at=ago(hours=23, minutes=59))],
    "OAuth tokens": lambda: [
        OAuthTokenFactory(),
        OAuthTokenFactory(revoked=True),
        OAuthTokenFactory(expires_at=ago(hours=23, minutes=59)),
    ],
    "sessions": lambda: [SessionFactory(), SessionFactory(ended=True), SessionFactory(expires_at=ago(days=89))],
    "deliveries": lambda: [
        DeliveryFactory(delivered=True, created_at=ago(days=29)),
        DeliveryFactory(old=True),
    ],
    "events": lambda: [
        EventFactory(position=1002, created_at=ago(days=399)),
        EventFactory(created_at=ago(days=401)),
    ],
    "deprecated calls": lambda: [DeprecatedCallFactory(last_at=ago(days=364))],
    "deleted users": lambda: [UserFactory(deleted_at=ago(days=29, hours=23)), UserFactory()],
}


@pytest.fixture
def run(app):
    """Return a function that does the upkeep, and returns how many of each were removed."""

    def do():
        with app.app_context():
            return upkeep.run()

    return do


def test_every_task_is_tried():
    assert OVER.keys() == NOT_OVER.keys() == upkeep.TASKS.keys()


@pytest.mark.parametrize("name", OVER)
def test_what_is_over_goes_and_what_is_not_stays(run, snapshot, name):
    over, kept = OVER[name](), NOT_OVER[name]()

    removed = run()

    assert removed == {**dict.fromkeys(upkeep.TASKS, 0), name: len(over)}
    rows = snapshot()[over[0].__tablename__]
    left = {row.id for row in rows if getattr(row, "erased_at", None) is None}  # Of who is erased, an empty row stays.
    assert left & {row.id for row in over + kept} == {row.id for row in kept}


@pytest.mark.parametrize("name", OVER)
def test_what_was_removed_is_not_removed_again(run, name):
    OVER[name](), NOT_OVER[name]()
    run()

    assert run() == dict.fromkeys(upkeep.TASKS, 0)


def test_tokens_go_with_the_session_or_key_of_which_they_are(run, snapshot):
    RefreshTokenFactory(session=SessionFactory(expires_at=ago(days=91)))
    kept = RefreshTokenFactory(session=SessionFactory())
    key = ApiKeyFactory(revoked=True)
    OAuthTokenFactory(key=key, old=True)

    run()

    tables = snapshot()
    assert [row.id for row in tables[RefreshToken.__tablename__]] == [kept.id]
    assert tables[OAuthToken.__tablename__] == []
    assert [row.id for row in tables["api_keys"]] == [key.id]


def test_however_many_there_are_all_go(app, run, snapshot):
    rows = [{"key": f"key {number}", "attempts": 1, "seen_at": ago(days=2)} for number in range(2500)]
    with app.app_context():
        db.session.execute(insert(Throttle), rows)
        db.session.commit()

    assert run()["throttles"] == 2500
    assert snapshot()["throttles"] == []


def test_several_at_once_remove_each_once(run):
    made = {
        name: sum(len(make()) for _ in range(1 if name in {"events", "deprecated calls"} else 20))
        for name, make in OVER.items()
    }
    for make in NOT_OVER.values():
        make()
    start = Barrier(WORKERS)

    def work(_):
        start.wait()
        return run()

    with ThreadPoolExecutor(WORKERS) as pool:
        removed = [*pool.map(work, range(WORKERS))]

    assert {name: sum(counts[name] for counts in removed) for name in made} == made
