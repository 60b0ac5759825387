"""Storage: files under names of our own making, in a folder or in a bucket of S3."""

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from flask import current_app

from service.errors import StorageMissing, Unavailable

log = logging.getLogger("rollcall.storage")

ABANDONED_AFTER = 3600  # Seconds after which whoever wrote a draft must have died.


class Place(Protocol):
    """Where files are kept; raises OSError where that cannot be done."""

    def put(self, name: str, content: bytes) -> None: ...

    def get(self, name: str) -> bytes | None: ...

    def delete(self, name: str) -> None: ...


def put(name: str, content: bytes) -> None:
    """Keep a file, which is there whole or not at all; raises StorageMissing, Unavailable."""
    with _reached() as place:
        place.put(name, content)


def get(name: str) -> bytes | None:
    """Return what a file holds, or None where there is no such file; raises StorageMissing, Unavailable."""
    with _reached() as place:
        return place.get(name)


def delete(name: str) -> None:
    """Remove a file, if it is there; raises StorageMissing, Unavailable."""
    with _reached() as place:
        place.delete(name)


def is_there() -> bool:
    """Tell whether files can be kept at all."""
    return bool(current_app.config["STORAGE_URL"])


@contextmanager
def _reached() -> Iterator[Place]:
    if not is_there():
        raise StorageMissing
    try:
        yield _place(current_app.config["STORAGE_URL"])
    except OSError as error:
        log.warning("storage unavailable", extra={"error": repr(error)})
        raise Unavailable("The storage of files does not answer.") from None


@lru_cache(maxsize=8)
def _place(url: str) -> Place:
    """Return the place that a URL means; making a client of S3 takes long, and it may be shared."""
    if url.startswith("file:"):
        return Folder(Path(unquote(urlsplit(url).path)))
    from service.bucket import Bucket  # An extra, without which those do who keep files in a folder.

    return Bucket(url)


class Folder:
    """A folder that only this service writes to."""

    def __init__(self, path: Path) -> None:
        self.path, self.drafts = path, path / "drafts"

    def put(self, name: str, content: bytes) -> None:
        """Write beside it and rename, so that nobody sees a part; a power cut leaves it whole or absent."""
        path, draft = self.path / name, self.drafts / secrets.token_hex(8)
        for folder in (self.path, self.drafts, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        try:
            with draft.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        _sync(path.parent)

    def get(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what was left by those who were killed while they wrote."""
        for draft in self.drafts.iterdir():
            try:
                if draft.stat().st_mtime < time.time() - ABANDONED_AFTER:
                    draft.unlink()
            except FileNotFoundError:
                pass  # Its writer has finished, or another has swept.


def _sync(folder: Path) -> None:
    """Make the names in a folder last: a file that was synced can still be lost with its name."""
    if os.name == "nt":
        return  # A folder cannot be opened there.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
