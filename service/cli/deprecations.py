"""`flask deprecations`: who is to be told that what they call will end."""

import click
from flask import current_app

from models.statements import Record
from service import deprecations
from service.cli.refusals import readable_refusals


@click.command("deprecations")
@readable_refusals
def deprecations_command() -> None:
    """List deprecated operations, what ends first first, and who called each in the last year, how often and when."""
    declared = current_app.extensions["deprecated_operations"]()
    if not declared:
        click.echo("No operation is deprecated.")
    for operation, sunset in sorted(declared.items(), key=lambda item: (item[1], item[0])):
        click.echo(f"{operation}  ends on {sunset}")
        for row in deprecations.callers(operation):
            often = f"calls: {row.calls}, days: {row.days}, last: {row.last_at:%Y-%m-%dT%H:%M:%SZ}"
            click.echo(f"    {_name_of(row)}  {often}")


def _name_of(row: Record) -> str:
    """Return who a caller is, and the address under which they can be told."""
    if row.key_id and row.prefix:
        return f"key {row.prefix} of {row.name} (made by {row.email or 'nobody who is still here'})"
    if row.key_id:
        return f"key {row.key_id} (removed)"
    return f"user {row.user_id} ({row.email})" if row.user_id else "anonymous"
