"""Who competes: ourselves, the peers, and the limit, each in the server that its documentation recommends."""

import contextlib
import hashlib
import http.client
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tests.servers import ATTEMPTS, ROOT, DidNotStart, Kept, free_port, inherited, new_folder, started

PEERS = Path(__file__).resolve().parent / "peers"
FASTIFY = PEERS / "fastify"
LOCK = PEERS.parent / "requirements.txt"
VENV = ROOT / ".venv-bench"
PYTHON = VENV / "bin" / "python"
ISSUER = "https://users.example.com"
LIMITS = ("RATE_LIMIT_KEY", "RATE_LIMIT_USER", "RATE_LIMIT_ADDRESS", "RATE_LIMIT_COSTLY")


@dataclass(frozen=True)
class Size:
    """How many processes and threads each contestant has."""

    workers: int
    threads: int


@dataclass(frozen=True)
class Contestant:
    """Somebody who answers; `kind` is ours, peer or limit, `needs` the environment it runs in."""

    name: str
    title: str
    kind: str
    needs: str
    folder: Path
    command: Callable[[Size, int], list[str]]


def _ours(size: Size, port: int) -> list[str]:
    # Its line for each request is written, and thrown away by the system.
    serve = [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.py", "wsgi:app"]
    return ["sh", "-c", 'exec "$@" >/dev/null', "sh", *serve]


def _gunicorn(module: str) -> Callable[[Size, int], list[str]]:
    def command(size: Size, port: int) -> list[str]:
        options = ["-k", "gthread", "-w", str(size.workers), "--threads", str(size.threads), "--keep-alive", "5"]
        options += ["-b", f"127.0.0.1:{port}", "--no-control-socket", "--log-level", "warning"]
        return [str(PYTHON), "-m", "gunicorn", *options, module]

    return command


def _uvicorn(module: str) -> Callable[[Size, int], list[str]]:
    def command(size: Size, port: int) -> list[str]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(size.workers), "--no-access-log"]
        return [str(PYTHON), "-m", "uvicorn", module, *options, "--log-level", "warning"]

    return command


def _node(size: Size, port: int) -> list[str]:
    return [shutil.which("node") or "node", "server.js"]


CONTESTANTS = (
    Contestant("rollcall", "Rollcall", "ours", "nothing more", ROOT, _ours),
    Contestant("fastapi-sync", "FastAPI + SQLModel", "peer", "Python", PEERS, _uvicorn("fastapi_sync:app")),
    Contestant("fastapi-async", "FastAPI async + asyncpg", "peer", "Python", PEERS, _uvicorn("fastapi_async:app")),
    Contestant("drf", "Django REST Framework", "peer", "Python", PEERS, _gunicorn("drf.wsgi:application")),
    Contestant("smorest", "flask-smorest", "peer", "Python", PEERS, _gunicorn("smorest:app")),
    Contestant("tutorial", "Flask-RESTful, tutorial", "peer", "Python", PEERS, _gunicorn("tutorial:app")),
    Contestant("fastify", "Fastify + pg", "peer", "Node", FASTIFY, _node),
    Contestant("limit", "bare WSGI + psycopg", "limit", "Python", PEERS, _gunicorn("bare:app")),
)


class Running:
    """A contestant that answers on a port."""

    def __init__(self, contestant: Contestant, port: int, kept: Kept) -> None:
        self.contestant, self.port, self.pid = contestant, port, kept.pid
        self.host = f"127.0.0.1:{port}"
        self._kept = kept

    def answers(self) -> bool:
        """Tell whether it answers at all; without a token that is a refusal."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/api/v1/users/1")
            return connection.getresponse().status in (401, 403)
        return False

    def stop(self) -> None:
        """End it."""
        self._kept.stop()


def settings(signing_key: str) -> dict[str, str]:
    """Return the environment variables that every contestant shares: ours by their own names, then the peers'."""
    public = load_pem_private_key(signing_key.encode(), None).public_key()
    return {
        "APP_ENV": "production",
        "SECRET_KEY": "of a benchmark only: 0123456789 abcdefghijklmnopqrstuvwxyz",
        "SIGNING_KEYS": signing_key,
        "PUBLIC_URL": ISSUER,
        "ALLOWED_HOSTS": "127.0.0.1",
        "REGISTRATION": "closed",
        "MAIL_URL": "file:///dev/null",
        "LOG_LEVEL": "INFO",
        # Higher than anybody gets, but counted: what that costs belongs to the figures.
        **dict.fromkeys(LIMITS, "100000000/minute"),
        "ISSUER": ISSUER,
        "PRIVATE_KEY": signing_key,
        "PUBLIC_KEY": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "NODE_ENV": "production",
    }


@contextlib.contextmanager
def running(contestant: Contestant, size: Size, environment: Mapping[str, str]) -> Iterator[Running]:
    """Serve a contestant until the block ends; raises DidNotStart."""
    server = _start(contestant, size, environment)
    try:
        yield server
    finally:
        server.stop()


def _start(contestant: Contestant, size: Size, environment: Mapping[str, str]) -> Running:
    for _ in range(ATTEMPTS):
        port = free_port()
        numbers = {"PORT": port, "WEB_CONCURRENCY": size.workers, "WORKERS": size.workers, "THREADS": size.threads}
        variables = inherited() | dict(environment) | {name: str(value) for name, value in numbers.items()}
        kept = Kept(contestant.command(size, port), new_folder("contestant"), contestant.folder, variables)
        server = Running(contestant, port, kept)
        with started(kept):
            while not server.answers():
                kept.pause()
            return server
    raise DidNotStart(f"{contestant.name} found no free port.")


def missing(needs: str) -> str:
    """Install what a contestant needs, unless it is there already; return why not, or nothing."""
    if needs == "Python":
        return _install_python()
    if needs == "Node":
        return _install_node()
    return ""


def _install_python() -> str:
    stamp = VENV / "installed-lock"
    if _is_installed(stamp, LOCK):
        return ""
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", LOCK]
    return _run([sys.executable, "-m", "venv", VENV]) or _run(pip) or _note(stamp, LOCK)


def _install_node() -> str:
    stamp, lock = FASTIFY / "node_modules" / ".installed-lock", FASTIFY / "package-lock.json"
    if _is_installed(stamp, lock):
        return ""
    if not shutil.which("node") or not shutil.which("npm"):
        return "Node and npm are not installed"
    return _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], FASTIFY) or _note(stamp, lock)


def _is_installed(stamp: Path, lock: Path) -> bool:
    return stamp.exists() and stamp.read_text() == _digest(lock)


def _note(stamp: Path, lock: Path) -> str:
    stamp.write_text(_digest(lock))
    return ""


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def _run(command: list[str | Path], folder: Path = ROOT) -> str:
    """Run a command; return the last line of what it said if it failed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    said = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
    return f"{Path(command[0]).name}: {said[-1]}" if done.returncode else ""
