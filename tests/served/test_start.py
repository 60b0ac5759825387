"""Starting by one command: the worker that comes with the server ends with it, however that ends."""

import os
import signal
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.processes import environment
from tests.served.service import eventually
from tests.servers import ROOT, Gunicorn, Kept, free_port, new_folder

pytestmark = pytest.mark.served

# What `make start` runs, with the packages of this run instead of a virtual environment of its own.
START = """
import sys
from pathlib import Path

import dev

dev.PYTHON, dev.installed = Path(sys.executable), lambda: dev.digest(dev.LOCK)
dev.start([])
"""


@pytest.fixture
def started(make_database: Callable[[str, str], str]) -> Iterator[Gunicorn]:
    """Start everything on an empty database."""
    port = free_port()
    variables = environment(
        APP_ENV="development", DATABASE_URL=make_database("sqlite", "start"), PORT=str(port), WEB_CONCURRENCY="1"
    )
    server = Gunicorn(port, Kept([sys.executable, "-c", START], new_folder("start"), cwd=ROOT, environment=variables))
    try:
        eventually(server.is_ready)
        eventually(lambda: "the worker has started" in server.log())
        yield server
    finally:
        server.stop()


def is_over(process: psutil.Process) -> bool:
    """Tell whether a process has ended, even if nobody has asked for its exit status."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("number", "told"), [(signal.SIGTERM, "server"), (signal.SIGKILL, "server"), (signal.SIGINT, "everybody")]
)
def test_worker_ends_with_the_server_that_it_was_started_with(
    started: Gunicorn, number: signal.Signals, told: str
) -> None:
    server, *others = [psutil.Process(started.pid), *psutil.Process(started.pid).children()]
    worker = next(process for process in others if "--with-parent" in process.cmdline())

    for process in [server, *others] if told == "everybody" else [server]:  # As Ctrl-C in a terminal does.
        os.kill(process.pid, number)
    started.wait()

    eventually(lambda: all(is_over(process) for process in others))
    eventually(lambda: "the worker has stopped" in started.log())
    assert worker in others
    assert not [line for line in started.log().splitlines() if '"level":"INFO"' not in line and line.startswith("{")]
    assert "Traceback" not in started.log() and "zombie" not in started.log().lower()


def test_worker_that_dies_leaves_the_server_alone(started: Gunicorn) -> None:
    children = psutil.Process(started.pid).children()
    worker = next(process for process in children if "--with-parent" in process.cmdline())

    worker.kill()
    eventually(lambda: not worker.is_running())

    assert started.is_ready()
    assert "Reaped" not in started.log()
