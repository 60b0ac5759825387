"""FastAPI with coroutines, SQLAlchemy's asyncio extension and asyncpg."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, ConfigDict, EmailStr, Field
from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import rules

engine = create_async_engine(
    rules.DATABASE_URL.replace("postgresql:", "postgresql+asyncpg:"), pool_size=rules.THREADS, max_overflow=0
)
async_session = async_sessionmaker(engine, expire_on_commit=False)


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, datetime: DateTime(timezone=True), dict[str, Any]: JSON}


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    email_key: Mapped[str]
    name: Mapped[str]
    name_key: Mapped[str]
    role: Mapped[str] = mapped_column(default="member")
    is_active: Mapped[bool] = mapped_column(default=True)
    email_verified: Mapped[bool] = mapped_column(default=False)
    external_id: Mapped[str | None]
    public_metadata: Mapped[dict[str, Any]] = mapped_column(default=dict)
    private_metadata: Mapped[dict[str, Any]] = mapped_column(default=dict)
    password_hash: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]


class SignIn(Base):
    __tablename__ = "sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class UserCreate(BaseModel):
    email: EmailStr = Field(max_length=120)
    name: str = Field(min_length=2, max_length=80)
    public_metadata: dict[str, Any] = Field(default_factory=dict, alias="metadata")


class UserUpdate(BaseModel):
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


async def get_session() -> AsyncIterator[AsyncSession]:
    async with async_session() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]
TokenDep = Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="/api/v1/auth/login"))]


async def get_current_user(session: SessionDep, token: TokenDep) -> User:
    try:
        claims = rules.read(token)
    except jwt.InvalidTokenError:
        raise HTTPException(401, "Could not validate credentials") from None
    user = await session.scalar(
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
        raise HTTPException(401, "Could not validate credentials")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


async def get_reader(user: CurrentUser) -> User:
    if user.role not in rules.READERS:
        raise HTTPException(403, "Not enough privileges")
    return user


async def get_writer(user: CurrentUser) -> User:
    if user.role not in rules.WRITERS:
        raise HTTPException(403, "Not enough privileges")
    return user


app = FastAPI(title="Users")


@app.get("/api/v1/users", dependencies=[Depends(get_reader)], response_model=UsersPublic)
async def read_users(
    session: SessionDep,
    per_page: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[int, Query(ge=0)] = 0,
    page: Annotated[int | None, Query(ge=1)] = None,
    q: Annotated[str | None, Query(min_length=1, max_length=120)] = None,
) -> Any:
    statement = select(User).where(User.deleted_at.is_(None))
    if q is not None:
        part = rules.key(q)
        keys = User.name_key, User.email_key
        statement = statement.where(or_(*(key.contains(part, autoescape=True) for key in keys)))
    if page is not None:
        total = await session.scalar(select(func.count()).select_from(statement.subquery())) or 0
        offset = (page - 1) * per_page
        users = (await session.scalars(statement.order_by(User.id).offset(offset).limit(per_page))).all()
        more = offset + len(users) < total
        counts = {"page": page, "pages": max(1, -(-total // per_page)), "total": total}
        return {"users": users, "next_cursor": str(users[-1].id) if more and users else None, **counts}
    statement = statement.where(User.id > cursor).order_by(User.id).limit(per_page + 1)
    users = (await session.scalars(statement)).all()
    more = len(users) > per_page
    return {"users": users[:per_page], "next_cursor": str(users[per_page - 1].id) if more else None}


@app.get("/api/v1/users/{user_id}", dependencies=[Depends(get_reader)], response_model=UserPublic)
async def read_user(session: SessionDep, user_id: int, request: Request, response: Response) -> Any:
    user = await session.get(User, user_id)
    if user is None or user.deleted_at is not None:
        raise HTTPException(404, "User not found")
    tag = f'"{user.version}"'
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return user


@app.post("/api/v1/users", dependencies=[Depends(get_writer)], response_model=UserPublic, status_code=201)
async def create_user(session: SessionDep, user_in: UserCreate, response: Response) -> Any:
    user = User(**user_in.model_dump(), email_key=rules.key(user_in.email), name_key=rules.key(user_in.name))
    session.add(user)
    try:
        await session.commit()
    except IntegrityError:
        raise HTTPException(409, "A user with this email already exists") from None
    response.headers["Location"] = f"/api/v1/users/{user.id}"
    return user


@app.patch("/api/v1/users/{user_id}", dependencies=[Depends(get_writer)], response_model=UserPublic)
async def update_user(session: SessionDep, user_id: int, user_in: UserUpdate) -> Any:
    user = await session.get(User, user_id, with_for_update=True)
    if user is None or user.deleted_at is not None:
        raise HTTPException(404, "User not found")
    for name, value in user_in.model_dump(exclude_unset=True).items():
        setattr(user, name, value)
    user.name_key = rules.key(user.name)
    user.version, user.updated_at = user.version + 1, now()
    await session.commit()
    return user


@app.post("/api/v1/auth/login", response_model=Grant)
async def login(session: SessionDep, credentials: Credentials) -> Any:
    found = select(User).where(User.email_key == rules.key(credentials.email), User.deleted_at.is_(None))
    user = await session.scalar(found)
    if user is None or not user.is_active:
        raise HTTPException(401, "Incorrect email or password")
    if not await run_in_threadpool(rules.matches, credentials.password, user.password_hash or ""):
        raise HTTPException(401, "Incorrect email or password")
    sign_in = SignIn(user_id=user.id, expires_at=now() + timedelta(days=rules.SESSION_DAYS))
    session.add(sign_in)
    await session.commit()
    return {"access_token": rules.issue(user.id, sign_in.id), "user": user}
