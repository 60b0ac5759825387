"""Addresses: which URLs may be called, and where their hosts are; only what is public, unless it is allowed by name.

What is public is read off the registries of IANA: Python's `is_global` takes for public what is not, among it
addresses of IPv6 that stand for private ones of IPv4.
"""

import re
import socket
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

LONGEST_URL = 2048
PORTS = (443, 8443)
LOOK_UP = 2.0  # Seconds.

_NETWORKS_OF_IPV4 = (
    "0.0.0.0/8",  # This network, which Linux takes for itself.
    "10.0.0.0/8",  # Private.
    "100.64.0.0/10",  # Of the customers of a carrier; also a cloud's metadata.
    "127.0.0.0/8",  # This machine.
    "168.63.129.16/32",  # A cloud's own service to its machines: public in number only.
    "169.254.0.0/16",  # Link-local; also the metadata of most clouds.
    "172.16.0.0/12",  # Private.
    "192.0.0.0/24",  # For protocols.
    "192.0.2.0/24",  # For examples.
    "192.88.99.0/24",  # Relays of 6to4.
    "192.168.0.0/16",  # Private.
    "198.18.0.0/15",  # For measurements.
    "198.51.100.0/24",  # For examples.
    "203.0.113.0/24",  # For examples.
    "224.0.0.0/4",  # To many.
    "240.0.0.0/4",  # Reserved; also to all.
)
_NETWORKS_OF_IPV6 = (
    "2001::/23",  # For protocols, Teredo among them.
    "2001:db8::/32",  # For examples.
    "2002::/16",  # 6to4.
    "3fff::/20",  # For examples.
)
_NOT_PUBLIC = tuple(map(ip_network, _NETWORKS_OF_IPV4 + _NETWORKS_OF_IPV6))
_GIVEN_OUT = IPv6Network("2000::/3")  # All the rest of IPv6 is special, or nobody's yet.

_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*")  # RFC 3986 §2.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>\[[0-9a-f.]*:[0-9a-f:.]+\]|{_LABEL}(?:\.{_LABEL})*)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?",
    re.IGNORECASE,
)
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # Resolvers may take it for an address.
_OF_THIS_NETWORK = (".localhost", ".local", ".internal")
# Of those who look something up: a resolver takes the time it wants, and cannot be stopped.
_lookups = threading.BoundedSemaphore(16)


class Refused(Exception):
    """What is asked for may not be called; the message says why to the author of the URL."""


class Target(NamedTuple):
    """The parts of a URL that may be called."""

    scheme: str
    host: str  # As it is written: an address of IPv6 has its brackets.
    port: int
    path: str
    is_allowed: bool  # By name.

    @property
    def name(self) -> str:
        """Return the host as it is looked up and proves itself."""
        return self.host.strip("[]")

    @property
    def authority(self) -> str:
        """Return the host as a request names it (RFC 9110 §7.2)."""
        is_default = self.port == _default_port(self.scheme)
        return self.host if is_default else f"{self.host}:{self.port}"


def is_public(address: str) -> bool:
    """Tell whether an address, in its usual spelling, is one of the internet."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    is_given_out = isinstance(found, IPv4Address) or found in _GIVEN_OUT
    return is_given_out and not any(found in network for network in _NOT_PUBLIC)


def target_of(url: str, allowed_hosts: Collection[str] = ()) -> Target:
    """Return what a URL calls; raises Refused."""
    if len(url) > LONGEST_URL:
        raise Refused(f"Use at most {LONGEST_URL} characters.")
    if not _CHARACTERS.fullmatch(url):
        raise Refused("Use only the characters of a URL (RFC 3986), and xn-- for a name beyond ASCII.")
    if "#" in url:
        raise Refused("Leave out the fragment, which is never sent.")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise Refused("Write https://host/path, without a user, and without a dot after the host.")
    scheme, host = parts["scheme"].lower(), parts["host"].lower()
    port = int(parts["port"] or _default_port(scheme))
    if not 0 < port < 2**16 or len(host) > 253:
        raise Refused("Use a host and a port that there can be.")
    is_allowed = not {host, f"{host}:{port}"}.isdisjoint(map(str.lower, allowed_hosts))
    if not is_allowed:
        _check_place(scheme, host, port)
    return Target(scheme, host, port, (parts["path"] or "/") + (parts["query"] or ""), is_allowed)


def _check_place(scheme: str, host: str, port: int) -> None:
    """Refuse what only a host that is allowed by name may be; raises Refused."""
    if scheme != "https":
        raise Refused("Use https.")
    if port not in PORTS:
        raise Refused(f"Use port {' or '.join(map(str, PORTS))}.")
    if host.startswith("[") or _ENDS_IN_A_NUMBER.fullmatch(host):
        if not is_public(host.strip("[]")):
            raise Refused("Use a public address, in its usual spelling.")
    elif "." not in host or host.endswith(_OF_THIS_NETWORK):
        raise Refused("Use a host whose name is public.")


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


# Where a host is

Place = tuple[socket.AddressFamily, Any]


def places_of(target: Target) -> list[Place]:
    """Return where a host is, by asking once; raises Refused if any of these places is not public, OSError."""
    found = _look_up(target.name, target.port)
    if not target.is_allowed and not all(is_public(address[0]) for _, address in found):
        raise Refused("Use a host that is in public places only.")
    return found


def _look_up(host: str, port: int) -> list[Place]:
    until = time.monotonic() + LOOK_UP
    if not _lookups.acquire(timeout=LOOK_UP):
        raise TimeoutError
    found: Future[list[Place]] = Future()
    # A daemon: one that hangs holds up neither us nor the end of the process.
    threading.Thread(target=_ask, args=(host, port, found), daemon=True, name="look up").start()
    return found.result(max(0, until - time.monotonic()))


def _ask(host: str, port: int, found: "Future[list[Place]]") -> None:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found.set_result([(family, address) for family, *_, address in answers])
    except OSError as error:
        found.set_exception(error)
    finally:
        _lookups.release()
