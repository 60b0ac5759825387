"""Outcomes that are not a row."""

from typing import NamedTuple


class Accepted(NamedTuple):
    """A request that was taken on; the answer does not tell whether there is anything to be done."""

    detail: str
