"""Mail: into a folder, onto the console, and to a mail server that takes it, puts it off, refuses it or is away."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiosmtpd.controller import Controller
from jinja2 import UndefinedError
from sqlalchemy import bindparam, select, update

from models import Job
from models.base import now
from models.statements import Record, execute, fetch_all, unit_of_work
from service import mail
from service.jobs import queue, runner
from service.jobs.queue import JobFailed, enqueue
from tests.factories.user import UserFactory
from tests.letters import read
from tests.servers import free_port

FORGOT = "/api/v1/auth/password/forgot"
ADA = "ada@example.com"
EVERY = select(Job).order_by(Job.id)
PUT_FORWARD = update(Job).values(run_at=bindparam("moment"))
numbers = count(1)
LETTER = {"link": "http://localhost/account/reset?token=x", "code": "1234 5678"}


def a_job() -> SimpleNamespace:
    """Return what of a job matters to its letter."""
    return SimpleNamespace(id=next(numbers), created_at=now())


class MailServer:
    """A mail server that keeps what it takes; `answers` are to the next letters, `refusals` to their receivers."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[str] = []
        self.refusals: list[str] = []
        self.tried = 0
        self.taken = []

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 (aiosmtpd's name)
        self.tried += 1
        if self.refusals:
            return self.refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 (aiosmtpd's name)
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            self.taken.append(envelope)
        return answer


@contextmanager
def serving(port: int, *, takes_utf8: bool = True) -> Iterator[MailServer]:
    server = MailServer(port)
    controller = Controller(server, hostname="127.0.0.1", port=port, enable_SMTPUTF8=takes_utf8)
    controller.start()
    try:
        yield server
    finally:
        controller.stop()


@pytest.fixture
def port(app) -> int:
    """Return a port on which nobody answers, to which mail goes."""
    found = free_port()
    app.config["MAIL_URL"] = f"smtp://127.0.0.1:{found}"
    return found


@pytest.fixture
def server(port) -> Iterator[MailServer]:
    with serving(port) as running:
        yield running


@pytest.fixture
def work(app) -> Callable[[], list[Record]]:
    """Return a function that lets every wait be over, runs the jobs, and returns those that are left."""

    def run():
        with app.app_context():
            with unit_of_work():
                execute(PUT_FORWARD, moment=now() - timedelta(seconds=1))
            runner.drain()
            return [*fetch_all(EVERY)]

    return run


@pytest.fixture
def ada(app):
    return UserFactory(email=ADA)


# A folder


def test_a_letter_becomes_a_file(app, tmp_path):
    app.config["MAIL_URL"] = f"file://{tmp_path}/letters/of%20today"

    with app.app_context():
        mail.send("reset_password", a_job(), to=ADA, **LETTER)
        mail.send("reset_password", a_job(), to=ADA, **LETTER)

    files = [*(tmp_path / "letters" / "of today").iterdir()]
    assert len(files) == 2 and {path.suffix for path in files} == {".eml"}
    content = files[0].read_bytes()
    assert (read(content).to, read(content).code) == (ADA, "1234 5678")
    assert content.count(b"\n") == content.count(b"\r\n") and content.endswith(b"--\r\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998


def test_a_file_is_whole_when_it_appears(app, tmp_path, monkeypatch):
    app.config["MAIL_URL"] = f"file://{tmp_path}"
    seen = []
    rename = Path.rename

    def watched(path, target):
        seen.append((path.name.startswith("."), [*tmp_path.glob("[!.]*")], len(read(path.read_bytes()).html) > 100))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    with app.app_context():
        mail.send("reset_password", a_job(), to=ADA, **LETTER)

    assert seen == [(True, [], True)]
    assert [path.name.startswith(".") for path in tmp_path.iterdir()] == [False]


def test_a_folder_that_cannot_be_written_puts_the_job_off(app, client, ada, work):
    app.config["MAIL_URL"] = "file:///dev/null/no-folder"

    client.post(FORGOT, json={"email": ADA})

    (job,) = work()
    assert (job.attempts, job.last_error, job.failed_at) == (1, "NotADirectoryError", None)


# The console


def test_a_letter_is_printed(app, client, ada, work, capsys):
    app.config["MAIL_URL"] = "console:"

    client.post(FORGOT, json={"email": ADA})

    assert work() == []
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"To: {ADA}" in printed.err.splitlines() and "http://localhost/account/reset?token=" in printed.err


# What is written


def test_a_letter_needs_all_its_values(app):
    with app.app_context(), pytest.raises(UndefinedError):
        mail.compose("reset_password", to=ADA, link="x")


@pytest.mark.parametrize("to", ["ada@example.com\r\nBcc: eve@example.com", "ada\n@example.com", "a@b\r\n\r\nHello"])
def test_no_line_break_gets_into_a_header(app, to):
    with app.app_context(), pytest.raises(ValueError):
        mail.compose("reset_password", to=to, **LETTER)


@pytest.mark.parametrize(
    "to",
    [
        "ada@example.com",
        "o'hara+tag/x=y@example.com",
        "{}|~`^_$%&*!#?-@example.com",
        f"{'a' * 64}@{'b' * 43}.example.com",
        f"{'a.' * 31}aa@{'b.' * 20}example.com",
        "ädä@example.com",
        "ädä@bücher.example",
        "用户@例え.example",
        f"{'ä' * 64}@{'ü' * 40}.example.com",
    ],
)
def test_an_address_arrives_in_the_letter_as_it_is(app, tmp_path, to):
    app.config["MAIL_URL"] = f"file://{tmp_path}"

    with app.app_context():
        mail.send("reset_password", a_job(), to=to, **LETTER)

    (path,) = tmp_path.iterdir()
    letter = read(path.read_bytes())
    assert letter.to == to and len(letter.message["To"].addresses) == 1


def test_an_at_sign_of_full_width_parts_an_address_as_well(app):
    """The API takes such an address, and keeps its spelling: it is the same as with a plain sign (NFKC)."""
    with app.app_context():
        message = mail.compose("reset_password", to="ada＠example.com", **LETTER)

    (address,) = message["To"].addresses
    assert (address.username, address.domain) == ("ada", "example.com")


def test_whom_mail_is_from_is_a_setting(app):
    app.config["MAIL_FROM"] = "Post Office <post@example.org>"

    with app.app_context():
        message = mail.compose("reset_password", to=ADA, **LETTER)

    assert str(message["From"]) == "Post Office <post@example.org>"


# A mail server


def test_a_letter_is_handed_over_once(client, server, ada, work):
    assert client.post(FORGOT, json={"email": ADA}).status_code == 202

    assert work() == [] and work() == []
    (envelope,) = server.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@localhost", [ADA])
    letter = read(envelope.content)
    assert (letter.to, letter.subject) == (ADA, "Set a new password")
    reset = {"token": letter.token, "password": "quite another pass phrase"}
    assert client.post("/api/v1/auth/password/reset", json=reset).status_code == 204


@pytest.mark.parametrize("step", ["answers", "refusals"])
def test_a_letter_that_is_put_off_arrives_once_in_the_end(client, server, ada, work, step):
    getattr(server, step).append("451 Try again later")
    client.post(FORGOT, json={"email": ADA})

    (job,) = work()
    assert (job.attempts, job.failed_at, server.taken) == (1, None, [])
    assert "451" in job.last_error and job.run_at > now()

    assert work() == []
    (envelope,) = server.taken
    reset = {"token": read(envelope.content).token, "password": "quite another pass phrase"}
    assert client.post("/api/v1/auth/password/reset", json=reset).status_code == 204


def test_a_letter_that_was_sent_but_not_noted_can_be_recognised(client, server, ada, work, monkeypatch):
    client.post(FORGOT, json={"email": ADA})
    with monkeypatch.context() as patch:
        patch.setattr(queue, "done", lambda job: None)  # The process dies just before.
        work()
    client.post(FORGOT, json={"email": ADA})

    assert work() == []
    first, again, another = (read(envelope.content).message["Message-ID"] for envelope in server.taken)
    assert first == again != another


@pytest.mark.parametrize("step", ["answers", "refusals"])
def test_a_letter_that_is_refused_for_good_is_kept_with_its_reason(client, server, ada, work, step):
    getattr(server, step).append("550 No such person")
    client.post(FORGOT, json={"email": ADA})

    (job,) = work()
    assert job.failed_at is not None and "550" in job.last_error
    assert ADA not in job.last_error and "No such person" not in job.last_error

    (again,) = work()
    assert (again.attempts, server.tried, server.taken) == (1, 1, [])


def test_one_that_is_refused_does_not_hold_up_the_next(client, server, ada, work):
    other = UserFactory()
    server.refusals.append("550 No such person")
    for email in (ADA, other.email):
        client.post(FORGOT, json={"email": email})

    assert len(work()) == 1
    assert [envelope.rcpt_tos for envelope in server.taken] == [[other.email]]


def test_a_server_that_is_away_holds_up_letters_and_nothing_else(client, port, ada, work):
    response = client.post(FORGOT, json={"email": ADA})

    (job,) = work()
    assert response.status_code == 202
    assert (job.attempts, job.last_error, job.failed_at) == (1, "ConnectionRefusedError", None)
    with serving(port) as server:
        assert work() == []
        assert [envelope.rcpt_tos for envelope in server.taken] == [[ADA]]


def test_a_server_that_says_nothing_is_given_up_for_now(app, monkeypatch):
    monkeypatch.setattr(mail, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app.config["MAIL_URL"] = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        with app.app_context(), pytest.raises(JobFailed, match=r"Timeout|Disconnected") as failure:
            mail.send("reset_password", a_job(), to=ADA, **LETTER)

    assert failure.value.for_good is False


def test_a_server_that_hangs_up_is_tried_again(app, client, server, ada, work):
    server.answers.append("421 Closing")
    client.post(FORGOT, json={"email": ADA})

    (job,) = work()
    assert (job.attempts, job.failed_at) == (1, None)
    assert work() == [] and len(server.taken) == 1


@pytest.mark.parametrize("email", ["ädä@example.com", "ädä@bücher.example", "用户@例え.example"])
def test_a_receiver_beyond_ascii_is_reached(client, server, work, email):
    UserFactory(email=email)

    client.post(FORGOT, json={"email": email})

    assert work() == []
    (envelope,) = server.taken
    assert envelope.rcpt_tos == [email]
    assert read(envelope.content).to == email


def test_a_server_that_takes_ascii_only_leaves_a_reason(client, port, work):
    UserFactory(email="ädä@example.com")
    with serving(port, takes_utf8=False) as server:
        client.post(FORGOT, json={"email": "ädä@example.com"})

        (job,) = work()

    assert (job.last_error, server.taken) == ("SMTPNotSupportedError", [])


def test_a_domain_beyond_ascii_is_reached_by_a_server_that_takes_ascii_only(client, port, work):
    """Its other form (RFC 5891) is ASCII, and every server takes that."""
    UserFactory(email="ada@bücher.example")
    with serving(port, takes_utf8=False) as server:
        client.post(FORGOT, json={"email": "ada@bücher.example"})

        assert work() == []

    assert [envelope.rcpt_tos for envelope in server.taken] == [["ada@xn--bcher-kva.example"]]


def test_a_notice_says_what_happened_and_holds_no_link_to_follow(app, server, work):
    with app.app_context(), unit_of_work():
        for about in ("password_changed", "email_changed", "token_reused"):
            enqueue("notice", user_id=1, about=about, to=ADA)

    assert work() == []
    letters = [read(envelope.content) for envelope in server.taken]
    assert [letter.subject for letter in letters] == [
        "Your password was changed",
        "Your e-mail address was changed",
        "A session of yours was ended",
    ]
    assert all("token=" not in letter.text + letter.html for letter in letters)
