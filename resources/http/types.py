"""Types of query parameters and headers: each converts a text or raises ValueError, and knows its JSON Schema."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any

from service.normal import ONE_LINE

_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:)(\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_TAG = re.compile(r'(?:W/)?"([1-9][0-9]{0,17})"', re.ASCII)


def one_of(words: Collection[str]) -> dict[str, Any]:
    """Return the schema of some words, with names for generated clients where a word cannot be a name (`-id`, `*`)."""
    schema = {"type": "string", "enum": [*words]}
    if all(word.isidentifier() for word in words):
        return schema
    names = [re.sub(r"\W", "_", word.replace("-", "descending_").replace("*", "all")).upper() for word in words]
    return {**schema, "x-enum-varnames": names}


class Type(ABC):
    """A converter with a JSON Schema."""

    schema: dict[str, Any]

    @abstractmethod
    def __call__(self, text: str) -> Any:
        """Return the value; raises ValueError with a sentence for the client."""


class Whole(Type):
    """A whole number within bounds, in plain decimal digits."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.schema = {"type": "integer", "minimum": least, "maximum": most}

    def __call__(self, text: str) -> int:
        if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text, re.ASCII) or not self.least <= int(text) <= self.most:
            raise ValueError(f"Use a whole number from {self.least} to {self.most}.")
        return int(text)


class Id(Whole):
    """The id of something."""

    def __init__(self) -> None:
        super().__init__(1, 2**63 - 1)


class Flag(Type):
    """`true` or `false`."""

    schema = {"type": "boolean"}

    def __call__(self, text: str) -> bool:
        if text not in ("true", "false"):
            raise ValueError("Use true or false.")
        return text == "true"


class Choice(Type):
    """One of some words."""

    def __init__(self, choices: Iterable[str]) -> None:
        self.choices = tuple(choices)
        self.schema = one_of(self.choices)

    def __call__(self, text: str) -> str:
        if text not in self.choices:
            raise ValueError(f"Use one of {', '.join(self.choices)}.")
        return text


class Several(Type):
    """One or more of some words, separated by commas."""

    def __init__(self, choices: Iterable[str]) -> None:
        self.choice = Choice(choices)
        word = "|".join(self.choice.choices)
        self.schema = {"type": "string", "pattern": f"^(?:{word})(?:,(?:{word}))*$"}

    def __call__(self, text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.choice(word) for word in text.split(",")))


class Line(Type):
    """A line of text, brought to NFC."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.schema = {"type": "string", "minLength": least, "maxLength": most, "pattern": f"^{ONE_LINE}$"}

    def __call__(self, text: str) -> str:
        normal = unicodedata.normalize("NFC", text)
        if not self.least <= len(normal) <= self.most:
            raise ValueError(f"Use {self.least} to {self.most} characters.")
        if not re.fullmatch(ONE_LINE, normal):
            raise ValueError("Contains a character that cannot be seen.")
        return normal


class Token(Type):
    """Visible characters of ASCII, as they are or as a quoted string (RFC 9651 §3.3.3)."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.schema = {"type": "string", "minLength": least, "maxLength": most, "pattern": "^[!-~]+$"}

    def __call__(self, text: str) -> str:
        plain = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
        if not re.fullmatch(r"[!-~]+", plain, re.ASCII) or not self.least <= len(plain) <= self.most:
            raise ValueError(f"Use {self.least} to {self.most} visible ASCII characters.")
        return plain


class Moment(Type):
    """A time with its zone (RFC 3339 §5.6), in UTC; a time that no calendar here can hold becomes the nearest."""

    schema = {"type": "string", "format": "date-time"}

    def __call__(self, text: str) -> datetime:
        if not (parts := _MOMENT.fullmatch(text)):
            raise ValueError("Use a time such as 2026-01-31T12:00:00Z; in an address, + is written %2B.")
        day, minute, second, fraction, zone = parts.groups()
        leap = second == "60"
        zone = "+00:00" if zone in "Zz" else zone
        fraction = ".999999" if leap else (fraction or "")[:7]
        try:
            moment = datetime.fromisoformat(
                f"{day}T{minute}{'59' if leap else second}{fraction.ljust(7, '0') if fraction else ''}{zone}"
            )
        except ValueError:
            raise ValueError("There is no such time.") from None
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            return (datetime.min if moment.year == 1 else datetime.max).replace(tzinfo=UTC)


class EntityTags(Type):
    """A list of entity tags (RFC 9110 §8.8.3), as the versions they stand for; None for `*`, which any version meets.

    A weak tag counts as its strong one, because proxies that compress weaken ours. What was never a tag of ours stands
    for no version.
    """

    schema = {"type": "string", "examples": ['"3"']}

    def __call__(self, text: str) -> frozenset[int] | None:
        if text.strip() == "*":
            return None
        tags = [_TAG.fullmatch(part.strip()) for part in text.split(",")]
        return frozenset(int(tag.group(1)) for tag in tags if tag)
