"""The worker: a process that publishes events, and runs what is due in threads of its own."""

import logging
import os
import threading
from collections.abc import Callable

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from service import deliveries, feed
from service.jobs import queue, runner

log = logging.getLogger("rollcall.worker")

LOOK_EVERY = 0.25  # Seconds.
AFTER_TROUBLE = 5.0  # Seconds until the database is tried again.


class Worker:
    """Looks for what is due, and has threads run it until it is told to stop.

    Half of the threads leave alone what stands in lanes, so that endpoints that answer slowly hold up no letter.
    """

    def __init__(self, app: Flask, parent: int | None = None) -> None:
        self.app, self.parent = app, parent
        threads = app.config["THREADS"]
        self._stop, self._due = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._run_jobs, args=(number >= threads // 2,), name=f"jobs {number}")
            for number in range(threads)
        ]

    def run(self) -> None:
        """Work until `stop` is called; what has begun by then is finished."""
        for thread in self._threads:
            thread.start()
        try:
            self._repeat(self._look)
        finally:
            self.stop()
            for thread in self._threads:
                thread.join()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stop.set()
        self._due.set()

    def _look(self) -> None:
        if self.parent is not None and os.getppid() != self.parent:
            self.stop()  # Whoever started it has ended, perhaps without a word.
            return
        feed.publish()
        while deliveries.fan_out() and not self._stop.is_set():
            pass
        if queue.is_any_ready():
            self._due.set()
        self._stop.wait(LOOK_EVERY)

    def _run_jobs(self, in_lanes: bool) -> None:
        def work() -> None:
            if not runner.run_next(in_lanes=in_lanes):
                self._due.clear()
                if not self._stop.is_set():
                    self._due.wait()

        self._repeat(work)

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                with self.app.app_context():
                    work()
            except SQLAlchemyError as error:
                log.warning("the database does not answer", extra={"error": type(error).__name__})
                self._stop.wait(AFTER_TROUBLE)
