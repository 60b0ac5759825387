"""Events: what happened, written in the transaction in which it happened."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, JsonObject, Model, Moment, now


class Event(Model):
    """Something that happened to a user's account; holds no secret, address of mail or name."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_user_id", "user_id", "id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    type: Mapped[str] = mapped_column(String(60))
    user_id: Mapped[int | None] = mapped_column(Id)
    actor_id: Mapped[int | None] = mapped_column(Id)
    session_id: Mapped[int | None] = mapped_column(Id)
    request_id: Mapped[str | None] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(45))
    data: Mapped[dict[str, Any]] = mapped_column(JsonObject, default=dict)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
