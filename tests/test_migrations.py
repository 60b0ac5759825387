"""Migrations: up, down, up again with data in place, by several processes at once, and killed half-way."""

import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask_migrate
import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import MetaData, create_engine, inspect, select, text
from sqlalchemy.pool import NullPool

from models import migrations
from models.base import db
from service.readiness import check as check_readiness
from tests.databases import application, migrate, new_database
from tests.processes import command_at_once, environment, run
from tests.servers import ROOT, free_port

# What a database of some age may hold: rows to add right after a revision.
WRITTEN_AT = {
    "0001": [
        "INSERT INTO users (id, email, email_key, name, name_key, role, is_active, email_verified, public_metadata,"
        " private_metadata, version, created_at, updated_at) VALUES"
        " (7, 'Ada@example.com', 'ada@example.com', 'Ada', 'ada', 'admin', true, true, '{\"a\": 1.0}', '{}', 3,"
        " '2026-01-31 12:00:00.000001', '2026-01-31 12:00:00.000001')",
        "INSERT INTO posts (id, user_id, title, content, version, created_at, updated_at) VALUES"
        " (8, 7, 'A title', 'Some words', 1, '2026-01-31 12:00:00', '2026-01-31 12:00:00')",
        "INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES"
        " (9, 7, '2026-01-31 12:00:00', '2036-01-31 12:00:00')",
    ],
    "0002": [
        "INSERT INTO users (id, email, email_key, name, name_key, role, is_active, email_verified, public_metadata,"
        " private_metadata, version, created_at, updated_at) VALUES"
        " (17, 'bea@example.com', 'bea@example.com', 'Bea', 'bea', 'member', false, false, '{}', '{}', 1,"
        " '2026-02-28 12:00:00', '2026-02-28 12:00:00')",
        "INSERT INTO posts (id, user_id, title, content, version, created_at, updated_at) VALUES"
        " (18, 17, 'A title', 'Some words', 1, '2026-02-28 12:00:00', '2026-02-28 12:00:00')",
        "INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES"
        " (19, 17, '2026-02-28 12:00:00', '2036-01-31 12:00:00')",
    ],
    "0003": [
        "INSERT INTO users (id, email, email_key, name, name_key, role, is_active, email_verified, public_metadata,"
        " private_metadata, version, created_at, updated_at, deleted_at) VALUES"
        " (27, 'cyd@example.com', 'cyd@example.com', 'Cyd', 'cyd', 'support', true, false, '{}', '{}', 2,"
        " '2026-03-31 12:00:00', '2026-03-31 12:00:00', '2026-03-31 12:00:00')",
        "INSERT INTO posts (id, user_id, title, content, version, created_at, updated_at) VALUES"
        " (28, 27, 'A title', 'Some words', 1, '2026-03-31 12:00:00', '2026-03-31 12:00:00')",
        "INSERT INTO sessions (id, user_id, amr, transport, remember, address, network, user_agent, created_at,"
        " last_used_at, idle_expires_at, expires_at) VALUES"
        " (29, 27, '[\"pwd\"]', 'cookie', true, '203.0.113.7', '203.0.113.7', 'Firefox', '2026-03-31 12:00:00',"
        " '2026-03-31 13:00:00', '2036-03-31 12:00:00', '2036-03-31 12:00:00')",
        "INSERT INTO refresh_tokens (id, session_id, token_hash, created_at) VALUES"
        " (30, 29, 'a hash', '2026-03-31 12:00:00')",
        "INSERT INTO one_time_tokens (id, purpose, user_id, email, email_key, details, token_hash, code_hash,"
        " created_at, expires_at) VALUES"
        " (31, 'change_email', 27, 'Cyd@example.org', 'cyd@example.org', '{\"session_id\": 29}', 'a hash', 'another',"
        " '2026-03-31 12:00:00', '2036-03-31 12:00:00')",
        "INSERT INTO throttles (id, key, attempts, refused_until, seen_at) VALUES"
        " (32, 'a mark', 6, '2026-03-31 12:00:10', '2026-03-31 12:00:00')",
        "INSERT INTO jobs (id, kind, user_id, email_key, arguments, attempts, run_at, created_at) VALUES"
        " (33, 'verify_email', 27, NULL, '{}', 1, '2026-03-31 12:00:05', '2026-03-31 12:00:00')",
        "INSERT INTO events (id, type, user_id, actor_id, session_id, request_id, address, data, created_at) VALUES"
        " (34, 'session.created', 27, 27, 29, 'request-00000034', '203.0.113.7', '{\"session\": 29}',"
        " '2026-03-31 12:00:00')",
    ],
    "0004": [
        "INSERT INTO users (id, email, email_key, name, name_key, role, is_active, email_verified, public_metadata,"
        " private_metadata, version, created_at, updated_at) VALUES"
        " (47, 'dan@example.com', 'dan@example.com', 'Dan', 'dan', 'admin', true, true, '{}', '{}', 1,"
        " '2026-04-30 12:00:00', '2026-04-30 12:00:00')",
        "INSERT INTO posts (id, user_id, title, content, version, created_at, updated_at) VALUES"
        " (48, 47, 'A title', 'Some words', 1, '2026-04-30 12:00:00', '2026-04-30 12:00:00')",
        "INSERT INTO sessions (id, user_id, amr, transport, remember, created_at, last_used_at, idle_expires_at,"
        " expires_at) VALUES (49, 47, '[]', 'body', false, '2026-04-30 12:00:00', '2026-04-30 12:00:00',"
        " '2036-04-30 12:00:00', '2036-04-30 12:00:00')",
        "INSERT INTO jobs (id, kind, lane, arguments, attempts, leased, run_at, created_at) VALUES"
        " (50, 'deliver', 'webhook 52', '{\"delivery_id\": 53}', 1, true, '2026-04-30 12:00:05',"
        " '2026-04-30 12:00:00')",
        "INSERT INTO events (id, position, type, user_id, subject_id, version, data, created_at) VALUES"
        " (51, 40, 'user.created', 47, 47, 1, '{}', '2026-04-30 12:00:00')",
        "INSERT INTO webhooks (id, url, description, event_types, creator_id, position, secret_serial, version,"
        " created_at, updated_at) VALUES"
        " (52, 'https://example.com/hook', '', '[\"*\"]', 47, 40, 1, 1, '2026-04-30 12:00:00',"
        " '2026-04-30 12:00:00')",
        "INSERT INTO deliveries (id, webhook_id, event_id, state, attempts, created_at) VALUES"
        " (53, 52, 51, 'pending', 1, '2026-04-30 12:00:00')",
    ],
    "0005": [
        "INSERT INTO users (id, email, email_key, name, name_key, role, is_active, email_verified, public_metadata,"
        " private_metadata, version, created_at, updated_at) VALUES"
        " (67, 'eve@example.com', 'eve@example.com', 'Eve', 'eve', 'admin', true, true, '{}', '{}', 1,"
        " '2026-05-31 12:00:00', '2026-05-31 12:00:00')",
        "INSERT INTO posts (id, user_id, title, content, version, created_at, updated_at) VALUES"
        " (68, 67, 'A title', 'Some words', 1, '2026-05-31 12:00:00', '2026-05-31 12:00:00')",
        "INSERT INTO sessions (id, user_id, amr, transport, remember, created_at, last_used_at, idle_expires_at,"
        " expires_at) VALUES (69, 67, '[]', 'body', false, '2026-05-31 12:00:00', '2026-05-31 12:00:00',"
        " '2036-05-31 12:00:00', '2036-05-31 12:00:00')",
        "INSERT INTO webhooks (id, url, description, event_types, creator_id, position, secret_serial, version,"
        " created_at, updated_at) VALUES"
        " (72, 'https://example.com/hook', '', '[\"*\"]', 67, 60, 1, 1, '2026-05-31 12:00:00',"
        " '2026-05-31 12:00:00')",
        "INSERT INTO avatars (id, user_id, state, upload, name, created_at, updated_at) VALUES"
        " (74, 67, 'processing', 'an upload', 'a name', '2026-05-31 12:00:00', '2026-05-31 12:00:00')",
    ],
    "0006": [
        "INSERT INTO users (id, email, email_key, name, name_key, role, is_active, email_verified, public_metadata,"
        " private_metadata, version, created_at, updated_at) VALUES"
        " (87, 'fay@example.com', 'fay@example.com', 'Fay', 'fay', 'admin', true, true, '{}', '{}', 1,"
        " '2026-06-30 12:00:00', '2026-06-30 12:00:00')",
        "INSERT INTO posts (id, user_id, title, content, version, created_at, updated_at) VALUES"
        " (88, 87, 'A title', 'Some words', 1, '2026-06-30 12:00:00', '2026-06-30 12:00:00')",
        "INSERT INTO sessions (id, user_id, amr, transport, remember, created_at, last_used_at, idle_expires_at,"
        " expires_at) VALUES (89, 87, '[]', 'body', false, '2026-06-30 12:00:00', '2026-06-30 12:00:00',"
        " '2036-06-30 12:00:00', '2036-06-30 12:00:00')",
        "INSERT INTO webhooks (id, url, description, event_types, creator_id, position, secret_serial, version,"
        " created_at, updated_at) VALUES"
        " (90, 'https://example.com/hook', '', '[\"*\"]', 87, 60, 1, 1, '2026-06-30 12:00:00',"
        " '2026-06-30 12:00:00')",
        "INSERT INTO avatars (id, user_id, state, upload, name, created_at, updated_at) VALUES"
        " (91, 87, 'processing', 'another upload', 'another name', '2026-06-30 12:00:00', '2026-06-30 12:00:00')",
        "INSERT INTO service_accounts (id, name, scopes, maker_id, version, created_at, updated_at) VALUES"
        " (92, 'Payroll', '[\"users:read\"]', 87, 1, '2026-06-30 12:00:00', '2026-06-30 12:00:00')",
        "INSERT INTO api_keys (id, service_account_id, prefix, key_hash, created_at) VALUES"
        " (93, 92, 'rk_12345678', 'a hash', '2026-06-30 12:00:00')",
        "INSERT INTO oauth_tokens (id, key_id, scopes, created_at, expires_at) VALUES"
        " (96, 93, '[\"users:read\"]', '2026-06-30 12:00:00', '2026-06-30 12:15:00')",
        "INSERT INTO events (id, position, type, service_account_id, key_id, data, created_at) VALUES"
        " (94, 90, 'user.created', 92, 93, '{}', '2026-06-30 12:00:00')",
        "INSERT INTO idempotency_keys (id, key, fingerprint, user_id, status, headers, body, created_at) VALUES"
        " (95, 'a mark', 'another', 87, 201, '{}', '{}', '2026-06-30 12:00:00')",
    ],
    "0007": [
        "INSERT INTO users (id, email, email_key, name, name_key, role, is_active, email_verified, public_metadata,"
        " private_metadata, version, created_at, updated_at) VALUES"
        " (107, 'gus@example.com', 'gus@example.com', 'Gus', 'gus', 'admin', true, true, '{}', '{}', 1,"
        " '2026-07-31 12:00:00', '2026-07-31 12:00:00')",
        "INSERT INTO posts (id, user_id, title, content, version, created_at, updated_at) VALUES"
        " (108, 107, 'A title', 'Some words', 1, '2026-07-31 12:00:00', '2026-07-31 12:00:00')",
        "INSERT INTO sessions (id, user_id, amr, transport, remember, created_at, last_used_at, idle_expires_at,"
        " expires_at) VALUES (109, 107, '[]', 'body', false, '2026-07-31 12:00:00', '2026-07-31 12:00:00',"
        " '2036-07-31 12:00:00', '2036-07-31 12:00:00')",
        "INSERT INTO deprecated_calls (id, day, operation, key_id, user_id, calls, last_at) VALUES"
        " (110, '2026-07-31', 'GET /api/v1/users', 93, 0, 12, '2026-07-31 12:00:00')",
    ],
}
# A later revision, as `flask db migrate` would write it: on SQLite it rebuilds the table that others refer to.
REBUILD = '''"""Longer names."""

import sqlalchemy as sa
from alembic import op

revision = "9998"
down_revision = "{head}"


def upgrade():
    with op.batch_alter_table("users") as batch:
        batch.alter_column("name", type_=sa.String(90), existing_type=sa.String(80), existing_nullable=False)


def downgrade():
    with op.batch_alter_table("users") as batch:
        batch.alter_column("name", type_=sa.String(80), existing_type=sa.String(90), existing_nullable=False)
'''
# One that is stopped in the middle.
STOPPED = '''"""A half."""

import os
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "9998"


def upgrade():
    op.create_table("halves", sa.Column("id", sa.Integer(), primary_key=True))
    op.execute("UPDATE users SET name = 'Changed'")
    {stop}


def downgrade():
    op.drop_table("halves")
'''


