"""Mail: rendered from templates in text and HTML, and handed to a server, a folder or the console."""

import smtplib
import ssl
import sys
import unicodedata
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import idna
from flask import current_app
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from models.statements import Record
from service.jobs.queue import JobFailed
from service.keyed import mark

TIMEOUT = 10  # Seconds for each step of talking to the mail server.
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def send(template: str, job: Record, *, to: str, **values: Any) -> None:
    """Render the letter of a job and send it; raises JobFailed."""
    message = compose(template, to=to, **values)
    message["Message-ID"] = _message_id(job)
    url = urlsplit(current_app.config["MAIL_URL"])
    if url.scheme == "console":
        sys.stderr.write(f"{message.as_string()}\n")
    elif url.scheme == "file":
        _write(message, Path(unquote(url.path)))
    else:
        _hand_over(message, url.hostname or "", url.port or 25, url.username, url.password)


def compose(template: str, *, to: str, **values: Any) -> EmailMessage:
    """Return a letter; the first line of its text is its subject."""
    values["service"] = current_app.config["PUBLIC_URL"]
    subject, _, text = _templates.get_template(f"{template}.txt").render(values).partition("\n")
    message = EmailMessage(policy=SMTP if _address(to).addr_spec.isascii() else SMTPUTF8)
    message["To"] = _address(to)
    message["From"] = current_app.config["MAIL_FROM"]
    message["Subject"] = subject
    message["Date"] = formatdate()
    message["Auto-Submitted"] = "auto-generated"  # No answering machine should answer (RFC 3834).
    html = _templates.get_template(f"{template}.html").render(values)
    encoding = "7bit" if text.isascii() and html.isascii() else "quoted-printable"
    message.set_content(text.strip() + "\n", cte=encoding)
    message.add_alternative(html, subtype="html", cte=encoding)
    return message


def _message_id(job: Record) -> str:
    """Return the same for each attempt of a job, so that a letter which was sent, but not noted, can be recognised."""
    host = urlsplit(current_app.config["PUBLIC_URL"]).hostname or "localhost"
    return f"<{mark('letter', job.id, job.created_at)}@{host}>"


def _address(to: str) -> Address:
    """Return an address as mail servers take it: where only its domain is beyond ASCII, with that in ASCII."""
    local, _, domain = unicodedata.normalize("NFKC", to).rpartition("@")
    return Address(username=local, domain=idna.encode(domain, uts46=True).decode() if local.isascii() else domain)


def _write(message: EmailMessage, folder: Path) -> None:
    """Put a letter into a folder, as a file of its own that is whole when it appears."""
    name = f"{message['Message-ID'].strip('<>').partition('@')[0]}.eml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{name}"
        draft.write_bytes(bytes(message))
        draft.rename(folder / name)
    except OSError as error:
        raise JobFailed(type(error).__name__) from None


def _hand_over(message: EmailMessage, host: str, port: int, user: str | None, password: str | None) -> None:
    """Give a letter to the mail server; what it refuses with 5xx is refused for good (RFC 5321 §4.2.1)."""
    try:
        with smtplib.SMTP(host, port, timeout=TIMEOUT) as server:
            server.ehlo_or_helo_if_needed()
            if server.has_extn("starttls"):
                server.starttls(context=ssl.create_default_context())
            if user:
                server.login(unquote(user), unquote(password or ""))
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise JobFailed(f"recipient refused: {codes}", for_good=min(codes) >= 500) from None
    except smtplib.SMTPDataError as error:
        raise JobFailed(f"message refused: {error.smtp_code}", for_good=error.smtp_code >= 500) from None
    except (smtplib.SMTPException, OSError) as error:
        raise JobFailed(type(error).__name__) from None
