"""Idempotency keys: who sends a request once more with its key gets the answer of the first time, and nothing is done.

Nothing is written before the work begins, so nothing has to be cleaned up where it is broken off: the answer is kept
in the very transaction that it tells of, under a unique key. Of many at once, one commits; the others fail at that key
or at what the first has made, and find its answer (draft-ietf-httpapi-idempotency-key-header-07).
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, delete, select

from models import IdempotencyKey
from models.base import now
from models.rows import delete_some, insert_row
from models.statements import Record, execute, fetch_one
from service.errors import IdempotencyKeyReused

KEPT = timedelta(hours=24)

_BY_KEY = select(IdempotencyKey).where(
    IdempotencyKey.key == bindparam("key"), IdempotencyKey.created_at > bindparam("since")
)
_FORGET_EXPIRED = delete(IdempotencyKey).where(
    IdempotencyKey.key == bindparam("key"), IdempotencyKey.created_at <= bindparam("since")
)
_FORGET_OLD = delete_some(IdempotencyKey, IdempotencyKey.created_at <= bindparam("since"))


def find(key: str, fingerprint: str) -> Record | None:
    """Return what was answered to this key; raises IdempotencyKeyReused where it was sent with something else."""
    kept = fetch_one(_BY_KEY, key=key, since=now() - KEPT)
    if kept is not None and kept.fingerprint != fingerprint:
        raise IdempotencyKeyReused
    return kept


def keep(key: str, fingerprint: str, **answer: Any) -> None:
    """Keep an answer in the running unit of work; fails, and that with it, where another has kept one meanwhile."""
    execute(_FORGET_EXPIRED, key=key, since=now() - KEPT)
    insert_row(IdempotencyKey, key=key, fingerprint=fingerprint, **answer)


def forget_old() -> int:
    """Remove some of the answers that are not kept any longer, and return how many."""
    return execute(_FORGET_OLD, since=now() - KEPT)
