"""The commands: what they do, what they print, and how they refuse."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from models import Session, User
from models.statements import Record, fetch_all, fetch_one, unit_of_work
from service import sign_in
from service.errors import AccountSuspended
from tests.factories.session import SessionFactory
from tests.factories.user import PASSWORD, UserFactory
from tests.processes import command_at_once, run
from tests.servers import free_port

Command = Callable[..., Result]
EVERYBODY = select(User).order_by(User.id)


@pytest.fixture
def command(app: Flask) -> Command:
    """Return a function that runs a command of the application."""

    def run_command(*arguments: str, **options: Any) -> Result:
        with app.app_context():
            result = app.test_cli_runner().invoke(args=arguments, **options)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run_command


def everybody(app: Flask) -> Sequence[Record]:
    with app.app_context():
        return fetch_all(EVERYBODY)


# Creating


def test_a_created_user_can_sign_in(app, command):
    result = command("users", "create", "Ada@Example.com", "--name", "Ada", "--role", "admin", "--password", PASSWORD)

    (user,) = everybody(app)
    assert (result.exit_code, result.output) == (0, f"Created admin {user.id}: Ada@Example.com\n")
    assert (user.email_key, user.name, user.role) == ("ada@example.com", "Ada", "admin")
    with app.app_context(), unit_of_work():
        assert sign_in.sign_in(email="ada@example.com", password=PASSWORD).user.id == user.id


def test_a_password_not_given_is_asked_for_twice_and_not_shown(app, command):
    result = command("users", "create", "ada@example.com", input=f"{PASSWORD}\n{PASSWORD}\n")

    (user,) = everybody(app)
    assert (result.exit_code, user.name, user.role) == (0, "ada", "member")
    assert PASSWORD not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "taken@example.com"], "The e-mail address is taken."),
        (["create", "TAKEN@EXAMPLE.COM"], "email: Another user has this address."),
        (["create", "not an address"], "email: This is not an e-mail address."),
        (["create", "caf\udce9@example.com"], "email: This is not an e-mail address."),
        (["create", "new@example.com", "--password", "short"], "password: Use at least 8 characters."),
        (["create", "new@example.com", "--password", "password1"], "password: It is among the first that would be"),
        (["create", "new@example.com", "--password", "new@example.com"], "password: It is among the first that"),
        (["create", "new@example.com", "--name", "x" * 81], ""),
        (["create", "new@example.com", "--name", "A"], ""),
        (["create", "new@example.com", "--name", "\x1b[2JAda"], ""),
        (["promote", "nobody@example.com"], "There is no such user."),
        (["promote", "gone@example.com"], "There is no such user."),
        (["promote", "not an address"], "email: This is not an e-mail address."),
        (["promote", "admin@example.com", "--role", "member"], "One active administrator must remain."),
        (["suspend", "nobody@example.com"], "There is no such user."),
        (["suspend", "admin@example.com"], "One active administrator must remain."),
    ],
)
def test_a_refusal_is_told_in_one_line_and_changes_nothing(command, nothing_changes, arguments, said):
    UserFactory(email="taken@example.com")
    UserFactory(email="gone@example.com", deleted=True)
    UserFactory(email="admin@example.com", admin=True)
    if arguments[0] == "create" and "--password" not in arguments:
        arguments = [*arguments, "--password", PASSWORD]

    with nothing_changes():
        result = command("users", *arguments)

    assert result.exit_code == 1
    assert result.output.startswith("rollcall: ") and said in result.output
    assert len(result.output.splitlines()) == 1


def test_an_unknown_role_is_refused(command, nothing_changes):
    with nothing_changes():
        result = command("users", "create", "ada@example.com", "--role", "owner", "--password", PASSWORD)

    assert result.exit_code == 2 and "'owner' is not one of" in result.output


# Changing


def test_a_promoted_user_has_the_role_and_signs_in_anew(app, command, member):
    SessionFactory(user=None, user_id=member.id)

    result = command("users", "promote", member.email.upper(), "--role", "support")

    assert (result.exit_code, result.output) == (0, f"{member.email} is now support.\n")
    assert everybody(app)[0].role == "support"
    with app.app_context():
        assert fetch_one(select(Session.ended_at)).ended_at is not None


def test_a_suspended_user_is_shut_out_until_it_is_undone(app, command, member):
    SessionFactory(user=None, user_id=member.id)

    result = command("users", "suspend", member.email)

    assert (result.exit_code, result.output) == (0, f"{member.email} is now suspended.\n")
    with app.app_context():
        assert fetch_one(select(Session.ended_at)).ended_at is not None
        with pytest.raises(AccountSuspended), unit_of_work():
            sign_in.sign_in(email=member.email, password=PASSWORD)

    result = command("users", "suspend", member.email, "--undo")

    assert (result.exit_code, result.output) == (0, f"{member.email} is now active.\n")
    with app.app_context(), unit_of_work():
        assert sign_in.sign_in(email=member.email, password=PASSWORD)


# Listing


def test_users_are_listed_newest_first(command):
    first, second = UserFactory(admin=True), UserFactory(name="Zoë", suspended=True)
    UserFactory(deleted=True)

    result = command("users", "list")

    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()] == [
        [str(second.id), "member", "suspended", second.email, "Zoë"],
        [str(first.id), "admin", "active", first.email, *first.name.split()],
    ]


@pytest.mark.parametrize(
    ("options", "count"),
    [([], 20), (["--limit", "3"], 3), (["--limit", "1000"], 22), (["--role", "admin"], 1), (["--q", "PERSON"], 20)],
)
def test_the_list_can_be_narrowed(command, options, count):
    UserFactory.create_batch(21)
    UserFactory(name="Ada", admin=True)

    assert len(command("users", "list", *options).output.splitlines()) == count


def test_made_up_users_have_believable_names_and_addresses_of_their_own(app, command):
    assert [command("users", "seed", "--count", "7").exit_code for _ in range(2)] == [0, 0]

    found = everybody(app)
    assert len(found) == len({user.email_key for user in found}) == 14
    for user in found:
        assert len(user.name.split()) >= 2 and user.email.endswith("@example.com") and user.password_hash is None
        assert user.role == "member" and user.created_at == user.updated_at


# The first admin


def test_the_first_admin_gets_a_password_that_is_shown_once_and_works(app, command):
    result = command("users", "first-admin")

    before, _, after = result.output.partition(" with the password ")
    password = after.removesuffix(" (shown once)\n")
    assert (result.exit_code, before) == (0, "Created the first admin: admin@example.com")
    assert len(password) >= 20
    with app.app_context(), unit_of_work():
        assert sign_in.sign_in(email="admin@example.com", password=password).user.role == "admin"


@pytest.mark.parametrize("traits", [{}, {"suspended": True}])
def test_there_is_a_first_admin_only_where_there_is_none(command, nothing_changes, traits):
    UserFactory(admin=True, **traits)

    with nothing_changes():
        result = command("users", "first-admin")

    assert (result.exit_code, result.output) == (0, "")


def test_a_second_time_makes_no_second_first_admin(app, command):
    command("users", "first-admin")

    result = command("users", "first-admin")

    assert (result.exit_code, result.output, len(everybody(app))) == (0, "", 1)


def test_a_deleted_admin_does_not_count(app, command):
    UserFactory(admin=True, deleted=True)

    command("users", "first-admin")

    assert [user.deleted_at is None for user in everybody(app)] == [False, True]


def test_a_password_that_was_given_is_not_shown(app, command):
    app.config.update(ADMIN_EMAIL="Ada@example.com", ADMIN_PASSWORD=PASSWORD)

    result = command("users", "first-admin")

    assert (result.exit_code, result.output) == (0, "Created the first admin: Ada@example.com\n")
    with app.app_context(), unit_of_work():
        assert sign_in.sign_in(email="ada@example.com", password=PASSWORD)


@pytest.mark.parametrize(
    ("settings", "status", "said"),
    [
        ({"ADMIN_PASSWORD": "short"}, 1, "password: Use at least 8 characters."),
        ({"ADMIN_PASSWORD": "password1"}, 1, "password: It is among the first that would be guessed."),
        ({"ADMIN_EMAIL": "not an address"}, 1, "email: This is not an e-mail address."),
        ({"ADMIN_EMAIL": "taken@example.com"}, 1, "Another user has this"),
        ({"ADMIN_EMAIL": ""}, 0, "There is no admin yet: set ADMIN_EMAIL"),
    ],
)
def test_a_first_admin_who_cannot_be_is_told_in_one_line(app, command, nothing_changes, settings, status, said):
    UserFactory(email="taken@example.com")
    app.config.update(settings)

    with nothing_changes():
        result = command("users", "first-admin")

    assert result.exit_code == status
    assert said in result.output and len(result.output.splitlines()) == 1


def test_four_processes_that_start_at_once_make_one_first_admin(app):
    ended = command_at_once(4, app, "users", "first-admin")

    (said,) = [output for _, output in ended if output]
    assert [status for status, _ in ended] == [0] * 4
    assert said.startswith("Created the first admin: admin@example.com with the password ")
    assert [user.role for user in everybody(app)] == ["admin"]


# The rest


def test_migrating_a_migrated_database_says_where_it_is(command, nothing_changes):
    with nothing_changes():
        results = [command("migrate-on-start") for _ in range(2)]

    assert [result.exit_code for result in results] == [0, 0]
    assert all(result.output.startswith("The database is at revision ") for result in results)


def test_the_document_of_the_api_is_printed_as_json(command):
    result = command("openapi")

    document = json.loads(result.output)
    assert (result.exit_code, document["openapi"][:3]) == (0, "3.1")
    assert document["servers"] == [{"url": "/"}] and "/api/v1/users" in document["paths"]


def test_every_command_explains_itself(app):
    commands = {name: found for name, found in app.cli.commands.items() if name != "db"}
    groups = {name: commands.pop(name) for name in ("users", "keys", "jobs")}
    of_groups = {f"{name} {of_it}": found for name, group in groups.items() for of_it, found in group.commands.items()}

    assert commands.keys() == {"deprecations", "doctor", "migrate-on-start", "openapi", "upkeep", "worker"}
    assert of_groups.keys() == {
        *("users create", "users first-admin", "users list", "users promote", "users seed", "users suspend"),
        *("keys rotate", "jobs drop", "jobs list", "jobs retry", "jobs run"),
    }
    for found in [*commands.values(), *groups.values(), *of_groups.values()]:
        assert found.help.rstrip().endswith(".")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["users", "list"], ["users", "first-admin"], ["upkeep"]),
        *(["jobs", "list"], ["jobs", "run"], ["jobs", "retry", "1"], ["jobs", "drop", "1"]),
    ],
    ids=" ".join,
)
def test_a_database_that_cannot_be_reached_is_told_in_one_line(arguments):
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"

    ended = run("flask", "--app", "wsgi", *arguments, DATABASE_URL=url)

    assert ended.returncode == 1
    assert (ended.stdout, ended.stderr.count("\n")) == ("", 1)
