"""An index for users in the order of their addresses: the unique one holds no id, by which a page is skipped over.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

LIVE = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    op.create_index("ix_users_email_key", "users", ["email_key", "id"], postgresql_where=LIVE, sqlite_where=LIVE)


def downgrade() -> None:
    op.drop_index("ix_users_email_key", "users")
