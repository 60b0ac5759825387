"""One JSON object a line, with secrets and e-mail addresses taken out."""

import json
import logging
import re
import sys
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

SECRET_KEYS = frozenset(
    {"password", "token", "access_token", "refresh_token", "authorization", "cookie", "secret", "email"}
)
SECRET_VALUES = re.compile(
    r"(?<=://)[^\s@'\"]+(?=@)"  # A user and password in a URL.
    r"|[^\s@'\"<>(),;:=\\]+@[^\s@'\"<>(),;:\\]+"  # An e-mail address.
    r"|eyJ[\w-]+\.[\w-]+\.[\w-]*"  # A JSON Web Token.
    r"|\$argon2[^\s'\"\\]+"  # A password hash.
)


class JsonLine(OrjsonFormatter):
    """Writes a record as one JSON object and removes secrets by key and by shape, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
        )

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if "@" in line or "eyJ" in line or "$argon2" in line:
            line = SECRET_VALUES.sub("(removed)", line)
        return line

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Write the record without its secrets; one that holds what JSON cannot is written as well as may be."""
        log_data = _without_secrets(log_data)
        try:
            return super().jsonify_log_record(log_data)
        except TypeError:
            return json.dumps(log_data, default=str)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "(removed)" if k in SECRET_KEYS else _without_secrets(v) for k, v in value.items()}
    return [_without_secrets(item) for item in value] if isinstance(value, (list, tuple)) else value


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
            "flask_cors": {"level": "WARNING"},
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
