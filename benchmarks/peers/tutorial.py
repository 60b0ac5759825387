"""Flask-RESTful as tutorials show it: Model.query, reqparse, marshal_with; only its connection pool is tuned."""

from datetime import UTC, datetime, timedelta
from functools import wraps

import jwt
from flask import Flask, g, request
from flask_restful import Api, Resource, abort, fields, inputs, marshal, marshal_with, reqparse
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import or_
from sqlalchemy.exc import IntegrityError

import rules

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = rules.DATABASE_URL.replace("postgresql:", "postgresql+psycopg:")
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": rules.THREADS, "max_overflow": 0}
db = SQLAlchemy(app)
api = Api(app, prefix="/api/v1")


def now():
    return datetime.now(UTC)


class User(db.Model):
    __tablename__ = "users"

    id = db.Column(db.BigInteger, primary_key=True)
    email = db.Column(db.String(120), nullable=False)
    email_key = db.Column(db.String(120), nullable=False)
    name = db.Column(db.String(80), nullable=False)
    name_key = db.Column(db.String(120), nullable=False)
    role = db.Column(db.String(16), default="member")
    is_active = db.Column(db.Boolean, default=True)
    email_verified = db.Column(db.Boolean, default=False)
    external_id = db.Column(db.String(120))
    public_metadata = db.Column(db.JSON, default=dict)
    private_metadata = db.Column(db.JSON, default=dict)
    password_hash = db.Column(db.String(255))
    version = db.Column(db.BigInteger, default=1)
    created_at = db.Column(db.DateTime(timezone=True), default=now)
    updated_at = db.Column(db.DateTime(timezone=True), default=now)
    deleted_at = db.Column(db.DateTime(timezone=True))


class SignIn(db.Model):
    __tablename__ = "sessions"

    id = db.Column(db.BigInteger, primary_key=True)
    user_id = db.Column(db.ForeignKey("users.id"), nullable=False)
    created_at = db.Column(db.DateTime(timezone=True), default=now)
    expires_at = db.Column(db.DateTime(timezone=True))
    ended_at = db.Column(db.DateTime(timezone=True))


user_fields = {
    "id": fields.Integer,
    "email": fields.String,
    "name": fields.String,
    "role": fields.String,
    "is_active": fields.Boolean,
    "email_verified": fields.Boolean,
    "external_id": fields.String,
    "metadata": fields.Raw(attribute="public_metadata"),
    "version": fields.Integer,
    "created_at": fields.DateTime(dt_format="iso8601"),
    "updated_at": fields.DateTime(dt_format="iso8601"),
}
list_fields = {"users": fields.List(fields.Nested(user_fields)), "next_cursor": fields.String}
page_fields = {**list_fields, "page": fields.Integer, "pages": fields.Integer, "total": fields.Integer}

address = inputs.regex(r"^[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+$")


def name_of_a_person(value):
    if not isinstance(value, str) or not 2 <= len(value) <= 80:
        raise ValueError("Use 2 to 80 characters.")
    return value


list_parser = reqparse.RequestParser()
list_parser.add_argument("per_page", type=inputs.int_range(1, 100), default=20, location="args")
list_parser.add_argument("cursor", type=inputs.natural, default=0, location="args")
list_parser.add_argument("page", type=inputs.positive, location="args")
list_parser.add_argument("q", type=str, location="args")

create_parser = reqparse.RequestParser()
create_parser.add_argument("email", type=address, required=True, location="json")
create_parser.add_argument("name", type=name_of_a_person, required=True, location="json")
create_parser.add_argument("metadata", type=dict, default=dict, location="json")

patch_parser = reqparse.RequestParser()
patch_parser.add_argument("name", type=name_of_a_person, location="json", store_missing=False)

login_parser = reqparse.RequestParser()
login_parser.add_argument("email", type=str, required=True, location="json")
login_parser.add_argument("password", type=str, required=True, location="json")


