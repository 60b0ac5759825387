"""Every URL of the API: the table of contents."""

from flask import Blueprint

from resources.auth import EmailResend, EmailVerify, Login, Logout, PasswordForgot, PasswordRenewal, Refresh
from resources.avatars import UserAvatar
from resources.docs import serve_document
from resources.events import EventFeed, MyEventList, UserEventList
from resources.http.api import Api
from resources.me import Me, MyEmail, MyExport, MyPassword
from resources.posts import PostItem, UserPostList
from resources.service_accounts import KeyItem, KeyList, ServiceAccountItem, ServiceAccountList
from resources.sessions import MySession, MySessionList, UserSession, UserSessionList
from resources.users import UserErasure, UserItem, UserList, UserRestoration
from resources.webhooks import (
    WebhookDeliveryList,
    WebhookItem,
    WebhookList,
    WebhookPing,
    WebhookRedelivery,
    WebhookSecret,
)


def version_1() -> Blueprint:
    """Return version 1 of the API."""
    blueprint = Blueprint("api_v1", __name__, url_prefix="/api/v1")
    serve_document(blueprint)
    api = Api(blueprint)
    api.add_resource(UserList, "/users")
    api.add_resource(UserItem, "/users/<int:user_id>")
    api.add_resource(UserRestoration, "/users/<int:user_id>/restore")
    api.add_resource(UserErasure, "/users/<int:user_id>/erase")
    api.add_resource(UserSessionList, "/users/<int:user_id>/sessions")
    api.add_resource(UserSession, "/users/<int:user_id>/sessions/<int:session_id>")
    api.add_resource(UserAvatar, "/users/<int:user_id>/avatar")
    api.add_resource(UserPostList, "/users/<int:user_id>/posts")
    api.add_resource(UserEventList, "/users/<int:user_id>/events")
    api.add_resource(PostItem, "/posts/<int:post_id>")
    api.add_resource(Me, "/me")
    api.add_resource(MyPassword, "/me/password")
    api.add_resource(MyEmail, "/me/email")
    api.add_resource(MyExport, "/me/export")
    api.add_resource(MySessionList, "/me/sessions")
    api.add_resource(MySession, "/me/sessions/<int:session_id>")
    api.add_resource(MyEventList, "/me/events")
    api.add_resource(EventFeed, "/events")
    api.add_resource(Login, "/auth/login")
    api.add_resource(Refresh, "/auth/refresh")
    api.add_resource(Logout, "/auth/logout")
    api.add_resource(PasswordForgot, "/auth/password/forgot")
    api.add_resource(PasswordRenewal, "/auth/password/reset")
    api.add_resource(EmailVerify, "/auth/email/verify")
    api.add_resource(EmailResend, "/auth/email/resend")
    api.add_resource(ServiceAccountList, "/service-accounts")
    api.add_resource(ServiceAccountItem, "/service-accounts/<int:service_account_id>")
    api.add_resource(KeyList, "/service-accounts/<int:service_account_id>/keys")
    api.add_resource(KeyItem, "/service-accounts/<int:service_account_id>/keys/<int:key_id>")
    api.add_resource(WebhookList, "/webhooks")
    api.add_resource(WebhookItem, "/webhooks/<int:webhook_id>")
    api.add_resource(WebhookSecret, "/webhooks/<int:webhook_id>/secret")
    api.add_resource(WebhookPing, "/webhooks/<int:webhook_id>/ping")
    api.add_resource(WebhookDeliveryList, "/webhooks/<int:webhook_id>/deliveries")
    api.add_resource(WebhookRedelivery, "/webhooks/<int:webhook_id>/deliveries/<int:delivery_id>/redeliver")
    return blueprint
