"""What the service remembers: every table, by name."""

from models.api_key import ApiKey
from models.avatar import Avatar
from models.delivery import Delivery
from models.deprecated_call import DeprecatedCall
from models.event import Event
from models.idempotency_key import IdempotencyKey
from models.job import Job
from models.oauth_token import OAuthToken
from models.one_time_token import OneTimeToken
from models.post import Post
from models.refresh_token import RefreshToken
from models.service_account import ServiceAccount
from models.session import Session
from models.throttle import Throttle
from models.user import User
from models.webhook import Webhook

__all__ = [
    "ApiKey",
    "Avatar",
    "Delivery",
    "DeprecatedCall",
    "Event",
    "IdempotencyKey",
    "Job",
    "OAuthToken",
    "OneTimeToken",
    "Post",
    "RefreshToken",
    "ServiceAccount",
    "Session",
    "Throttle",
    "User",
    "Webhook",
]
