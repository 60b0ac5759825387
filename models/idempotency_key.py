"""Idempotency keys: answers that are kept for who sends a request again."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, JsonObject, Model, Moment, now


class IdempotencyKey(Model):
    """An answer, written in the transaction of what it tells; `key` is a keyed hash of who asked, where, with what key.

    `user_id` says whose account it tells of, so that it goes when that is erased.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        Index("ix_idempotency_keys_created_at", "created_at"),
        Index("ix_idempotency_keys_user_id", "user_id"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[int | None] = mapped_column(Id)
    status: Mapped[int]
    headers: Mapped[dict[str, Any]] = mapped_column(JsonObject)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
