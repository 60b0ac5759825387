"""`flask jobs`: what is to be done outside requests."""

import click
from flask.cli import AppGroup

from service.cli.refusals import readable_refusals
from service.jobs import runner

jobs_group = AppGroup("jobs", help="What is to be done outside requests.")


@jobs_group.command("run")
@readable_refusals
def run() -> None:
    """Run every job that is due, then end; servers do so by themselves."""
    click.echo(f"Ran {runner.drain()}.")
