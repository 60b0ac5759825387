"""What the service remembers: every table, by name."""

from models.avatar import Avatar
from models.event import Event
from models.idempotency_key import IdempotencyKey
from models.job import Job
from models.one_time_token import OneTimeToken
from models.post import Post
from models.refresh_token import RefreshToken
from models.session import Session
from models.throttle import Throttle
from models.user import User
from models.webhook import Delivery, Webhook

__all__ = [
    "Avatar",
    "Delivery",
    "Event",
    "IdempotencyKey",
    "Job",
    "OneTimeToken",
    "Post",
    "RefreshToken",
    "Session",
    "Throttle",
    "User",
    "Webhook",
]
