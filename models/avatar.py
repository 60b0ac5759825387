"""Avatars: the picture of a user, and how far it has come."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, Model, Moment, now


class Avatar(Model):
    """A user's picture, of which only names are kept here; the files are in storage.

    `upload` names the file that is being made into pictures, `name` the pictures that are shown; both are random, since
    whoever knows a name may see the picture. While another is made, or when that failed, the one before is shown.
    """

    __tablename__ = "avatars"
    __table_args__ = (
        UniqueConstraint("user_id"),
        UniqueConstraint("upload"),
        UniqueConstraint("name"),
        CheckConstraint("state IN ('processing', 'ready', 'failed')", name="state"),
        CheckConstraint("(state = 'processing') = (upload IS NOT NULL)", name="upload"),
        CheckConstraint("state <> 'ready' OR name IS NOT NULL", name="name"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(String(10))
    upload: Mapped[str | None] = mapped_column(String(32))
    name: Mapped[str | None] = mapped_column(String(32))
    error: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    updated_at: Mapped[datetime] = mapped_column(Moment, default=now)