@pytest.fixture
def fresh(database_kind, make_database, settings_for) -> Iterator[Flask]:
    """Return an application on an empty database of its own."""
    url = new_database(make_database, database_kind)
    with application(settings_for(url), migrated=False) as fresh, fresh.app_context():
        yield fresh


@pytest.fixture
def later(tmp_path) -> Path:
    """Return the folder of a history that goes on after ours, by a revision that rebuilds users."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrations.FOLDER, folder)
    (folder / "versions" / "9998.py").write_text(REBUILD.format(head=migrations.head()))
    return folder


def revisions(folder: Path = migrations.FOLDER) -> list[str]:
    """Return a history from its beginning to its end."""
    return [script.revision for script in ScriptDirectory(str(folder)).walk_revisions()][::-1]


def tables() -> dict[str, Any]:
    """Describe the schema as the database tells it."""
    with db.engine.connect() as connection:
        inspector = inspect(connection)
        return {
            name: {
                "columns": {column["name"]: f"{column['type']} {column['nullable']}" for column in columns},
                "indexes": sorted(
                    f"{index['name']} {index['column_names']} {index['unique']} {has_condition(index)}"
                    for index in inspector.get_indexes(name)
                ),
                "foreign_keys": [str(sorted(key.items())) for key in inspector.get_foreign_keys(name)],
                "checks": sorted(str(check["name"]) for check in inspector.get_check_constraints(name)),
                "key": inspector.get_pk_constraint(name)["constrained_columns"],
            }
            for (_, name), columns in inspector.get_multi_columns().items()
        }


def has_condition(index: Any) -> bool:
    return any(option.endswith("_where") and value is not None for option, value in index["dialect_options"].items())


def rows() -> dict[str, list[dict[str, Any]]]:
    """Read every row of every table but Alembic's."""
    metadata = MetaData()
    with db.engine.connect() as connection:
        metadata.reflect(connection)
        return {
            table.name: [dict(row) for row in connection.execute(select(table).order_by(table.c.id)).mappings()]
            for table in metadata.sorted_tables
            if table.name != "alembic_version"
        }


