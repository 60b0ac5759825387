"""Equal answers: before anything is timed, every contestant must say the same, and refuse the same."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from benchmarks.cases import LOGIN, USERS, Caller
from benchmarks.database import ADMINS, ORDINARY, PASSWORD, SUPPORT

Answers = Mapping[str, Any]
MOMENTS = ("created_at", "updated_at")


def answers_of(caller: Caller) -> Answers:
    """Ask a contestant everything, in a form that does not depend on how it writes times and cursors."""
    return {**_reading(caller), **_signing_in(caller), **_writing(caller), **_refusals(caller)}


def differences(expected: Answers, found: Answers) -> list[str]:
    """Return a line for each answer that is not the same."""
    return [
        f"{label}: {found[label]!r} instead of {expected[label]!r}"
        for label in expected
        if found[label] != expected[label]
    ]


def _reading(caller: Caller) -> Answers:
    one = f"{USERS}/{ORDINARY + 5}"
    tag = caller.read(one).headers["ETag"]
    reader = next(caller.tokens.bearers(SUPPORT))
    known = caller.send("GET", one, reader | {"If-None-Match": tag})
    deep = caller.rows // 20 * 9 // 10
    searched = caller.read(f"{USERS}?q={caller.read(one).json()['name']}")
    return {
        "get one": _plain(caller.read(one)),
        "304": (known.status_code, known.content),
        "list by cursor": _walk(caller, 3, 20),
        "list 100 by cursor": _walk(caller, 2, 100),
        "last page": _plain(caller.read(f"{USERS}?page={caller.rows // 20}")),
        "list by page": _plain(caller.read(f"{USERS}?page=2&per_page=100")),
        "deep page": _plain(caller.read(f"{USERS}?page={deep}")),
        "search": _plain(searched),
        "search, nothing": _plain(caller.read(f"{USERS}?q=100%25_")),
    }


def _walk(caller: Caller, pages: int, size: int) -> list[Any]:
    """Follow the cursors from the front."""
    found, path = [], f"{USERS}?per_page={size}"
    for _ in range(pages):
        answer = caller.read(path)
        found.append(_plain(answer))
        path = f"{USERS}?per_page={size}&cursor={requests.utils.quote(answer.json()['next_cursor'], safe='')}"
    return found


def _signing_in(caller: Caller) -> Answers:
    email = caller.signers()[0]
    good = caller.send("POST", LOGIN, body={"email": email.upper(), "password": PASSWORD})
    status, grant = _plain(good)
    token = grant.pop("access_token")
    for ours in ("refresh_token", "csrf_token"):
        grant.pop(ours, None)
    used = caller.send("GET", f"{USERS}/{ORDINARY}", {"Authorization": f"Bearer {token}"})
    return {
        "login": (status, grant),
        "a member's token": used.status_code in (403, 404),  # To a member, ours says that there is nobody.
        "wrong password": caller.send("POST", LOGIN, body={"email": email, "password": "guess"}).status_code,
        "unknown address": caller.send("POST", LOGIN, body={"email": "x@example.com", "password": "guess"}).status_code,
    }


def _writing(caller: Caller) -> Answers:
    admin = next(caller.tokens.bearers(ADMINS))
    values = {"email": "Zoe.New@example.com", "name": "Zoë New", "metadata": {"plan": "pro", "seats": 5}}
    made = caller.send("POST", USERS, admin, values)
    made.raise_for_status()
    path = made.headers["Location"].removeprefix("https://users.example.com")
    again = caller.send("POST", USERS, admin, values | {"email": values["email"].upper()})
    changed = caller.send("PATCH", f"{USERS}/{ORDINARY + 9}", admin, {"name": "Changed Name"})
    return {
        "create": _plain(made),
        "what was created": _plain(caller.read(path)),
        "address taken": again.status_code,
        "patch": _plain(changed),
        "what was changed": _plain(caller.read(f"{USERS}/{ORDINARY + 9}")),
        "found by its new name": _plain(caller.read(f"{USERS}?q=changed+name")),
    }


def _refusals(caller: Caller) -> Answers:
    reader, admin = next(caller.tokens.bearers(SUPPORT)), next(caller.tokens.bearers(ADMINS))
    good = {"email": "somebody@example.com", "name": "Somebody"}
    stranger = {"Authorization": f"Bearer {caller.tokens.issue(ADMINS[0], SUPPORT[0])}"}
    item = f"{USERS}/{ORDINARY}"
    forged = {"Authorization": admin["Authorization"][:-8] + "AAAAAAAA"}
    asked = {
        "nobody's id": ("GET", f"{USERS}/999999999", reader, None),
        "no token": ("GET", item, {}, None),
        "a forged token": ("GET", item, forged, None),
        "another's session": ("GET", item, stranger, None),
        "a reader writes": ("POST", USERS, reader, good),
        "a page too large": ("GET", f"{USERS}?per_page=101", reader, None),
        "no e-mail address": ("POST", USERS, admin, good | {"email": "somebody"}),
        "a name too short": ("POST", USERS, admin, good | {"name": "S"}),
        "a name too long": ("PATCH", item, admin, {"name": "S" * 81}),
        "no name": ("POST", USERS, admin, {"email": good["email"]}),
    }
    return {label: _refusal(caller.send(*request).status_code) for label, request in asked.items()}


def _refusal(status: int) -> str:
    """Return what a refusal means: frameworks differ on 400 or 422 for what is not valid."""
    return "not valid" if status in (400, 422) else str(status)


def _plain(answer: requests.Response) -> Any:
    return answer.status_code, _comparable(answer.json())


def _comparable(value: Any) -> Any:
    """Return an answer without what may differ: how a time is written, what a cursor holds, absent counts."""
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {name: _comparable(member) for name, member in value.items() if name != "private_metadata"}
    if "users" in plain:
        plain["next_cursor"] = "more" if plain["next_cursor"] else None
        plain = {name: member for name, member in plain.items() if name == "next_cursor" or member is not None}
    for name in MOMENTS & plain.keys():
        moment = datetime.fromisoformat(plain[name]).astimezone(UTC)
        plain[name] = "now" if abs(datetime.now(UTC) - moment) < timedelta(minutes=5) else moment
    return plain
