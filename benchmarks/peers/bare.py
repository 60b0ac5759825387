"""The limit: one WSGI function with psycopg and orjson, the same SQL, and as little as can be round it."""

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import parse_qs

import jwt
import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

import rules

MEMBERS = (
    "id, email, name, role, is_active, email_verified, external_id, public_metadata AS metadata, version, "
    "created_at, updated_at"
)
IDENTIFY = (
    "SELECT users.id, users.role FROM users JOIN sessions ON sessions.user_id = users.id "
    "WHERE sessions.id = %s AND users.id = %s AND sessions.ended_at IS NULL AND sessions.expires_at > now() "
    "AND users.is_active AND users.deleted_at IS NULL"
)
GET = f"SELECT {MEMBERS} FROM users WHERE id = %s AND deleted_at IS NULL"
LIST = f"SELECT {MEMBERS} FROM users WHERE deleted_at IS NULL AND id > %s ORDER BY id LIMIT %s"
COUNT = "SELECT count(*) AS total FROM users WHERE deleted_at IS NULL"
PAGE = (
    f"SELECT {MEMBERS} FROM users JOIN (SELECT id FROM users WHERE deleted_at IS NULL ORDER BY id LIMIT %s OFFSET %s) "
    "AS page USING (id) ORDER BY id"
)
SEARCH = (
    f"SELECT {MEMBERS} FROM users WHERE deleted_at IS NULL AND (name_key LIKE %s OR email_key LIKE %s) AND id > %s "
    "ORDER BY id LIMIT %s"
)
CREATE = (
    "INSERT INTO users (email, email_key, name, name_key, role, is_active, email_verified, public_metadata, "
    "private_metadata, version, created_at, updated_at) "
    f"VALUES (%s, %s, %s, %s, 'member', true, false, %s, '{{}}', 1, now(), now()) RETURNING {MEMBERS}"
)
LOCK = "SELECT id FROM users WHERE id = %s AND deleted_at IS NULL FOR UPDATE"
PATCH = (
    "UPDATE users SET name = %s, name_key = %s, version = version + 1, updated_at = now() WHERE id = %s "
    f"RETURNING {MEMBERS}"
)
CREDENTIALS = f"SELECT {MEMBERS}, password_hash FROM users WHERE email_key = %s AND deleted_at IS NULL"
SIGN_IN = "INSERT INTO sessions (user_id, created_at, expires_at) VALUES (%s, %s, %s) RETURNING id"

EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(?:\.[^@\s.]+)+")
STATUS = {
    200: "200 OK",
    201: "201 Created",
    304: "304 Not Modified",
    400: "400 Bad Request",
    401: "401 Unauthorized",
    403: "403 Forbidden",
    404: "404 Not Found",
    409: "409 Conflict",
    422: "422 Unprocessable Content",
}

verified = lru_cache(maxsize=4096)(rules.read)  # As ours does: a signature is checked once, its time always.
set_json_loads(orjson.Fragment)  # What the database holds as JSON goes out as it is.
local = threading.local()


class Refused(Exception):
    def __init__(self, status):
        self.status = status


def execute(statement, values=(), prepare=None):
    """Run a statement on this thread's own connection; it is prepared there when it is run often."""
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(
            rules.DATABASE_URL, autocommit=True, row_factory=dict_row, prepare_threshold=2, options="-c timezone=utc"
        )
    return local.connection.execute(statement, values, prepare=prepare)


def app(environ, start_response):
    try:
        status, body, headers = route(environ, environ["REQUEST_METHOD"], environ["PATH_INFO"])
    except Refused as refusal:
        status, body, headers = refusal.status, {"status": refusal.status}, []
    if body is None:
        start_response(STATUS[status], headers)
        return []
    content = orjson.dumps(body, option=orjson.OPT_UTC_Z)
    length = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    start_response(STATUS[status], headers + length)
    return [content]


