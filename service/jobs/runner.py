"""What runs the jobs: each by its kind, one after another."""

import logging
from collections.abc import Callable

from models.statements import Record
from service import avatars, letters
from service.jobs import queue
from service.jobs.deliver import deliver
from service.jobs.queue import JobFailed

log = logging.getLogger("rollcall.jobs")

JOBS: dict[str, Callable[[Record], None]] = {
    "confirm_registration": letters.confirm_registration,
    "verify_email": letters.verify_email,
    "verify_again": letters.verify_again,
    "change_email": letters.change_email,
    "reset_password": letters.reset_password,
    "notice": letters.notice,
    "webhook_disabled": letters.webhook_disabled,
    "deliver": deliver,
    "resize_avatar": avatars.resize,
    "remove_files": avatars.remove_files,
}


def run_next(*, in_lanes: bool | None = None) -> bool:
    """Run the job that is due longest, or of those in lanes, or of those in none; tell whether there was one."""
    job = queue.claim(in_lanes=in_lanes)
    if job is None:
        return False
    run(job)
    return True


def run(job: Record) -> None:
    """Run a job that has begun, and say in the queue how it went."""
    try:
        JOBS[job.kind](job)
    except JobFailed as failure:
        facts = {"job": job.id, "kind": job.kind, "attempt": job.attempts, "reason": str(failure)}
        log.warning("job failed", extra=facts)
        queue.put_back(job, str(failure), for_good=failure.for_good, retry_in=failure.retry_in)
    except Exception as error:  # Whatever one job does, the next must have its turn.
        log.exception("job broke off", extra={"job": job.id, "kind": job.kind})
        queue.put_back(job, type(error).__name__)
    else:
        queue.done(job)


def drain() -> int:
    """Run all jobs that are due, and return how many there were."""
    count = 0
    while run_next():
        count += 1
    return count
