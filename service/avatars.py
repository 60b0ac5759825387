"""Avatars: uploaded by their owner, made into small squares by a job, seen by everybody who knows the address.

The names of files are chosen once, before anything is written under them, and never again: so what a job does twice is
the same, and what nothing refers to any more can be removed without looking.
"""

import re
import secrets
from datetime import timedelta

from sqlalchemy import bindparam, delete, select

from models import Avatar, User
from models.base import now
from models.rows import insert_row, update_row
from models.statements import Record, fetch_one, unit_of_work
from service import events, pictures, storage
from service.errors import Invalid, NotFound, StorageMissing, Unavailable
from service.identity import Identity
from service.jobs.queue import MOST_ATTEMPTS, JobFailed, enqueue, retry
from service.permissions import Permission, check, check_grant
from service.pictures import SIZES

FILE = re.compile(rf"[0-9a-f]{{32}}-(?:{'|'.join(map(str, SIZES))})\.webp")
LANE = "avatars"  # One at a time, because decoding takes up to 400 MB.
# By then a request that was to refer to an upload has long ended, one way or another.
SETTLED_AFTER = timedelta(hours=1)

_ANY_USER = select(User).where(User.id == bindparam("user_id"))
_USER = _ANY_USER.where(User.deleted_at.is_(None))
_LOCKED_USER = _USER.with_for_update()  # Two uploads at once take turns, also where there is no avatar to lock yet.
_OF_USER = select(Avatar).where(Avatar.user_id == bindparam("user_id"))
_OF_LIVE_USER = _OF_USER.join(User, User.id == Avatar.user_id).where(User.deleted_at.is_(None))
_IN_WORK = select(Avatar).where(Avatar.upload == bindparam("name"))
_LOCKED_IN_WORK = _IN_WORK.with_for_update()
_SHOWN = select(Avatar.id).where(Avatar.name == bindparam("name"))
_DELETE = delete(Avatar).where(Avatar.user_id == bindparam("user_id")).returning(Avatar.upload, Avatar.name)


def read(user_id: int, *, actor: Identity) -> Record:
    """Return a user's avatar; raises NotFound where there is none."""
    check(actor, Permission.USERS_READ, owner_id=user_id)
    found = fetch_one(_OF_LIVE_USER, user_id=user_id)
    if found is None:
        raise NotFound
    return found


def upload(user_id: int, *, actor: Identity, content: bytes) -> Record:
    """Take a picture (a file of PNG, JPEG, WebP or GIF), of which a job makes the user's avatar.

    Raises NotFound, Forbidden, StorageMissing, Invalid, Unavailable.
    """
    _allowed(actor, user_id, fetch_one(_USER, user_id=user_id))
    if not storage.is_there():
        raise StorageMissing
    pictures.check(content)
    name = secrets.token_hex(16)
    with unit_of_work():  # Before there is a file, so that one which nothing came to refer to is found and removed.
        job = enqueue("resize_avatar", lane=LANE, run_at=now() + SETTLED_AFTER, name=name)
    storage.put(_original(name), content)

    user = _allowed(actor, user_id, fetch_one(_LOCKED_USER, user_id=user_id))
    avatar = fetch_one(_OF_USER, user_id=user_id)
    fields = {"state": "processing", "upload": name, "error": None}
    avatar = update_row(Avatar, avatar, **fields) if avatar else insert_row(Avatar, user_id=user_id, **fields)
    retry(job.id)  # That is, at once.
    events.record("user.avatar_changed", user, actor=actor, state="processing")
    return avatar


def remove(user_id: int, *, actor: Identity) -> None:
    """Remove a user's avatar; raises NotFound, Forbidden."""
    user = _allowed(actor, user_id, fetch_one(_LOCKED_USER, user_id=user_id))
    if not erase(user_id):
        raise NotFound
    events.record("user.avatar_changed", user, actor=actor, state="removed")


def erase(user_id: int) -> bool:
    """Remove what there is of a user's avatar, whoever they are; tell whether there was one."""
    gone = fetch_one(_DELETE, user_id=user_id)
    if gone is not None:
        enqueue("remove_files", names=[file for name in (gone.upload, gone.name) if name for file in _files(name)])
    return gone is not None


def picture(file: str) -> bytes:
    """Return a picture by the last part of its address; raises NotFound, Unavailable."""
    content = storage.get(f"avatars/{file}") if FILE.fullmatch(file) and storage.is_there() else None
    if content is None:
        raise NotFound
    return content


def addresses(name: str) -> dict[int, str]:
    """Return the last part of each picture's address, by its size."""
    return {size: f"{name}-{size}.webp" for size in SIZES}


def resize(job: Record) -> None:
    """Make the pictures of an upload, unless nothing refers to it any more, and remove whatever is not shown.

    What was tried as often as any job is, because the storage was away or the process ended with it, is given up.
    """
    name = job.arguments["name"]
    try:
        if fetch_one(_IN_WORK, name=name):
            _finish(name, error="not_processed" if job.attempts >= MOST_ATTEMPTS else _process(name))
        _tidy(name)
    except (Unavailable, StorageMissing) as refusal:
        raise JobFailed(refusal.detail) from None


def remove_files(job: Record) -> None:
    """Remove files to which nothing refers any more."""
    try:
        for name in job.arguments["names"]:
            storage.delete(name)
    except (Unavailable, StorageMissing) as refusal:
        raise JobFailed(refusal.detail) from None


def _allowed(actor: Identity, user_id: int, user: Record | None) -> Record:
    check(actor, Permission.USERS_WRITE, owner_id=user_id)
    if user is None:
        raise NotFound
    if user_id != actor.user_id:
        check_grant(actor, user.role)
    return user


def _process(name: str) -> str | None:
    """Write the pictures of an upload, or return the code of what is wrong with it."""
    original = storage.get(_original(name))
    if original is None:
        return "not_processed"
    try:
        made = pictures.squares(original)
    except Invalid as refusal:
        return refusal.faults[0].code
    for size, file in addresses(name).items():
        storage.put(f"avatars/{file}", made[size])
    return None


def _finish(name: str, *, error: str | None) -> None:
    """Say how it went, now that the pictures are there; not where another upload came between, or the user went."""
    with unit_of_work():
        avatar = fetch_one(_LOCKED_IN_WORK, name=name)
        if avatar is None:
            return
        state, shown = ("failed", avatar.name) if error else ("ready", name)
        update_row(Avatar, avatar, state=state, upload=None, name=shown, error=error)
        if avatar.name not in (None, shown):
            enqueue("remove_files", names=_files(avatar.name))
        user = fetch_one(_ANY_USER, user_id=avatar.user_id)
        assert user is not None
        events.record("user.avatar_changed", user, state=state)


def _tidy(name: str) -> None:
    """Remove the upload, and the pictures as well where they are not shown."""
    is_shown = fetch_one(_SHOWN, name=name) is not None
    for file in [_original(name)] if is_shown else _files(name):
        storage.delete(file)


def _original(name: str) -> str:
    return f"uploads/{name}"


def _files(name: str) -> list[str]:
    return [_original(name), *(f"avatars/{file}" for file in addresses(name).values())]
