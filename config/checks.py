"""What makes a set of settings unsafe or unusable, each with its remedy."""

import re
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from config.refusal import ConfigurationError
from config.settings import Settings

ORIGIN = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?"
)
NEW_SECRET = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
NEW_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out keys/0001.pem"
POSTGRESQL = re.compile(
    r"postgres(?:ql)?(?:\+psycopg)?://(?:[^@\s]*@)?(?:\[[^\]]+\]|[^/:@\s]*)(?::[0-9]{1,5})?/[^/\s]+"
)
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
GUESSABLE = ("changeme", "secretkey", "supersecret", "password", "insecure", "notasecret", "yoursecret", "replaceme")


def check(settings: Settings) -> None:
    """Raise ConfigurationError with everything that is wrong; return quietly when all is well."""
    if refusals := list(refusals_of(settings)):
        raise ConfigurationError(refusals)


def refusals_of(settings: Settings) -> Iterator[str]:
    """Yield a line for each unsafe or impossible value."""
    yield from _ranges(settings)
    yield from _choices(settings)
    yield from _cookies(settings)
    yield from _mail(settings)
    yield from _webhooks(settings)
    yield from _storage(settings)
    yield from _broker(settings)
    yield from _redis(settings)
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
        "EVENTS_KEPT_DAYS": (30, 3650),
    }
    for name, (least, most) in bounds.items():
        if not least <= settings[name] <= most:
            yield f"{name} is {settings[name]}: use {least} to {most}."


def _choices(settings: Settings) -> Iterator[str]:
    if not settings.REGISTRATION:
        yield "REGISTRATION is missing: choose open (anybody may make an account), confirmed (by mail) or closed."
    elif settings.REGISTRATION not in {"open", "confirmed", "closed"}:
        yield f"REGISTRATION is {settings.REGISTRATION!r}: use open, confirmed or closed."
    if settings.LOG_LEVEL not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        yield f"LOG_LEVEL is {settings.LOG_LEVEL!r}: use DEBUG, INFO, WARNING or ERROR."
    if settings.LOG_TARGET.startswith("file:///"):
        if not _writable(Path(settings.LOG_TARGET.removeprefix("file://"))):
            yield f"LOG_TARGET is {settings.LOG_TARGET}, which cannot be written: choose another file."
    elif settings.LOG_TARGET not in {"stdout", "syslog"}:
        yield f"LOG_TARGET is {settings.LOG_TARGET!r}: use stdout, syslog or file:///path."


def _cookies(settings: Settings) -> Iterator[str]:
    if settings.COOKIE_SAMESITE not in {"Strict", "Lax", "None"}:
        yield f"COOKIE_SAMESITE is {settings.COOKIE_SAMESITE!r}: use Strict, Lax or None."
    elif settings.COOKIE_SAMESITE == "None" and not settings.PUBLIC_URL.startswith("https://"):
        yield "COOKIE_SAMESITE is None, which browsers take over https only: set PUBLIC_URL to https or use Lax."


def _mail(settings: Settings) -> Iterator[str]:
    if not re.fullmatch(r"[^\s@<>,;]+@[^\s@<>,;]+|[^@<>,;\x00-\x1f]+ <[^\s@<>,;]+@[^\s@<>,;]+>", settings.MAIL_FROM):
        yield "MAIL_FROM is no address: use a form such as Rollcall <no-reply@example.com>."
    mail = _parts(settings.MAIL_URL)
    if not settings.MAIL_URL:
        yield "MAIL_URL is missing: name the mail server, smtp://host:port."
    elif not (
        mail.scheme == "console" or (mail.scheme == "smtp" and mail.hostname) or (mail.scheme == "file" and mail.path)
    ):
        yield "MAIL_URL is not understood: use smtp://host:port, file:///folder or console:."


def _storage(settings: Settings) -> Iterator[str]:
    url = _parts(settings.STORAGE_URL)
    if not settings.STORAGE_URL:
        return
    if url.scheme == "file" and url.path.startswith("/") and not (url.netloc or url.query or url.fragment):
        folder = Path(unquote(url.path))
        if not _holds_files(folder):
            yield f"STORAGE_URL names {folder}, which cannot be written: choose a folder that this user may write."
    elif not _is_bucket(url):
        yield "STORAGE_URL is not understood: use file:///folder or s3://bucket/prefix?endpoint=https://host&region=name."
    elif not find_spec("boto3"):
        yield "STORAGE_URL names a bucket, for which boto3 is missing: install rollcall with its extra s3."


def _holds_files(folder: Path) -> bool:
    """Tell whether files can be written there, or below what there is of it, since it is made when it is needed."""
    try:
        with tempfile.TemporaryFile(dir=next(path for path in (folder, *folder.parents) if path.exists())):
            return True
    except OSError:
        return False


