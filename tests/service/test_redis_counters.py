"""Counters in Redis: shared by all instances; whatever befalls it, each instance goes on counting by itself."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import pytest
from redis import Redis

from service import redis_counters
from service.counters import Bucket, SharedCounters
from service.redis_counters import PREFIX, RedisCounters
from tests.brokers import Broker, valkey
from tests.served.service import eventually
from tests.servers import free_port

MINUTE, HOUR = 60, 3600


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with valkey() as broker:
        yield broker


@pytest.fixture
def redis(broker: Broker) -> Iterator[Redis]:
    """Return a client of an empty Redis, past the counters."""
    with Redis.from_url(broker.url) as redis:
        redis.flushall()
        yield redis


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the threads that have asked Redis; where it is away, another look is taken soon."""
    threads, ask = [], RedisCounters._ask

    def note(self: RedisCounters, *buckets: Bucket) -> Any:
        threads.append(threading.current_thread().name)
        return ask(self, *buckets)

    monkeypatch.setattr(RedisCounters, "_ask", note)
    monkeypatch.setattr(redis_counters, "TRIED_EVERY", 0.05)
    return threads


@pytest.fixture
def counters(broker: Broker, redis: Redis, asked: list[str]) -> Iterator[RedisCounters]:
    """Return the counters of an instance, which are on good terms with Redis at the end."""
    counters = RedisCounters(broker.url, SharedCounters())
    yield counters
    eventually(lambda: not counters._is_away)


def bucket(name: str = "a", window: int = MINUTE) -> Bucket:
    return Bucket(sha256(name.encode()).digest()[:16], window)


def key(name: str = "a") -> bytes:
    return PREFIX + bucket(name).key


def number(counters: RedisCounters, name: str = "a") -> int:
    return counters.hit(bucket(name))[0].number


def own_number(counters: RedisCounters) -> int:
    """Return what the instance has counted by itself, once more."""
    return counters._own.hit(bucket())[0].number


# At peace


def test_instances_count_together(broker, counters):
    other = RedisCounters(broker.url, SharedCounters())

    assert [number(counters), number(other), number(counters), number(other)] == [1, 2, 3, 4]


def test_several_are_counted_by_one_question(counters, asked):
    number(counters)

    found = counters.hit(bucket(), bucket("b", HOUR))

    assert [count.number for count in found] == [2, 1]
    assert 59 < found[0].left <= 60 and 3599 < found[1].left <= 3600
    assert len(asked) == 2


def test_a_window_begins_with_the_first_time_and_ends(counters, redis):
    number(counters)
    assert 59_000 < redis.pttl(key()) <= 60_000

    redis.pexpire(key(), 1)
    eventually(lambda: not redis.exists(key()))

    assert number(counters) == 1


@pytest.mark.parametrize("disturb", [lambda redis: redis.persist(key()), lambda redis: redis.expire(key(), HOUR)])
def test_a_window_without_an_end_or_with_one_too_far_away_is_given_one(counters, redis, disturb):
    number(counters)

    disturb(redis)

    ((count, left),) = counters.hit(bucket())
    assert count == 2 and 59 < left <= 60
    assert 59_000 < redis.pttl(key()) <= 60_000


def test_something_is_left_of_every_window(counters, redis):
    lefts = []
    for _ in range(300):
        redis.set(key(), 5, px=1)
        lefts.append(counters.hit(bucket())[0].left)

    assert all(0 < left <= 60 for left in lefts)


def test_threads_of_two_instances_are_counted_exactly(broker, counters):
    other = RedisCounters(broker.url, SharedCounters())
    start = threading.Barrier(8)

    def count(place: int) -> list[int]:
        start.wait()
        return [number((counters, other)[place % 2]) for _ in range(50)]

    with ThreadPoolExecutor(8) as threads:
        found = [found for share in threads.map(count, range(8)) for found in share]

    assert sorted(found) == [*range(1, 401)]


