"""Sessions: each sign-in, until it ends."""

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, Model, Moment, now


class Session(Model):
    """A sign-in and the family of its refresh tokens; an access token is good only while its session is."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_user_id", "user_id", "id"),
        Index("ix_sessions_network", "user_id", "network"),
        Index("ix_sessions_expires_at", "expires_at"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    amr: Mapped[list[str]] = mapped_column(JSON, default=list)  # How the person was authenticated (RFC 8176).
    transport: Mapped[str] = mapped_column(String(8), default="body")
    remember: Mapped[bool] = mapped_column(default=False)
    address: Mapped[str | None] = mapped_column(String(45))
    network: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(400))
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    last_used_at: Mapped[datetime] = mapped_column(Moment, default=now)
    idle_expires_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
