"""`flask keys rotate`: a new key signs, an old one is good until its last token has ended, and nobody is signed out."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import Result
from cryptography.hazmat.primitives import serialization
from flask import Flask

from config.checks import refusals_of
from config.development import new_signing_key
from config.settings import Settings
from service.tokens import CLOCK_SKEW, LIFETIME
from tests.client import Client
from tests.databases import application

ME = "/api/v1/me"
JWKS = "/.well-known/jwks.json"
INVALID = (401, "invalid_token")
SPENT = LIFETIME.total_seconds() + 2 * CLOCK_SKEW


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one key."""
    found = tmp_path / "signing"
    found.mkdir(mode=0o700)
    write(found / "0001.pem")
    return found


@pytest.fixture
def start(app: Flask, settings_for: Callable[..., Settings], folder: Path) -> Iterator[Callable[[], Flask]]:
    """Return a function that starts an application whose keys are in the folder."""
    with ExitStack() as stack:
        settings = settings_for(app.config["DATABASE_URL"], SIGNING_KEYS=str(folder))
        yield lambda: stack.enter_context(application(settings, migrated=False))


@pytest.fixture
def running(start: Callable[[], Flask]) -> Flask:
    """Return an application whose keys are in the folder."""
    return start()


@pytest.fixture
def client(running: Flask, contract: Any) -> Client:
    """Return a client of that application."""
    return Client(running, contract)


def write(path: Path) -> None:
    """Put a new key into a file."""
    path.touch(mode=0o600)
    path.write_text(new_signing_key())


