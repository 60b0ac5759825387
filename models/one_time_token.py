"""One-time tokens: what a mail asks a person to send back, as a link or a code to type."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import ByteOrdered, Id, JsonObject, Model, Moment, now


class OneTimeToken(Model):
    """A proof of reading the mail of an address; only hashes are kept, and none until the mail is written.

    It is removed when it is used.

    `user_id` is None for somebody who registers; `details` then hold the account to be.
    """

    __tablename__ = "one_time_tokens"
    __table_args__ = (
        CheckConstraint("purpose IN ('register', 'verify_email', 'change_email', 'reset_password')", name="purpose"),
        Index("ix_one_time_tokens_email_key", "email_key"),
        Index("ix_one_time_tokens_user_id", "user_id"),
        Index("ix_one_time_tokens_expires_at", "expires_at"),
        Index("ix_one_time_tokens_code_hash", "code_hash"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    email: Mapped[str] = mapped_column(String(120))
    email_key: Mapped[str] = mapped_column(ByteOrdered(120))
    details: Mapped[dict[str, Any] | None] = mapped_column(JsonObject(none_as_null=True))
    token_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    code_hash: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    expires_at: Mapped[datetime] = mapped_column(Moment)
