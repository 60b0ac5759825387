"""What signing in needs besides: refresh tokens, letters with one-time tokens, throttles, jobs and events.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

WAITING = sa.text("failed_at IS NULL")


def id_type() -> sa.types.TypeEngine:
    """SQLite numbers rows by itself only in an INTEGER key."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def byte_ordered(length: int) -> sa.types.TypeEngine:
    """Text that sorts alike on every database."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def moment(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.add_column("users", moment("erased_at", nullable=True))
    _widen_sessions()
    op.create_table(
        "refresh_tokens",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("session_id", id_type(), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        moment("created_at"),
        moment("used_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_refresh_tokens_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refresh_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_refresh_tokens_token_hash")),
    )
    op.create_index("ix_refresh_tokens_session_id", "refresh_tokens", ["session_id", "used_at"])

    op.create_table(
        "one_time_tokens",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("user_id", id_type(), nullable=True),
        sa.Column("email", sa.String(120), nullable=False),
        sa.Column("email_key", byte_ordered(120), nullable=False),
        sa.Column("details", sa.JSON(), nullable=True),
        sa.Column("token_hash", sa.String(64), nullable=True),
        sa.Column("code_hash", sa.String(64), nullable=True),
        moment("created_at"),
        moment("expires_at"),
        sa.CheckConstraint(
            "purpose IN ('register', 'verify_email', 'change_email', 'reset_password')",
            name=op.f("ck_one_time_tokens_purpose"),
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_one_time_tokens_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_one_time_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_one_time_tokens_token_hash")),
    )
    for column in ("email_key", "user_id", "expires_at", "code_hash"):
        op.create_index(f"ix_one_time_tokens_{column}", "one_time_tokens", [column])

    op.create_table(
        "throttles",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        moment("refused_until", nullable=True),
        moment("seen_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_throttles")),
        sa.UniqueConstraint("key", name=op.f("uq_throttles_key")),
    )
    op.create_index("ix_throttles_seen_at", "throttles", ["seen_at"])

    op.create_table(
        "jobs",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("user_id", id_type(), nullable=True),
        sa.Column("email_key", byte_ordered(120), nullable=True),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        moment("run_at"),
        sa.Column("last_error", sa.String(400), nullable=True),
        moment("created_at"),
        moment("failed_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_run_at", "jobs", ["run_at", "id"], postgresql_where=WAITING, sqlite_where=WAITING)
    for column in ("user_id", "email_key"):
        op.create_index(f"ix_jobs_{column}", "jobs", [column])

    op.create_table(
        "events",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("type", sa.String(60), nullable=False),
        sa.Column("user_id", id_type(), nullable=True),
        sa.Column("actor_id", id_type(), nullable=True),
        sa.Column("session_id", id_type(), nullable=True),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.Column("address", sa.String(45), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        moment("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_user_id", "events", ["user_id", "id"])


def _widen_sessions() -> None:
    """Sessions from before this revision have no refresh token, and end with their access token."""
    columns = [
        sa.Column("amr", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("transport", sa.String(8), nullable=False, server_default="body"),
        sa.Column("remember", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("address", sa.String(45), nullable=True),
        sa.Column("network", sa.String(45), nullable=True),
        sa.Column("user_agent", sa.String(400), nullable=True),
        moment("last_used_at", nullable=True),
        moment("idle_expires_at", nullable=True),
    ]
    for column in columns:
        op.add_column("sessions", column)
    op.execute("UPDATE sessions SET last_used_at = created_at, idle_expires_at = expires_at")
    with op.batch_alter_table("sessions") as batch:
        for name in ("amr", "transport", "remember"):
            batch.alter_column(name, server_default=None)
        for name in ("last_used_at", "idle_expires_at"):
            batch.alter_column(name, existing_type=sa.DateTime(timezone=True), nullable=False)
    op.drop_index("ix_sessions_user_id", "sessions")
    op.create_index("ix_sessions_user_id", "sessions", ["user_id", "id"])
    op.create_index("ix_sessions_network", "sessions", ["user_id", "network"])


def downgrade() -> None:
    for table in ("events", "jobs", "throttles", "one_time_tokens", "refresh_tokens"):
        op.drop_table(table)
    op.drop_index("ix_sessions_network", "sessions")
    op.drop_index("ix_sessions_user_id", "sessions")
    with op.batch_alter_table("sessions") as batch:
        for name in (
            *("amr", "transport", "remember", "address", "network", "user_agent"),
            *("last_used_at", "idle_expires_at"),
        ):
            batch.drop_column(name)
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.drop_column("users", "erased_at")
