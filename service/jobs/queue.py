"""The queue of jobs: a table, so that a job is asked for in the transaction of its cause, or not at all.

A job that is due is leased to whoever runs it. Its number of attempts goes up when it begins, and whatever is done
about it later names that number: who took so long that another began has lost the job.
"""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, bindparam, delete, or_, select, update
from sqlalchemy.orm import aliased

from models import Job
from models.base import now
from models.rows import SOME, delete_row, insert_row, update_row
from models.statements import Record, execute, fetch_all, fetch_one, serialise, unit_of_work
from service.errors import Conflict, NotFound

LEASE = timedelta(minutes=1)  # Who has not finished a job by then has most likely died.
MOST_ATTEMPTS = 32  # That is about a day.
FIRST_RETRY = 5  # Seconds; each further wait is twice as long, up to the longest.
LONGEST_RETRY = 3600

_other = aliased(Job)
_WAITING = select(Job).where(Job.failed_at.is_(None))
_TAKEN_LANES = select(_other.lane).where(_other.leased, _other.lane.is_not(None))
_MAY_BEGIN = or_(Job.lane.is_(None), Job.leased, Job.lane.not_in(_TAKEN_LANES))
_READY = _WAITING.where(Job.run_at <= bindparam("now"), _MAY_BEGIN).order_by(Job.run_at, Job.id)
_IS_READY = _READY.with_only_columns(Job.id).limit(1)
_NEXT = _READY.limit(1).with_for_update(skip_locked=True, of=Job)
_NEXT_OF = {None: _NEXT, True: _NEXT.where(Job.lane.is_not(None)), False: _NEXT.where(Job.lane.is_(None))}
_IN_ATTEMPT = (Job.id == bindparam("job_id"), Job.attempts == bindparam("attempt"), Job.failed_at.is_(None))
_STILL = Job.created_at == bindparam("created_at")  # SQLite gives the number of a job that is gone again.
_HELD = select(Job).where(*_IN_ATTEMPT, _STILL).with_for_update()
# Without a lease, its lane may be another's by now.
_HANDED_OVER = select(Job).where(*_IN_ATTEMPT, Job.leased).with_for_update()
_DONE = delete(Job).where(*_IN_ATTEMPT, _STILL)
_SOON = (
    select(Job.id)
    .where(Job.lane == bindparam("in_lane"), Job.failed_at.is_(None), Job.leased.is_(False))
    .where(Job.run_at < bindparam("moment"))
    .limit(SOME)
)
_PUT_OFF = update(Job).where(Job.id.in_(_SOON)).values(run_at=bindparam("moment"))
_BY_ID = select(Job).where(Job.id == bindparam("job_id")).with_for_update()
_LISTED = select(Job).order_by(Job.id).limit(1000)
_FAILED = _LISTED.where(Job.failed_at.is_not(None))


class JobFailed(Exception):
    """A job could not be done: for good, or for now; then `retry_in` says how long to wait, if the job knows better."""

    def __init__(self, reason: str, *, for_good: bool = False, retry_in: timedelta | None = None) -> None:
        super().__init__(reason)
        self.for_good, self.retry_in = for_good, retry_in


def enqueue(
    kind: str,
    *,
    lane: str | None = None,
    user_id: int | None = None,
    email_key: str | None = None,
    run_at: datetime | None = None,
    **arguments: Any,
) -> Record:
    """Ask for a job in the running unit of work; it runs at least once, soon after the commit, or `run_at` a moment.

    Of the jobs in one lane, one runs at a time. `user_id` or `email_key` say whom it is about.
    """
    at = {"run_at": run_at} if run_at else {}
    return insert_row(Job, kind=kind, lane=lane, user_id=user_id, email_key=email_key, arguments=arguments, **at)


def is_any_ready() -> bool:
    """Tell whether a job could begin."""
    return fetch_one(_IS_READY, now=now()) is not None


def claim(*, in_lanes: bool | None = None) -> Record | None:
    """Begin the job that is due longest and return it; or of those in lanes, or of those in none."""
    with unit_of_work():
        job = _next(_NEXT_OF[in_lanes])
        return _begun(job) if job else None


def hand_over(*, within: timedelta) -> Record | None:
    """Lease the job that is due longest to somebody who is told of it and will `take` it within the time."""
    with unit_of_work():
        job = _next(_NEXT)
        return update_row(Job, job, leased=True, run_at=now() + within) if job else None


def take(job_id: int, attempt: int) -> Record | None:
    """Begin a job that was handed over before this attempt; there is none where somebody has begun it already."""
    with unit_of_work():
        job = fetch_one(_HANDED_OVER, job_id=job_id, attempt=attempt)
        return _begun(job) if job else None


def hand_back(job: Record, *, retry_in: timedelta) -> None:
    """Let a job that was handed over, but of which nobody could be told, be due again for the same attempt."""
    with unit_of_work():
        held = fetch_one(_HANDED_OVER, job_id=job.id, attempt=job.attempts)
        if held is not None:
            update_row(Job, held, leased=False, run_at=now() + retry_in)


def done(job: Record) -> None:
    """Remove a job that was done, unless its lease has passed to another."""
    with unit_of_work():
        execute(_DONE, job_id=job.id, attempt=job.attempts, created_at=job.created_at)


def put_back(job: Record, reason: str, *, for_good: bool = False, retry_in: timedelta | None = None) -> None:
    """Put a job back for another attempt later; after the last, or one that failed for good, it stays to be seen.

    A job that says when it wants to be tried again also says when it has been tried often enough.
    """
    with unit_of_work():
        held = fetch_one(_HELD, job_id=job.id, attempt=job.attempts, created_at=job.created_at)
        if held is None:
            return
        is_last = for_good or (retry_in is None and job.attempts >= MOST_ATTEMPTS)
        later = {"failed_at": now()} if is_last else {"run_at": now() + (retry_in or _wait(job.attempts))}
        update_row(Job, held, last_error=reason[:400], leased=False, **later)


def put_off(lane: str, until: datetime) -> None:
    """Let what is due next in a lane wait until a moment, in the running unit of work; the rest has its turn later."""
    execute(_PUT_OFF, in_lane=lane, moment=until)


def listed(*, only_failed: bool = False) -> Sequence[Record]:
    """Return the jobs there are, the oldest first, at most a thousand."""
    return fetch_all(_FAILED if only_failed else _LISTED)


def retry(job_id: int) -> None:
    """Let a job that failed be tried once more, or a waiting one at once, in the running unit of work.

    Raises NotFound, and Conflict where it is running.
    """
    job = _found(job_id)
    if job.leased and job.run_at > now():
        raise Conflict("The job is running.")
    update_row(Job, job, failed_at=None, leased=False, run_at=now())


def drop(job_id: int) -> None:
    """Remove a job that is not to be done, in the running unit of work; raises NotFound."""
    delete_row(Job, _found(job_id))


def _found(job_id: int) -> Record:
    job = fetch_one(_BY_ID, job_id=job_id)
    if job is None:
        raise NotFound
    return job


def _next(statement: Select[Any]) -> Record | None:
    if not is_any_ready():  # Looking keeps nobody waiting.
        return None
    serialise("jobs")  # Of two at once, each would find the other's lane free.
    return fetch_one(statement, now=now())


def _begun(job: Record) -> Record:
    return update_row(Job, job, attempts=job.attempts + 1, leased=True, run_at=now() + LEASE)


def _wait(attempts: int) -> timedelta:
    seconds = min(FIRST_RETRY * 2 ** min(attempts - 1, 20), LONGEST_RETRY)
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 (only spreads them)
