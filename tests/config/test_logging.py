"""Logs: one JSON object a line, wherever it goes, and no secret in it."""

import json
import logging
import logging.config
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from config.logging import SECRET_KEYS, JsonLine, logging_dictionary

log = logging.getLogger("rollcall.test")


@pytest.fixture
def log_to() -> Iterator[Callable[..., None]]:
    """Return a function that sends the log to a target, for this test only."""
    root = logging.getLogger()
    before, level = [handler for handler in root.handlers if type(handler).__module__ == "logging"], root.level
    made = []

    def configure(target: str, level: str = "INFO", **handler: str) -> None:
        dictionary = logging_dictionary(level, target)
        dictionary["handlers"]["main"].update(handler)
        logging.config.dictConfig(dictionary)
        made.extend(root.handlers)

    yield configure
    for handler in made:
        root.removeHandler(handler)
        handler.close()
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


@pytest.fixture
def lines(log_to: Callable[..., None], tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that reads what was logged so far."""
    log_to(f"file://{tmp_path}/log")
    return lambda: [json.loads(line) for line in (tmp_path / "log").read_text("utf-8").splitlines()]


def test_a_record_is_one_json_object_on_one_line(lines):
    log.info("user %s\nsigned in", "Zoë", extra={"user_id": 42, "tags": {"a"}, "moment": datetime(2026, 1, 31)})

    (line,) = lines()

    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "rollcall.test",
        "message": "user Zoë\nsigned in",
        "user_id": 42,
        "tags": "{'a'}",
        "moment": "2026-01-31T00:00:00",
    }


@pytest.mark.parametrize(
    "members",
    [
        {"msg": "lone \ud800"},
        {"msg": "odd", "number": 2**70},
        {"msg": "odd", "text": "lone \ud800"},
        {"msg": "odd", "email": "canary@example.com", "text": "of zoë-canary@example.com, lone \ud800"},
    ],
    ids=["message", "number", "text", "secret"],
)
def test_no_record_is_lost_because_json_cannot_hold_it(members):
    record = logging.makeLogRecord({"name": "rollcall.test", "levelname": "INFO", **members})

    line = JsonLine().format(record)

    assert json.loads(line)["level"] == "INFO"
    assert "canary" not in line and "\n" not in line


@pytest.mark.parametrize("key", sorted(SECRET_KEYS))
def test_a_secret_is_removed_by_its_key(lines, key):
    log.info("signed in", extra={key: "canary", "path": "/api/v1/auth/login"})

    (line,) = lines()

    assert line[key] == "(removed)" and line["path"] == "/api/v1/auth/login"


def test_a_secret_is_removed_by_its_key_inside_an_object(lines):
    log.info("signed in", extra={"body": {"password": "canary", "device": {"token": "canary", "name": "phone"}}})

    (line,) = lines()

    assert "canary" not in str(line) and line["body"]["device"]["name"] == "phone"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("for canary@example.com, twice: <canary+tag@example.com>", "for (removed), twice: <(removed)>"),
        ("to:\ncanary@example.com\tcc: canary@example.com", "to:\n(removed)\tcc: (removed)"),
        ("to:\nzoë-canary@bücher.example", "to:\n(removed)"),
        ("Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.s1g-na_ture.", "Bearer (removed)."),
        ("kept as $argon2id$v=19$m=19456,t=2,p=1$canary$hash now", "kept as (removed) now"),
        ("at postgresql://app:canary@db.example/users", "at postgresql://(removed)@db.example/users"),
        ("at postgresql://app:can%40ary@db.example/users", "at postgresql://(removed)@db.example/users"),
        ("at postgresql://app:can/ary=canary@db.example/users", None),
        ("at redis://:canary@cache/0", None),
        ("nothing @ all, 3 * 4@ and eye contact for $5", "nothing @ all, 3 * 4@ and eye contact for $5"),
    ],
)
def test_a_secret_is_removed_by_its_shape_wherever_it_stands(lines, text, left):
    log.info(text)
    log.info("see %(note)s", {"note": text}, extra={"note": text})
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("failed")

    said, argument, failed = lines()

    assert left is None or (said["message"], argument["note"]) == (left, left)
    assert left is None or failed["exc_info"].endswith(f"ValueError: {left}")
    for secret in ("canary", "can/ary", "can%40ary", "eyJ", "$argon2"):
        assert secret not in json.dumps([said, argument, failed])


def test_a_traceback_keeps_its_places(lines):
    try:
        raise RuntimeError("canary@example.com")
    except RuntimeError:
        log.exception("failed")

    (line,) = lines()

    assert "test_a_traceback_keeps_its_places" in line["exc_info"] and line["level"] == "ERROR"


def test_what_is_below_the_level_is_not_written(log_to, tmp_path):
    log_to(f"file://{tmp_path}/log", level="WARNING")

    log.info("quiet")
    logging.getLogger("gunicorn.error").warning("loud")

    (line,) = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line)["message"] == "loud"


def test_a_rotated_file_is_opened_again(log_to, tmp_path):
    path = tmp_path / "log"
    log_to(f"file://{path}")

    log.info("before")
    path.rename(tmp_path / "log.1")
    log.info("after")

    assert json.loads((tmp_path / "log.1").read_text())["message"] == "before"
    assert json.loads(path.read_text())["message"] == "after"


def test_standard_output_is_the_plain_choice(log_to, capsys):
    log_to("stdout")

    log.info("hello")

    out, err = capsys.readouterr()
    assert json.loads(out)["message"] == "hello"
    assert err == ""


@pytest.mark.parametrize(("platform", "address"), [("linux", "/dev/log"), ("darwin", "/var/run/syslog")])
def test_syslog_is_reached_by_its_local_socket(monkeypatch, platform, address):
    monkeypatch.setattr("sys.platform", platform)

    handler = logging_dictionary("INFO", "syslog")["handlers"]["main"]

    assert handler == {"class": "logging.handlers.SysLogHandler", "address": address, "formatter": "json"}


def test_syslog_gets_the_same_lines(log_to, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "socket"))
        log_to("syslog", address=str(tmp_path / "socket"))

        log.warning("hello", extra={"password": "canary"})
        received = syslog.recv(10_000)

    line = json.loads(received.partition(b">")[2].rstrip(b"\0"))
    assert (line["message"], line["password"]) == ("hello", "(removed)")


def test_every_target_writes_through_the_formatter_that_removes_secrets():
    for target in ("stdout", "syslog", "file:///var/log/rollcall.log"):
        dictionary = logging_dictionary("INFO", target)

        assert dictionary["root"]["handlers"] == [*dictionary["handlers"]]
        assert {handler["formatter"] for handler in dictionary["handlers"].values()} == {"json"}
