"""Every setting, its type, its default in each environment, and its sentence."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from dotenv import dotenv_values

from config.development import kept_secret_key, kept_signing_keys
from config.refusal import ConfigurationError
from config.values import Rate, parse

ROOT = Path(__file__).resolve().parent.parent
INSTANCE = ROOT / "instance"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
SECRET_SETTINGS = frozenset(
    {
        "SECRET_KEY",
        "SIGNING_KEYS",
        "ADMIN_PASSWORD",
        "DATABASE_URL",
        "MAIL_URL",
        "STORAGE_URL",
        "CELERY_BROKER_URL",
        "REDIS_URL",
    }
)


class Settings:
    """What every environment shares; a subclass states only what differs.

    Each name is an environment variable; `NAME_FILE` may instead name a file that holds the value.
    """

    APP_ENV: Annotated[str, "development, testing or production."] = "development"
    PORT: Annotated[int, "Port the server listens on."] = 8000
    WEB_CONCURRENCY: Annotated[int, "Number of worker processes."] = 2
    THREADS: Annotated[int, "Threads in each worker; also the size of its database pool."] = 8
    DATABASE_URL: Annotated[str, "Where the data is: sqlite:////absolute/path or postgresql://user@host/name."] = ""
    SECRET_KEY: Annotated[str, "At least 32 random characters; signs cursors and makes tokens."] = ""
    SIGNING_KEYS: Annotated[
        str, "Folder of private EC P-256 keys (*.pem, the last by name signs), or the PEM itself."
    ] = ""
    PUBLIC_URL: Annotated[str, "The address clients use; every link is made from it."] = ""
    ALLOWED_HOSTS: Annotated[
        tuple[str, ...], "Host names answered, comma-separated; empty means the host of PUBLIC_URL and loopback."
    ] = ()
    TRUSTED_PROXIES: Annotated[int, "Number of proxies in front whose X-Forwarded-For and -Proto are believed."] = 0
    CORS_ORIGINS: Annotated[tuple[str, ...], "Origins of browser clients, comma-separated, spelled out."] = ()
    REGISTRATION: Annotated[
        str, "Who may create an account without permission: open (anybody), confirmed (by mail first), closed (nobody)."
    ] = ""
    PASSWORD_MIN_LENGTH: Annotated[int, "Fewest characters of a new password, 8 to 128."] = 8
    REQUIRE_IF_MATCH: Annotated[bool, "Refuse a change without If-Match (428), so that no update can be lost."] = False
    MAIL_URL: Annotated[str, "Where mail goes: smtp://[user:password@]host:port, file:///folder or console:."] = (
        "console:"
    )
    MAIL_FROM: Annotated[str, "Whom mail is from; empty means no-reply at the host of PUBLIC_URL."] = ""
    STORAGE_URL: Annotated[
        str,
        "Where uploaded pictures are kept: file:///folder, or s3://bucket/prefix?endpoint=https://host&region=name; "
        "empty means that there are none.",
    ] = ""
    CELERY_BROKER_URL: Annotated[
        str,
        "Broker through which Celery's workers are told of jobs: redis://host:port/number or amqp://user@host:port//; "
        "empty means that flask worker runs them.",
    ] = ""
    RATE_LIMIT_KEY: Annotated[Rate, "Requests of a program with one key, such as 600/minute; empty means no limit."] = (
        Rate(6000)
    )
    RATE_LIMIT_USER: Annotated[Rate, "Requests of one signed-in person; empty means no limit."] = Rate(1200)
    RATE_LIMIT_ADDRESS: Annotated[
        Rate, "Requests from one address without a credential, or with a wrong one; empty means no limit."
    ] = Rate(600)
    RATE_LIMIT_COSTLY: Annotated[
        Rate,
        "Of the requests of each of these, those that hash a password, send a letter, take a picture, search, export "
        "or make a token; empty means no further limit.",
    ] = Rate(300)
    REDIS_URL: Annotated[
        str,
        "Where requests are counted for all instances together: redis://[user:password@]host:port/number, or rediss:// "
        "for an encrypted connection; empty means that each instance counts for itself.",
    ] = ""
    COOKIE_SAMESITE: Annotated[
        str, "Whether browsers send cookies from other sites: Strict, Lax, or None (for pages on another domain)."
    ] = "Lax"
    WEBHOOK_ALLOWED_HOSTS: Annotated[
        tuple[str, ...],
        "For development: hosts (or host:port) that webhooks may call by http, on any port and at private addresses.",
    ] = ()
    EVENTS_KEPT_DAYS: Annotated[int, "Days after which events are removed from the feed, 30 to 3650."] = 400
    LOG_LEVEL: Annotated[str, "DEBUG, INFO, WARNING or ERROR."] = "INFO"
    LOG_TARGET: Annotated[str, "stdout, syslog, or file:///path (reopened when it is rotated)."] = "stdout"
    ADMIN_EMAIL: Annotated[str, "Address of the first admin, made when there is none."] = "admin@example.com"
    ADMIN_PASSWORD: Annotated[str, "Password of the first admin; generated and shown once when empty."] = ""

    TESTING = False
    sources: dict[str, str]

    def complete(self) -> None:
        """Fill in what follows from other settings."""
        named = re.match(r"https?://(\[[^\]]*\]|[^/:]+)", self.PUBLIC_URL)
        if not self.ALLOWED_HOSTS:
            self.ALLOWED_HOSTS = (*(named.groups() if named else ()), "localhost", "127.0.0.1", "[::1]")
        self.MAIL_FROM = self.MAIL_FROM or f"Rollcall <no-reply@{named.group(1) if named else 'localhost'}>"
        self.ALLOWED_HOSTS = tuple(host.lower() for host in self.ALLOWED_HOSTS)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class Development(Settings):
    """One machine, one person: nothing need be set; what is made up is kept in `instance/`."""

    REGISTRATION = "open"

    def complete(self) -> None:
        self.PUBLIC_URL = self.PUBLIC_URL or f"http://localhost:{self.PORT}"
        self.STORAGE_URL = self.STORAGE_URL or (INSTANCE / "files").as_uri()
        if not (self.DATABASE_URL and self.SECRET_KEY and self.SIGNING_KEYS):
            INSTANCE.mkdir(mode=0o700, exist_ok=True)
            self.DATABASE_URL = self.DATABASE_URL or f"sqlite:///{INSTANCE / 'rollcall.db'}"
            self.SECRET_KEY = self.SECRET_KEY or kept_secret_key(INSTANCE)
            self.SIGNING_KEYS = self.SIGNING_KEYS or kept_signing_keys(INSTANCE)
        super().complete()


class Testing(Development):
    """The test suite: as development, but errors reach the test instead of an answer."""

    APP_ENV = "testing"
    TESTING = True
    LOG_LEVEL = "WARNING"
    # Who tests something else sends as many requests as that takes.
    RATE_LIMIT_KEY = RATE_LIMIT_USER = RATE_LIMIT_ADDRESS = RATE_LIMIT_COSTLY = Rate()


class Production(Settings):
    """For real: nothing that matters has a default."""

    APP_ENV = "production"
    ADMIN_EMAIL = ""
    MAIL_URL = ""


ENVIRONMENTS: dict[str, type[Settings]] = {"development": Development, "testing": Testing, "production": Production}
DECLARED = {
    name: hint for name, hint in get_type_hints(Settings, include_extras=True).items() if hasattr(hint, "__metadata__")
}


def load(environ: Mapping[str, str], dotenv: Path = ROOT / ".env") -> Settings:
    """Read the settings from environment variables; raise ConfigurationError on a bad one."""
    environment = _environment(environ)
    if dotenv.exists():
        environ = {**_dotenv_values(dotenv, environment), **environ}

    settings = ENVIRONMENTS[environment]()
    settings.sources = {}
    refusals = []
    for name, hint in DECLARED.items():
        try:
            raw, settings.sources[name] = _raw_value(environ, name)
            if raw is not None:
                setattr(settings, name, parse(raw, hint.__origin__))
        except ValueError as error:
            refusals.append(f"{name} {error}")
    if refusals:
        raise ConfigurationError(refusals)
    settings.complete()
    return settings


def _environment(environ: Mapping[str, str]) -> str:
    try:
        environment = _raw_value(environ, "APP_ENV")[0] or "development"
    except ValueError as error:
        raise ConfigurationError([f"APP_ENV {error}"]) from None
    if environment not in ENVIRONMENTS:
        near = difflib.get_close_matches(environment, ENVIRONMENTS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"use one of {', '.join(ENVIRONMENTS)}."
        raise ConfigurationError([f"APP_ENV is {environment!r}: {meant}"])
    return environment


def _dotenv_values(dotenv: Path, environment: str) -> dict[str, str]:
    if environment == "production":
        raise ConfigurationError(
            [f"{dotenv.name} is for development: move its values to the environment and delete it."]
        )
    values = {name: value for name, value in dotenv_values(dotenv).items() if value is not None}
    if values.get("APP_ENV", environment) != environment or "APP_ENV_FILE" in values:
        raise ConfigurationError(
            [f"{dotenv.name} sets APP_ENV: set it in the environment, since that file is read later."]
        )
    return values


def _raw_value(environ: Mapping[str, str], name: str) -> tuple[str | None, str]:
    """Return a setting's text and where it came from."""
    if name in environ and f"{name}_FILE" in environ:
        raise ValueError(f"is set twice: unset it or {name}_FILE.")
    if name in environ:
        return environ[name].strip(), "environment"
    if path := environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text("utf-8").strip(), path
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"cannot be read from the file that {name}_FILE names: {error.__class__.__name__}."
            ) from None
    return None, "default"


def misspelled(environ: Mapping[str, str]) -> list[str]:
    """Return warnings for variables that look like a setting but are none."""
    known = {*DECLARED, *(f"{name}_FILE" for name in DECLARED)}
    nearest = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.88) for name in sorted(set(environ) - known)}
    return [f"{name} is not a setting: did you mean {near[0]}?" for name, near in nearest.items() if near]


def table(settings: Settings) -> list[tuple[str, str, str, str]]:
    """List every setting as (name, value with secrets hidden, source, meaning)."""
    rows = []
    for name, hint in DECLARED.items():
        value = settings[name]
        shown = ",".join(value) if isinstance(value, tuple) else str(value)
        hidden = "(hidden)" if shown and name in SECRET_SETTINGS else shown
        rows.append((name, hidden, settings.sources[name], hint.__metadata__[0]))
    return rows
