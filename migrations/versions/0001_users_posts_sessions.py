"""Users, their posts and their sessions.

Revision ID: 0001
Revises: nothing
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

LIVE = sa.text("deleted_at IS NULL")


def id_type() -> sa.types.TypeEngine:
    """SQLite numbers rows by itself only in an INTEGER key."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def byte_ordered(length: int) -> sa.types.TypeEngine:
    """Text that sorts alike on every database."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def moment(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("email", sa.String(120), nullable=False),
        sa.Column("email_key", byte_ordered(120), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("name_key", byte_ordered(120), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("email_verified", sa.Boolean(), nullable=False),
        sa.Column("external_id", byte_ordered(120), nullable=True),
        sa.Column("public_metadata", sa.JSON(), nullable=False),
        sa.Column("private_metadata", sa.JSON(), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=True),
        sa.Column("version", id_type(), nullable=False),
        moment("created_at"),
        moment("updated_at"),
        moment("deleted_at", nullable=True),
        sa.CheckConstraint("role IN ('member', 'support', 'admin')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    # Only users who are not deleted: a deleted user's address is free again.
    for column in ("email_key", "external_id"):
        op.create_index(f"uq_users_{column}", "users", [column], unique=True, postgresql_where=LIVE, sqlite_where=LIVE)
    # Lets a numbered page skip over rows without reading them.
    op.create_index("ix_users_id", "users", ["id"], postgresql_where=LIVE, sqlite_where=LIVE)
    for column in ("name_key", "created_at", "updated_at", "role", "is_active"):
        op.create_index(f"ix_users_{column}", "users", [column, "id"], postgresql_where=LIVE, sqlite_where=LIVE)
    _create_search_index()

    op.create_table(
        "posts",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("user_id", id_type(), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("version", id_type(), nullable=False),
        moment("created_at"),
        moment("updated_at"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_posts_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_posts")),
    )
    op.create_index("ix_posts_user_id", "posts", ["user_id", "id"])
    op.create_index("ix_posts_created_at", "posts", ["user_id", "created_at", "id"])
    op.create_index("ix_posts_updated_at", "posts", ["user_id", "updated_at", "id"])

    op.create_table(
        "sessions",
        sa.Column("id", id_type(), nullable=False),
        sa.Column("user_id", id_type(), nullable=False),
        moment("created_at"),
        moment("expires_at"),
        moment("ended_at", nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sessions_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"])


def _create_search_index() -> None:
    """Let PostgreSQL find a part of a name or address by trigrams, where the extension can be had."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    offered = connection.scalar(sa.text("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_trgm'"))
    if not offered:
        return
    try:
        with connection.begin_nested():
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
    except sa.exc.DBAPIError:
        return  # This role may not add it; search still works, more slowly.
    op.create_index(
        "ix_users_search",
        "users",
        ["name_key", "email_key"],
        postgresql_using="gin",
        postgresql_ops={"name_key": "gin_trgm_ops", "email_key": "gin_trgm_ops"},
        postgresql_where=LIVE,
    )


def downgrade() -> None:
    op.drop_table("sessions")
    op.drop_table("posts")
    op.drop_table("users")
