"""Endpoints: receivers that have been added as webhooks, verify what they are told, and answer as they are asked to."""

from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from typing import Any

from flask import Flask
from sqlalchemy import bindparam, select, update
from standardwebhooks import Webhook as Verifier

from models import Job
from models.base import now
from models.statements import Record, execute, fetch_all, unit_of_work
from service import deliveries, feed
from service.jobs import runner
from tests.client import Client
from tests.receivers import Received, Receiver, Talk, listening

WEBHOOKS = "/api/v1/webhooks"
_JOBS = select(Job).order_by(Job.id)
_PUT_FORWARD = update(Job).values(run_at=bindparam("moment"))


class Endpoint:
    """A receiver that is a webhook; `path` is where the API has it."""

    def __init__(self, admin: Client, receiver: Receiver, made: dict[str, Any]) -> None:
        self.id, self.url, self.secret = made["id"], made["url"], made["secret"]
        self.path = f"{WEBHOOKS}/{self.id}"
        self.requests, self.answers = receiver.requests, receiver.answers
        self._admin = admin

    def told(self) -> list[Any]:
        """Return what it was told, all of which must be signed with its secret, and lately."""
        return [verified(self.secret, request) for request in self.requests]

    def types(self) -> list[str]:
        """Return the types of what it was told."""
        return [event["type"] for event in self.told()]

    def ids(self) -> list[str]:
        """Return the ids of what it was told."""
        return [request.headers["webhook-id"] for request in self.requests]

    def shown(self) -> Any:
        """Return what the API shows of it."""
        return self._admin.get(self.path).json

    def deliveries(self, query: str = "") -> Any:
        """Return its deliveries, as the API lists them."""
        return self._admin.get(f"{self.path}/deliveries{query}").json["deliveries"]

    def delivery(self) -> Any:
        """Return what must be its only delivery."""
        (delivery,) = self.deliveries()
        return delivery


class Endpoints:
    """Adds endpoints to an application, lets things happen of which they are told, and has them told."""

    def __init__(self, app: Flask, admin: Client, subject_id: int, stack: ExitStack) -> None:
        self.app, self._admin, self._subject_id, self._stack = app, admin, subject_id, stack
        self._numbers = count(1)
        app.config["WEBHOOK_ALLOWED_HOSTS"] = ("127.0.0.1",)

    def add(self, *answers: Any, talk: Talk | None = None, url: str = "", **fields: Any) -> Endpoint:
        """Add one that wants what happens to users, and gives these answers, or talks in its own way."""
        receiver = Receiver()
        receiver.answers.extend(answers)
        url = url or self._stack.enter_context(listening(talk or receiver.talk)).url
        made = self._admin.post(WEBHOOKS, json={"url": url, "event_types": ["user.*"], **fields})
        assert made.status_code == 201, made.text
        return Endpoint(self._admin, receiver, made.json)

    def happen(self, times: int = 1) -> None:
        """Change a user, each time once."""
        for _ in range(times):
            body = {"name": f"Name {next(self._numbers)}"}
            assert self._admin.patch(f"/api/v1/users/{self._subject_id}", json=body).status_code == 200

    def prepare(self) -> int:
        """Publish what happened and make the deliveries of it, as the worker does; return in how many steps."""
        with self.app.app_context():
            feed.publish()
            return sum(iter(deliveries.fan_out, False))

    def tell(self) -> int:
        """Prepare, and run every job that is due; return how many."""
        self.prepare()
        with self.app.app_context():
            return runner.drain()

    def tell_later(self) -> int:
        """Do so when every wait is over."""
        with self.app.app_context(), unit_of_work():
            execute(_PUT_FORWARD, moment=now() - timedelta(seconds=1))
        return self.tell()

    def jobs(self) -> list[Record]:
        """Return all jobs."""
        with self.app.app_context():
            return [*fetch_all(_JOBS)]


def verified(secret: str, request: Received) -> Any:
    """Return what a request says, or raise WebhookVerificationError, by the library that receivers use."""
    return Verifier(secret).verify(request.body, request.headers)
