"""A refusal of every kind, made as it is made where it belongs."""

from datetime import timedelta
from typing import Any

from service.errors import InvalidOneTimeToken, Refusal, TooManyAttempts

ARGUMENTS: dict[type[Refusal], tuple[Any, ...]] = {
    InvalidOneTimeToken: ("token",),
    TooManyAttempts: (timedelta(seconds=5),),
}


def refusal_of_kind(kind: type[Refusal]) -> Refusal:
    """Return a refusal of a kind."""
    return kind(*ARGUMENTS.get(kind, ()))
