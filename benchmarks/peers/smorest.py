"""flask-smorest: blueprints with arguments and responses declared as marshmallow schemas."""

from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import jwt
import marshmallow as ma
from flask import Flask, request, url_for
from flask.views import MethodView
from flask_smorest import Api, Blueprint, abort
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import rules

app = Flask(__name__)
app.config |= {
    "API_TITLE": "Users",
    "API_VERSION": "v1",
    "OPENAPI_VERSION": "3.1.0",
    "SQLALCHEMY_DATABASE_URI": rules.DATABASE_URL.replace("postgresql:", "postgresql+psycopg:"),
    "SQLALCHEMY_ENGINE_OPTIONS": {"pool_size": rules.THREADS, "max_overflow": 0},
}


def now():
    return datetime.now(UTC)


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(app, model_class=Base)
api = Api(app)


class User(db.Model):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    email: Mapped[str]
    email_key: Mapped[str]
    name: Mapped[str]
    name_key: Mapped[str]
    role: Mapped[str] = mapped_column(default="member")
    is_active: Mapped[bool] = mapped_column(default=True)
    email_verified: Mapped[bool] = mapped_column(default=False)
    external_id: Mapped[str | None]
    public_metadata: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    private_metadata: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    password_hash: Mapped[str | None]
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class SignIn(db.Model):
    __tablename__ = "sessions"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class UserSchema(ma.Schema):
    id = ma.fields.Integer(dump_only=True)
    email = ma.fields.Email(required=True, validate=ma.validate.Length(max=120))
    name = ma.fields.String(required=True, validate=ma.validate.Length(2, 80))
    role = ma.fields.String(dump_only=True)
    is_active = ma.fields.Boolean(dump_only=True)
    email_verified = ma.fields.Boolean(dump_only=True)
    external_id = ma.fields.String(dump_only=True)
    public_metadata = ma.fields.Dict(data_key="metadata")
    version = ma.fields.Integer(dump_only=True)
    created_at = ma.fields.AwareDateTime(dump_only=True)
    updated_at = ma.fields.AwareDateTime(dump_only=True)


class UserPatchSchema(ma.Schema):
    name = ma.fields.String(validate=ma.validate.Length(2, 80))


class UserQuerySchema(ma.Schema):
    per_page = ma.fields.Integer(load_default=20, validate=ma.validate.Range(1, 100))
    cursor = ma.fields.Integer(load_default=0, validate=ma.validate.Range(min=0))
    page = ma.fields.Integer(load_default=None, validate=ma.validate.Range(min=1))
    q = ma.fields.String(load_default=None, validate=ma.validate.Length(1, 120))


class UserPageSchema(ma.Schema):
    users = ma.fields.List(ma.fields.Nested(UserSchema))
    next_cursor = ma.fields.String()
    page = ma.fields.Integer()
    pages = ma.fields.Integer()
    total = ma.fields.Integer()


class CredentialsSchema(ma.Schema):
    email = ma.fields.String(required=True)
    password = ma.fields.String(required=True)


class GrantSchema(ma.Schema):
    access_token = ma.fields.String()
    token_type = ma.fields.String()
    expires_in = ma.fields.Integer()
    user = ma.fields.Nested(UserSchema)


def role_required(roles):
    def decorate(function):
        @wraps(function)
        def wrapper(*args, **kwargs):
            try:
                claims = rules.read(request.headers.get("Authorization", "").removeprefix("Bearer "))
            except jwt.InvalidTokenError:
                abort(401)
            user = db.session.scalar(
                select(User)
                .join(SignIn, SignIn.user_id == User.id)
                .where(
                    SignIn.id == claims.session_id,
                    User.id == claims.user_id,
                    SignIn.ended_at.is_(None),
                    SignIn.expires_at > now(),
                    User.is_active,
                    User.deleted_at.is_(None),
                )
            )
            if user is None:
                abort(401)
            if user.role not in roles:
                abort(403)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def find_or_abort(user_id, **options):
    user = db.session.get(User, user_id, **options)
    if user is None or user.deleted_at is not None:
        abort(404, message="User not found.")
    return user


blp = Blueprint("users", __name__, url_prefix="/api/v1")


@blp.route("/users")
class Users(MethodView):
    @role_required(rules.READERS)
    @blp.arguments(UserQuerySchema, location="query")
    @blp.response(200, UserPageSchema)
    def get(self, args):
        """List users."""
        size, number = args["per_page"], args["page"]
        statement = select(User).where(User.deleted_at.is_(None)).order_by(User.id)
        if args["q"]:
            part = rules.key(args["q"])
            keys = User.name_key, User.email_key
            statement = statement.where(or_(*(key.contains(part, autoescape=True) for key in keys)))
        if number:
            total = db.session.scalar(select(func.count()).select_from(statement.order_by(None).subquery()))
            users = db.session.scalars(statement.offset((number - 1) * size).limit(size)).all()
            more = (number - 1) * size + len(users) < total
            counts = {"page": number, "pages": max(1, -(-total // size)), "total": total}
            return {"users": users, "next_cursor": users[-1].id if more and users else None, **counts}
        users = db.session.scalars(statement.where(User.id > args["cursor"]).limit(size + 1)).all()
        return {"users": users[:size], "next_cursor": users[size - 1].id if len(users) > size else None}

    @role_required(rules.WRITERS)
    @blp.arguments(UserSchema)
    @blp.response(201, UserSchema)
    def post(self, values):
        """Create a user."""
        user = User(**values, email_key=rules.key(values["email"]), name_key=rules.key(values["name"]))
        db.session.add(user)
        try:
            db.session.commit()
        except IntegrityError:
            db.session.rollback()
            abort(409, message="A user with this email already exists.")
        return user, 201, {"Location": url_for("users.UserById", user_id=user.id)}


@blp.route("/users/<int:user_id>")
class UserById(MethodView):
    @role_required(rules.READERS)
    @blp.etag
    @blp.response(200, UserSchema)
    def get(self, user_id):
        """Read a user."""
        user = find_or_abort(user_id)
        blp.set_etag({"version": user.version})
        return user

    @role_required(rules.WRITERS)
    @blp.arguments(UserPatchSchema)
    @blp.response(200, UserSchema)
    def patch(self, values, user_id):
        """Change a user."""
        user = find_or_abort(user_id, with_for_update=True)
        for name, value in values.items():
            setattr(user, name, value)
        user.name_key = rules.key(user.name)
        user.version, user.updated_at = user.version + 1, now()
        db.session.commit()
        return user


@blp.route("/auth/login")
class Login(MethodView):
    @blp.arguments(CredentialsSchema)
    @blp.response(200, GrantSchema)
    def post(self, values):
        """Sign in."""
        found = select(User).where(User.email_key == rules.key(values["email"]), User.deleted_at.is_(None))
        user = db.session.scalar(found)
        if user is None or not user.is_active or not rules.matches(values["password"], user.password_hash or ""):
            abort(401, message="Wrong email or password.")
        sign_in = SignIn(user_id=user.id, expires_at=now() + timedelta(days=rules.SESSION_DAYS))
        db.session.add(sign_in)
        db.session.commit()
        token = rules.issue(user.id, sign_in.id)
        return {"access_token": token, "token_type": "Bearer", "expires_in": rules.TOKEN_SECONDS, "user": user}


api.register_blueprint(blp)
