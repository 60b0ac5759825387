"""Serializers and views."""

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.http import conditional_page
from rest_framework import generics, serializers, status
from rest_framework.exceptions import APIException
from rest_framework.response import Response
from rest_framework.views import APIView

import rules
from drf.models import SignIn, User


class Conflict(APIException):
    status_code = status.HTTP_409_CONFLICT
    default_detail = "A user with this email already exists."


class UserSerializer(serializers.ModelSerializer):
    name = serializers.CharField(min_length=2, max_length=80)
    metadata = serializers.DictField(source="public_metadata", default=dict)

    class Meta:
        model = User
        fields = [
            "id",
            "email",
            "name",
            "role",
            "is_active",
            "email_verified",
            "external_id",
            "metadata",
            "version",
            "created_at",
            "updated_at",
        ]
        read_only_fields = [
            "role",
            "is_active",
            "email_verified",
            "external_id",
            "version",
            "created_at",
            "updated_at",
        ]

    def create(self, values):
        keys = {"email_key": rules.key(values["email"]), "name_key": rules.key(values["name"])}
        try:
            return super().create(values | keys)
        except IntegrityError:
            raise Conflict from None

    def update(self, user, values):
        keys = {"name_key": rules.key(values.get("name", user.name))}
        return super().update(user, values | keys | {"version": user.version + 1, "updated_at": timezone.now()})


class UserList(generics.ListCreateAPIView):
    serializer_class = UserSerializer

    def get_queryset(self):
        users = User.objects.filter(deleted_at=None)
        if q := self.request.query_params.get("q"):
            part = rules.key(q)
            users = users.filter(Q(name_key__contains=part) | Q(email_key__contains=part))
        return users

    def get_success_headers(self, data):
        return {"Location": f"/api/v1/users/{data['id']}"}


@method_decorator(conditional_page, name="get")
class UserItem(generics.RetrieveUpdateAPIView):
    serializer_class = UserSerializer

    def get_queryset(self):
        users = User.objects.filter(deleted_at=None)
        return users if self.request.method == "GET" else users.select_for_update()

    @transaction.atomic
    def patch(self, request, *args, **kwargs):
        return super().patch(request, *args, **kwargs)


class CredentialsSerializer(serializers.Serializer):
    email = serializers.CharField()
    password = serializers.CharField(trim_whitespace=False)


class Login(APIView):
    authentication_classes = []
    permission_classes = []

    def post(self, request):
        given = CredentialsSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        user = User.objects.filter(email_key=rules.key(given.validated_data["email"]), deleted_at=None).first()
        password = given.validated_data["password"]
        if user is None or not user.is_active or not rules.matches(password, user.password_hash or ""):
            return Response({"detail": "Wrong email or password."}, status.HTTP_401_UNAUTHORIZED)
        sign_in = SignIn.objects.create(user=user, expires_at=timezone.now() + timedelta(days=rules.SESSION_DAYS))
        return Response(
            {
                "access_token": rules.issue(user.id, sign_in.id),
                "token_type": "Bearer",
                "expires_in": rules.TOKEN_SECONDS,
                "user": UserSerializer(user).data,
            }
        )