def rotate(app: Flask) -> Result:
    with app.app_context():
        result = app.test_cli_runner().invoke(args=["keys", "rotate"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def make_older(path: Path, seconds: float) -> None:
    """Make a file one that was written some time ago."""
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kid_of(token: str | None) -> str:
    return str(jwt.get_unverified_header(token or "")["kid"])


def published(client: Client) -> list[str]:
    return [key["kid"] for key in client.get(JWKS).json["keys"]]


def test_rotating_adds_a_key_that_only_its_owner_reads(running, folder):
    result = rotate(running)

    assert (result.exit_code, result.output) == (0, "0002.pem signs from now on; removed none.\n")
    assert names(folder) == ["0001.pem", "0002.pem"]
    assert stat.S_IMODE((folder / "0002.pem").stat().st_mode) == 0o600
    key = serialization.load_pem_private_key((folder / "0002.pem").read_bytes(), None)
    assert key.curve.name == "secp256r1"
    assert (folder / "0001.pem").read_bytes() != (folder / "0002.pem").read_bytes()


def test_mode_of_the_key_does_not_depend_on_the_umask(running, folder):
    before = os.umask(0)
    try:
        rotate(running)
    finally:
        os.umask(before)

    assert stat.S_IMODE((folder / "0002.pem").stat().st_mode) == 0o600


def test_key_is_not_shown(running, folder):
    result = rotate(running)

    assert "BEGIN" not in result.output
    assert not set((folder / "0002.pem").read_text().splitlines()) & set(result.output.splitlines())


def test_service_starts_with_the_folder_as_it_is_then(running, folder, settings_for, app):
    rotate(running)

    settings = settings_for(app.config["DATABASE_URL"], SIGNING_KEYS=str(folder))

    assert not [line for line in refusals_of(settings) if "SIGNING_KEYS" in line]


def test_new_key_signs_without_a_restart_and_old_tokens_stay_good(running, client, member):
    with_old = client.as_(member)

    rotate(running)
    with_new = client.as_(member)

    assert kid_of(with_old.token) != kid_of(with_new.token)
    assert with_old.get(ME).status_code == with_new.get(ME).status_code == 200


def test_both_keys_are_published(running, client, member):
    with_old = client.as_(member)
    assert published(client) == [kid_of(with_old.token)]

    rotate(running)

    assert published(client) == [kid_of(with_old.token), kid_of(client.as_(member).token)]
    assert not any("d" in key for key in client.get(JWKS).json["keys"])


def test_another_server_accepts_a_token_of_a_key_that_it_has_not_seen(running, start, client, contract, member):
    elsewhere = Client(start(), contract)
    with_old = client.as_(member)
    assert elsewhere.with_token(with_old.token).get(ME).status_code == 200

    rotate(running)
    with_new = client.as_(member)

    assert kid_of(with_new.token) != kid_of(with_old.token)
    assert elsewhere.with_token(with_new.token).get(ME).status_code == 200
    assert elsewhere.with_token(with_old.token).get(ME).status_code == 200
    assert kid_of(elsewhere.as_(member).token) == kid_of(with_new.token)


def test_another_server_signs_with_the_new_key_and_publishes_it(running, start, client, contract, member):
    elsewhere = Client(start(), contract)

    rotate(running)

    assert kid_of(elsewhere.as_(member).token) == kid_of(client.as_(member).token)
    assert published(elsewhere) == published(client) and len(published(client)) == 2


def test_server_that_starts_after_the_rotation_accepts_both(running, start, client, contract, member):
    with_old = client.as_(member)
    rotate(running)
    with_new = client.as_(member)

    later = Client(start(), contract)

    assert [later.with_token(each.token).get(ME).status_code for each in (with_old, with_new)] == [200, 200]


def test_new_key_is_seen_where_the_folder_keeps_coarse_time(running, start, client, contract, folder, member):
    """A server may look between the writing of a key and its appearing, both within one tick of the file system."""
    elsewhere = Client(start(), contract)
    elsewhere.as_(member)
    looked = folder.stat()

    rotate(running)
    with_new = client.as_(member)
    os.utime(folder, ns=(looked.st_atime_ns, looked.st_mtime_ns))

    assert elsewhere.with_token(with_new.token).get(ME).status_code == 200


def test_keys_are_numbered_on(running, folder, client, member):
    tokens = [client.as_(member)]
    for _ in range(3):
        rotate(running)
        tokens.append(client.as_(member))

    assert names(folder) == ["0001.pem", "0002.pem", "0003.pem", "0004.pem"]
    assert len({kid_of(each.token) for each in tokens}) == 4
    assert [each.get(ME).status_code for each in tokens] == [200] * 4


@pytest.mark.parametrize("name", ["1.pem", "9.pem", "0009.pem", "9999.pem", "00001.pem", "signing.pem", "2026-10.pem"])
def test_key_that_is_said_to_sign_does_whatever_the_old_one_is_called(running, folder, client, member, name):
    (folder / "0001.pem").rename(folder / name)
    with_old = client.as_(member)

    for _ in range(2):
        before = names(folder)
        result = rotate(running)
        with_new = client.as_(member)

        assert with_old.get(ME).status_code == with_new.get(ME).status_code == 200
        if result.exit_code:  # It may refuse a name that it cannot go on from.
            assert names(folder) == before and len(result.output.splitlines()) == 1
        else:
            assert kid_of(with_new.token) != kid_of(with_old.token)
        with_old = with_new


# Removing


def test_old_key_is_removed_after_its_last_token_has_ended(running, client, folder, member):
    with_old = client.as_(member)
    rotate(running)
    with_new = client.as_(member)
    make_older(folder / "0002.pem", SPENT + 1)

    result = rotate(running)

    assert result.output == "0003.pem signs from now on; removed 0001.pem.\n"
    assert names(folder) == ["0002.pem", "0003.pem"]
    assert kid_of(client.as_(member).token) not in {kid_of(with_old.token), kid_of(with_new.token)}
    assert with_old.get(ME).problem == INVALID
    assert with_new.get(ME).status_code == 200
    assert len(published(client)) == 2 and kid_of(with_old.token) not in published(client)


def test_old_key_stays_as_long_as_a_token_of_it_may_be_good(running, client, folder, member):
    with_old = client.as_(member)
    rotate(running)
    make_older(folder / "0001.pem", 10 * SPENT)
    make_older(folder / "0002.pem", SPENT - 20)

    result = rotate(running)

    assert result.output == "0003.pem signs from now on; removed none.\n"
    assert with_old.get(ME).status_code == 200


def test_every_spent_key_is_removed_but_never_the_one_that_signed_last(running, folder):
    for _ in range(3):
        rotate(running)
    for path in folder.iterdir():
        make_older(path, 10 * SPENT)

    result = rotate(running)

    assert result.output == "0005.pem signs from now on; removed 0001.pem, 0002.pem, 0003.pem.\n"
    assert names(folder) == ["0004.pem", "0005.pem"]


def test_removing_does_not_give_a_name_again(running, folder):
    rotate(running)
    make_older(folder / "0002.pem", 10 * SPENT)
    rotate(running)
    make_older(folder / "0003.pem", 10 * SPENT)

    rotate(running)

    assert names(folder) == ["0003.pem", "0004.pem"]


def test_other_files_are_left_alone(running, folder):
    (folder / "README").write_text("keep out")
    (folder / "0009.pem.bak").write_text("not a key")

    rotate(running)

    assert names(folder) == ["0001.pem", "0002.pem", "0009.pem.bak", "README"]


# Refusing


def test_key_in_the_setting_itself_is_refused_in_one_line(app, nothing_changes):
    with nothing_changes():
        result = rotate(app)

    assert result.exit_code == 1
    assert result.output.startswith("rollcall: SIGNING_KEYS holds the key itself")
    assert len(result.output.splitlines()) == 1 and "BEGIN" not in result.output


def test_folder_that_is_gone_is_refused_in_one_line(running, folder):
    (folder / "0001.pem").unlink()
    folder.rmdir()

    result = rotate(running)

    assert result.exit_code == 1
    assert result.output.startswith("rollcall: ") and len(result.output.splitlines()) == 1


def test_folder_that_cannot_be_written_is_refused_in_one_line(running, folder, monkeypatch):
    """As when it is mounted read-only, which secrets often are."""

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "touch", refuse)

    with running.app_context():
        result = running.test_cli_runner().invoke(args=["keys", "rotate"])

    assert result.exit_code == 1
    assert result.output.startswith("rollcall: ") and len(result.output.splitlines()) == 1
    assert names(folder) == ["0001.pem"]


def test_damaged_new_key_signs_nobody_out(running, client, folder, member):
    here = client.as_(member)
    (folder / "0002.pem").write_text("-----BEGIN")

    again = client.as_(member)

    assert kid_of(again.token) == kid_of(here.token)
    assert here.get(ME).status_code == again.get(ME).status_code == 200
