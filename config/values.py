"""How the text of an environment variable becomes a typed value."""

from typing import Any


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
    if wanted is str:
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())
