"""Webhooks: the endpoints that are told what happened."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, JsonObject, Model, Moment, now


class Webhook(Model):
    """An endpoint; its secrets are made from the service's own and `secret_serial`, and are kept nowhere."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_creator_id", "creator_id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    url: Mapped[str] = mapped_column(String(2048))
    description: Mapped[str] = mapped_column(String(200), default="")
    event_types: Mapped[list[Any]] = mapped_column(JsonObject)
    creator_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    position: Mapped[int] = mapped_column(Id, default=0)  # Of the last event that was looked at for it.
    secret_serial: Mapped[int] = mapped_column(Integer, default=1)
    previous_secret_until: Mapped[datetime | None] = mapped_column(Moment)
    failing_since: Mapped[datetime | None] = mapped_column(Moment)
    disabled_at: Mapped[datetime | None] = mapped_column(Moment)
    disabled_reason: Mapped[str | None] = mapped_column(String(20))
    version: Mapped[int] = mapped_column(Integer, default=1)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    updated_at: Mapped[datetime] = mapped_column(Moment, default=now)
