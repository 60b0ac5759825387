"""`flask users`: accounts from the command line."""

import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy import insert, select

from models import User
from models.base import db
from models.paging import PageRequest
from models.statements import fetch_one, serialise, unit_of_work
from service import normal, users
from service.cli.refusals import readable_refusals
from service.cli.seed import believable_users
from service.errors import NotFound
from service.identity import Identity
from service.permissions import ROLES, Permission

_AN_ADMIN = select(User.id).where(User.role == "admin", User.deleted_at.is_(None)).limit(1)
OPERATOR = Identity(user_id=None, permissions=frozenset(Permission))

users_group = AppGroup("users", help="Accounts: create, list, promote, suspend.")


def one_unit_of_work(command: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command in one unit of work."""

    @readable_refusals
    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        with unit_of_work():
            return command(*args, **kwargs)

    return run


@users_group.command("create")
@click.argument("email")
@click.option("--name", help="The person's name; the part before the @ if not given.")
@click.option("--role", type=click.Choice([*ROLES]), default="member", show_default=True)
@click.password_option(help="Asked for when not given.")
@one_unit_of_work
def create(email: str, name: str | None, role: str, password: str) -> None:
    """Create a user."""
    name = normal.checked_name(name or email.partition("@")[0])
    user = users.create_for(OPERATOR, email=email, name=name, role=role, password=password)
    click.echo(f"Created {role} {user.id}: {user.email}")


@users_group.command("list")
@click.option("--q", help="Part of the name or e-mail address.")
@click.option("--role", type=click.Choice([*ROLES]))
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@readable_refusals
def list_users(q: str | None, role: str | None, limit: int) -> None:
    """List users, newest first."""
    page = users.search(PageRequest(size=limit, sort="-id"), q=q, role=role)
    for user in page.items:
        state = "active" if user.is_active else "suspended"
        click.echo(f"{user.id:>8}  {user.role:<8} {state:<10} {user.email}  {user.name}")


@users_group.command("promote")
@click.argument("email")
@click.option("--role", type=click.Choice([*ROLES]), default="admin", show_default=True)
@one_unit_of_work
def promote(email: str, role: str) -> None:
    """Give a user a role."""
    user = users.change(_id_of(email), actor=OPERATOR, role=role)
    click.echo(f"{user.email} is now {role}.")


@users_group.command("suspend")
@click.argument("email")
@click.option("--undo", is_flag=True, help="Let the user in again.")
@one_unit_of_work
def suspend(email: str, undo: bool) -> None:
    """Suspend a user: all sessions end at once, and signing in is refused."""
    user = users.change(_id_of(email), actor=OPERATOR, is_active=undo)
    click.echo(f"{user.email} is now {'active' if undo else 'suspended'}.")


@users_group.command("first-admin")
@one_unit_of_work
def first_admin() -> None:
    """Create the first admin where there is none, from ADMIN_EMAIL and ADMIN_PASSWORD."""
    serialise("admins")
    if fetch_one(_AN_ADMIN):
        return
    email = current_app.config["ADMIN_EMAIL"]
    if not email:
        click.echo("There is no admin yet: set ADMIN_EMAIL, or run flask users create --role admin.", err=True)
        return
    given = current_app.config["ADMIN_PASSWORD"]
    password = given or secrets.token_urlsafe(15)
    users.create_for(OPERATOR, email=email, name="Admin", role="admin", password=password)
    click.echo(f"Created the first admin: {email}" + ("" if given else f" with the password {password} (shown once)"))


@users_group.command("seed")
@click.option("--count", type=click.IntRange(1, 10_000_000), default=1000, show_default=True)
@readable_refusals
def seed(count: int) -> None:
    """Add made-up users without passwords, for trying things out."""
    with db.engine.begin() as connection, click.progressbar(length=count, label=f"Adding {count} users") as bar:
        for batch in believable_users(count):
            connection.execute(insert(User), batch)
            bar.update(len(batch))


def _id_of(email: str) -> int:
    normal.email_key(email)  # What is no address is told apart from an address that nobody has.
    found = users.search(PageRequest(size=1, sort="id"), email=email).items
    if not found:
        raise NotFound("There is no such user.")
    user_id: int = found[0].id
    return user_id
