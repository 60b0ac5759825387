"""Bytes on a socket: requests that no well-behaved client can send, and the answers to them."""

import socket
from typing import NamedTuple

from tests.served.service import TIMEOUT


class Answer(NamedTuple):
    """An answer as it came: `headers` by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def exchange(port: int, *parts: bytes) -> list[Answer]:
    """Send bytes, end our half of the connection, and return every answer until the server ends its own."""
    with connected(port) as client:
        try:
            for part in parts:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The server had read enough, and has answered.
        return answers_in(_received(client))


def first_answer(port: int, data: bytes) -> Answer:
    """Send bytes and return the first answer, while the server must believe that more is to come."""
    with connected(port) as client:
        client.sendall(data)
        raw = b""
        while not (found := answers_in(raw)):
            more = client.recv(65_536)
            assert more, f"no answer: {raw!r}"
            raw += more
        return found[0]


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def answers_in(raw: bytes) -> list[Answer]:
    """Take the answers that are whole out of what a server sent."""
    answers = []
    while b"\r\n\r\n" in raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", 0))
        if len(raw) < length:
            break
        answers.append(Answer(int(first.split()[1]), headers, raw[:length]))
        raw = raw[length:]
    return answers


def _received(client: socket.socket) -> bytes:
    raw = b""
    try:
        while more := client.recv(65_536):
            raw += more
    except ConnectionResetError:
        pass  # What came before stands.
    return raw