def write_at(revision: str) -> None:
    with db.engine.begin() as connection:
        for statement in WRITTEN_AT[revision]:
            connection.execute(text(statement.replace(":", r"\:")))


def survived(before: dict[str, list[dict[str, Any]]]) -> bool:
    """Tell whether every row is still there, with the values that it had in columns which are still there."""
    after = rows()
    return all(
        len(after[table]) == len(old)
        and all(row[name] == value for was, row in zip(old, after[table], strict=True) for name, value in was.items())
        for table, old in before.items()
    )


def test_the_history_is_one_line():
    script = ScriptDirectory(str(migrations.FOLDER))

    assert script.get_heads() == [migrations.head()] and len(script.get_bases()) == 1
    assert not any(revision.is_merge_point or revision.is_branch_point for revision in script.walk_revisions())


def test_every_revision_is_tried_with_rows():
    assert list(WRITTEN_AT) == revisions()


def test_up_down_to_the_beginning_and_up_again(fresh):
    migrate(fresh)
    schema = tables()

    flask_migrate.downgrade(str(migrations.FOLDER), "base")
    assert set(tables()) == {"alembic_version"} and migrations.current() is None

    migrate(fresh)
    assert tables() == schema and migrations.current() == migrations.head()


def test_rows_survive_every_step_up_and_every_step_down(fresh, later):
    before, schemas = {}, {}

    for revision in revisions(later):
        flask_migrate.upgrade(str(later), revision)
        assert survived(before)
        if revision in WRITTEN_AT:
            write_at(revision)
        before, schemas[revision] = rows(), tables()

    for revision in revisions(later)[-2::-1]:
        flask_migrate.downgrade(str(later), revision)
        assert tables() == schemas[revision]
    written = len(WRITTEN_AT)
    assert {table: len(left) for table, left in rows().items()} == dict.fromkeys(
        ["users", "posts", "sessions"], written
    )


