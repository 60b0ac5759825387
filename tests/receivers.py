"""Receivers of what the service sends: real servers on 127.0.0.1, and an internet whose names lead to them."""

import contextlib
import ipaddress
import socket
import socketserver
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import parse_headers
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Talk = Callable[[socket.socket, threading.Event], None]


class Listener(socketserver.ThreadingTCPServer):
    """A server that talks to each who connects, in a thread of its own, until it is `stopped`."""

    request_queue_size = 128

    def __init__(self, talk: Talk, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.connections = 0
        self.stopped = threading.Event()
        self._talk = talk
        self._context = context

    @property
    def port(self) -> int:
        """Return the port on which it listens."""
        return self.server_address[1]

    @property
    def url(self) -> str:
        """Return a URL of it."""
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}/hook"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):  # Who has called may go whenever it likes.
            if self._context is None:
                self._talk(request, self.stopped)
                return
            with self._context.wrap_socket(request, server_side=True) as connection:
                self._talk(connection, self.stopped)


@contextlib.contextmanager
def listening(talk: Talk, *, context: ssl.SSLContext | None = None) -> Iterator[Listener]:
    """Talk to whoever connects until the block ends; with TLS where there is a context for it."""
    with Listener(talk, context) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield listener
        finally:
            listener.stopped.set()
            listener.shutdown()
            thread.join()


# HTTP


class Received(NamedTuple):
    """A request; the names of its headers are in lower case, and one that comes twice has both values."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """An endpoint: keeps each request, and gives the next of its `answers`, or 204 when there is none.

    An answer is a status, a status with headers, or the very bytes to send; after none (b"") it hangs up.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answers: list[int | tuple[int, Mapping[str, str]] | bytes] = []
        self._lock = threading.Lock()

    def talk(self, connection: socket.socket, stopped: threading.Event) -> None:
        """Take a request and answer it."""
        request = read_request(connection)
        with self._lock:
            self.requests.append(request)
            answer = self.answers.pop(0) if self.answers else 204
        connection.sendall(answer if isinstance(answer, bytes) else written(answer))


def read_request(connection: socket.socket) -> Received:
    """Read a request that has a length."""
    with connection.makefile("rb") as lines:
        method, path, _ = lines.readline().decode().split(" ")
        fields = parse_headers(lines)
        headers = {name.lower(): ", ".join(fields.get_all(name, [])) for name in fields}
        return Received(method, path, headers, lines.read(int(headers.get("content-length", 0))))


def written(answer: int | tuple[int, Mapping[str, str]]) -> bytes:
    """Return an answer as it is sent, without a body."""
    status, headers = (answer, {}) if isinstance(answer, int) else answer
    length = {} if status == HTTPStatus.NO_CONTENT else {"Content-Length": "0"}
    lines = [f"HTTP/1.1 {status} ", *(f"{name}: {value}" for name, value in {**length, **headers}.items())]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


# TLS


class Authority:
    """An authority of certificates that nobody trusts but who asks it for a context."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _certificate("Authority", self._key, "Authority", self._key)

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Return the context of a server that proves itself to be these hosts."""
        key = ec.generate_private_key(ec.SECP256R1())
        return _server_context(_certificate(names[0], key, "Authority", self._key, names), key)

    def client_context(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority alone."""
        return ssl.create_default_context(cadata=self._certificate.public_bytes(serialization.Encoding.PEM).decode())


def self_signed_context(name: str) -> ssl.SSLContext:
    """Return the context of a server for whom nobody speaks but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _server_context(_certificate(name, key, name, key, [name]), key)


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: Sequence[str] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(_general_name, names)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _server_context(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = serialization.Encoding.PEM
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.pem"
        written_key = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(written_key + certificate.public_bytes(pem))
        context.load_cert_chain(path)
    return context


# The internet


class Internet:
    """What there is beyond this machine, in place of the real one.

    `names` holds for each name what the resolver finds, in turn, the last of it for ever; `places` the local port of
    whoever is at an address and port. Elsewhere nobody is: to `black_holes` calls go and nothing comes back.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[Sequence[str]]] = {}
        self.places: dict[tuple[str, int], int] = {}
        self.black_holes: set[str] = set()
        self.lookups: list[str] = []
        self.calls: list[tuple[str, int]] = []
        self._look_up = socket.getaddrinfo
        self._connect = socket.socket.connect
        monkeypatch.setattr(socket, "getaddrinfo", self._found)
        monkeypatch.setattr(socket.socket, "connect", lambda *args: self._connected(*args))

    def _found(self, host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        self.lookups.append(host)
        if host not in self.names:
            return self._look_up(host, port, *args, **options, flags=socket.AI_NUMERICHOST)
        answers = self.names[host]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in (answers.pop(0) if len(answers) > 1 else answers[0])
        ]

    def _connected(self, connection: socket.socket, address: Any) -> None:
        place = address[0], address[1]
        self.calls.append(place)
        if place[0] in self.black_holes:
            time.sleep(connection.gettimeout() or 0)
            raise TimeoutError
        if place in self.places:
            here = "::ffff:127.0.0.1" if connection.family == socket.AF_INET6 else "127.0.0.1"
            address = here, self.places[place]
        elif place[0] != "127.0.0.1":
            raise ConnectionRefusedError
        self._connect(connection, address)