def role_required(roles):
    def decorate(function):
        @wraps(function)
        def wrapper(*args, **kwargs):
            try:
                claims = rules.read(request.headers.get("Authorization", "").removeprefix("Bearer "))
            except jwt.InvalidTokenError:
                abort(401, message="Invalid token")
            g.user = (
                User.query.join(SignIn, SignIn.user_id == User.id)
                .filter(
                    SignIn.id == claims.session_id,
                    User.id == claims.user_id,
                    SignIn.ended_at.is_(None),
                    SignIn.expires_at > now(),
                    User.is_active,
                    User.deleted_at.is_(None),
                )
                .first()
            )
            if g.user is None:
                abort(401, message="Invalid token")
            if g.user.role not in roles:
                abort(403, message="Not allowed")
            return function(*args, **kwargs)

        return wrapper

    return decorate


def find_or_abort(user_id, **options):
    user = db.session.get(User, user_id, **options)
    if user is None or user.deleted_at is not None:
        abort(404, message=f"User {user_id} doesn't exist")
    return user


class UserList(Resource):
    @role_required(rules.READERS)
    def get(self):
        args = list_parser.parse_args()
        query = User.query.filter(User.deleted_at.is_(None))
        if args["q"]:
            part = rules.key(args["q"])
            keys = User.name_key, User.email_key
            query = query.filter(or_(*(key.contains(part, autoescape=True) for key in keys)))
        if args["page"]:
            found = query.order_by(User.id).paginate(page=args["page"], per_page=args["per_page"], error_out=False)
            after = found.items[-1].id if found.has_next else None
            counts = {"page": found.page, "pages": found.pages, "total": found.total}
            return marshal({"users": found.items, "next_cursor": after, **counts}, page_fields)
        size = args["per_page"]
        users = query.filter(User.id > args["cursor"]).order_by(User.id).limit(size + 1).all()
        after = users[size - 1].id if len(users) > size else None
        return marshal({"users": users[:size], "next_cursor": after}, list_fields)

    @role_required(rules.WRITERS)
    @marshal_with(user_fields)
    def post(self):
        args = create_parser.parse_args()
        user = User(
            email=args["email"],
            email_key=rules.key(args["email"]),
            name=args["name"],
            name_key=rules.key(args["name"]),
            public_metadata=args["metadata"],
        )
        db.session.add(user)
        try:
            db.session.commit()
        except IntegrityError:
            db.session.rollback()
            abort(409, message="A user with that email already exists")
        return user, 201, {"Location": api.url_for(UserItem, user_id=user.id)}


class UserItem(Resource):
    @role_required(rules.READERS)
    def get(self, user_id):
        user = find_or_abort(user_id)
        response = api.make_response(marshal(user, user_fields), 200)
        response.set_etag(str(user.version))
        return response.make_conditional(request)

    @role_required(rules.WRITERS)
    @marshal_with(user_fields)
    def patch(self, user_id):
        args = patch_parser.parse_args()
        user = find_or_abort(user_id, with_for_update=True)
        for name, value in args.items():
            setattr(user, name, value)
        user.name_key = rules.key(user.name)
        user.version, user.updated_at = user.version + 1, now()
        db.session.commit()
        return user


class Login(Resource):
    def post(self):
        args = login_parser.parse_args()
        user = User.query.filter(User.email_key == rules.key(args["email"]), User.deleted_at.is_(None)).first()
        if user is None or not user.is_active or not rules.matches(args["password"], user.password_hash or ""):
            abort(401, message="Wrong email or password")
        sign_in = SignIn(user_id=user.id, expires_at=now() + timedelta(days=rules.SESSION_DAYS))
        db.session.add(sign_in)
        db.session.commit()
        return {
            "access_token": rules.issue(user.id, sign_in.id),
            "token_type": "Bearer",
            "expires_in": rules.TOKEN_SECONDS,
            "user": marshal(user, user_fields),
        }


api.add_resource(UserList, "/users")
api.add_resource(UserItem, "/users/<int:user_id>")
api.add_resource(Login, "/auth/login")
