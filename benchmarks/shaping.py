"""A hundred users to JSON bytes: our field maps, Flask-RESTful's `marshal`, and FastAPI's response models.

FastAPI is measured in the peers' environment, which this starts itself: `python -m benchmarks.shaping`.
"""

import json
import subprocess
import sys
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

COUNT, REPEATS = 100, 7
MOMENT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
USERS = [
    SimpleNamespace(
        id=number,
        email=f"person.{number}@example.com",
        name=f"Person {number}",
        role="member",
        is_active=True,
        email_verified=False,
        external_id=None,
        public_metadata={"plan": "pro", "seats": 5, "tags": ["early", "europe"]},
        version=1,
        created_at=MOMENT,
        updated_at=MOMENT,
    )
    for number in range(COUNT)
]


def microseconds(write: Callable[[], object]) -> float:
    """Return the time of one call: the best of several series, as the others were disturbed."""
    timer = timeit.Timer(write)
    number = max(1, timer.autorange()[0] // 4)
    return min(timer.repeat(REPEATS, number)) / number * 1e6


def ours() -> dict[str, float]:
    """Measure our way, and the library's with the same field map."""
    import flask_restful
    import orjson

    from resources.fields import user_fields
    from resources.http.shapes import shape_for

    shape = shape_for(user_fields, frozenset(), None)
    fields = {name: field for name, field in user_fields.items() if name != "private_metadata"}

    def compiled() -> bytes:
        return orjson.dumps({"users": [shape(user) for user in USERS]}, option=orjson.OPT_UTC_Z)

    def library() -> bytes:
        return json.dumps({"users": flask_restful.marshal(USERS, fields)}, default=datetime.isoformat).encode()

    def library_with_orjson() -> bytes:
        return orjson.dumps({"users": flask_restful.marshal(USERS, fields)}, option=orjson.OPT_UTC_Z)

    written = json.loads(compiled())
    assert written == json.loads(library_with_orjson())
    return {
        "ours: compiled field map, orjson": microseconds(compiled),
        "flask_restful.marshal, orjson": microseconds(library_with_orjson),
        "flask_restful.marshal, json": microseconds(library),
    }


def pydantics() -> dict[str, float]:
    """Measure what FastAPI does with a response model: validate the attributes, then write them."""
    from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

    class User(BaseModel):
        model_config = ConfigDict(from_attributes=True)

        id: int
        email: str
        name: str
        role: str
        is_active: bool
        email_verified: bool
        external_id: str | None
        metadata: dict[str, Any] = Field(validation_alias="public_metadata")
        version: int
        created_at: datetime
        updated_at: datetime

    class Users(BaseModel):
        users: list[User]

    adapter = TypeAdapter(Users)

    def write() -> bytes:
        return adapter.dump_json(adapter.validate_python({"users": USERS}, from_attributes=True))

    def write_by_objects() -> bytes:
        found = adapter.dump_python(adapter.validate_python({"users": USERS}, from_attributes=True), mode="json")
        return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()

    return {
        "pydantic, validated and written": microseconds(write),
        "pydantic, by way of dicts": microseconds(write_by_objects),
    }


def main() -> None:
    """Print the times and their ratios to ours."""
    if "--pydantic" in sys.argv:
        print(json.dumps(pydantics()))
        return
    from benchmarks.contestants import PYTHON, missing
    from tests.servers import ROOT

    found = ours()
    if reason := missing("Python"):
        print(f"pydantic is left out: {reason}")
    else:
        command = [PYTHON, "-m", "benchmarks.shaping", "--pydantic"]
        found |= json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    least = next(iter(found.values()))
    for way, time in found.items():
        print(f"{way:<34} {time:>8.0f} µs  {time / least:>6.1f}")


if __name__ == "__main__":
    main()
