"""Letters: delivered into a folder, and read there as whom they are for would read them."""

import email
import email.policy
import re
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from flask import Flask

from service.jobs import runner


class Letter:
    """A letter, and what it asks to be sent back."""

    def __init__(self, message: EmailMessage) -> None:
        self.message = message
        self.to, self.subject = str(message["To"]), str(message["Subject"])
        self.text, self.html = (self._part(kind) for kind in ("plain", "html"))

    @property
    def link(self) -> str:
        return self._found(r"^(https?://\S+/account/\S+)\r?$")

    @property
    def token(self) -> str:
        return self._found(r"[?&]token=([\w-]+)")

    @property
    def code(self) -> str:
        return self._found(r"code: (\d{4} \d{4})\b")

    def ways(self) -> list[dict[str, Any]]:
        """Return either way to answer: by the link, and by the code."""
        return [{"token": self.token}, {"email": self.to, "code": self.code}]

    def _part(self, kind: str) -> str:
        part: Any = self.message.get_body((kind,))
        return str(part.get_content())

    def _found(self, pattern: str) -> str:
        (found,) = re.findall(pattern, self.text, re.MULTILINE)
        return str(found)


def read(content: bytes) -> Letter:
    """Read a letter as it was sent."""
    message: Any = email.message_from_string(content.decode(), policy=email.policy.default)
    return Letter(message)


class Mailbox:
    """The folder to which an application delivers every letter."""

    def __init__(self, app: Flask, folder: Path) -> None:
        self.app, self.folder = app, folder
        self.seen: set[Path] = set()
        app.config["MAIL_URL"] = f"file://{folder}"

    def collect(self) -> list[Letter]:
        """Run the jobs that are due, and return the letters that have come since the last time, in their order."""
        with self.app.app_context():
            runner.drain()
        return self.arrived()

    def collect_one(self) -> Letter:
        """Collect what must be a single letter."""
        (letter,) = self.collect()
        return letter

    def arrived(self) -> list[Letter]:
        """Return the letters that have come since the last time without running any job."""
        new = sorted({*self.folder.glob("[!.]*")} - self.seen, key=lambda path: path.stat().st_mtime_ns)
        self.seen.update(new)
        return [read(path.read_bytes()) for path in new]
