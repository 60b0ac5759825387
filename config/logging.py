"""One JSON object a line, with secrets and e-mail addresses taken out."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

SECRET_KEYS = frozenset(
    {"password", "token", "access_token", "refresh_token", "authorization", "cookie", "secret", "email"}
)
SECRET_VALUES = re.compile(
    r"(?<=://)[^\s@'\"]+(?=@)"  # A user and password in a URL.
    r"|[^\s@'\"<>(),;:=\\]+@[^\s@'\"<>(),;:\\]+"  # An e-mail address.
    r"|eyJ[\w-]+\.[\w-]+\.[\w-]*"  # A JSON Web Token.
    r"|\$argon2[^\s'\"\\]+"  # A password hash.
)


# What every record has; the rest is what the caller added.
STANDARD = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"})


class JsonLine(logging.Formatter):
    """Writes a record as one JSON object and removes secrets by key and by shape, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": _without_secrets(None, record.getMessage()),
        }
        facts |= {name: _without_secrets(name, v) for name, v in record.__dict__.items() if name not in STANDARD}
        if record.exc_info:
            facts["exc_info"] = _without_secrets(None, self.formatException(record.exc_info))
        try:
            return orjson.dumps(facts, default=_told, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # JSON cannot hold something of it: better said loosely than lost.
            return json.dumps(facts, default=_told)


def _without_secrets(name: object, value: Any) -> Any:
    if name in SECRET_KEYS:
        return "(removed)"
    if isinstance(value, str):
        suspect = "@" in value or "eyJ" in value or "$argon2" in value
        return SECRET_VALUES.sub("(removed)", value) if suspect else value
    if isinstance(value, dict):
        return {_without_secrets(None, inner): _without_secrets(inner, v) for inner, v in value.items()}
    return [_without_secrets(None, item) for item in value] if isinstance(value, (list, tuple)) else value


def _told(value: object) -> Any:
    return _without_secrets(None, str(value))


def logging_dictionary(level: str, target: str) -> dict[str, Any]:
    """Return a `logging.config.dictConfig` dictionary for a level and a LOG_TARGET."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLine}},
        "handlers": {"main": {**_handler(target), "formatter": "json"}},
        "root": {"level": level, "handlers": ["main"]},
        "loggers": {
            "gunicorn.error": {"level": level, "propagate": True, "handlers": []},
            "gunicorn.access": {"level": level, "propagate": True, "handlers": []},
            "alembic": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},  # These two write a line each for every message.
            "celery.worker.strategy": {"level": "WARNING"},
            "flask_cors": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},  # At DEBUG it would write the headers of calls.
        },
    }


def _handler(target: str) -> dict[str, Any]:
    if target == "syslog":
        address = "/dev/log" if sys.platform == "linux" else "/var/run/syslog"
        return {"class": "logging.handlers.SysLogHandler", "address": address}
    if target.startswith("file://"):
        path = target.removeprefix("file://")
        return {"class": "logging.handlers.WatchedFileHandler", "filename": path, "encoding": "utf-8"}
    return {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
