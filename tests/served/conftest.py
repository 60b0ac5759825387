"""The served application, once for each database."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.served.crew import Crew
from tests.served.service import Service, served


@pytest.fixture(scope="session")
def service(database_kind: str, make_database: Callable[[str, str], str]) -> Iterator[Service]:
    """Serve the application; at the end, nothing may have gone wrong that nobody foresaw."""
    with served(make_database(database_kind, "served")) as service, all_foreseen(service):
        yield service


@pytest.fixture(scope="session")
def instances(service: Service) -> Iterator[tuple[Service, Service]]:
    """Serve one database twice: the service, and another instance of it."""
    with service.another_instance() as other, all_foreseen(other):
        yield service, other


@pytest.fixture(scope="session")
def proxied(database_kind: str, make_database: Callable[[str, str], str]) -> Iterator[Service]:
    """Serve the application behind a proxy, so that clients come from many networks; who registers must confirm."""
    url = make_database(database_kind, "proxied")
    with served(url, REGISTRATION="confirmed", TRUSTED_PROXIES="1") as service, all_foreseen(service):
        yield service


@pytest.fixture(scope="session")
def mortal(database_kind: str, make_database: Callable[[str, str], str]) -> Iterator[Service]:
    """Serve the application for tests that kill its workers, behind a proxy."""
    url = make_database(database_kind, "mortal")
    with served(url, TRUSTED_PROXIES="1") as service, all_foreseen(service, but="SIGKILL"):
        yield service


@contextlib.contextmanager
def all_foreseen(service: Service | Crew, but: str | None = None) -> Iterator[None]:
    """Hold a server to it that nothing went wrong in the block that nobody foresaw, but for lines with some text."""
    yield
    unforeseen = [line for line in service.unforeseen() if but is None or but not in line]
    assert not unforeseen, "\n".join(sorted(set(unforeseen)))
