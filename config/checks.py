"""What makes a set of settings unsafe or unusable, each with its remedy."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from config.refusal import ConfigurationError
from config.settings import Settings

ORIGIN = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?"
)
NEW_SECRET = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
NEW_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out keys/0001.pem"
KNOWN_SECRETS = ("changeme", "change-me", "secret", "password", "default", "insecure", "example", "your-", "dev")


def check(settings: Settings) -> None:
    """Raise ConfigurationError with everything that is wrong; return quietly when all is well."""
    if refusals := list(refusals_of(settings)):
        raise ConfigurationError(refusals)


def refusals_of(settings: Settings) -> Iterator[str]:
    """Yield a line for each unsafe or impossible value."""
    yield from _ranges(settings)
    yield from _choices(settings)
    yield from _database(settings)
    yield from _secrets(settings)
    yield from _addresses(settings)
    yield from _origins(settings)


def _ranges(settings: Settings) -> Iterator[str]:
    bounds = {
        "PORT": (1, 65_535),
        "WEB_CONCURRENCY": (1, 256),
        "THREADS": (1, 256),
        "TRUSTED_PROXIES": (0, 10),
        "PASSWORD_MIN_LENGTH": (8, 128),
    }
    for name, (least, most) in bounds.items():
        if not least <= settings[name] <= most:
            yield f"{name} is {settings[name]}: use {least} to {most}."


def _choices(settings: Settings) -> Iterator[str]:
    if not settings.REGISTRATION:
        yield "REGISTRATION is missing: choose open (anybody may make an account) or closed (only those permitted to)."
    elif settings.REGISTRATION not in {"open", "closed"}:
        yield f"REGISTRATION is {settings.REGISTRATION!r}: use open or closed."
    if settings.LOG_LEVEL not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        yield f"LOG_LEVEL is {settings.LOG_LEVEL!r}: use DEBUG, INFO, WARNING or ERROR."
    if settings.LOG_TARGET not in {"stdout", "syslog"} and not settings.LOG_TARGET.startswith("file:///"):
        yield f"LOG_TARGET is {settings.LOG_TARGET!r}: use stdout, syslog or file:///path."
    mail = urlsplit(settings.MAIL_URL)
    if not (
        mail.scheme == "console" or (mail.scheme == "smtp" and mail.hostname) or (mail.scheme == "file" and mail.path)
    ):
        yield "MAIL_URL is not understood: use smtp://host:port, file:///folder or console:."


def _database(settings: Settings) -> Iterator[str]:
    url = settings.DATABASE_URL
    if not url:
        yield "DATABASE_URL is missing: set sqlite:////absolute/path or postgresql://user@host/name."
    elif url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        if not path.is_absolute():
            yield "DATABASE_URL has a relative path: write sqlite:////absolute/path, so that all open the same file."
        elif not _writable(path):
            yield f"DATABASE_URL names {path}, which cannot be written: choose a folder that this user may write."
    elif not re.fullmatch(r"postgres(ql)?(\+psycopg)?://.+", url):
        yield "DATABASE_URL is not understood: use sqlite:////absolute/path or postgresql://user@host/name."


def _writable(path: Path) -> bool:
    """Try it, since permission bits say little about read-only mounts or root."""
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists():
            with path.open("r+b"):
                pass
    except OSError:
        return False
    return True


def _secrets(settings: Settings) -> Iterator[str]:
    secret = settings.SECRET_KEY
    if not secret:
        yield f"SECRET_KEY is missing: make one with {NEW_SECRET}"
    elif len(secret) < 32:
        yield f"SECRET_KEY is too short: it needs 32 characters; make one with {NEW_SECRET}"
    elif len(set(secret)) < 10 or secret.lower().startswith(KNOWN_SECRETS):
        yield f"SECRET_KEY can be guessed: make one with {NEW_SECRET}"
    keys = settings.SIGNING_KEYS
    if not keys:
        yield f"SIGNING_KEYS is missing: name a folder with a key, made by {NEW_KEY}"
    elif not keys.startswith("-----BEGIN"):
        folder = Path(keys)
        files = sorted(folder.glob("*.pem"))
        if not files:
            yield f"SIGNING_KEYS names {folder}, which holds no *.pem file: put a private EC P-256 key there."
        for file in files:
            if file.stat().st_mode & 0o077:
                yield f"SIGNING_KEYS: {file} can be read by others: chmod 600 it."


def _addresses(settings: Settings) -> Iterator[str]:
    url = urlsplit(settings.PUBLIC_URL)
    if not settings.PUBLIC_URL:
        yield "PUBLIC_URL is missing: set the https address that clients use."
    elif (
        url.scheme not in {"http", "https"}
        or not url.hostname
        or url.query
        or url.fragment
        or settings.PUBLIC_URL.endswith("/")
    ):
        yield f"PUBLIC_URL is {settings.PUBLIC_URL!r}: use a form such as https://users.example.com, no last slash."
    elif settings.APP_ENV == "production" and url.scheme != "https":
        yield "PUBLIC_URL is plain http: production needs https."
    if "*" in settings.ALLOWED_HOSTS:
        yield "ALLOWED_HOSTS holds *: name the hosts."


def _origins(settings: Settings) -> Iterator[str]:
    for origin in settings.CORS_ORIGINS:
        if not ORIGIN.fullmatch(origin):
            yield f"CORS_ORIGINS holds {origin!r}: spell each out, as https://app.example.com (no *, null, pattern)."
        elif settings.APP_ENV == "production" and origin.startswith("http://"):
            yield f"CORS_ORIGINS holds {origin}: production needs https origins."
