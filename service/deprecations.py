"""Deprecated operations: who still calls them, so that those can be told before the end."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.dialects.postgresql import insert  # SQLite has learnt its ON CONFLICT from there.
from sqlalchemy.exc import SQLAlchemyError

from models import ApiKey, DeprecatedCall, ServiceAccount, User
from models.base import now
from models.rows import delete_some
from models.statements import Record, execute, fetch_all, unit_of_work
from service.identity import Identity

log = logging.getLogger("rollcall.deprecations")

KEPT = timedelta(days=365)

_CALL = insert(DeprecatedCall).values(
    day=bindparam("day"),
    operation=bindparam("operation"),
    key_id=bindparam("key_id"),
    user_id=bindparam("user_id"),
    calls=1,
    last_at=bindparam("moment"),
)
_COUNT = _CALL.on_conflict_do_update(
    index_elements=["day", "operation", "key_id", "user_id"],
    set_={"calls": DeprecatedCall.calls + 1, "last_at": _CALL.excluded.last_at},
).inline()
# Whom to write to: the user, or who made the service account of the key.
_CALLERS = (
    select(
        *(DeprecatedCall.key_id, DeprecatedCall.user_id, ApiKey.prefix, ServiceAccount.name, User.email),
        func.sum(DeprecatedCall.calls).label("calls"),
        func.count().label("days"),
        func.max(DeprecatedCall.last_at).label("last_at"),
    )
    .outerjoin(ApiKey, ApiKey.id == DeprecatedCall.key_id)
    .outerjoin(ServiceAccount, ServiceAccount.id == ApiKey.service_account_id)
    .outerjoin(User, or_(User.id == DeprecatedCall.user_id, User.id == ServiceAccount.maker_id))
    .where(DeprecatedCall.operation == bindparam("operation"))
    .group_by(DeprecatedCall.key_id, DeprecatedCall.user_id, ApiKey.prefix, ServiceAccount.name, User.email)
    .order_by(func.max(DeprecatedCall.last_at).desc(), DeprecatedCall.key_id, DeprecatedCall.user_id)
)
_FORGET_OLD = delete_some(DeprecatedCall, DeprecatedCall.day < bindparam("before"))


def count(operation: str, *, caller: Identity) -> None:
    """Count a call, in a unit of work of its own; where that fails, the answer goes out all the same."""
    moment = now()
    try:
        with unit_of_work():
            execute(
                _COUNT,
                day=moment.date(),
                operation=operation,
                key_id=caller.key_id or 0,
                user_id=caller.user_id or 0,
                moment=moment,
            )
    except SQLAlchemyError as error:
        log.warning("deprecated call not counted", extra={"error": type(error).__name__})


def callers(operation: str) -> Sequence[Record]:
    """Return who has called an operation in the last year, on how many days and how often; the latest first."""
    return fetch_all(_CALLERS, operation=operation)


def forget_old() -> int:
    """Remove some of the counts that are older than a year, and return how many."""
    return execute(_FORGET_OLD, before=(now() - KEPT).date())
