"""Deprecated calls: who still calls what is to end."""

from datetime import date, datetime

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Id, Model, Moment


class DeprecatedCall(Model):
    """How often one caller called a deprecated operation on one day.

    The caller is a key or a user, the other being 0, or nobody known, both being 0: null would be equal to no null,
    and a day would have many rows.
    """

    __tablename__ = "deprecated_calls"
    __table_args__ = (UniqueConstraint("day", "operation", "key_id", "user_id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    day: Mapped[date]
    operation: Mapped[str] = mapped_column(String(200))
    key_id: Mapped[int] = mapped_column(Id)
    user_id: Mapped[int] = mapped_column(Id)
    calls: Mapped[int]
    last_at: Mapped[datetime] = mapped_column(Moment)
