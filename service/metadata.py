"""Metadata: the small JSON objects that clients keep on a user."""

from typing import Any

import orjson

from service.errors import Fault, Invalid

FIELDS = frozenset({"public_metadata", "private_metadata"})
MAX_BYTES = 16_384
MAX_MEMBERS = 50


def merged(current: dict[str, Any], patch: dict[str, Any], *, field: str) -> dict[str, Any]:
    """Return the object after a JSON Merge Patch (RFC 7396 §2); raises Invalid when it grows too large."""
    return bounded(_merge(current, patch), field=field)


def bounded(value: dict[str, Any], *, field: str) -> dict[str, Any]:
    """Return the object unchanged; raises Invalid when it has too many members or bytes."""
    pointer = f"/json/{field.removeprefix('public_')}"
    if len(value) > MAX_MEMBERS:
        raise Invalid(faults=[Fault(pointer, "too_long", f"At most {MAX_MEMBERS} members may be kept.")])
    if len(orjson.dumps(value)) > MAX_BYTES:
        raise Invalid(faults=[Fault(pointer, "too_long", f"At most {MAX_BYTES} bytes of JSON may be kept.")])
    return value


def _merge(current: Any, patch: dict[str, Any]) -> dict[str, Any]:
    result = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value) if isinstance(value, dict) else value
    return result
