"""Posts: what a user has written."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, Model, Moment, now


class Post(Model):
    """A post; it goes when its author is erased."""

    __tablename__ = "posts"
    __table_args__ = (
        Index("ix_posts_user_id", "user_id", "id"),
        Index("ix_posts_created_at", "user_id", "created_at", "id"),
        Index("ix_posts_updated_at", "user_id", "updated_at", "id"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(200))
    content: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Id, default=1)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    updated_at: Mapped[datetime] = mapped_column(Moment, default=now)
