"""A good request for every operation, and tables with a line for each."""

from collections.abc import Callable
from itertools import count
from secrets import token_urlsafe
from typing import Any, NamedTuple

from flask import Flask

from models import Avatar, Post, User
from models.base import db
from tests.factories.api_key import ApiKeyFactory, new_key
from tests.factories.avatar import AvatarFactory
from tests.factories.base import Bound
from tests.factories.oauth_token import token_for
from tests.factories.one_time_token import OneTimeTokenFactory
from tests.factories.refresh_token import RefreshTokenFactory, new_refresh_token
from tests.factories.service_account import ServiceAccountFactory
from tests.factories.session import SessionFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.factories.webhook import DeliveryFactory, WebhookFactory
from tests.pictures import a_picture

NEW_PASSWORD = "another pass phrase"
ARGUMENTS = {"<path:name>": "swagger-ui.css", "<path:filename>": "page.css", "<name>": "not-found"}
OF_DELETED_USERS = {"/api/v1/users/<int:user_id>/restore", "/api/v1/users/<int:user_id>/erase"}
numbers = count(1)


class Sent(NamedTuple):
    """Where a request goes, and what is sent there."""

    path: str
    more: dict[str, Any]


def new_address() -> str:
    """Return an address that nobody has."""
    return f"new{next(numbers)}@example.com"


def refresh_token_of(user: User) -> str:
    """Return a refresh token of a session of the user."""
    token = new_refresh_token()
    RefreshTokenFactory(token=token, session=SessionFactory(user=user))
    return token


def letter_to(user: User, purpose: str) -> str:
    """Return what the link of a letter to the user holds."""
    token = token_urlsafe(32)
    OneTimeTokenFactory(token=token, user=user, purpose=purpose)
    return token


def avatar_of(user: User) -> Avatar:
    """Return a user's avatar, made where there is none."""
    with Bound.app.app_context():
        found = db.session.scalar(db.select(Avatar).filter_by(user_id=user.id))
    return found or AvatarFactory(user=user)


def client_with_token() -> dict[str, str]:
    """Return the form in which a program speaks of a token of its own."""
    text = new_key()
    key = ApiKeyFactory(text=text)
    return {"client_id": f"sa_{key.service_account_id}", "client_secret": text, "token": token_for(key)}


BODIES: dict[tuple[str, str], Callable[[User], dict[str, Any]]] = {
    ("POST", "/api/v1/auth/login"): lambda user: {"email": user.email, "password": PASSWORD},
    ("POST", "/api/v1/auth/refresh"): lambda user: {"refresh_token": refresh_token_of(user)},
    ("POST", "/api/v1/auth/password/forgot"): lambda user: {"email": user.email},
    ("POST", "/api/v1/auth/password/reset"): lambda user: {
        "token": letter_to(user, "reset_password"),
        "password": NEW_PASSWORD,
    },
    ("POST", "/api/v1/auth/email/verify"): lambda user: {"token": letter_to(user, "verify_email")},
    ("POST", "/api/v1/auth/email/resend"): lambda user: {"email": user.email},
    ("PATCH", "/api/v1/me"): lambda user: {"name": "New Name"},
    ("POST", "/api/v1/me/password"): lambda user: {"current_password": PASSWORD, "password": NEW_PASSWORD},
    ("POST", "/api/v1/me/email"): lambda user: {"current_password": PASSWORD, "email": new_address()},
    ("POST", "/api/v1/users"): lambda user: {
        "email": new_address(),
        "name": "New Person",
        "password": "a good password",
    },
    ("PUT", "/api/v1/users/<int:user_id>"): lambda user: {
        "email": new_address(),
        "name": "New Person",
        "role": "support",
        "is_active": True,
    },
    ("PATCH", "/api/v1/users/<int:user_id>"): lambda user: {"name": "New Name"},
    ("POST", "/api/v1/users/<int:user_id>/posts"): lambda user: {"title": "A title", "content": "Some words."},
    ("PUT", "/api/v1/posts/<int:post_id>"): lambda user: {"title": "A title", "content": "Some words."},
    ("PATCH", "/api/v1/posts/<int:post_id>"): lambda user: {"title": "New"},
    ("POST", "/api/v1/webhooks"): lambda user: {"url": "https://hooks.example.com/new", "event_types": ["user.*"]},
    ("PATCH", "/api/v1/webhooks/<int:webhook_id>"): lambda user: {"description": "New"},
    ("POST", "/api/v1/service-accounts"): lambda user: {"name": "New Program", "scopes": ["users:read"]},
    ("PATCH", "/api/v1/service-accounts/<int:service_account_id>"): lambda user: {"name": "New Name"},
}
FORMS: dict[tuple[str, str], Callable[[User], dict[str, str]]] = {
    ("POST", "/account/confirm"): lambda user: {"token": letter_to(user, "verify_email")},
    ("POST", "/account/reset"): lambda user: {"token": letter_to(user, "reset_password"), "password": NEW_PASSWORD},
    ("POST", "/oauth/token"): lambda user: {"grant_type": "client_credentials", **client_with_token()},
    ("POST", "/oauth/revoke"): lambda user: client_with_token(),
    ("POST", "/oauth/introspect"): lambda user: client_with_token(),
}
# Where a program says in the form who it is, and so not in a header.
BY_FORM = {operation for operation in FORMS if operation[1].startswith("/oauth/")}
PICTURES = {("PUT", "/api/v1/users/<int:user_id>/avatar")}


def operations_of(app: Flask) -> set[tuple[str, str]]:
    """Return every method of every route, but for those that follow by themselves."""
    return {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}}


def prepared(method: str, rule: str, user: User, post: Post) -> Sent:
    """Make what a good request about a user and a post needs to be there, and return the request.

    Only who has been deleted can be restored or erased: for that, it is about another user.
    """
    subject = UserFactory(deleted=True) if rule in OF_DELETED_USERS else user
    arguments = {**ARGUMENTS, "<int:user_id>": str(subject.id), "<int:post_id>": str(post.id)}
    if "/sessions" in rule:
        arguments["<int:session_id>"] = str(SessionFactory(user=subject).id)
    if "avatar" in rule:
        arguments["<file>"] = f"{avatar_of(subject).name}-64.webp"
    if "webhook" in rule:
        webhook = WebhookFactory()
        arguments["<int:webhook_id>"] = str(webhook.id)
        if "<int:delivery_id>" in rule:
            arguments["<int:delivery_id>"] = str(DeliveryFactory(webhook=webhook, delivered=True).id)
    if "service-accounts" in rule:
        account = ServiceAccountFactory()
        arguments["<int:service_account_id>"] = str(account.id)
        if "<int:key_id>" in rule:
            arguments["<int:key_id>"] = str(ApiKeyFactory(account=account).id)
    path = rule
    for argument, value in arguments.items():
        path = path.replace(argument, value)
    if body := BODIES.get((method, rule)):
        return Sent(path, {"json": body(user)})
    if (method, rule) in PICTURES:
        return Sent(path, {"data": a_picture(), "headers": {"Content-Type": "image/png"}})
    form = FORMS.get((method, rule))
    return Sent(path, {"data": form(user)} if form else {})


def table(text: str) -> dict[tuple[str, str], list[str]]:
    """Read a table: a line for each method and route, with what is said of it."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return {(method, rule): cells for method, rule, *cells in lines}
