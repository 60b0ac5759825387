"""Settings: what is refused at the start, in which words, and what is never said."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from config import checks
from config.checks import check
from config.development import new_signing_key
from config.refusal import ConfigurationError
from config.settings import DECLARED, ENVIRONMENTS, INSTANCE, SECRET_SETTINGS, Settings, load, misspelled, table
from config.values import Rate
from models.migrations import upgrade_alone
from resources.app import create_app
from tests.processes import CHECK_CONFIG, DOCTOR, run

NOWHERE = Path("/nonexistent/.env")
SECRET = "hD4-uQx0f7pLw_9sVbE2yTzKc6RjNnAi"
SIGNING_KEY = new_signing_key()
PRODUCTION = {
    "APP_ENV": "production",
    "DATABASE_URL": "postgresql://app@db.example/users",
    "SECRET_KEY": SECRET,
    "SIGNING_KEYS": SIGNING_KEY,
    "PUBLIC_URL": "https://users.example.com",
    "REGISTRATION": "closed",
    "MAIL_URL": "smtp://mail.example:587",
}


def loaded(environ: Mapping[str, str] = {}, dotenv: Path = NOWHERE) -> Settings:
    return load({**PRODUCTION, **environ}, dotenv)


def refusals(environ: Mapping[str, str], dotenv: Path = NOWHERE) -> list[str]:
    try:
        check(load(environ, dotenv))
    except ConfigurationError as error:
        return error.refusals
    return []


def test_complete_settings_are_accepted():
    settings = loaded()

    check(settings)

    assert settings.APP_ENV == "production" and settings.REGISTRATION == "closed"
    assert settings.sources["SECRET_KEY"] == "environment" and settings.sources["PORT"] == "default"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("APP_ENV", "prodution", "is 'prodution': did you mean production?"),
        ("APP_ENV", "live", "is 'live': use one of development, testing, production."),
        ("SECRET_KEY", "", "is missing"),
        ("SECRET_KEY", SECRET[:31], "is too short"),
        ("SECRET_KEY", "abcdefghi" * 4, "can be guessed"),
        ("SECRET_KEY", "0123456789" * 4, "can be guessed"),
        ("SECRET_KEY", "changeme-" + SECRET, "can be guessed"),
        ("SECRET_KEY", "CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET_KEY", "can be guessed"),
        ("SECRET_KEY", "your-super-secret-jwt-token-with-at-least-32-characters-long", "can be guessed"),
        ("SECRET_KEY", "django-insecure-" + SECRET, "can be guessed"),
        ("SECRET_KEY", "dev-secret-key-for-my-laptop-only", "can be guessed"),
        ("CORS_ORIGINS", "*", "holds '*'"),
        ("CORS_ORIGINS", "null", "holds 'null'"),
        ("CORS_ORIGINS", "https://*.example.com", "holds 'https://*.example.com'"),
        ("CORS_ORIGINS", r"https://.*\.example\.com", "holds "),
        ("CORS_ORIGINS", "https://app.example.com/", "holds 'https://app.example.com/'"),
        ("CORS_ORIGINS", "https://App.example.com", "holds 'https://App.example.com'"),
        ("CORS_ORIGINS", "https://app.example.com\nhttps://b.example.com", "holds "),
        ("CORS_ORIGINS", "app.example.com", "holds 'app.example.com'"),
        ("CORS_ORIGINS", "https://good.example.com,http://app.example.com", "holds http://app.example.com"),
        ("DATABASE_URL", "", "is missing"),
        ("DATABASE_URL", "mysql://app@db/users", "is not understood"),
        ("DATABASE_URL", "sqlite://", "is not understood"),
        ("DATABASE_URL", "sqlite:///rollcall.db", "has a relative path"),
        ("DATABASE_URL", "sqlite:///:memory:", "has a relative path"),
        ("DATABASE_URL", "sqlite:////proc/rollcall.db", "cannot be written"),
        ("DATABASE_URL", f"sqlite:///{__file__}/rollcall.db", "cannot be written"),
        ("DATABASE_URL", "sqlite:////nonexistent/rollcall.db", "cannot be written"),
        ("DATABASE_URL", "sqlite:////tmp", "cannot be written"),
        ("DATABASE_URL", "postgresql://app@db:port/users", ""),
        ("DATABASE_URL", "postgresql://app:canary", ""),
        ("REGISTRATION", "", "is missing"),
        ("REGISTRATION", "anybody", "is 'anybody'"),
        ("SIGNING_KEYS", "", "is missing"),
        ("SIGNING_KEYS", "/nonexistent", "holds no *.pem file"),
        ("PUBLIC_URL", "", "is missing"),
        ("PUBLIC_URL", "http://users.example.com", "is plain http"),
        ("PUBLIC_URL", "https://users.example.com/", "is 'https://users.example.com/'"),
        ("PUBLIC_URL", "users.example.com", "is 'users.example.com'"),
        ("PUBLIC_URL", "https://[users", ""),
        ("ALLOWED_HOSTS", "users.example.com,*", "holds *"),
        ("COOKIE_SAMESITE", "none", "is 'none': use Strict, Lax or None."),
        ("COOKIE_SAMESITE", "", "is ''"),
        ("MAIL_URL", "", "is missing"),
        ("MAIL_URL", "sendmail:", "is not understood"),
        ("MAIL_URL", "file:", "is not understood"),
        ("MAIL_URL", "https://mail.example", "is not understood"),
        ("MAIL_URL", "smtp://mail.example:port", "is not understood"),
        ("MAIL_URL", "smtp:", "is not understood"),
        ("MAIL_URL", "smtp://[::1", "is not understood"),
        ("MAIL_FROM", "Rollcall", "is no address"),
        ("MAIL_FROM", "Rollcall <no-reply>", "is no address"),
        ("MAIL_FROM", "a@example.com, b@example.com", "is no address"),
        ("MAIL_FROM", "Rollcall\nBcc: <a@example.com>", "is no address"),
        ("STORAGE_URL", "files", "is not understood"),
        ("STORAGE_URL", "file:", "is not understood"),
        ("STORAGE_URL", "file://files", "is not understood"),
        ("STORAGE_URL", "file:///srv/files?x=y", "is not understood"),
        ("STORAGE_URL", "file:///proc/files", "cannot be written"),
        ("STORAGE_URL", f"file://{__file__}", "cannot be written"),
        ("STORAGE_URL", f"file://{__file__}/files", "cannot be written"),
        ("STORAGE_URL", "https://bucket.example", "is not understood"),
        ("STORAGE_URL", "s3:", "is not understood"),
        ("STORAGE_URL", "s3://Bucket_", "is not understood"),
        ("STORAGE_URL", "s3://bucket?acl=public-read", "is not understood"),
        ("STORAGE_URL", "s3://bucket?endpoint=files.example", "is not understood"),
        ("STORAGE_URL", "s3://bucket?endpoint=", "is not understood"),
        ("STORAGE_URL", "s3://bucket?region=", "is not understood"),
        ("STORAGE_URL", "s3://bucket?endpoint=https://[::1", "is not understood"),
        ("CELERY_BROKER_URL", "sqs://key:canary@queue", "is not understood"),
        ("CELERY_BROKER_URL", "redis", "is not understood"),
        ("CELERY_BROKER_URL", "amqp:///", "is not understood"),
        ("CELERY_BROKER_URL", "redis://broker:port/0", "is not understood"),
        ("RATE_LIMIT_KEY", "600", "is '600': use a form such as 600/minute"),
        ("RATE_LIMIT_USER", "0/minute", "is '0/minute'"),
        ("RATE_LIMIT_USER", "-1/minute", "is '-1/minute'"),
        ("RATE_LIMIT_USER", "1.5/second", "is '1.5/second'"),
        ("RATE_LIMIT_USER", "1000000000/day", "is '1000000000/day'"),
        ("RATE_LIMIT_ADDRESS", "60/Minute", "is '60/Minute'"),
        ("RATE_LIMIT_ADDRESS", "٦٠/minute", "is '٦٠/minute'"),
        ("RATE_LIMIT_COSTLY", "5 per minute", "is '5 per minute'"),
        ("REDIS_URL", "redis", "is not understood"),
        ("REDIS_URL", "redis://", "is not understood"),
        ("REDIS_URL", "redis:///0", "is not understood"),
        ("REDIS_URL", "redis://cache:port/0", "is not understood"),
        ("REDIS_URL", "redis://cache/users", "is not understood"),
        ("REDIS_URL", "redis://cache/0?socket_timeout=60", "is not understood"),
        ("REDIS_URL", "http://canary@cache", "is not understood"),
        ("WEBHOOK_ALLOWED_HOSTS", "127.0.0.1", "is for development"),
        ("LOG_LEVEL", "verbose", "is 'verbose'"),
        ("LOG_TARGET", "file:log", "is 'file:log'"),
        ("PORT", "0", "is 0: use 1 to 65535."),
        ("PORT", "65536", "is 65536: use 1 to 65535."),
        ("PORT", "http", "is 'http': use a whole number."),
        ("PORT", "٨٠", "is '٨٠': use a whole number."),
        ("PORT", "-1", "is '-1': use a whole number."),
        ("PORT", "8000.0", "is '8000.0': use a whole number."),
        ("PORT", "", "is '': use a whole number."),
        ("THREADS", "257", "is 257: use 1 to 256."),
        ("WEB_CONCURRENCY", "0", "is 0: use 1 to 256."),
        ("TRUSTED_PROXIES", "11", "is 11: use 0 to 10."),
        ("PASSWORD_MIN_LENGTH", "7", "is 7: use 8 to 128."),
        ("REQUIRE_IF_MATCH", "yes", "is 'yes': use true or false."),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_the_variable(variable, value, said):
    (line,) = refusals({**PRODUCTION, variable: value})

    assert line.startswith(f"{variable} ") and said in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "missing", ["DATABASE_URL", "MAIL_URL", "PUBLIC_URL", "REGISTRATION", "SECRET_KEY", "SIGNING_KEYS"]
)
def test_production_has_no_default_for_what_matters(missing):
    (line,) = refusals({name: value for name, value in PRODUCTION.items() if name != missing})

    assert line.startswith(f"{missing} is missing")


def test_every_fault_is_told_at_once():
    lines = refusals({**PRODUCTION, "PUBLIC_URL": "http://users.example.com", "THREADS": "0", "SECRET_KEY": "short"})

    assert {line.split()[0] for line in lines} == {"PUBLIC_URL", "SECRET_KEY", "THREADS"}


@pytest.mark.parametrize(
    "variables",
    [
        {"CORS_ORIGINS": "https://app.example.com, https://[::1]:8443,https://xn--bcher-kva.example"},
        {"SECRET_KEY": "dEvh" + SECRET},
        {"DATABASE_URL": "postgres://app:can/ary@db/users"},
        {"APP_ENV": "testing", "PUBLIC_URL": "http://localhost:8000", "CORS_ORIGINS": "http://localhost:3000"},
        {"LOG_TARGET": "file:///var/log/rollcall.log"},
        {"REGISTRATION": "open"},
        {"REGISTRATION": "confirmed"},
        {"COOKIE_SAMESITE": "Strict"},
        {"COOKIE_SAMESITE": "None"},
        {"MAIL_URL": "smtp://me:can%2Fary@[::1]:587"},
        {"MAIL_URL": "file:///var/mail/rollcall"},
        {"MAIL_URL": "console:"},
        {"STORAGE_URL": ""},
        {"STORAGE_URL": "file:///tmp"},
        {"STORAGE_URL": "file:///tmp/not%20yet/there"},
        {"STORAGE_URL": "s3://bucket"},
        {"STORAGE_URL": "s3://my.bucket/a/prefix?region=eu-central-1"},
        {"STORAGE_URL": "s3://bucket?endpoint=http://minio:9000&region=local"},
        {"CELERY_BROKER_URL": "redis://:can%2Fary@broker.example:6379/1"},
        {"CELERY_BROKER_URL": "amqp://app:canary@broker.example//"},
        {"RATE_LIMIT_USER": "1/second"},
        {"RATE_LIMIT_KEY": "999999999/day", "RATE_LIMIT_ADDRESS": "", "RATE_LIMIT_COSTLY": "60/hour"},
        {"REDIS_URL": "redis://cache"},
        {"REDIS_URL": "redis://:can%2Fary@[::1]:6379/1"},
        {"REDIS_URL": "rediss://app:canary@cache.example:6380/"},
        {"MAIL_FROM": "no-reply@example.com"},
        {"MAIL_FROM": "Rollcall of Bücher <no-reply@example.com>"},
    ],
)
def test_a_good_value_is_accepted(variables):
    assert refusals({**PRODUCTION, **variables}) == []


@pytest.mark.parametrize("place", ["http://localhost", "Localhost", "localhost:port", "*", "local host", "::1"])
def test_a_host_that_webhooks_may_call_is_a_name_with_or_without_a_port(place):
    good = "localhost,127.0.0.1:5000,[::1]:5000"

    (line,) = refusals({**PRODUCTION, "APP_ENV": "development", "WEBHOOK_ALLOWED_HOSTS": f"{good},{place}"})

    assert line == f"WEBHOOK_ALLOWED_HOSTS holds {place!r}: write host or host:port, in small letters."


@pytest.mark.parametrize(("scheme", "missing"), [("redis", "celery"), ("amqp", "celery"), ("redis", "redis")])
def test_a_broker_needs_the_packages_for_it(monkeypatch, scheme, missing):
    monkeypatch.setattr(checks, "find_spec", lambda name: name != missing)

    lines = refusals({**PRODUCTION, "CELERY_BROKER_URL": f"{scheme}://broker.example"})

    assert lines == [
        "CELERY_BROKER_URL names a broker, for which celery is missing: install rollcall with its extra celery."
    ]


def test_a_redis_needs_the_package_for_it(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: name != "redis")

    lines = refusals({**PRODUCTION, "REDIS_URL": "redis://:canary@cache.example"})

    assert lines == [
        "REDIS_URL names a Redis, for which its package is missing: install rollcall with its extra redis."
    ]


@pytest.mark.parametrize(
    ("text", "requests", "seconds"),
    [("5/second", 5, 1), ("600/minute", 600, 60), ("7/hour", 7, 3600), ("8/day", 8, 86_400)],
)
def test_a_rate_is_written_as_it_is_read(text, requests, seconds):
    rate = loaded({"RATE_LIMIT_USER": text}).RATE_LIMIT_USER

    assert (rate.requests, rate.seconds, str(rate)) == (requests, seconds, text)


def test_an_empty_rate_limits_nothing():
    settings = loaded({"RATE_LIMIT_USER": ""})

    assert not settings.RATE_LIMIT_USER
    assert {row[0]: row[1] for row in table(settings)}["RATE_LIMIT_USER"] == ""


def test_everything_is_limited_unless_it_is_a_test():
    limits = [name for name in DECLARED if name.startswith("RATE_LIMIT_")]

    assert len(limits) == 4
    assert all(loaded()[name] and loaded({"APP_ENV": "development"})[name] for name in limits)
    assert not any(loaded({"APP_ENV": "testing"})[name] for name in limits)


def test_celery_without_a_broker_is_refused_in_one_line(migrated_sqlite):
    ended = run("celery", "-A", "worker", "worker", DATABASE_URL=migrated_sqlite)

    assert ended.returncode == 1
    assert one_line(ended.stderr).startswith("rollcall: CELERY_BROKER_URL is missing")


@pytest.mark.parametrize(
    ("public_url", "host"),
    [
        ("https://users.example.com", "users.example.com"),
        ("https://users.example.com:8443/accounts", "users.example.com"),
        ("https://[2001:db8::1]:8443", "[2001:db8::1]"),
    ],
)
def test_the_public_address_is_always_answered_and_mail_comes_from_there(public_url, host):
    settings = loaded({"PUBLIC_URL": public_url})

    assert settings.ALLOWED_HOSTS[0] == host
    assert f"Rollcall <no-reply@{host}>" == settings.MAIL_FROM


def test_a_bucket_needs_its_extra(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)

    (line,) = refusals({**PRODUCTION, "STORAGE_URL": "s3://bucket"})

    assert line == "STORAGE_URL names a bucket, for which boto3 is missing: install rollcall with its extra s3."
    assert refusals({**PRODUCTION, "STORAGE_URL": "file:///tmp"}) == []


def test_only_development_keeps_files_without_being_told_where():
    assert loaded().STORAGE_URL == ""
    assert (INSTANCE / "files").as_uri() == loaded({"APP_ENV": "development"}).STORAGE_URL


@pytest.mark.parametrize("ending", ["\n", "\r\n", "  "])
def test_space_around_a_value_does_not_count(tmp_path, ending):
    file = tmp_path / "secret"
    file.write_text(SECRET + ending)
    without = {name: value for name, value in PRODUCTION.items() if name != "SECRET_KEY"}

    from_environment = load({**without, "SECRET_KEY": SECRET + ending}, NOWHERE)
    from_file = load({**without, "SECRET_KEY_FILE": str(file)}, NOWHERE)

    assert from_environment.SECRET_KEY == from_file.SECRET_KEY == SECRET
    assert from_file.sources["SECRET_KEY"] == str(file)


@pytest.mark.parametrize("name", sorted(set(DECLARED) - {"APP_ENV"}))
def test_every_setting_can_be_read_from_a_file(tmp_path, name):
    text = {int: "8", bool: "true", Rate: "8/hour"}.get(DECLARED[name].__origin__, "a text")
    (tmp_path / "value").write_text(f"{text}\n")
    environ = {key: value for key, value in PRODUCTION.items() if key != name}

    settings = load({**environ, f"{name}_FILE": str(tmp_path / "value")}, NOWHERE)

    assert settings[name] in (8, True, Rate(8, "hour"), "a text", ("a text",))


def test_a_setting_given_twice_is_refused(tmp_path):
    (tmp_path / "secret").write_text(SECRET)

    lines = refusals({**PRODUCTION, "SECRET_KEY_FILE": str(tmp_path / "secret")})

    assert lines == ["SECRET_KEY is set twice: unset it or SECRET_KEY_FILE."]


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "FileNotFoundError"), (b"\xff\xfe", "UnicodeDecodeError")], ids=["gone", "binary"]
)
def test_an_unreadable_file_is_refused(tmp_path, content, reason):
    if content:
        (tmp_path / "secret").write_bytes(content)
    environ = {name: value for name, value in PRODUCTION.items() if name != "SECRET_KEY"}

    lines = refusals({**environ, "SECRET_KEY_FILE": str(tmp_path / "secret")})

    assert lines == [f"SECRET_KEY cannot be read from the file that SECRET_KEY_FILE names: {reason}."]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o666])
def test_a_signing_key_that_others_can_read_is_refused(tmp_path, mode):
    key = tmp_path / "0001.pem"
    key.write_text(SIGNING_KEY)
    key.chmod(mode)

    (line,) = refusals({**PRODUCTION, "SIGNING_KEYS": str(tmp_path)})

    assert line == f"SIGNING_KEYS: {key} can be read by others: chmod 600 it."


def test_a_signing_key_that_only_its_owner_can_read_is_accepted(tmp_path):
    key = tmp_path / "0001.pem"
    key.touch(0o600)
    key.write_text(SIGNING_KEY)

    assert refusals({**PRODUCTION, "SIGNING_KEYS": str(tmp_path)}) == []


def test_a_signing_key_that_leads_nowhere_is_refused(tmp_path):
    (tmp_path / "0001.pem").symlink_to(tmp_path / "gone")

    (line,) = refusals({**PRODUCTION, "SIGNING_KEYS": str(tmp_path)})

    assert line.startswith("SIGNING_KEYS")


def test_dotenv_serves_development_and_the_environment_wins(tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=9000\nTHREADS=3\n")

    settings = loaded({"APP_ENV": "development", "THREADS": "4"}, dotenv)

    assert (settings.PORT, settings.THREADS) == (9000, 4)


def test_dotenv_is_refused_in_production(tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("")

    (line,) = refusals(PRODUCTION, dotenv)

    assert line.startswith(".env is for development")


@pytest.mark.parametrize("name", [".env", ".flaskenv"])
def test_production_takes_no_dotenv_from_where_it_is_run(tmp_path, name):
    (tmp_path / name).write_text("PASSWORD_MIN_LENGTH=77\n")

    ended = run(*DOCTOR, folder=tmp_path, **PRODUCTION)

    assert "77" not in ended.stdout


@pytest.mark.parametrize("place", [".env", "APP_ENV_FILE"])
def test_the_environment_and_its_defaults_never_disagree(tmp_path, place):
    file, environ = tmp_path / "file", {name: value for name, value in PRODUCTION.items() if name != "APP_ENV"}
    file.write_text("APP_ENV=production" if place == ".env" else "production")

    try:
        settings = load(environ, file) if place == ".env" else load({**environ, place: str(file)}, NOWHERE)
    except ConfigurationError:
        return

    assert isinstance(settings, ENVIRONMENTS[settings.APP_ENV])


def test_a_misspelled_variable_is_warned_of():
    warnings = misspelled({"REGISTRATON": "open", "SECRET_KEY_FILES": "x", "PATH": "/bin", "HOME": "/", "LANG": "C"})

    assert warnings == [
        "REGISTRATON is not a setting: did you mean REGISTRATION?",
        "SECRET_KEY_FILES is not a setting: did you mean SECRET_KEY_FILE?",
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SECRET_KEY", "canary"),
        ("SECRET_KEY", "canarycanarycanarycanarycanarycanary"),
        ("SECRET_KEY", "changeme-canary-0123456789-abcdefghij"),
        ("DATABASE_URL", "mysql://app:canary@db/users"),
        ("DATABASE_URL", "postgresql://app:canary"),
        ("DATABASE_URL", "postgresql//app:canary@db/users"),
        ("DATABASE_URL", "sqlite:///relative?key=canary"),
        ("MAIL_URL", "imap://me:canary@mail.example"),
        ("MAIL_URL", "smtp://me:canary@[::1"),
        ("STORAGE_URL", "s3://key:canary@bucket"),
        ("STORAGE_URL", "s3://bucket?endpoint=https://key:canary@files.example"),
        ("STORAGE_URL", "s3://bucket?secret=canary"),
        ("CELERY_BROKER_URL", "sqs://key:canary@queue"),
        ("CELERY_BROKER_URL", "redis://:canary@[::1"),
        ("SIGNING_KEYS", '"-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----"'),
        ("SIGNING_KEYS", "MIGHAgEAMBMGByqGSMcanary"),
        ("SIGNING_KEYS", "canary" * 100),
    ],
)
def test_a_refusal_does_not_say_the_secret(variable, value):
    (line,) = refusals({**PRODUCTION, variable: value})

    assert line.startswith(variable)
    assert "canary" not in line


@pytest.mark.parametrize("pem", ["canary", "-----BEGIN CANARY-----\ncanary\n-----END CANARY-----", "encrypted"])
def test_a_key_that_cannot_be_used_is_refused_in_one_line_without_it(tmp_path, pem):
    if pem == "encrypted":
        pem = ENCRYPTED
    if not pem.startswith("-----BEGIN"):
        (tmp_path / "0001.pem").touch(0o600)
        (tmp_path / "0001.pem").write_text(pem)
        pem = str(tmp_path)

    ended = run(*CHECK_CONFIG, SIGNING_KEYS=pem)

    assert ended.returncode == 2
    assert one_line(ended.stderr).startswith("rollcall: SIGNING_KEYS cannot be used")
    assert "canary" not in ended.stderr.lower() and "MHcC" not in ended.stderr


def test_the_table_hides_every_secret():
    looks_secret = {
        name for name in DECLARED if re.search(r"((?<!RATE_LIMIT_)KEYS?|PASSWORD|SECRET|TOKEN|(?<!PUBLIC)_URL)$", name)
    }
    settings = loaded()
    for name in looks_secret:
        setattr(settings, name, "canary")

    rows = {name: value for name, value, _, _ in table(settings)}

    assert looks_secret <= SECRET_SETTINGS
    assert {rows[name] for name in SECRET_SETTINGS} == {"(hidden)"}
    assert "canary" not in str(rows)


def test_every_setting_is_documented_in_one_sentence():
    capitals = {name for kind in (Settings, *ENVIRONMENTS.values()) for name in vars(kind) if name.isupper()}

    meanings = {name: meaning for name, _, _, meaning in table(loaded())}

    assert capitals - {"TESTING"} == set(DECLARED) == set(meanings)
    for meaning in meanings.values():
        assert re.fullmatch(r"\S.{9,}\S\.", meaning)


@pytest.mark.parametrize("command", [DOCTOR, CHECK_CONFIG], ids=["flask", "gunicorn"])
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("APP_ENV", "prodution", "APP_ENV is 'prodution': did you mean production?"),
        ("SECRET_KEY", "canary", "SECRET_KEY is too short"),
        ("PORT", "http", "PORT is 'http': use a whole number."),
        ("LOG_TARGET", "file:///nonexistent/rollcall.log", "LOG_TARGET"),
    ],
)
def test_a_bad_setting_ends_the_process_with_status_2_and_one_line(command, variable, value, said):
    ended = run(*command, **{variable: value})

    assert ended.returncode == 2
    assert one_line(ended.stderr).startswith(f"rollcall: {said}")
    assert ended.stdout == "" and "canary" not in ended.stderr


def test_good_settings_pass_the_check_of_gunicorn(migrated_sqlite):
    ended = run(*CHECK_CONFIG, DATABASE_URL=migrated_sqlite)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_doctor_lists_every_setting_and_no_secret(migrated_sqlite):
    secrets = {"SECRET_KEY": SECRET, "ADMIN_PASSWORD": "canary password"}

    ended = run(*DOCTOR, DATABASE_URL=migrated_sqlite, REGISTRATON="open", **secrets)

    assert ended.returncode == 0
    assert ended.stdout.endswith("All is well.\n")
    assert one_line(ended.stderr) == "rollcall: REGISTRATON is not a setting: did you mean REGISTRATION?"
    for name, hint in DECLARED.items():
        assert re.search(rf"^{name} .+\[\S+\]\n +{re.escape(hint.__metadata__[0])}$", ended.stdout, re.MULTILINE)
    for secret in (*secrets.values(), "PRIVATE KEY", migrated_sqlite):
        assert secret not in ended.stdout


def test_doctor_says_when_the_database_is_not_there(tmp_path):
    ended = run(*DOCTOR, DATABASE_URL=f"sqlite:///{tmp_path}/rollcall.db")

    assert ended.returncode == 1
    assert one_line(ended.stderr).endswith(": The database cannot be reached.")


@pytest.fixture
def migrated_sqlite(tmp_path, settings_for) -> str:
    """Return the URL of a SQLite database at the newest revision."""
    url = f"sqlite:///{tmp_path}/rollcall.db"
    app = create_app(settings_for(url))
    with app.app_context():
        upgrade_alone(app.config["SQLALCHEMY_DATABASE_URI"])
    return url


def one_line(text: str) -> str:
    """Return a text that is a single line, without its end."""
    assert text.count("\n") == 1 and text.endswith("\n"), text
    return text.rstrip("\n")


# A key under a passphrase, which nobody can type into a server.
ENCRYPTED = """-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,F8B9F72B5025813FC263E17E6B8F6843

VFaQ6IOfnHpWoc/cyCH0b7QqaohtFtJG+CWBPv84eByzkhOGRWENP5H13cEJgbF+
bwN/BGw4bpWeF8/kY1dQItOiqrk8uOwfvkViQomaOp0uTSpPhcCiKVh6H0++pxxc
A9SIhymssBjzh3QisozN2vn3HTmwcddXyFd888/l4I0=
-----END EC PRIVATE KEY-----
"""


def test_hosts_are_the_same_in_any_case():
    assert loaded({"ALLOWED_HOSTS": "API.Example.com"}).ALLOWED_HOSTS == ("api.example.com",)
    assert loaded({"PUBLIC_URL": "https://API.Example.com"}).ALLOWED_HOSTS[0] == "api.example.com"
