"""The application: one line a part."""

import logging.config
from collections.abc import Callable
from typing import Any

import orjson
from flask import Flask, Request, Response, g, request
from flask.json.provider import JSONProvider
from flask.sessions import NullSession, SessionInterface
from flask_migrate import Migrate
from werkzeug.middleware.proxy_fix import ProxyFix

from config.development import new_signing_key
from config.logging import logging_dictionary
from config.refusal import ConfigurationError
from config.settings import DECLARED, VERSION, Settings, table
from config.start import refuse_to_start, settings_or_exit
from models import migrations
from models.base import db, driver_url, engine_options, init_database
from resources.account import account_pages
from resources.avatars import avatar_files
from resources.docs import docs
from resources.health import health
from resources.http.converters import IdConverter
from resources.http.cors import init_cors
from resources.http.deprecation import init_deprecation
from resources.http.envelope import init_envelope
from resources.http.limits import init_limits
from resources.http.problems import init_problems
from resources.oauth import oauth_pages
from resources.root import root
from resources.routes import version_1
from service import feed, passwords
from service.cli.commands import init_cli
from service.counters import Counters, SharedCounters
from service.tokens import KeyRing

MAX_BODY = 1_048_576  # Bytes; the longest post fits, even with every character of it escaped.


class OrjsonProvider(JSONProvider):
    """JSON by orjson, for the few views that return plain dicts."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return orjson.loads(s)


class NoSession(SessionInterface):
    """No session of Flask's: who asks is said by a token, and nothing else is remembered between requests."""

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self.make_null_session(app)

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Save nothing."""


class Rollcall(Flask):
    """A Flask application whose JSON is orjson's, and whose unhandled errors can be found by their request."""

    json_provider_class = OrjsonProvider
    session_interface = NoSession()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none here is asynchronous, and asking each at every request takes time."""
        return func

    def log_exception(self, exc_info: Any) -> None:
        """Log an unhandled error, once."""
        facts = {"request_id": g.get("request_id"), "method": request.method, "path": request.path}
        self.logger.error("unhandled error", exc_info=exc_info, extra=facts)


def create_app(settings: Settings | None = None) -> Flask:
    """Return the application; without settings, with those of the environment, or not at all (exit status 2)."""
    settings = settings or settings_or_exit()
    logging.config.dictConfig(logging_dictionary(settings.LOG_LEVEL, settings.LOG_TARGET))
    app = Rollcall("rollcall", static_folder=None)
    app.config.from_mapping(_configuration(settings))
    if settings.TRUSTED_PROXIES:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.TRUSTED_PROXIES, x_proto=settings.TRUSTED_PROXIES)
    app.url_map.converters["int"] = IdConverter
    app.url_map.merge_slashes = False
    app.extensions["key_ring"] = _key_ring(settings)
    app.extensions["new_signing_key"] = new_signing_key
    app.extensions["password_places"] = passwords.places(settings.THREADS)
    app.extensions["feed_places"] = feed.places(settings.THREADS)
    init_database(app)
    Migrate(app, db, directory=str(migrations.FOLDER))
    init_envelope(app)
    init_cors(app)
    init_deprecation(app)
    init_problems(app)
    init_limits(app, _counters(settings))
    init_cli(app)
    _init_broker(app)
    app.register_blueprint(version_1())
    app.register_blueprint(health)
    app.register_blueprint(root)
    app.register_blueprint(docs)
    app.register_blueprint(account_pages)
    app.register_blueprint(oauth_pages)
    app.register_blueprint(avatar_files)
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    """Return Flask's configuration: our settings by their own names, and what its extensions call theirs."""
    return {
        **{name: settings[name] for name in DECLARED},
        "TESTING": settings.TESTING,
        "VERSION": VERSION,
        "SETTINGS_TABLE": table(settings),
        "MAX_CONTENT_LENGTH": MAX_BODY,
        "SQLALCHEMY_DATABASE_URI": driver_url(settings.DATABASE_URL),
        "SQLALCHEMY_ENGINE_OPTIONS": engine_options(settings.DATABASE_URL, pool_size=settings.THREADS),
    }


def _init_broker(app: Flask) -> None:
    if app.config["CELERY_BROKER_URL"]:
        from service.jobs.broker import Broker  # An extra, without which those do who have no broker.

        app.extensions["broker"] = Broker(app)


def _counters(settings: Settings) -> Counters:
    """Return where requests are counted; the memory for it is made here, before the server forks its workers."""
    counters = SharedCounters()
    if settings.REDIS_URL:
        from service.redis_counters import RedisCounters  # An extra, without which those do who have no Redis.

        return RedisCounters(settings.REDIS_URL, counters)
    return counters


def _key_ring(settings: Settings) -> KeyRing:
    try:
        return KeyRing.load(settings.SIGNING_KEYS, issuer=settings.PUBLIC_URL)
    except (ValueError, OSError) as error:
        remedy = "use private EC P-256 keys in PEM."
        refuse_to_start(ConfigurationError([f"SIGNING_KEYS cannot be used ({error}): {remedy}"]))
