"""Avatars.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def id_type() -> sa.types.TypeEngine:
    """SQLite numbers rows by itself only in an INTEGER key."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "avatars",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("user_id", id_type(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("upload", sa.String(32), nullable=True),
        sa.Column("name", sa.String(32), nullable=True),
        sa.Column("error", sa.String(40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('processing', 'ready', 'failed')", name=op.f("ck_avatars_state")),
        sa.CheckConstraint("(state = 'processing') = (upload IS NOT NULL)", name=op.f("ck_avatars_upload")),
        sa.CheckConstraint("state <> 'ready' OR name IS NOT NULL", name=op.f("ck_avatars_name")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_avatars_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_avatars")),
        sa.UniqueConstraint("user_id", name=op.f("uq_avatars_user_id")),
        sa.UniqueConstraint("upload", name=op.f("uq_avatars_upload")),
        sa.UniqueConstraint("name", name=op.f("uq_avatars_name")),
    )


def downgrade() -> None:
    op.drop_table("avatars")