def test_a_session_from_before_there_was_refreshing_ends_when_it_would_have(fresh):
    flask_migrate.upgrade(str(migrations.FOLDER), "0002")
    write_at("0002")

    flask_migrate.upgrade(str(migrations.FOLDER), "0003")

    (session,) = rows()["sessions"]
    assert (session["last_used_at"], session["idle_expires_at"]) == (session["created_at"], session["expires_at"])
    assert (session["amr"], session["transport"], session["remember"]) == ([], "body", False)
    assert (session["address"], session["network"], session["user_agent"]) == (None, None, None)


def test_rebuilding_users_keeps_their_posts_and_every_rule(fresh, later):
    migrate(fresh)
    write_at(migrations.head())
    before, schema = rows(), tables()

    flask_migrate.upgrade(str(later), "9998")

    assert rows() == before
    schema["users"]["columns"]["name"] = schema["users"]["columns"]["name"].replace("80", "90")
    assert tables() == schema
    with db.engine.begin() as connection:
        connection.execute(text("DELETE FROM users"))
    of_users = {"users", "posts", "sessions", "refresh_tokens", "one_time_tokens", "avatars"}
    before["webhooks"] = [{**row, "creator_id": None} for row in before["webhooks"]]
    before["service_accounts"] = [{**row, "maker_id": None} for row in before["service_accounts"]]
    assert rows() == {table: [] if table in of_users else left for table, left in before.items()}


