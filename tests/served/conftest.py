"""The served application, once for each database."""

from collections.abc import Callable, Iterator

import pytest

from tests.served.service import Service, served


@pytest.fixture(scope="session")
def service(database_kind: str, make_database: Callable[[str, str], str]) -> Iterator[Service]:
    """Serve the application; at the end, nothing may have gone wrong that nobody foresaw."""
    with served(make_database(database_kind, "served")) as service:
        yield service
        unforeseen = service.unforeseen()
    assert not unforeseen, "\n".join(sorted(set(unforeseen)))
