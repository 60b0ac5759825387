"""How a refusal looks on a terminal: one readable line, and exit status 1."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from service.database_errors import refusal_from
from service.errors import Refusal


class Refused(click.ClickException):
    """The end of a command that was refused."""

    def show(self, file: Any = None) -> None:
        click.echo(f"rollcall: {self.message}", file=file, err=True)


def readable_refusals(command: Callable[..., Any]) -> Callable[..., Any]:
    """End a command that is refused with the reason, instead of a traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (Refusal, SQLAlchemyError) as error:
            refusal = error if isinstance(error, Refusal) else refusal_from(error)
            if refusal is None:
                raise
            faults = "".join(f" {fault.pointer.rpartition('/')[2]}: {fault.detail}" for fault in refusal.faults)
            raise Refused(refusal.detail + faults) from None

    return run