def test_rows_that_refer_to_rows_that_are_gone_are_not_passed_over(make_database, settings_for):
    url = new_database(make_database, "sqlite")
    with application(settings_for(url)) as app, app.app_context():
        lawless = create_engine(url, poolclass=NullPool)  # Without our pragmas: nothing is enforced.
        with lawless.begin() as connection:
            connection.execute(text(WRITTEN_AT["0001"][1].replace(":", r"\:")))

        with pytest.raises(SystemExit):
            flask_migrate.upgrade(str(migrations.FOLDER))


def test_the_models_are_what_the_migrations_make(fresh):
    migrate(fresh)

    flask_migrate.check(str(migrations.FOLDER))


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE posts ADD COLUMN extra INTEGER",
        "DROP INDEX ix_users_name_key",
        "CREATE TABLE extras (id INTEGER PRIMARY KEY)",
    ],
)
def test_a_difference_from_the_models_is_noticed(fresh, change):
    migrate(fresh)
    with db.engine.begin() as connection:
        connection.execute(text(change))

    with pytest.raises(SystemExit):
        flask_migrate.check(str(migrations.FOLDER))


def test_four_processes_that_start_at_once_migrate_once(fresh):
    for _ in range(3):
        ended = command_at_once(4, fresh, "migrate-on-start")

        assert ended == [(0, f"The database is at revision {migrations.head()}.\n")] * 4
        check_readiness()
        flask_migrate.downgrade(str(migrations.FOLDER), "base")


def test_migrating_again_changes_nothing(fresh):
    migrate(fresh)
    write_at(migrations.head())
    before = rows()

    result = fresh.test_cli_runner().invoke(args=["migrate-on-start"])

    assert (result.exit_code, rows()) == (0, before)


def test_a_database_newer_than_the_code_is_refused_and_left_alone(fresh):
    migrate(fresh)
    write_at(migrations.head())
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = rows()

    ended = run("flask", "--app", "wsgi", "migrate-on-start", DATABASE_URL=fresh.config["DATABASE_URL"])

    assert ended.returncode == 1 and "9999" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert (migrations.current(), rows()) == ("9999", before)


def test_a_database_that_cannot_be_reached_is_told_in_one_line():
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"

    ended = run("flask", "--app", "wsgi", "migrate-on-start", DATABASE_URL=url)

    assert ended.returncode != 0
    assert (ended.stdout + ended.stderr).count("\n") == 1


@pytest.mark.parametrize("stop", ["raise ValueError", f"os.kill(os.getpid(), {signal.SIGKILL.value})"])
def test_a_migration_stopped_half_way_leaves_nothing_and_can_be_done_again(fresh, later, stop):
    migrate(fresh)
    write_at(migrations.head())
    before = rows()
    half = later / "versions" / "9999.py"
    half.write_text(STOPPED.format(stop=stop))

    upgrade = "import flask_migrate, wsgi; wsgi.app.app_context().push(); flask_migrate.upgrade({!r})"
    command = [sys.executable, "-c", upgrade.format(str(later))]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment(DATABASE_URL=fresh.config["DATABASE_URL"]), capture_output=True
    )

    assert ended.returncode in (1, -signal.SIGKILL)
    assert (migrations.current(), rows()) == ("9998", before)
    half.write_text(STOPPED.format(stop=""))
    flask_migrate.upgrade(str(later))
    assert migrations.current() == "9999" and rows()["users"][0]["name"] == "Changed"


def test_a_sqlite_file_is_made_for_its_owner_only(tmp_path, settings_for):
    with application(settings_for(f"sqlite:///{tmp_path}/rollcall.db")) as app, app.app_context():
        write_at(migrations.head())

        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert modes.pop("rollcall.db.lock", 0o600) & 0o022 == 0
    assert modes == {"rollcall.db": 0o600, "rollcall.db-wal": 0o600, "rollcall.db-shm": 0o600}


def test_a_revision_written_from_the_models_needs_nothing_of_ours_and_makes_the_tables(fresh, tmp_path):
    folder = shutil.copytree(migrations.FOLDER, tmp_path / "migrations")
    migrate(fresh)
    with db.engine.begin() as connection:
        for table in reversed(db.metadata.sorted_tables):
            connection.execute(text(f"DROP TABLE {table.name}"))

    flask_migrate.revision(str(folder), autogenerate=True, rev_id="9998")
    flask_migrate.upgrade(str(folder))

    written = next((folder / "versions").glob("9998*.py")).read_text()
    assert "models" not in written and "sa.DateTime(timezone=True)" in written and "sa.JSON()" in written
    flask_migrate.check(str(folder))
