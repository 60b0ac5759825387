"""What the service remembers: every table, by name."""

from models.post import Post
from models.session import Session
from models.user import User

__all__ = ["Post", "Session", "User"]
