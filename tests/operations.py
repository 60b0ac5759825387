"""A good request for every operation, and tables with a line for each."""

from typing import Any

from flask import Flask

from models import Post, Session, User
from tests.factories.user import PASSWORD

ADMIN_EMAIL = "admin@example.com"
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/v1/auth/login"): {"email": ADMIN_EMAIL, "password": PASSWORD},
    ("POST", "/api/v1/auth/password/forgot"): {"email": ADMIN_EMAIL},
    ("POST", "/api/v1/auth/email/resend"): {"email": ADMIN_EMAIL},
    ("PATCH", "/api/v1/me"): {"name": "New Name"},
    ("POST", "/api/v1/me/password"): {"current_password": PASSWORD, "password": "another pass phrase"},
    ("POST", "/api/v1/me/email"): {"current_password": PASSWORD, "email": "new@example.com"},
    ("POST", "/api/v1/users"): {"email": "new@example.com", "name": "New Person", "password": "a good password"},
    ("PUT", "/api/v1/users/<int:user_id>"): {
        "email": "new@example.com",
        "name": "New Person",
        "role": "support",
        "is_active": True,
    },
    ("PATCH", "/api/v1/users/<int:user_id>"): {"name": "New Name"},
    ("POST", "/api/v1/users/<int:user_id>/posts"): {"title": "A title", "content": "Some words."},
    ("PUT", "/api/v1/posts/<int:post_id>"): {"title": "A title", "content": "Some words."},
    ("PATCH", "/api/v1/posts/<int:post_id>"): {"title": "New"},
}
ARGUMENTS = {"<path:name>": "swagger-ui.css", "<path:filename>": "page.css", "<name>": "not-found"}


def operations_of(app: Flask) -> set[tuple[str, str]]:
    """Return every method of every route, but for those that follow by themselves."""
    return {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}}


def address(rule: str, user: User, post: Post) -> str:
    """Return a route's address about a user and a post."""
    for argument, value in {**ARGUMENTS, "<int:user_id>": str(user.id), "<int:post_id>": str(post.id)}.items():
        rule = rule.replace(argument, value)
    return rule


def table(text: str) -> dict[tuple[str, str], list[str]]:
    """Read a table: a line for each method and route, with what is said of it."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return {(method, rule): cells for method, rule, *cells in lines}