def _is_bucket(url: SplitResult) -> bool:
    """Tell whether it is one, without a password, which would be looked for elsewhere."""
    asked = dict(parse_qsl(url.query, keep_blank_values=True))
    endpoint = _parts(asked.get("endpoint", "https://default"))
    return bool(
        url.scheme == "s3"
        and BUCKET.fullmatch(url.netloc)
        and not url.fragment
        and asked.keys() <= {"endpoint", "region"}
        and endpoint.scheme in {"http", "https"}
        and endpoint.hostname
        and not endpoint.username
        and re.fullmatch("[a-z0-9-]+", asked.get("region", "default"))
    )


def _webhooks(settings: Settings) -> Iterator[str]:
    for place in settings.WEBHOOK_ALLOWED_HOSTS:
        if not re.fullmatch(r"(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?", place):
            yield f"WEBHOOK_ALLOWED_HOSTS holds {place!r}: write host or host:port, in small letters."
    if settings.WEBHOOK_ALLOWED_HOSTS and settings.APP_ENV == "production":
        yield "WEBHOOK_ALLOWED_HOSTS is for development: in production webhooks go to public addresses only."


def _broker(settings: Settings) -> Iterator[str]:
    if not settings.CELERY_BROKER_URL:
        return
    url = _parts(settings.CELERY_BROKER_URL)
    if not (url.scheme in {"redis", "amqp"} and url.hostname):
        yield "CELERY_BROKER_URL is not understood: use redis://host:port/number or amqp://user@host:port//."
    elif not (find_spec("celery") and find_spec(url.scheme)):
        yield "CELERY_BROKER_URL names a broker, for which celery is missing: install rollcall with its extra celery."


def _redis(settings: Settings) -> Iterator[str]:
    if not settings.REDIS_URL:
        return
    url = _parts(settings.REDIS_URL)
    is_whole = re.fullmatch(r"/?|/[0-9]{1,3}", url.path) and not (url.query or url.fragment)
    if not (url.scheme in {"redis", "rediss"} and url.hostname and is_whole):
        yield "REDIS_URL is not understood: use redis://host:port/number, or rediss:// for an encrypted connection."
    elif not find_spec("redis"):
        yield "REDIS_URL names a Redis, for which its package is missing: install rollcall with its extra redis."


def _database(settings: Settings) -> Iterator[str]:
    url = settings.DATABASE_URL
    if not url:
        yield "DATABASE_URL is missing: set sqlite:////absolute/path or postgresql://user@host/name."
    elif url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        if not path.is_absolute():
            yield "DATABASE_URL has a relative path: write sqlite:////absolute/path, so that all open the same file."
        elif re.search("[?#%]", url):
            yield "DATABASE_URL has one of ? # % in its path, which would mean something else in it: use another name."
        elif not _writable(path):
            yield f"DATABASE_URL names {path}, which cannot be written: choose a folder that this user may write."
    elif not POSTGRESQL.fullmatch(url):
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
    elif _can_be_guessed(secret):
        yield f"SECRET_KEY can be guessed: make one with {NEW_SECRET}"
    if not settings.SIGNING_KEYS:
        yield f"SIGNING_KEYS is missing: name a folder with a key, made by {NEW_KEY}"
    elif not settings.SIGNING_KEYS.startswith("-----BEGIN"):
        yield from _key_folder(Path(settings.SIGNING_KEYS))


def _can_be_guessed(secret: str) -> bool:
    letters = re.sub("[^a-z]", "", secret.lower())
    repeats = secret in (secret + secret)[1:-1]
    return len(set(secret)) < 10 or repeats or any(word in letters for word in GUESSABLE)


def _key_folder(folder: Path) -> Iterator[str]:
    try:
        modes = {file: file.stat().st_mode for file in sorted(folder.glob("*.pem"))}
    except OSError:
        modes = {}
    if not modes:
        yield f"SIGNING_KEYS names a folder that holds no *.pem file to read: put a key there, made by {NEW_KEY}"
    for file, mode in modes.items():
        if mode & 0o077:
            yield f"SIGNING_KEYS: {file} can be read by others: chmod 600 it."


def _addresses(settings: Settings) -> Iterator[str]:
    url = _parts(settings.PUBLIC_URL)
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


def _parts(url: str) -> SplitResult:
    """Return the parts of a URL; one that cannot be read has none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return urlsplit("")
    return parts


def _origins(settings: Settings) -> Iterator[str]:
    for origin in settings.CORS_ORIGINS:
        if not ORIGIN.fullmatch(origin):
            yield f"CORS_ORIGINS holds {origin!r}: spell each out, as https://app.example.com (no *, null, pattern)."
        elif settings.APP_ENV == "production" and origin.startswith("http://"):
            yield f"CORS_ORIGINS holds {origin}: production needs https origins."
