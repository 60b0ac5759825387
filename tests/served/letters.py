"""The letters that a served application has put into its folder."""

import re
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import NamedTuple

from tests.served.service import Service, eventually


class Letter(NamedTuple):
    """A letter; `code` and `token` are empty where it asks for nothing."""

    to: str
    subject: str
    code: str
    token: str


def letters_to(service: Service, address: str) -> list[Letter]:
    """Return the letters to an address, the oldest first."""
    folder = Path(service.environment["MAIL_URL"].removeprefix("file://"))
    files = sorted(folder.glob("[!.]*.eml"), key=lambda path: path.stat().st_mtime_ns)
    return [letter for path in files if (letter := _read(path)).to.lower() == address.lower()]


def letter_to(service: Service, address: str, subject: str) -> Letter:
    """Wait for a letter to an address, and return the newest with that subject."""
    found: list[Letter] = []

    def has_come() -> bool:
        found[:] = [letter for letter in letters_to(service, address) if letter.subject == subject]
        return bool(found)

    eventually(has_come)
    return found[-1]


def _read(path: Path) -> Letter:
    message = message_from_bytes(path.read_bytes(), policy=default)
    body = message.get_body(("plain",))
    assert body
    text = body.get_content()
    code, token = re.search(r"code: ([0-9 ]+)", text), re.search(r"token=(\S+)", text)
    return Letter(
        to=message["To"].addresses[0].addr_spec,
        subject=str(message["Subject"]),
        code=code[1] if code else "",
        token=token[1] if token else "",
    )
