"""What development makes for itself: once, and for its owner's eyes only."""

import stat
from pathlib import Path

import pytest

from config import settings
from config.checks import check
from config.development import kept_secret_key, kept_signing_keys
from service.tokens import KeyRing
from tests.processes import at_once


def modes(folder: Path) -> set[int]:
    """Return the permissions of every file below a folder."""
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kept", [kept_secret_key, kept_signing_keys])
def test_what_was_made_once_is_kept(tmp_path, kept):
    first = kept(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    assert kept(tmp_path) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    assert modes(tmp_path) == {0o600}


def test_processes_that_start_at_once_keep_the_same(tmp_path):
    keys = at_once(4, lambda: (kept_secret_key(tmp_path), Path(kept_signing_keys(tmp_path), "0001.pem").read_text()))

    assert len(set(keys)) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0001.pem", "secret_key", "signing"]


def test_two_copies_have_secrets_of_their_own(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    assert kept_secret_key(tmp_path / "one") != kept_secret_key(tmp_path / "two")


def test_nothing_need_be_set_to_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "INSTANCE", tmp_path / "instance")

    loaded = settings.load({}, tmp_path / ".env")

    check(loaded)
    assert (loaded.APP_ENV, loaded.PUBLIC_URL) == ("development", "http://localhost:8000")
    assert (loaded.MAIL_URL, loaded.MAIL_FROM) == ("console:", "Rollcall <no-reply@localhost>")
    assert loaded.DATABASE_URL.endswith(f"{tmp_path}/instance/rollcall.db")
    assert KeyRing.load(loaded.SIGNING_KEYS, issuer=loaded.PUBLIC_URL).public_keys()
    assert stat.S_IMODE((tmp_path / "instance").stat().st_mode) == 0o700


def test_what_is_set_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "INSTANCE", tmp_path / "instance")
    given = {"DATABASE_URL": "postgresql://a@b/c", "SECRET_KEY": "x" * 40, "SIGNING_KEYS": "/keys"}

    loaded = settings.load(given, tmp_path / ".env")

    assert {name: loaded[name] for name in given} == given
    assert not (tmp_path / "instance").exists()


def test_production_makes_nothing_for_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "INSTANCE", tmp_path / "instance")

    loaded = settings.load({"APP_ENV": "production"}, tmp_path / ".env")

    assert (loaded.DATABASE_URL, loaded.SECRET_KEY, loaded.SIGNING_KEYS) == ("", "", "")
    assert not (tmp_path / "instance").exists()
