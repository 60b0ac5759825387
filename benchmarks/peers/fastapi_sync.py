"""FastAPI with SQLModel, as in its full-stack template: plain functions, dependencies, response models."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, ConfigDict, EmailStr
from sqlalchemy import JSON, BigInteger, DateTime
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, SQLModel, col, create_engine, func, or_, select

import rules

# FastAPI runs plain functions in up to 40 threads; each may hold a connection.
engine = create_engine(rules.DATABASE_URL.replace("postgresql:", "postgresql+psycopg:"), pool_size=40, max_overflow=0)


def now() -> datetime:
    return datetime.now(UTC)


class User(SQLModel, table=True):
    __tablename__ = "users"

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger)
    email: str = Field(max_length=120)
    email_key: str = Field(max_length=120)
    name: str = Field(max_length=80)
    name_key: str = Field(max_length=120)
    role: str = "member"
    is_active: bool = True
    email_verified: bool = False
    external_id: str | None = None
    public_metadata: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    private_metadata: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    password_hash: str | None = None
    version: int = 1
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    deleted_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class SignIn(SQLModel, table=True):
    __tablename__ = "sessions"

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger)
    user_id: int = Field(foreign_key="users.id", sa_type=BigInteger)
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))
    ended_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class UserCreate(SQLModel):
    email: EmailStr = Field(max_length=120)
    name: str = Field(min_length=2, max_length=80)
    public_metadata: dict[str, Any] = Field(default_factory=dict, alias="metadata")


class UserUpdate(SQLModel):
    name: str | None = Field(default=None, min_length=2, max_length=80)


class UserPublic(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    name: str
    role: str
    is_active: bool
    email_verified: bool
    external_id: str | None
    metadata: dict[str, Any] = Field(validation_alias="public_metadata")
    version: int
    created_at: datetime
    updated_at: datetime


class UsersPublic(BaseModel):
    users: list[UserPublic]
    next_cursor: str | None
    page: int | None = None
    pages: int | None = None
    total: int | None = None


class Credentials(BaseModel):
    email: str
    password: str


class Grant(BaseModel):
    access_token: str
    token_type: str = "Bearer"
    expires_in: int = rules.TOKEN_SECONDS
    user: UserPublic


def get_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
TokenDep = Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="/api/v1/auth/login"))]


def get_current_user(session: SessionDep, token: TokenDep) -> User:
    try:
        claims = rules.read(token)
    except jwt.InvalidTokenError:
        raise HTTPException(401, "Could not validate credentials") from None
    statement = (
        select(User)
        .join(SignIn, col(SignIn.user_id) == User.id)
        .where(
            SignIn.id == claims.session_id,
            User.id == claims.user_id,
            col(SignIn.ended_at).is_(None),
            col(SignIn.expires_at) > now(),
            col(User.is_active),
            col(User.deleted_at).is_(None),
        )
    )
    user = session.exec(statement).first()
    if user is None:
        raise HTTPException(401, "Could not validate credentials")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


def get_reader(user: CurrentUser) -> User:
    if user.role not in rules.READERS:
        raise HTTPException(403, "The user doesn't have enough privileges")
    return user


def get_writer(user: CurrentUser) -> User:
    if user.role not in rules.WRITERS:
        raise HTTPException(403, "The user doesn't have enough privileges")
    return user


app = FastAPI(title="Users")


@app.get("/api/v1/users", dependencies=[Depends(get_reader)], response_model=UsersPublic)
def read_users(
    session: SessionDep,
    per_page: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[int, Query(ge=0)] = 0,
    page: Annotated[int | None, Query(ge=1)] = None,
    q: Annotated[str | None, Query(min_length=1, max_length=120)] = None,
) -> Any:
    statement = select(User).where(col(User.deleted_at).is_(None))
    if q is not None:
        part = rules.key(q)
        keys = col(User.name_key), col(User.email_key)
        statement = statement.where(or_(*(key.contains(part, autoescape=True) for key in keys)))
    if page is not None:
        total = session.exec(select(func.count()).select_from(statement.subquery())).one()
        offset = (page - 1) * per_page
        users = session.exec(statement.order_by(col(User.id)).offset(offset).limit(per_page)).all()
        more = offset + len(users) < total
        counts = {"page": page, "pages": max(1, -(-total // per_page)), "total": total}
        return {"users": users, "next_cursor": str(users[-1].id) if more and users else None, **counts}
    users = session.exec(statement.where(col(User.id) > cursor).order_by(col(User.id)).limit(per_page + 1)).all()
    more = len(users) > per_page
    return {"users": users[:per_page], "next_cursor": str(users[per_page - 1].id) if more else None}


@app.get("/api/v1/users/{user_id}", dependencies=[Depends(get_reader)], response_model=UserPublic)
def read_user(session: SessionDep, user_id: int, request: Request, response: Response) -> Any:
    user = session.get(User, user_id)
    if user is None or user.deleted_at is not None:
        raise HTTPException(404, "User not found")
    tag = f'"{user.version}"'
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return user


@app.post("/api/v1/users", dependencies=[Depends(get_writer)], response_model=UserPublic, status_code=201)
def create_user(session: SessionDep, user_in: UserCreate, response: Response) -> Any:
    keys = {"email_key": rules.key(user_in.email), "name_key": rules.key(user_in.name)}
    user = User.model_validate(user_in, update=keys)
    session.add(user)
    try:
        session.commit()
    except IntegrityError:
        raise HTTPException(409, "A user with this email already exists") from None
    session.refresh(user)
    response.headers["Location"] = f"/api/v1/users/{user.id}"
    return user


@app.patch("/api/v1/users/{user_id}", dependencies=[Depends(get_writer)], response_model=UserPublic)
def update_user(session: SessionDep, user_id: int, user_in: UserUpdate) -> Any:
    user = session.get(User, user_id, with_for_update=True)
    if user is None or user.deleted_at is not None:
        raise HTTPException(404, "User not found")
    values = user_in.model_dump(exclude_unset=True)
    user.sqlmodel_update(values, update={"version": user.version + 1, "updated_at": now()})
    user.name_key = rules.key(user.name)
    session.add(user)
    session.commit()
    session.refresh(user)
    return user


@app.post("/api/v1/auth/login", response_model=Grant)
def login(session: SessionDep, credentials: Credentials) -> Any:
    found = select(User).where(User.email_key == rules.key(credentials.email), col(User.deleted_at).is_(None))
    user = session.exec(found).first()
    if user is None or not user.is_active or not rules.matches(credentials.password, user.password_hash or ""):
        raise HTTPException(401, "Incorrect email or password")
    sign_in = SignIn(user_id=user.id, expires_at=now() + timedelta(days=rules.SESSION_DAYS))
    session.add(sign_in)
    session.commit()
    return {"access_token": rules.issue(user.id, sign_in.id), "user": user}
