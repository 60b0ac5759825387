"""The application factory: several applications in one process, and nothing done before one is asked for."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from flask import Flask
from sqlalchemy import select

from config.settings import DECLARED
from models import User
from models.base import db
from models.rows import insert_row
from models.statements import fetch_all, unit_of_work
from resources.app import create_app
from service import tokens, users
from service.errors import InvalidToken, RegistrationClosed
from service.identity import ANONYMOUS
from tests.databases import application, new_database
from tests.processes import environment
from tests.servers import ROOT

ADA = {"email": "ada@example.com", "name": "Ada", "password": "correct horse battery staple"}
# What happens while a module is imported: every file opened for writing or made, and every setting read.
WATCH = """
import json, os, sys

done, names = [], set(sys.argv[2:])
writing = {"os.mkdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.chmod", "os.truncate", "os.fork"}
writing |= {"socket.bind", "socket.connect", "sqlite3.connect", "subprocess.Popen", "os.system", "os.posix_spawn"}

def note(event, arguments):
    if event in writing or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        done.append(f"{event} {arguments[0]}")

class Watched(type(os.environ)):
    def __getitem__(self, name):
        if name in names or name.removesuffix("_FILE") in names:
            done.append(f"read {name}")
        return super().__getitem__(name)

    def __iter__(self):
        done.append("read every variable")
        return super().__iter__()

sys.addaudithook(note)
os.environ.__class__ = Watched
__import__(sys.argv[1])
os.environ.__class__ = Watched.__base__
print(json.dumps(done))
"""


@pytest.fixture
def two(database_kind, make_database, settings_for) -> Iterator[tuple[Flask, Flask]]:
    """Return two applications that differ in their settings and databases."""
    with ExitStack() as stack:
        made = []
        for variables in ({"REGISTRATION": "open", "THREADS": "2"}, {"REGISTRATION": "closed", "THREADS": "3"}):
            variables["PUBLIC_URL"] = f"https://{variables['REGISTRATION']}.example.com"
            settings = settings_for(new_database(make_database, database_kind), **variables)
            made.append(stack.enter_context(application(settings)))
        yield made[0], made[1]


def addresses(app: Flask) -> list[str]:
    with app.app_context():
        return [row.email for row in fetch_all(select(User.email).order_by(User.id))]


def test_two_applications_do_not_see_each_others_data(two):
    first, second = two

    with first.app_context(), unit_of_work():
        users.create(actor=ANONYMOUS, **ADA)

    assert (addresses(first), addresses(second)) == (["ada@example.com"], [])


def test_two_applications_write_to_their_own_databases_in_turns(two):
    first, second = two

    with first.app_context(), unit_of_work():
        with second.app_context(), unit_of_work():
            insert_row(User, email="b", email_key="b", name="B", name_key="b")
        insert_row(User, email="a", email_key="a", name="A", name_key="a")
        insert_row(User, email="c", email_key="c", name="C", name_key="c")

    assert (addresses(first), addresses(second)) == (["a", "c"], ["b"])


def test_two_applications_have_settings_of_their_own(two):
    first, second = two

    with first.app_context(), unit_of_work():
        assert users.create(actor=ANONYMOUS, **ADA).id
        assert db.engine.pool.size() == 2
    with second.app_context():
        assert db.engine.pool.size() == 3
        with pytest.raises(RegistrationClosed), unit_of_work():
            users.create(actor=ANONYMOUS, **ADA)

    assert first.test_client().get("/", base_url="https://open.example.com").status_code == 200
    assert first.test_client().get("/", base_url="https://closed.example.com").status_code == 400


def test_a_token_of_one_application_is_nothing_to_another(two):
    first, second = two
    with first.app_context():
        token = tokens.issue(user_id=1, session_id=1)

    with second.app_context(), pytest.raises(InvalidToken):
        tokens.read(token)


def test_the_same_settings_make_as_many_applications_as_are_asked_for(make_database, settings_for):
    settings = settings_for(new_database(make_database, "sqlite"))

    with application(settings) as first, application(settings) as second:
        assert first is not second
        assert addresses(first) == addresses(second) == []


def test_errors_are_handled_alike_with_and_without_testing(make_database, settings_for):
    with application(settings_for(new_database(make_database, "sqlite"))) as app:
        app.testing = False
        client = app.test_client()

        answers = [client.get(path) for path in ("/api/v1/users/1", "/api/v1/nothing", "/nothing")]

    assert [(answer.status_code, answer.mimetype) for answer in answers] == [
        (401, "application/problem+json"),
        (404, "application/problem+json"),
        (404, "application/problem+json"),
    ]


def test_without_settings_those_of_the_environment_are_taken_or_none(monkeypatch, capsys):
    monkeypatch.setenv("APP_ENV", "prodution")

    with pytest.raises(SystemExit) as end:
        create_app()

    assert end.value.code == 2
    assert capsys.readouterr().err == "rollcall: APP_ENV is 'prodution': did you mean production?\n"


def test_importing_the_application_does_nothing():
    command = [sys.executable, "-B", "-c", WATCH, "resources.app", *DECLARED]

    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == []
