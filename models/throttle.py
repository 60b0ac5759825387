"""Throttles: how often something was tried of late."""

from datetime import datetime

from sqlalchemy import Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, Model, Moment


class Throttle(Model):
    """Attempts at one thing by one rule; `key` is a keyed hash, so that the row names no person."""

    __tablename__ = "throttles"
    __table_args__ = (Index("ix_throttles_seen_at", "seen_at"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    refused_until: Mapped[datetime | None] = mapped_column(Moment)
    seen_at: Mapped[datetime] = mapped_column(Moment)
