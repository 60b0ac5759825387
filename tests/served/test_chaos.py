"""Whatever is killed, and whenever: what was acknowledged has happened, once, and everybody hears of it."""

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook as Verifier

from tests.receivers import Receiver, listening
from tests.served.service import API, TIMEOUT, Caller, Service, eventually, served

log = logging.getLogger(__name__)  # Shown with -o log_cli_level=INFO.
pytestmark = pytest.mark.served

SECONDS = float(os.environ.get("ROLLCALL_CHAOS_SECONDS", "6"))
WRITERS, STAFF = 8, 2
BETWEEN_KILLS = (0.1, 0.8)  # Seconds, at random.


@pytest.fixture
def frail(database_kind: str, make_database: Callable[[str, str], str]) -> Iterator[Service]:
    """Serve the application in development, whose webhooks may go to this machine."""
    url = make_database(database_kind, f"chaos_{token_hex(4)}")
    with served(url, APP_ENV="development", WEBHOOK_ALLOWED_HOSTS="127.0.0.1") as service:
        yield service


class Chaos:
    """Writers who keep what was acknowledged, a reader who keeps what it has seen, and a killer, all at once."""

    def __init__(self, service: Service) -> None:
        self.service, self.token = service, service.admin_token()
        self.acknowledged: list[tuple[str, int, int]] = []
        self.seen: list[int] = []
        self.kills = Counter[str]()
        self._stop = threading.Event()

    def run(self, seconds: float) -> None:
        """Let them all loose for some seconds."""
        with ThreadPoolExecutor(WRITERS + 2) as pool:
            work = [pool.submit(self._write) for _ in range(WRITERS)]
            work += [pool.submit(self._read), pool.submit(self._kill)]
            time.sleep(seconds)
            self._stop.set()
        for each in work:
            each.result()

    def _write(self) -> None:
        with self.service.caller(self.token) as caller:
            while not self._stop.is_set():
                if made := self._sent(caller, "POST", f"{API}/users", email=f"{token_hex(8)}@example.com", name="Cat"):
                    self.acknowledged.append(("user.created", made["id"], made["version"]))
                    for number in range(3):
                        self._change(caller, made["id"], f"Cat {number}")

    def _change(self, caller: Caller, user_id: int, name: str) -> None:
        if changed := self._sent(caller, "PATCH", f"{API}/users/{user_id}", name=name):
            self.acknowledged.append(("user.updated", user_id, changed["version"]))

    def _sent(self, caller: Caller, method: str, path: str, **body: Any) -> Any:
        """Return what was acknowledged, or None where there was no answer."""
        try:
            answer = caller.request(method, path, json=body)
        except requests.RequestException:
            return None
        assert answer.status_code in (200, 201, 503), answer.text
        return answer.json() if answer.ok else None

    def _read(self) -> None:
        with self.service.caller(self.token) as caller:
            while not self._stop.is_set():
                self.read_on(caller, wait=1)

    def read_on(self, caller: Caller, *, wait: int) -> bool:
        """Read what comes after what was seen; tell whether there was an answer with something in it."""
        after = self.seen[-1] if self.seen else 0
        try:
            answer = caller.get(f"{API}/events?per_page=100&after={after}&wait={wait}")
        except requests.RequestException:
            return False
        found = [event["id"] for event in answer.json()["events"]] if answer.ok else []
        self.seen += found
        return bool(found)

    def _kill(self) -> None:
        while not self._stop.wait(random.uniform(*BETWEEN_KILLS)):
            if random.random() < 0.5:
                self.kills["server"] += 1
                self.service.kill(random.choice(self.service.server.worker_pids()))
            else:
                self.kills["worker"] += STAFF
                self.service.kill_staff()
                employ(self.service)


def test_everything_acknowledged_happened_once_and_everybody_hears_of_it(frail: Service) -> None:
    receiver = Receiver()
    with listening(receiver.talk) as listener:
        chaos = Chaos(frail)
        body = {"url": listener.url, "event_types": ["user.*"]}
        secret = frail.send("POST", f"{API}/webhooks", chaos.token, json=body).json()["secret"]
        employ(frail)

        chaos.run(SECONDS)
        finish(frail)

        with frail.caller(chaos.token) as caller:
            while chaos.read_on(caller, wait=0):
                pass
        ids = [request.headers["webhook-id"] for request in receiver.requests]
        told = [Verifier(secret).verify(request.body, request.headers) for request in receiver.requests]

    events = frail.rows("SELECT position, type, subject_id, version FROM events ORDER BY position")
    changes = Counter(event[1:] for event in events if event[1].startswith("user."))
    assert len(chaos.acknowledged) > 10 and chaos.kills.total() > 2
    assert set(chaos.acknowledged) <= changes.keys() and set(changes.values()) == {1}
    # None without its change: as many for each user as there are versions of them.
    versions = Counter(user_id for _, user_id, _ in changes)
    assert versions == Counter(dict(frail.rows("SELECT id, version FROM users")))
    assert chaos.seen == [position for position, *_ in events]
    wanted = {f"evt_{event[0]}" for event in events if event[1].startswith("user.")}
    assert wanted - set(ids) <= {"evt_1"}  # The first admin was there before the webhook.
    assert {event["type"] for event in told} <= {"user.created", "user.updated"}
    # What a killed worker was telling is told again, and one lane has one such job at a time.
    assert len(ids) - len(set(ids)) <= chaos.kills["worker"]
    assert len({(request.headers["webhook-id"], request.body) for request in receiver.requests}) == len(set(ids))
    log.info("%s, %s changes, %s told again", chaos.kills, len(chaos.acknowledged), len(ids) - len(set(ids)))


def employ(service: Service) -> None:
    """Have as many workers as there should be."""
    while len(service.staff) < STAFF:
        service.employ()


def finish(service: Service) -> None:
    """Have everything done that was begun: who held a lease is dead, so it need not be waited for."""
    service.kill_staff()
    moment = service.kept(datetime.now(UTC) - timedelta(seconds=1))
    service.execute("UPDATE jobs SET run_at = %s WHERE failed_at IS NULL", moment)
    employ(service)
    eventually(lambda: service.rows("SELECT id FROM events WHERE position IS NULL") == [])
    behind = "SELECT id FROM webhooks WHERE position < (SELECT max(position) FROM events)"
    eventually(lambda: service.rows(behind) == [])
    eventually(lambda: service.rows("SELECT id FROM jobs WHERE failed_at IS NULL") == [], within=10 * TIMEOUT)
