"""Who still calls deprecated operations.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def id_type() -> sa.types.TypeEngine:
    """SQLite numbers rows by itself only in an INTEGER key."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "deprecated_calls",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("operation", sa.String(200), nullable=False),
        sa.Column("key_id", id_type(), nullable=False),
        sa.Column("user_id", id_type(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deprecated_calls")),
        sa.UniqueConstraint(
            *("day", "operation", "key_id", "user_id"),
            name=op.f("uq_deprecated_calls_day_operation_key_id_user_id"),
        ),
    )


def downgrade() -> None:
    op.drop_table("deprecated_calls")
