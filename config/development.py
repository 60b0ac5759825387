"""Secrets that development makes for itself once and keeps, so that nothing need be set to begin."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def kept_secret_key(instance: Path) -> str:
    """Return the secret key of this copy, made at first use."""
    return _kept(instance / "secret_key", lambda: secrets.token_urlsafe(48))


def kept_signing_keys(instance: Path) -> str:
    """Return the folder of this copy's signing keys, with one key made at first use."""
    folder = instance / "signing"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not any(folder.glob("*.pem")):
        _kept(folder / "0001.pem", new_signing_key)
    return str(folder)


def new_signing_key() -> str:
    """Return a new private EC P-256 key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _kept(path: Path, make: Callable[[], str]) -> str:
    """Read the file, or write it first; of several processes that start at once, one writes."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(make())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # Another process was first; its value counts.
        finally:
            draft.unlink()
    return path.read_text()
