"""Counters in memory that workers share: exact with many threads and processes, bounded, and harmed by no death."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from multiprocessing import get_context
from typing import Any

import pytest

from service import counters as module
from service import shared_locks
from service.counters import WAYS, Bucket, SharedCounters
from service.shared_locks import FileLock, RobustLock, shared_lock
from tests.processes import at_once

FORK = get_context("fork")
MINUTE, HOUR = 60, 3600


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters(clock: Clock) -> SharedCounters:
    """Return counters with eight places, all of which any key may have."""
    return SharedCounters(sets=1, clock=clock)


def bucket(name: object, window: int = MINUTE) -> Bucket:
    return Bucket(sha256(str(name).encode()).digest()[:16], window)


def numbers(counters: SharedCounters, times: int, name: object = "a") -> list[int]:
    return [counters.hit(bucket(name))[0].number for _ in range(times)]


def test_each_time_is_counted_until_the_window_ends(counters, clock):
    first = counters.hit(bucket("a"))
    clock.now += 59.5
    second = counters.hit(bucket("a"))
    clock.now += 0.5
    third = counters.hit(bucket("a"))

    assert first == [(1, 60)]
    assert second == [(2, 0.5)]
    assert third == [(1, 60)]


def test_a_window_does_not_grow_because_somebody_goes_on(counters, clock):
    for _ in range(120):
        assert counters.hit(bucket("a"))[0].number <= 60
        clock.now += 1


def test_several_are_counted_at_once_and_apart(counters):
    numbers(counters, 2)

    assert counters.hit(bucket("a"), bucket("b", HOUR)) == [(3, 60), (1, 3600)]
    assert counters.hit(bucket("b", HOUR), bucket("a")) == [(2, 3600), (4, 60)]


@pytest.mark.parametrize("jump", [-HOUR, -30 * 24 * HOUR, -1_000_000])
def test_a_clock_that_is_set_back_neither_frees_nor_locks_for_long(counters, clock, jump):
    numbers(counters, 5)

    clock.now += jump

    assert counters.hit(bucket("a")) == [(6, 60)]
    clock.now += 30
    assert counters.hit(bucket("a")) == [(7, 30)]
    clock.now += 31
    assert counters.hit(bucket("a")) == [(1, 60)]


def test_a_clock_that_leaps_forward_ends_one_window_and_no_more(counters, clock):
    numbers(counters, 5)

    clock.now += HOUR

    assert numbers(counters, 3) == [1, 2, 3]


def test_a_window_that_was_made_shorter_ends_sooner(counters):
    counters.hit(bucket("a", HOUR))

    assert counters.hit(bucket("a", MINUTE)) == [(2, 60)]


# Room


def test_a_flood_of_strangers_forgets_itself_and_not_those_who_send_much(counters):
    for name in range(WAYS - 1):
        numbers(counters, 5, name)

    for stranger in range(10_000):
        assert counters.hit(bucket(f"stranger {stranger}"))[0].number == 1

    assert [numbers(counters, 1, name) for name in range(WAYS - 1)] == [[6]] * (WAYS - 1)


def test_where_there_is_room_nobody_is_forgotten(counters):
    for _ in range(3):
        for name in range(WAYS):
            counters.hit(bucket(name))

    assert [numbers(counters, 1, name) for name in range(WAYS)] == [[4]] * WAYS


def test_a_place_whose_window_is_over_is_free(counters, clock):
    for name in range(WAYS - 1):
        numbers(counters, 5, name)
    clock.now += 30
    numbers(counters, 1, "late")
    clock.now += 30

    for name in range(WAYS - 1):
        numbers(counters, 1, f"new {name}")

    assert numbers(counters, 1, "late") == [2]


def test_of_those_who_came_once_the_one_whose_window_ends_first_is_forgotten(counters, clock):
    for name in range(WAYS):
        counters.hit(bucket(name))
        clock.now += 1

    counters.hit(bucket("new"))

    assert [counters.hit(bucket(name))[0].number for name in range(WAYS - 1, 0, -1)] == [2] * (WAYS - 1)


def test_many_more_callers_than_places_cost_no_more_memory():
    counters = SharedCounters(sets=64)
    size = len(counters._memory)

    for name in range(20_000):
        counters.hit(bucket(name))

    assert len(counters._memory) == size == 64 * WAYS * 24


def test_the_usual_size_is_small():
    assert len(SharedCounters()._memory) < 4 * 1024 * 1024


# Many at once


@pytest.fixture(params=[RobustLock, FileLock])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SharedCounters:
    """Return counters under each of the locks, or skip the one that this system has not."""
    if request.param is RobustLock and not isinstance(shared_lock(), RobustLock):
        pytest.skip("this system has no robust mutex")
    monkeypatch.setattr(module, "shared_lock", request.param)
    return SharedCounters()


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads take turns all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_threads_are_counted_exactly(shared):
    start = threading.Barrier(8)

    def count(_: int) -> list[int]:
        start.wait()
        return [count.number for _ in range(10) for count in shared.hit(*[bucket("a")] * 50)]

    with ThreadPoolExecutor(8) as threads:
        found = [number for share in threads.map(count, range(8)) for number in share]

    assert sorted(found) == [*range(1, 4001)]


@pytest.mark.usefixtures("restless")
def test_processes_with_threads_are_counted_exactly(shared):

    def count() -> list[int]:
        with ThreadPoolExecutor(4) as threads:
            return [number for share in threads.map(lambda _: numbers(shared, 100), range(4)) for number in share]

    found = [number for share in at_once(4, count) for number in share]

    assert sorted(found) == [*range(1, 1601)]


def test_threads_of_a_worker_count_one_after_the_other(shared):
    inside, go_on = threading.Semaphore(0), threading.Event()

    def wait_inside() -> float:
        inside.release()
        go_on.wait()
        return 1.0

    shared.clock = wait_inside
    threads = [threading.Thread(target=shared.hit, args=[bucket("a")]) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.acquire()
    is_alone = not inside.acquire(timeout=0.2)
    go_on.set()
    for thread in threads:
        thread.join()

    assert is_alone


def in_a_process(work: Callable[[], Any]) -> Any:
    process = FORK.Process(target=work, daemon=True)
    process.start()
    return process


def kill(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_process_that_is_killed_while_it_counts_holds_nobody_up(shared):
    holds, never = FORK.Event(), FORK.Event()

    def count_for_ever() -> None:
        shared.clock = lambda: float(holds.set() or never.wait())
        shared.hit(bucket("a"))

    process = in_a_process(count_for_ever)
    holds.wait()
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.extend(numbers(shared, 3)))
    waiting.start()
    waiting.join(0.2)
    was_held_up = waiting.is_alive()
    kill(process)
    waiting.join(30)

    assert was_held_up
    assert found == [1, 2, 3]


def test_processes_that_are_killed_at_any_moment_leave_good_counts_behind(shared):
    last = 0

    for _ in range(20):
        begun = FORK.Event()
        process = in_a_process(lambda begun=begun: [(numbers(shared, 50), begun.set()) for _ in range(10**6)])
        begun.wait()
        kill(process)

        (number,) = numbers(shared, 1)
        assert last + 50 < number
        last = number


@pytest.mark.parametrize("error", [AttributeError("pthread_mutexattr_setrobust"), OSError(95, "not supported")])
def test_where_there_is_no_robust_mutex_a_file_is_locked(monkeypatch, error):
    def refuse() -> None:
        raise error

    monkeypatch.setattr(shared_locks, "RobustLock", refuse)

    assert isinstance(shared_lock(), FileLock)


@pytest.mark.skipif(sys.platform != "linux", reason="others have none")
def test_linux_has_a_robust_mutex():
    assert isinstance(shared_lock(), RobustLock)


def test_a_lock_that_cannot_be_had_is_not_held(monkeypatch):
    lock, file = FileLock(), os.open(os.devnull, os.O_RDONLY)
    with monkeypatch.context() as broken:
        broken.setattr(lock, "_file", file)  # Which may be read only, and so not locked for writing.
        with pytest.raises(OSError), lock:
            pytest.fail("it was had")
    os.close(file)

    with lock:
        pass