def test_what_is_kept_names_nobody_and_ends(counters, redis):
    number(counters)

    (kept,) = redis.keys()
    assert kept.startswith(b"rollcall:count:") and redis.ttl(kept) > 0


# Away


def test_nothing_is_asked_when_an_instance_is_made(broker):
    assert RedisCounters(f"redis://127.0.0.1:{free_port()}", SharedCounters())._is_away is False


def test_while_it_is_away_the_instance_goes_on_from_its_own_count(broker, counters, asked, caplog):
    other = RedisCounters(broker.url, SharedCounters())
    assert [number(counters), number(other), number(counters)] == [1, 2, 3]

    broker.kill()
    found = [number(counters) for _ in range(5)]

    assert found == [3, 4, 5, 6, 7]
    assert asked.count("MainThread") == 4  # One found it out.
    assert [record.message for record in caplog.records] == ["redis is away: each instance counts for itself"]
    broker.start()
    eventually(lambda: not counters._is_away)
    assert number(counters) == 1


def test_a_frozen_one_is_waited_for_once(broker, counters, asked):
    assert number(counters) == 1
    broker.pause()
    try:
        found = [number(counters) for _ in range(100)]
    finally:
        broker.go_on()

    assert found == [*range(2, 102)]
    assert asked.count("MainThread") == 2
    eventually(lambda: not counters._is_away)
    # What it was asked while it was frozen may have been counted late.
    assert number(counters) in (2, 3)


def test_of_many_threads_one_looks_whether_it_is_back(broker, counters, asked):
    number(counters)
    start = threading.Barrier(8)

    def count(_: int) -> list[int]:
        start.wait()
        return [number(counters) for _ in range(10)]

    broker.pause()
    try:
        with ThreadPoolExecutor(8, thread_name_prefix="request") as threads:
            found = [found for share in threads.map(count, range(8)) for found in share]
        watching = [thread for thread in threading.enumerate() if thread.name == "redis-counters"]
    finally:
        broker.go_on()

    assert sorted(found) == [*range(2, 82)]
    assert len(watching) == 1
    assert len([name for name in asked if name.startswith("request")]) <= 8


@pytest.mark.parametrize(
    ("disturb", "mend"),
    [
        (lambda redis: redis.config_set("maxmemory", 1), lambda redis: redis.config_set("maxmemory", 0)),
        (lambda redis: redis.replicaof("127.0.0.1", "1"), lambda redis: redis.replicaof("NO", "ONE")),
        (
            lambda redis: redis.config_set("min-replicas-to-write", 1),
            lambda r: r.config_set("min-replicas-to-write", 0),
        ),
    ],
    ids=["full", "read-only", "without its replicas"],
)
def test_one_that_answers_but_counts_nothing_is_away(redis, counters, asked, disturb, mend):
    assert [number(counters), number(counters)] == [1, 2]

    disturb(redis)
    try:
        found = [number(counters) for _ in range(3)]
        looks = len(asked)
        eventually(lambda: len(asked) > looks + 2)
        found.append(number(counters))
    finally:
        mend(redis)

    assert found == [3, 4, 5, 6]
    eventually(lambda: not counters._is_away)
    assert number(counters) == 3


def test_one_that_refuses_who_asks_is_away(broker, asked):
    stranger = RedisCounters(broker.url.replace("//", "//:wrong@"), SharedCounters())

    assert [number(stranger), number(stranger)] == [1, 2]
    assert len(asked) >= 1
    stranger._is_away = False  # Which ends its thread.


def test_one_that_forgets_everything_counts_from_the_beginning(redis, counters):
    number(counters)

    redis.flushall()
    redis.script_flush()

    assert [number(counters), number(counters)] == [1, 2]


def test_what_was_counted_together_counts_for_the_instance_alone(counters):
    for _ in range(3):
        number(counters)

    assert own_number(counters) == 4
