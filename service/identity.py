"""Who asks: the caller of an operation and what they may do."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller; `user_id` and `session_id` are None for somebody who has not signed in."""

    user_id: int | None
    permissions: frozenset[str]
    session_id: int | None = None

    def without_permissions(self) -> "Identity":
        """Return the same person acting for themself only, whatever their role."""
        return replace(self, permissions=frozenset())


ANONYMOUS = Identity(user_id=None, permissions=frozenset())
