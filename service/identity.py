"""Who asks: the caller of an operation and what they may do."""

from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller: a person in a session, a program with a key, or somebody of whom nothing is known."""

    user_id: int | None
    permissions: frozenset[str]
    session_id: int | None = None
    service_account_id: int | None = None
    key_id: int | None = None

    def without_permissions(self) -> "Identity":
        """Return the same person acting for themself only, whatever their role."""
        return replace(self, permissions=frozenset())


class Client(NamedTuple):
    """Where a request comes from, as far as it is known."""

    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


UNKNOWN = Client()
_client: ContextVar[Client] = ContextVar("client", default=UNKNOWN)


def current_client() -> Client:
    """Return where the running request comes from; nothing is known outside of one."""
    return _client.get()


def remember_client(client: Client) -> None:
    """Say where the running request comes from."""
    _client.set(client)


ANONYMOUS = Identity(user_id=None, permissions=frozenset())
