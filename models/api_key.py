"""API keys: how a service account is known."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, Model, Moment, now


class ApiKey(Model):
    """A key of a service account: only its hash is kept, and its beginning, to tell it from others."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_service_account_id", "service_account_id", "id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    service_account_id: Mapped[int] = mapped_column(ForeignKey("service_accounts.id", ondelete="CASCADE"))
    prefix: Mapped[str] = mapped_column(String(12))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    last_used_at: Mapped[datetime | None] = mapped_column(Moment)
    expires_at: Mapped[datetime | None] = mapped_column(Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
