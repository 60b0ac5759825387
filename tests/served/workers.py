"""What each of the server's processes answers: each may remember something that the others have forgotten."""

import contextlib
import http.client

import psutil

from tests.served.service import TIMEOUT, Service, eventually

BURST = 20
ATTEMPTS = 50


def statuses_of_each_worker(service: Service, path: str, token: str) -> list[set[int]]:
    """Send bursts of requests on fresh connections until every worker has answered some; return what each answered."""
    found: dict[int, set[int]] = {pid: set() for pid in service.server.worker_pids()}
    for _ in range(ATTEMPTS):
        with contextlib.ExitStack() as stack:
            connections = [_connection(stack, service.port) for _ in range(BURST)]
            for connection in connections:
                connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            answers = [connection.getresponse() for connection in connections]
            ports = [connection.sock.getsockname()[1] for connection in connections]
            worker_of = {port: pid for pid in found for port in _ports_of_clients(pid)}
            for answer, port in zip(answers, ports, strict=True):
                answer.read()
                found[worker_of[port]].add(answer.status)
        if all(found.values()):
            return list(found.values())
    raise AssertionError("one worker answers everything")


def worker_of(service: Service, connection: http.client.HTTPConnection) -> int:
    """Return the process that has accepted a connection."""
    port = connection.sock.getsockname()[1]
    found: list[int] = []

    def is_accepted() -> bool:
        found[:] = [pid for pid in service.server.worker_pids() if port in _ports_of_clients(pid)]
        return bool(found)

    eventually(is_accepted)
    return found[0]


def _connection(stack: contextlib.ExitStack, port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    stack.callback(connection.close)
    return connection


def _ports_of_clients(pid: int) -> list[int]:
    """Return the ports of the clients that a worker is connected to."""
    return [connection.raddr.port for connection in psutil.Process(pid).net_connections() if connection.raddr]
