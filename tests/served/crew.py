"""Whoever runs the jobs of a service, however they are told of them; and those who cause jobs by registering."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from secrets import token_hex
from typing import Any

from tests.brokers import Broker
from tests.served.mail_server import MailServer
from tests.served.service import API, PASSWORD, Caller, Service, eventually, served, somewhere
from tests.servers import Kept, start_process

CELERY = ("celery", "--quiet", "-A", "worker", "worker", "--concurrency", "2", "--without-gossip", "--without-mingle")
PATIENCE = 90  # Seconds; when a broker was away, each who uses it waits a while before trying again.
CLIENTS = 3  # Fewer than there are places for those who check passwords.
_numbers = count(1)


class Crew:
    """Two who run the jobs of a service: workers; or Celery's, and a worker that relays."""

    def __init__(self, service: Service, mail: MailServer, broker: Broker | None) -> None:
        self.service, self.mail = service, mail
        self._broker = broker
        self._celery: list[Kept] = []
        self._former_celery: list[Kept] = []

    @property
    def broker(self) -> Broker:
        assert self._broker is not None
        return self._broker

    def complete(self) -> None:
        """Have those come who are missing."""
        while len(self.service.staff) < (1 if self._broker else 2):
            self.service.employ()
        while self._broker and len(self._celery) < 2:
            command = (*CELERY, "--hostname", f"worker-{next(_numbers)}@%h")
            self._celery.append(start_process("celery", command, self.service.environment))

    def kill(self) -> None:
        """Kill everybody; the children of Celery's workers die with them."""
        for process in self._celery:
            os.kill(process.pid, signal.SIGKILL)
        self.service.kill_staff()
        self.dismiss()

    def dismiss(self) -> None:
        """Tell Celery's workers to finish what they have begun, and wait for their end, which takes them seconds."""
        for process in self._celery:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        for process in self._celery:
            process.stop()
        self._former_celery += self._celery
        self._celery.clear()

    def unforeseen(self) -> list[str]:
        """Return what was written of errors that nobody foresaw; what Celery itself says of a broker is none."""
        logs = "".join(process.log() for process in (*self._former_celery, *self._celery))
        ours = [line for line in logs.splitlines() if '"logger":"rollcall' in line and '"level":"ERROR"' in line]
        return self.service.unforeseen() + ours

    def let_waits_be_over(self, which: str) -> None:
        """Let jobs of which something is true be due at once, and not when their lease or their wait ends."""
        moment = self.service.kept(datetime.now(UTC) - timedelta(seconds=1))
        self.service.execute(f"UPDATE jobs SET run_at = %s WHERE failed_at IS NULL AND {which}", moment)

    def finish(self, *, telling_again: bool = False) -> None:
        """Wait until every job is done; where a broker has lost messages, send them again sooner than in a minute."""

        def is_done() -> bool:
            if telling_again:
                time.sleep(0.5)
                self.let_waits_be_over("leased AND attempts = 0")
            return self.service.rows("SELECT id FROM jobs WHERE failed_at IS NULL") == []

        eventually(is_done, within=PATIENCE)

    def register(self, email: str) -> str:
        """Have somebody register, to whose address a letter must come; return it."""
        with self.service.caller() as caller:
            return register(caller, email)

    def register_many(self, number: int) -> list[str]:
        """Have some people register, a few at a time, and return their addresses."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            return [*pool.map(self.register, [new_email() for _ in range(number)])]

    @contextlib.contextmanager
    def registering(self) -> Iterator[list[str]]:
        """Have people register for as long as the block lasts; yields the addresses of those who have."""
        emails: list[str] = []
        stop = threading.Event()

        def go_on() -> None:
            with self.service.caller() as caller:
                while not stop.is_set():
                    emails.append(register(caller, new_email()))
                    time.sleep(0.05)

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(go_on) for _ in range(CLIENTS)]
            try:
                yield emails
            finally:
                stop.set()
        for client in clients:
            client.result()


def new_email() -> str:
    """Return an address that nobody else has."""
    return f"reader-{token_hex(6)}@example.com"


def register(caller: Caller, email: str) -> str:
    """Register from a network that nobody else has; whatever else is amiss, that must work."""
    body: dict[str, Any] = {"email": email, "name": "Some Person", "password": PASSWORD}
    answer = caller.post(f"{API}/users", json=body, headers=somewhere())
    assert answer.status_code == 201, answer.text
    return email


@contextlib.contextmanager
def crew_of(database_url: str, broker: Broker | None) -> Iterator[Crew]:
    """Serve the application with a crew and a mail server until the block ends."""
    mail = MailServer()
    mail.start()
    variables = {"MAIL_URL": mail.url, "TRUSTED_PROXIES": "1"}
    if broker:
        variables["CELERY_BROKER_URL"] = broker.url
    try:
        with served(database_url, **variables) as service:
            crew = Crew(service, mail, broker)
            try:
                crew.complete()
                yield crew
            finally:
                mail.release()
                crew.dismiss()
    finally:
        mail.stop()
