"""How the text of an environment variable becomes a typed value."""

import re
from dataclasses import dataclass
from typing import Any

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
RATE = re.compile(rf"([1-9][0-9]{{0,8}})/({'|'.join(UNITS)})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so long a time; zero requests mean that there is no limit."""

    requests: int = 0
    unit: str = "minute"

    @property
    def seconds(self) -> int:
        """Return how long the time is."""
        return UNITS[self.unit]

    def __bool__(self) -> bool:
        return self.requests > 0

    def __str__(self) -> str:
        return f"{self.requests}/{self.unit}" if self else ""


def parse(text: str, wanted: Any) -> Any:
    """Convert a variable's text; raise ValueError with a readable end of sentence."""
    if wanted is int:
        if not (text.isascii() and text.isdigit()) or len(text) > 9:
            raise ValueError(f"is {text!r}: use a whole number.")
        return int(text)
    if wanted is bool:
        if text.lower() not in {"true", "false"}:
            raise ValueError(f"is {text!r}: use true or false.")
        return text.lower() == "true"
    if wanted is Rate:
        return _rate(text)
    if wanted is str:
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _rate(text: str) -> Rate:
    if not text:
        return Rate()
    found = RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"is {text!r}: use a form such as 600/minute (second, minute, hour, day), or nothing.")
    return Rate(int(found[1]), found[2])
