"""Who asks, and what they may do."""

import jwt
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission

import rules
from drf.models import SignIn


class TokenAuthentication(BaseAuthentication):
    def authenticate(self, request):
        scheme, _, token = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            claims = rules.read(token)
            sign_in = SignIn.objects.select_related("user").get(
                id=claims.session_id,
                user_id=claims.user_id,
                ended_at=None,
                expires_at__gt=timezone.now(),
                user__is_active=True,
                user__deleted_at=None,
            )
        except (jwt.InvalidTokenError, SignIn.DoesNotExist):
            raise AuthenticationFailed from None
        return sign_in.user, claims

    def authenticate_header(self, request):
        return "Bearer"


class MayReadOrWrite(BasePermission):
    def has_permission(self, request, view):
        roles = rules.READERS if request.method in SAFE_METHODS else rules.WRITERS
        return request.user is not None and request.user.role in roles