def route(environ, method, path):
    if path == "/api/v1/auth/login":
        return login(body_of(environ))
    role = identify(environ)
    if role not in (rules.READERS if method == "GET" else rules.WRITERS):
        raise Refused(403)
    if path == "/api/v1/users":
        return users(environ) if method == "GET" else create(body_of(environ))
    user_id = int(path.removeprefix("/api/v1/users/"))
    return get(environ, user_id) if method == "GET" else patch(user_id, body_of(environ))


def identify(environ):
    try:
        claims = verified(environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer "))
    except jwt.InvalidTokenError:
        raise Refused(401) from None
    if claims.expires_at < time.time():
        raise Refused(401)
    row = execute(IDENTIFY, (claims.session_id, claims.user_id)).fetchone()
    if row is None:
        raise Refused(401)
    return row["role"]


def get(environ, user_id):
    user = execute(GET, (user_id,)).fetchone()
    if user is None:
        raise Refused(404)
    tag = f'"{user["version"]}"'
    if environ.get("HTTP_IF_NONE_MATCH") == tag:
        return 304, None, [("ETag", tag)]
    return 200, user, [("ETag", tag)]


def users(environ):
    wanted = parse_qs(environ["QUERY_STRING"])
    try:
        size, cursor = int(wanted.get("per_page", ["20"])[0]), int(wanted.get("cursor", ["0"])[0])
        number = int(wanted["page"][0]) if "page" in wanted else None
    except ValueError:
        raise Refused(400) from None
    if not 1 <= size <= 100:
        raise Refused(400)
    if number is not None:
        total = execute(COUNT).fetchone()["total"]
        rows = execute(PAGE, (size, (number - 1) * size)).fetchall()
        more = (number - 1) * size + len(rows) < total
        counts = {"page": number, "pages": max(1, -(-total // size)), "total": total}
        return 200, {"users": rows, "next_cursor": str(rows[-1]["id"]) if more and rows else None, **counts}, []
    if "q" in wanted:
        part = re.sub(r"([\\%_])", r"\\\1", rules.key(wanted["q"][0]))
        # Planned for each text, since a plan for any text would not use the index.
        rows = execute(SEARCH, (f"%{part}%", f"%{part}%", cursor, size + 1), prepare=False).fetchall()
    else:
        rows = execute(LIST, (cursor, size + 1)).fetchall()
    more = len(rows) > size
    return 200, {"users": rows[:size], "next_cursor": str(rows[size - 1]["id"]) if more else None}, []


def create(values):
    email, name = values.get("email"), values.get("name")
    if not isinstance(email, str) or not EMAIL.fullmatch(email):
        raise Refused(422)
    check_name(name)
    metadata = orjson.dumps(values.get("metadata", {})).decode()
    try:
        user = execute(CREATE, (email, rules.key(email), name, rules.key(name), metadata)).fetchone()
    except psycopg.errors.UniqueViolation:
        raise Refused(409) from None
    return 201, user, [("Location", f"/api/v1/users/{user['id']}")]


def patch(user_id, values):
    check_name(values.get("name"))
    execute("BEGIN")
    try:
        if execute(LOCK, (user_id,)).fetchone() is None:
            raise Refused(404)
        user = execute(PATCH, (values["name"], rules.key(values["name"]), user_id)).fetchone()
    finally:
        execute("COMMIT")
    return 200, user, []


def login(values):
    user = execute(CREDENTIALS, (rules.key(values["email"]),)).fetchone()
    if user is None or not user["is_active"] or not rules.matches(values["password"], user.pop("password_hash")):
        raise Refused(401)
    moment = datetime.now(UTC)
    session = execute(SIGN_IN, (user["id"], moment, moment + timedelta(days=rules.SESSION_DAYS))).fetchone()
    token = rules.issue(user["id"], session["id"])
    grant = {"access_token": token, "token_type": "Bearer", "expires_in": rules.TOKEN_SECONDS, "user": user}
    return 200, grant, []


def body_of(environ):
    try:
        return orjson.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    except orjson.JSONDecodeError:
        raise Refused(400) from None


def check_name(name):
    if not isinstance(name, str) or not 2 <= len(name) <= 80:
        raise Refused(422)
