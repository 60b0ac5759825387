"""The queue of jobs: a table, so that a job is asked for in the transaction of its cause, or not at all."""

import random
from datetime import timedelta
from typing import Any

from flask import current_app
from sqlalchemy import bindparam, delete, select

from models import Job
from models.base import now
from models.rows import insert_row, update_row
from models.statements import Record, after_commit, execute, fetch_one, unit_of_work

LEASE = timedelta(minutes=2)  # Who has not finished a job by then has most likely died.
MOST_ATTEMPTS = 10
FIRST_RETRY = 5  # Seconds; each further wait is twice as long, up to the longest.
LONGEST_RETRY = 3600

_DUE = (
    select(Job)
    .where(Job.failed_at.is_(None), Job.run_at <= bindparam("now"))
    .order_by(Job.run_at, Job.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_NEXT = select(Job.run_at).where(Job.failed_at.is_(None)).order_by(Job.run_at, Job.id).limit(1)
_HELD = select(Job).where(Job.id == bindparam("job_id"), Job.attempts == bindparam("attempt")).with_for_update()
_DONE = delete(Job).where(Job.id == bindparam("job_id"), Job.attempts == bindparam("attempt"))


class JobFailed(Exception):
    """A job could not be done: for now, or for good."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


def enqueue(kind: str, *, user_id: int | None = None, email_key: str | None = None, **arguments: Any) -> None:
    """Ask for a job about somebody in the running unit of work; it runs at least once, soon after the commit."""
    insert_row(Job, kind=kind, user_id=user_id, email_key=email_key, arguments=arguments)
    if runner := current_app.extensions.get("jobs"):
        after_commit(runner.wake)


def claim() -> Record | None:
    """Take the job that is due longest, for the time of a lease."""
    with unit_of_work():
        job = fetch_one(_DUE, now=now())
        return update_row(Job, job, attempts=job.attempts + 1, run_at=now() + LEASE) if job else None


def seconds_to_next() -> float | None:
    """Return how long it is until a job is due, or None where there is none."""
    job = fetch_one(_NEXT)
    return max(0.0, (job.run_at - now()).total_seconds()) if job else None


def done(job: Record) -> None:
    """Remove a job that was done, unless its lease has passed to another."""
    with unit_of_work():
        execute(_DONE, job_id=job.id, attempt=job.attempts)


def failed(job: Record, reason: str, *, for_good: bool = False) -> None:
    """Put a job back for another attempt later; after the last, or one that failed for good, it stays to be seen."""
    with unit_of_work():
        held = fetch_one(_HELD, job_id=job.id, attempt=job.attempts)
        if held is None:
            return
        is_last = for_good or job.attempts >= MOST_ATTEMPTS
        wait = min(FIRST_RETRY * 2 ** (job.attempts - 1), LONGEST_RETRY) * random.uniform(0.8, 1.2)  # noqa: S311 (only spreads them)
        later = {"failed_at": now()} if is_last else {"run_at": now() + timedelta(seconds=wait)}
        update_row(Job, held, last_error=reason[:400], **later)
