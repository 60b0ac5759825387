"""Jobs: what is to be done outside a request, written in the transaction that asks for it."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import ByteOrdered, Id, JsonObject, Model, Moment, now

WAITING = text("failed_at IS NULL")
LEASED = text("leased")


class Job(Model):
    """A job until it is done; who runs it holds a lease, and its attempt number tells a late runner that it lost it.

    Of the jobs in one lane only one has a lease at a time. `user_id` and `email_key` say whom it is about, to be found
    when they are erased.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_run_at", "run_at", "id", postgresql_where=WAITING, sqlite_where=WAITING),
        Index("uq_jobs_leased_lane", "lane", unique=True, postgresql_where=LEASED, sqlite_where=LEASED),
        Index("ix_jobs_lane", "lane"),
        Index("ix_jobs_failed_at", "failed_at"),
        Index("ix_jobs_user_id", "user_id"),
        Index("ix_jobs_email_key", "email_key"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    lane: Mapped[str | None] = mapped_column(String(40))
    user_id: Mapped[int | None] = mapped_column(Id)
    email_key: Mapped[str | None] = mapped_column(ByteOrdered(120))
    arguments: Mapped[dict[str, Any]] = mapped_column(JsonObject, default=dict)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    leased: Mapped[bool] = mapped_column(Boolean, default=False)
    run_at: Mapped[datetime] = mapped_column(Moment, default=now)  # While it is leased, when the lease ends.
    last_error: Mapped[str | None] = mapped_column(String(400))
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    failed_at: Mapped[datetime | None] = mapped_column(Moment)
