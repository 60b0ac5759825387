"""Throttling: after some free attempts, each further one must wait twice as long as the one before.

What is counted lies in the database, so that a limit is the same with one worker or many.
"""

import ipaddress
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import bindparam, delete, select, update

from models import Throttle
from models.base import now
from models.rows import delete_some, insert_row, update_row
from models.statements import Record, execute, fetch_one, serialise, unit_of_work
from service.errors import TooManyAttempts
from service.identity import current_client
from service.keyed import mark

_BY_KEY = select(Throttle).where(Throttle.key == bindparam("key")).with_for_update()
_FORGET = delete(Throttle).where(Throttle.key == bindparam("key"))
_FORGET_OLD = delete_some(Throttle, Throttle.seen_at < bindparam("before"))
_TAKE_BACK = (
    update(Throttle)
    .where(Throttle.key == bindparam("key"), Throttle.attempts > 0)
    .values(attempts=Throttle.attempts - 1, refused_until=None)
)


class Rule(NamedTuple):
    """So many attempts are free; then the wait (seconds) doubles up to the longest. Quiet for `memory` forgets all."""

    name: str
    free: int
    first_wait: int
    longest_wait: int
    memory: int

    def wait(self, attempts: int) -> timedelta | None:
        """Return how long to refuse after so many attempts."""
        beyond = attempts - self.free
        if beyond < 0:
            return None
        return timedelta(seconds=min(self.first_wait * 2 ** min(beyond, 30), self.longest_wait))


class Attempt(NamedTuple):
    """An attempt by a rule at something: somebody's account, an address."""

    rule: Rule
    subject: str

    @property
    def key(self) -> str:
        """Return the key under which it is counted."""
        return mark("throttle", self.rule.name, self.subject)


# Letters that strangers can cause: to one address, and from one network.
LETTERS_TO = Rule("letters to", free=3, first_wait=3600, longest_wait=3600, memory=3600)
LETTERS_FROM = Rule("letters from", free=20, first_wait=3600, longest_wait=3600, memory=3600)


def letters_allowed(email_key: str) -> bool:
    """Count a letter to an address, and tell whether it may be caused; no answer says so, lest it tell of an account.

    Before the running unit of work begins.
    """
    try:
        admit(Attempt(LETTERS_TO, email_key), Attempt(LETTERS_FROM, network_of(current_client().address)))
    except TooManyAttempts:
        return False
    return True


def admit(*attempts: Attempt) -> None:
    """Count attempts that are about to be made, or raise TooManyAttempts and count none.

    In a transaction of its own, before the attempt: of many at once no more get through than of many in turn.
    """
    with unit_of_work():
        rows = [_locked(attempt.key) for attempt in attempts]
        moment = now()
        for row in rows:
            if row is not None and row.refused_until is not None and row.refused_until > moment:
                raise TooManyAttempts(retry_after=row.refused_until - moment)
        for attempt, row in zip(attempts, rows, strict=True):
            _count(attempt, row)


def forgive(attempt: Attempt) -> None:
    """Forget the attempts at something, because the right one was among them; in the running unit of work."""
    execute(_FORGET, key=attempt.key)


def take_back(attempt: Attempt) -> None:
    """Count an attempt as not made, because it was a good one; in the running unit of work."""
    execute(_TAKE_BACK, key=attempt.key)


def forget_old() -> int:
    """Remove what has been quiet for a day, which is longer than any rule remembers; return how many."""
    return execute(_FORGET_OLD, before=now() - timedelta(days=1))


def network_of(address: str | None) -> str:
    """Return what one person holds of addresses: one of IPv4, 2⁶⁴ of IPv6."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False).network_address)


def _locked(key: str) -> Record | None:
    serialise(key)
    return fetch_one(_BY_KEY, key=key)


def _count(attempt: Attempt, row: Record | None) -> None:
    moment = now()
    is_remembered = row is not None and row.seen_at > moment - timedelta(seconds=attempt.rule.memory)
    attempts = row.attempts + 1 if row is not None and is_remembered else 1
    wait = attempt.rule.wait(attempts)
    values = {"attempts": attempts, "seen_at": moment, "refused_until": moment + wait if wait else None}
    if row is None:
        insert_row(Throttle, key=attempt.key, **values)
    else:
        update_row(Throttle, row, **values)
