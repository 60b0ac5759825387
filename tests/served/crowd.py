"""Many clients that act at the same moment: as threads, each with a connection of its own, or as processes."""

import contextlib
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from secrets import token_hex
from typing import Any, TypeVar

from tests.served.service import API, TIMEOUT, Caller, Service

Result = TypeVar("Result")

# Not forked: the tests' process may have threads, and a fork of one is unsafe.
processes = multiprocessing.get_context("spawn")


class Crowd:
    """Clients that do a thing at once: a barrier lets them go when the last one is there."""

    def __init__(self, callers: Sequence[Caller], pool: ThreadPoolExecutor) -> None:
        self._callers, self._pool = callers, pool
        self._barrier = threading.Barrier(len(callers))

    def at_once(self, act: Callable[..., Result], *arguments: Any) -> list[Result]:
        """Return what each gets from acting with its number, its client, and the arguments, which all share."""

        def run(number: int) -> Result:
            caller = self._callers[number]
            caller.get("/health")  # Connected before it starts, or the connecting would spread the clients out.
            self._barrier.wait(TIMEOUT)
            return act(number, caller, *arguments)

        return list(self._pool.map(run, range(len(self._callers))))


@contextlib.contextmanager
def crowd_of(service: Service, tokens: Sequence[str | None]) -> Iterator[Crowd]:
    """Yield a crowd with a client for each token."""
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(service.caller(token)) for token in tokens]
        yield Crowd(callers, stack.enter_context(ThreadPoolExecutor(len(callers))))


def in_processes(work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Call a function of a module in as many processes as there are tuples of arguments, all at once."""
    start = (processes.Barrier(len(arguments)),)
    with ProcessPoolExecutor(len(arguments), processes, initializer=_keep_barrier, initargs=start) as pool:
        for future in [pool.submit(_wait_and_call, work, each) for each in arguments]:
            future.result()


def _keep_barrier(barrier: Any) -> None:
    globals()["_barrier"] = barrier


def _wait_and_call(work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    globals()["_barrier"].wait(TIMEOUT)
    work(*arguments)


def add_members(url: str, token: str, path: str, names: Sequence[str]) -> None:
    """Add members to a user's metadata, one request each, without If-Match."""
    with Caller(url, token) as caller:
        for name in names:
            answer = caller.patch(path, json={"metadata": {name: True}})
            assert answer.status_code == 200, answer.text


class Churn:
    """Processes that create and delete users for as long as the block lasts; `count` is how often they have."""

    def __init__(self, service: Service, token: str, doomed: Sequence[int], processes_wanted: int = 4) -> None:
        self._stop, self._count = processes.Event(), processes.Value("i", 0)
        self._processes = [
            processes.Process(
                target=_churn, args=(service.url, token, doomed[number::processes_wanted], self._stop, self._count)
            )
            for number in range(processes_wanted)
        ]

    @property
    def count(self) -> int:
        return int(self._count.value)

    def __enter__(self) -> "Churn":
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for process in self._processes:
            process.join()
        assert [process.exitcode for process in self._processes] == [0] * len(self._processes)
        for process in self._processes:
            process.close()


def _churn(url: str, token: str, doomed: Sequence[int], stop: Any, count: Any) -> None:
    waiting = list(doomed)
    with Caller(url, token) as caller:
        while not stop.is_set():
            mark = token_hex(6)
            made = caller.post(f"{API}/users", json={"email": f"{mark}@example.com", "name": f"{mark} of the churn"})
            assert made.status_code == 201, made.text
            waiting.append(made.json()["id"])
            deleted = caller.delete(f"{API}/users/{waiting.pop(0)}")
            assert deleted.status_code == 204, deleted.text
            with count.get_lock():
                count.value += 1
