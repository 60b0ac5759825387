"""Service accounts: programs that call the API for a partner."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, JsonObject, Model, Moment, now


class ServiceAccount(Model):
    """A program; it may do what its scopes name, as far as whoever made it may."""

    __tablename__ = "service_accounts"
    __table_args__ = (Index("ix_service_accounts_maker_id", "maker_id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    scopes: Mapped[list[Any]] = mapped_column(JsonObject)
    maker_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    updated_at: Mapped[datetime] = mapped_column(Moment, default=now)
