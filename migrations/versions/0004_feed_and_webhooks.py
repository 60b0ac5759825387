"""The feed: a place in it for each event; lanes for jobs; webhooks and their deliveries.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def where(condition: str) -> dict[str, sa.TextClause]:
    """Limit an index to some rows."""
    return {"postgresql_where": sa.text(condition), "sqlite_where": sa.text(condition)}


UNPUBLISHED, PUBLISHED, LEASED = where("position IS NULL"), where("position IS NOT NULL"), where("leased")


def id_type() -> sa.types.TypeEngine:
    """SQLite numbers rows by itself only in an INTEGER key."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def moment(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    _publish_events()
    _give_jobs_lanes()
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_table(
        "webhooks",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("event_types", sa.JSON(), nullable=False),
        sa.Column("creator_id", id_type(), nullable=True),
        sa.Column("position", id_type(), nullable=False),
        sa.Column("secret_serial", sa.Integer(), nullable=False),
        moment("previous_secret_until", nullable=True),
        moment("failing_since", nullable=True),
        moment("disabled_at", nullable=True),
        sa.Column("disabled_reason", sa.String(20), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        moment("created_at"),
        moment("updated_at"),
        sa.ForeignKeyConstraint(["creator_id"], ["users.id"], name=op.f("fk_webhooks_creator_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index("ix_webhooks_creator_id", "webhooks", ["creator_id"])
    op.create_table(
        "deliveries",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("webhook_id", id_type(), nullable=False),
        sa.Column("event_id", id_type(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(40), nullable=True),
        moment("next_attempt_at", nullable=True),
        moment("created_at"),
        moment("attempted_at", nullable=True),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'failed')", name=op.f("ck_deliveries_state")),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_deliveries_webhook_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_deliveries_event_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("webhook_id", "event_id", name=op.f("uq_deliveries_webhook_id_event_id")),
    )
    op.create_index("ix_deliveries_webhook_id", "deliveries", ["webhook_id", "id"])
    op.create_index("ix_deliveries_event_id", "deliveries", ["event_id"])
    op.create_index("ix_deliveries_created_at", "deliveries", ["created_at"])


def _publish_events() -> None:
    """Give each event of before its place, which is that in which it was written."""
    with op.batch_alter_table("events") as batch:
        batch.add_column(sa.Column("position", id_type(), nullable=True))
        batch.add_column(sa.Column("subject_id", id_type(), nullable=True))
        batch.add_column(sa.Column("version", sa.Integer(), nullable=True))
    op.execute("UPDATE events SET position = id, subject_id = user_id")
    in_session = "json_extract(data, '$.session')" if _is_sqlite() else "(data ->> 'session')::bigint"
    op.execute(f"UPDATE events SET subject_id = {in_session} WHERE type LIKE 'session.%'")  # noqa: S608 (a constant)
    op.drop_index("ix_events_user_id", "events")
    op.create_index("ix_events_unpublished", "events", ["id"], **UNPUBLISHED)
    op.create_index("uq_events_position", "events", ["position"], unique=True, **PUBLISHED)
    for column in ("user_id", "actor_id", "type"):
        op.create_index(f"ix_events_{column}", "events", [column, "position"], **PUBLISHED)


def _give_jobs_lanes() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("lane", sa.String(40), nullable=True))
        batch.add_column(sa.Column("leased", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("jobs") as batch:
        batch.alter_column("leased", server_default=None)
    op.create_index("uq_jobs_leased_lane", "jobs", ["lane"], unique=True, **LEASED)
    op.create_index("ix_jobs_lane", "jobs", ["lane"])
    op.create_index("ix_jobs_failed_at", "jobs", ["failed_at"])


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def downgrade() -> None:
    op.drop_table("deliveries")
    op.drop_table("webhooks")
    op.drop_index("ix_sessions_expires_at", "sessions")
    for index in ("uq_jobs_leased_lane", "ix_jobs_lane", "ix_jobs_failed_at"):
        op.drop_index(index, "jobs")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("leased")
        batch.drop_column("lane")
    for name in (
        "ix_events_unpublished",
        "uq_events_position",
        "ix_events_user_id",
        "ix_events_actor_id",
        "ix_events_type",
    ):
        op.drop_index(name, "events")
    with op.batch_alter_table("events") as batch:
        for name in ("version", "subject_id", "position"):
            batch.drop_column(name)
    op.create_index("ix_events_user_id", "events", ["user_id", "id"])
