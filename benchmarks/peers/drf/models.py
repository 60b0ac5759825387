"""The two tables, which somebody else migrates."""

from django.db import models
from django.utils import timezone


class JsonColumn(models.JSONField):
    """A column of the type json, which psycopg has read already; Django itself expects jsonb."""

    def from_db_value(self, value, expression, connection):
        return value


class User(models.Model):
    email = models.EmailField(max_length=120)
    email_key = models.CharField(max_length=120)
    name = models.CharField(max_length=80)
    name_key = models.CharField(max_length=120)
    role = models.CharField(max_length=16, default="member")
    is_active = models.BooleanField(default=True)
    email_verified = models.BooleanField(default=False)
    external_id = models.CharField(max_length=120, null=True)
    public_metadata = JsonColumn(default=dict)
    private_metadata = JsonColumn(default=dict)
    password_hash = models.CharField(max_length=255, null=True)
    version = models.BigIntegerField(default=1)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    deleted_at = models.DateTimeField(null=True)

    is_authenticated = True

    class Meta:
        managed = False
        db_table = "users"


class SignIn(models.Model):
    user = models.ForeignKey(User, on_delete=models.DO_NOTHING)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "sessions"
