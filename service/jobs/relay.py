"""The relay: tells a broker of the jobs that are due, and again of those that nobody took in time."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Protocol

from service.jobs import queue

log = logging.getLogger("rollcall.relay")

WITHIN = timedelta(minutes=1)  # What was not taken by then, the broker has most likely lost.
AFTER_TROUBLE = 5.0  # Seconds until the broker is tried again.


class BrokerAway(Exception):
    """The broker did not answer in time, or refused."""


class Sender(Protocol):
    """A connection to the broker; raises BrokerAway."""

    def room(self) -> int:
        """Return how many more messages may wait there."""

    def send(self, job_id: int, attempt: int) -> None:
        """Leave a message that a job is to be taken."""


class Broker(Protocol):
    """What carries messages to those who run jobs; raises BrokerAway."""

    def connected(self) -> AbstractContextManager[Sender]:
        """Return a connection of its own."""

    def check(self) -> None:
        """Return quietly when the broker answers."""


class Relay:
    """Hands jobs over for as long as there are some; what the broker is told is less than what the table knows."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._is_away = False

    def hand_over(self, may_go_on: Callable[[], bool]) -> bool:
        """Hand over what is due, as much as the broker should hold; tell whether it answered."""
        try:
            with self._broker.connected() as sender:
                for _ in range(sender.room()):
                    if not (may_go_on() and _hand_over_next(sender)):
                        break
        except BrokerAway as error:
            self._note_away(error)
            return False
        if self._is_away:
            self._is_away = False
            log.info("the broker answers again")
        return True

    def _note_away(self, error: BrokerAway) -> None:
        """Write a line when the broker goes away, and not one for each job."""
        if not self._is_away:
            self._is_away = True
            log.warning("the broker does not answer", extra={"error": str(error)})


def _hand_over_next(sender: Sender) -> bool:
    job = queue.hand_over(within=WITHIN)
    if job is None:
        return False
    try:
        sender.send(job.id, job.attempts)
    except BrokerAway:
        queue.hand_back(job, retry_in=timedelta(seconds=AFTER_TROUBLE))
        raise
    return True
