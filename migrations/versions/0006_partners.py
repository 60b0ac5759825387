"""What partners need: service accounts and their keys, and idempotency keys.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def id_type() -> sa.types.TypeEngine:
    """SQLite numbers rows by itself only in an INTEGER key."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def moment(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    for name in ("service_account_id", "key_id"):
        op.add_column("events", sa.Column(name, id_type(), nullable=True))
    op.create_table(
        "service_accounts",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("maker_id", id_type(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        moment("created_at"),
        moment("updated_at"),
        sa.ForeignKeyConstraint(
            ["maker_id"], ["users.id"], name=op.f("fk_service_accounts_maker_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_accounts")),
    )
    op.create_index("ix_service_accounts_maker_id", "service_accounts", ["maker_id"])
    op.create_table(
        "api_keys",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("service_account_id", id_type(), nullable=False),
        sa.Column("prefix", sa.String(12), nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False),
        moment("created_at"),
        moment("last_used_at", nullable=True),
        moment("expires_at", nullable=True),
        moment("revoked_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["service_account_id"],
            ["service_accounts.id"],
            name=op.f("fk_api_keys_service_account_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    op.create_index("ix_api_keys_service_account_id", "api_keys", ["service_account_id", "id"])
    op.create_table(
        "oauth_tokens",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("key_id", id_type(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        moment("created_at"),
        moment("expires_at"),
        moment("revoked_at", nullable=True),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_oauth_tokens_key_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_tokens")),
    )
    for column in ("key_id", "expires_at"):
        op.create_index(f"ix_oauth_tokens_{column}", "oauth_tokens", [column])
    op.create_table(
        "idempotency_keys",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("user_id", id_type(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        moment("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_keys")),
        sa.UniqueConstraint("key", name=op.f("uq_idempotency_keys_key")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_index("ix_idempotency_keys_user_id", "idempotency_keys", ["user_id"])


def downgrade() -> None:
    for table in ("idempotency_keys", "oauth_tokens", "api_keys", "service_accounts"):
        op.drop_table(table)
    with op.batch_alter_table("events") as batch:
        for name in ("key_id", "service_account_id"):
            batch.drop_column(name)
