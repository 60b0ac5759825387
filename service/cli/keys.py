"""`flask keys`: the keys that sign access tokens."""

import os
import time
from itertools import pairwise
from pathlib import Path

import click
from flask import current_app
from flask.cli import AppGroup

from service.cli.refusals import Refused
from service.tokens import CLOCK_SKEW, LIFETIME

keys_group = AppGroup("keys", help="The keys that sign access tokens.")


@keys_group.command("rotate")
def rotate() -> None:
    """Add a key that signs from now on; tokens of the older ones live to their end, and nobody is signed out.

    Running servers notice by themselves. A key is removed at the first rotation after its last token has ended.
    """
    source = current_app.config["SIGNING_KEYS"]
    folder = Path(source)
    if source.startswith("-----BEGIN") or not folder.is_dir():
        raise Refused("SIGNING_KEYS holds the key itself: name a folder of *.pem files to rotate them here.")
    older = sorted(folder.glob("*.pem"))
    removed = [key for key, successor in pairwise(older) if _is_spent(successor)]
    added = folder / f"{int(older[-1].stem) + 1 if older and older[-1].stem.isdigit() else int(time.time()):04}.pem"
    if older and added.name <= older[-1].name:
        raise Refused(f"The last key by name signs: call {older[-1].name} 0001.pem, or any four digits, and try again.")
    try:
        _write(added, current_app.extensions["new_signing_key"]())
        for key in removed:
            key.unlink()
    except OSError as error:
        raise Refused(f"The folder of SIGNING_KEYS cannot be written: {error.strerror}.") from None
    click.echo(f"{added.name} signs from now on; removed {', '.join(key.name for key in removed) or 'none'}.")


def _is_spent(successor: Path) -> bool:
    """Tell whether every token that was signed before a key was added has ended."""
    return successor.stat().st_mtime < time.time() - LIFETIME.total_seconds() - 2 * CLOCK_SKEW


def _write(path: Path, pem: str) -> None:
    """Write a key so that it is whole when it appears, and no other user of the machine can read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(pem)
    draft.rename(path)
