"""Events: what happened to an account, for its owner and for those who must find out."""

from typing import Any

from models import Event
from models.rows import insert_row
from service.identity import Identity, current_client


def record(type_: str, *, user_id: int, actor: Identity | None = None, **data: Any) -> None:
    """Write an event in the running unit of work; `data` holds no secret, address of mail or name."""
    client = current_client()
    insert_row(
        Event,
        type=type_,
        user_id=user_id,
        actor_id=actor.user_id if actor else None,
        session_id=actor.session_id if actor else None,
        request_id=client.request_id,
        address=client.address,
        data=data,
    )
