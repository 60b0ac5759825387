"""The worker: a process that publishes events, and runs what is due in threads of its own or hands it to a broker."""

import logging
import os
import threading
from collections.abc import Callable
from functools import partial

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from service import deliveries, feed, webhooks
from service.jobs import queue, relay, runner
from service.jobs.relay import Relay

log = logging.getLogger("rollcall.worker")

LANES = webhooks.MOST + 1  # Avatars have one.
LOOK_EVERY = 0.25  # Seconds.
AFTER_TROUBLE = 5.0  # Seconds until the database is tried again.


class Worker:
    """Looks for what is due, and has threads run it until it is told to stop; where there is a broker, relay it.

    THREADS of them run what stands in no lane, and for each lane that there can be there is one more: endpoints that
    answer slowly, all at once, hold up neither letters nor each other.
    """

    def __init__(self, app: Flask, parent: int | None = None) -> None:
        self.app, self.parent = app, parent
        broker = app.extensions.get("broker")
        lanes = [False] * app.config["THREADS"] + [True] * LANES
        self._is_told_to_stop = False
        self._stop, self._due = threading.Event(), threading.Event()
        works = (
            [partial(self._relay, Relay(broker))]
            if broker
            else [partial(self._run_jobs, in_lanes) for in_lanes in lanes]
        )
        self._threads = [
            threading.Thread(target=self._repeat, args=(work,), name=f"jobs {number}")
            for number, work in enumerate(works)
        ]

    def run(self) -> None:
        """Work until `stop` is called; what has begun by then is finished."""
        for thread in self._threads:
            thread.start()
        log.info("the worker has started")
        try:
            self._repeat(self._look)
        finally:
            self._end()
            for thread in self._threads:
                thread.join()
        log.info("the worker has stopped")

    def stop(self) -> None:
        """Begin nothing more; a signal may call this at any moment, so that it takes no lock, as an Event would."""
        self._is_told_to_stop = True

    def _end(self) -> None:
        self._stop.set()
        self._due.set()

    def _look(self) -> None:
        if self._is_told_to_stop or self._is_orphaned():
            self._end()
            return
        feed.publish()
        while deliveries.fan_out() and not self._is_told_to_stop:
            pass
        if queue.is_any_ready():
            self._due.set()
        self._stop.wait(LOOK_EVERY)

    def _is_orphaned(self) -> bool:
        """Tell whether the process that started this one has ended, perhaps without a word."""
        return self.parent is not None and os.getppid() != self.parent

    def _run_jobs(self, in_lanes: bool) -> None:
        if not runner.run_next(in_lanes=in_lanes):
            self._wait_for_jobs()

    def _relay(self, to: Relay) -> None:
        if to.hand_over(lambda: not self._stop.is_set()):
            self._wait_for_jobs()
        else:
            self._stop.wait(relay.AFTER_TROUBLE)

    def _wait_for_jobs(self) -> None:
        self._due.clear()
        if self._stop.is_set():
            self._due.set()  # For the others, too: they may be about to wait for what was just cleared.
        self._due.wait()

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                with self.app.app_context():
                    work()
            except SQLAlchemyError as error:
                log.warning("the database does not answer", extra={"error": type(error).__name__})
                self._stop.wait(AFTER_TROUBLE)
