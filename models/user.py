"""Users: the people and partners who have an account."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import ByteOrdered, Id, JsonObject, Model, Moment, now

LIVE = text("deleted_at IS NULL")


def _live_index(*columns: str, unique: bool = False) -> Index:
    """Index users who are not deleted: a deleted user's address is free again."""
    name = f"{'uq' if unique else 'ix'}_users_{columns[0]}"
    return Index(name, *columns, unique=unique, postgresql_where=LIVE, sqlite_where=LIVE)


class User(Model):
    """A user; `deleted_at` hides the row until it is restored or erased."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('member', 'support', 'admin')", name="role"),
        _live_index("email_key", unique=True),
        _live_index("external_id", unique=True),
        _live_index("id"),  # Lets a numbered page skip over rows without reading them.
        _live_index("name_key", "id"),
        _live_index("email_key", "id"),
        _live_index("created_at", "id"),
        _live_index("updated_at", "id"),
        _live_index("role", "id"),
        _live_index("is_active", "id"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    email: Mapped[str] = mapped_column(String(120))
    email_key: Mapped[str] = mapped_column(ByteOrdered(120))
    name: Mapped[str] = mapped_column(String(80))
    name_key: Mapped[str] = mapped_column(ByteOrdered(120))
    role: Mapped[str] = mapped_column(String(16), default="member")
    is_active: Mapped[bool] = mapped_column(default=True)
    email_verified: Mapped[bool] = mapped_column(default=False)
    external_id: Mapped[str | None] = mapped_column(ByteOrdered(120))
    public_metadata: Mapped[dict[str, Any]] = mapped_column(JsonObject, default=dict)
    private_metadata: Mapped[dict[str, Any]] = mapped_column(JsonObject, default=dict)
    password_hash: Mapped[str | None] = mapped_column(String(255))
    version: Mapped[int] = mapped_column(Id, default=1)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    updated_at: Mapped[datetime] = mapped_column(Moment, default=now)
    deleted_at: Mapped[datetime | None] = mapped_column(Moment)
    erased_at: Mapped[datetime | None] = mapped_column(Moment)
