"""Events: what happened, written in the transaction in which it happened."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, JsonObject, Model, Moment, now

UNPUBLISHED = text("position IS NULL")
PUBLISHED = text("position IS NOT NULL")  # Writing an event touches none of these indexes; publishing it does.


def _of_published(name: str, *columns: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, postgresql_where=PUBLISHED, sqlite_where=PUBLISHED)


class Event(Model):
    """Something that happened; holds no secret, address of mail or name.

    `id` says when it was written, `position` where it stands in the feed, which it enters once it was committed.
    `user_id` is whose account it belongs to, `subject_id` what it happened to (the type says what that is), `version`
    which version of that it made.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_unpublished", "id", postgresql_where=UNPUBLISHED, sqlite_where=UNPUBLISHED),
        _of_published("uq_events_position", "position", unique=True),
        _of_published("ix_events_user_id", "user_id", "position"),
        _of_published("ix_events_actor_id", "actor_id", "position"),
        _of_published("ix_events_type", "type", "position"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    position: Mapped[int | None] = mapped_column(Id)
    type: Mapped[str] = mapped_column(String(60))
    user_id: Mapped[int | None] = mapped_column(Id)
    subject_id: Mapped[int | None] = mapped_column(Id)
    version: Mapped[int | None] = mapped_column(Integer)
    actor_id: Mapped[int | None] = mapped_column(Id)
    session_id: Mapped[int | None] = mapped_column(Id)
    service_account_id: Mapped[int | None] = mapped_column(Id)
    key_id: Mapped[int | None] = mapped_column(Id)
    request_id: Mapped[str | None] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(45))
    data: Mapped[dict[str, Any]] = mapped_column(JsonObject, default=dict)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
