"""Upkeep: what must be removed as time goes by, in short steps; several nodes may do it at once."""

from collections.abc import Callable

from models.statements import unit_of_work
from service import deliveries, deprecations, feed, idempotency, lifecycle, oauth, one_time, sessions, throttle

# Each removes some and returns how many, until there is nothing left to remove.
TASKS: dict[str, Callable[[], int]] = {
    "one-time tokens": one_time.forget_expired,
    "throttles": throttle.forget_old,
    "idempotency keys": idempotency.forget_old,
    "OAuth tokens": oauth.forget_old,
    "sessions": sessions.forget_old,
    "deliveries": deliveries.forget_old,
    "events": feed.forget_old,
    "deprecated calls": deprecations.forget_old,
    "deleted users": lifecycle.erase_expired,
}


def run() -> dict[str, int]:
    """Remove everything whose time is over, and return how many of each there were."""
    return {name: _to_the_end(task) for name, task in TASKS.items()}


def _to_the_end(task: Callable[[], int]) -> int:
    total = 0
    while count := _one_step(task):
        total += count
    return total


def _one_step(task: Callable[[], int]) -> int:
    with unit_of_work():
        return task()
