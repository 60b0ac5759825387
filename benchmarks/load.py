"""Load: requests written out beforehand, and wrk, which sends them as fast as they are answered."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")
NUMBER = "@" * 10  # What wrk.lua replaces by a number that no other request has.


@dataclass(frozen=True)
class Request:
    """A request; NUMBER in its body is replaced by a new number each time it is sent."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    def wire(self, host: str) -> bytes:
        """Return the request as it goes over the wire."""
        content = self.body.encode()
        headers = {"Host": host, **self.headers}
        if content:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass(frozen=True)
class Load:
    """What came of it; times in seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    refused: int  # Answers of 400 and above.
    broken: int  # Connections that broke, and requests without an answer.
    statuses: Mapping[str, int]


def has_wrk() -> bool:
    """Tell whether the load generator is installed."""
    return shutil.which("wrk") is not None


class Wrk:
    """A run of wrk that has begun: one thread, connections that are kept, requests in turn."""

    def __init__(
        self,
        host: str,
        requests: Sequence[Request],
        *,
        connections: int,
        seconds: int,
        first_number: int = 0,
        statuses: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rollcall-wrk-")
        file = Path(self._folder.name) / "requests"
        file.write_bytes(b"\0".join(request.wire(host) for request in requests))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT)]
        command += [f"http://{host}", "--", str(file), str(first_number), "statuses" if statuses else ""]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self) -> Load:
        """Wait for the end and return what came of it."""
        output, report = self._process.communicate()
        self._folder.cleanup()
        if self._process.returncode:
            raise RuntimeError(f"wrk failed: {output}{report}")
        told = json.loads(report)
        return Load(
            requests=told["requests"],
            seconds=told["microseconds"] / 1e6,
            p50=told["p50"] / 1e6,
            p99=told["p99"] / 1e6,
            refused=told["refused"],
            broken=told["broken"],
            statuses=told["statuses"],
        )
