"""OAuth tokens: what programs were given for their keys."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, JsonObject, Model, Moment, now


class OAuthToken(Model):
    """An access token of a program: it is good while this row, the key and the maker are."""

    __tablename__ = "oauth_tokens"
    __table_args__ = (Index("ix_oauth_tokens_key_id", "key_id"), Index("ix_oauth_tokens_expires_at", "expires_at"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key_id: Mapped[int] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    scopes: Mapped[list[Any]] = mapped_column(JsonObject)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    expires_at: Mapped[datetime] = mapped_column(Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
