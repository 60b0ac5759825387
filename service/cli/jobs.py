"""`flask jobs`, `flask worker` and `flask upkeep`: what is done outside requests."""

import signal

import click
from flask import current_app
from flask.cli import AppGroup

from models.statements import unit_of_work
from service import upkeep
from service.cli.refusals import readable_refusals
from service.jobs import queue, runner
from service.jobs.worker import Worker

jobs_group = AppGroup("jobs", help="What is to be done outside requests.")


@click.command("worker")
@click.option("--with-parent", type=int, metavar="PID", help="End when this process, which started it, does.")
@readable_refusals
def worker(with_parent: int | None) -> None:
    """Publish events and run jobs until SIGTERM, or relay them to a broker; what has begun by then is finished."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    running = Worker(app, with_parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: running.stop())
    running.run()


@click.command("upkeep")
@readable_refusals
def upkeep_command() -> None:
    """Remove what has expired, old events and deliveries, and erase who can no longer be restored; for cron."""
    for name, count in upkeep.run().items():
        click.echo(f"{name}: {count}")


@jobs_group.command("run")
@readable_refusals
def run() -> None:
    """Run every job that is due, then end; a worker does so by itself."""
    click.echo(f"Ran {runner.drain()}.")


@jobs_group.command("list")
@click.option("--failed", is_flag=True, help="Only those that are not tried any more.")
@readable_refusals
def list_jobs(failed: bool) -> None:
    """List jobs, the oldest first: number, kind, attempts, when it is next tried, and the last error."""
    for job in queue.listed(only_failed=failed):
        state = "failed" if job.failed_at else f"{job.run_at:%Y-%m-%dT%H:%M:%SZ}"
        click.echo(f"{job.id:>8}  {job.kind:<22} {job.attempts:>3}  {state:<20}  {job.last_error or ''}".rstrip())


@jobs_group.command("retry")
@click.argument("job_id", type=int)
@readable_refusals
def retry(job_id: int) -> None:
    """Try a job at once."""
    with unit_of_work():
        queue.retry(job_id)
    click.echo(f"Job {job_id} is due.")


@jobs_group.command("drop")
@click.argument("job_id", type=int)
@readable_refusals
def drop(job_id: int) -> None:
    """Remove a job that is not to be done."""
    with unit_of_work():
        queue.drop(job_id)
    click.echo(f"Job {job_id} is gone.")
