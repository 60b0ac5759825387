"""The commands of the application."""

import click
from flask import Flask, current_app

from models import migrations
from service import readiness
from service.cli.deprecations import deprecations_command
from service.cli.jobs import jobs_group, upkeep_command, worker
from service.cli.keys import keys_group
from service.cli.refusals import readable_refusals
from service.cli.users import users_group


def init_cli(app: Flask) -> None:
    """Add the commands to the application."""
    for group in (users_group, keys_group, jobs_group):
        app.cli.add_command(group)
    app.cli.add_command(worker)
    app.cli.add_command(upkeep_command)
    app.cli.add_command(deprecations_command)
    app.cli.add_command(doctor)
    app.cli.add_command(migrate_on_start)


@click.command("migrate-on-start")
@readable_refusals
def migrate_on_start() -> None:
    """Bring the database to the newest schema; safe when several replicas start at once."""
    migrations.upgrade_alone(current_app.config["SQLALCHEMY_DATABASE_URI"])
    click.echo(f"The database is at revision {migrations.head()}.")


@click.command("doctor")
@readable_refusals
def doctor() -> None:
    """List every setting with its value and source, and check what the service needs."""
    for name, value, source, meaning in current_app.config["SETTINGS_TABLE"]:
        click.echo(f"{name:<20} {value or '(empty)'}  [{source}]\n{'':<20} {meaning}")
    readiness.check()
    click.echo("All is well.")
