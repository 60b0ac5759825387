"""A mail server that tests start, stop, hold up, and have refuse letters."""

import asyncio
from collections import Counter
from email import message_from_bytes
from threading import Lock
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller

from tests.servers import free_port


class Handed(NamedTuple):
    """A letter that was handed over, whether or not the sender came to know."""

    to: str
    number: str


class MailServer:
    """A mail server on a port of its own; what it was handed is kept over its stops."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"smtp://127.0.0.1:{self.port}"
        self._handed: list[Handed] = []
        self._answers: dict[str, list[str]] = {}
        self._is_held = False
        self._lock = Lock()

    def start(self) -> None:
        """Begin to take letters."""
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    def stop(self) -> None:
        """Be gone."""
        self._controller.stop()

    def hold(self) -> None:
        """Take letters, but say so only after `release`."""
        self._is_held = True

    def release(self) -> None:
        """Answer, also those who wait."""
        self._is_held = False

    def answer(self, to: str, *answers: str) -> None:
        """Answer so to the next letters to somebody, and then take them."""
        self._answers[to] = [*answers]

    def numbers(self, to: str) -> list[str]:
        """Return the Message-ID of each letter that was handed over for somebody."""
        with self._lock:
            return [letter.number for letter in self._handed if letter.to == to]

    def times_handed(self) -> Counter[str]:
        """Return how often each letter was handed over."""
        with self._lock:
            return Counter(letter.number for letter in self._handed)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's name)
        """Take a letter, or say why not."""
        (to,) = envelope.rcpt_tos
        with self._lock:
            if answers := self._answers.get(to):
                return answers.pop(0)
            self._handed.append(Handed(to, str(message_from_bytes(envelope.content)["Message-ID"])))
        while self._is_held:
            await asyncio.sleep(0.02)
        return "250 OK"
