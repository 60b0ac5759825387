"""The pages that letters lead to. Opening one changes nothing, so that a mail scanner can follow every link."""

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, render_template, request
from sqlalchemy.exc import SQLAlchemyError

from resources.http.api import in_one_unit_of_work
from resources.http.limits import admit
from service import account
from service.database_errors import refusal_from
from service.errors import Invalid, Refusal
from service.normal import ONE_LINE
from service.passwords import MAX_LENGTH

account_pages = Blueprint("account", __name__, template_folder="templates")

POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


@account_pages.get("/account/confirm")
def confirmation_form() -> Response:
    """Ask whether the address is to be confirmed."""
    return _page("confirm.html")


@account_pages.post("/account/confirm")
def confirm() -> Response:
    """Confirm the address."""
    admit()
    return _done("confirm.html", lambda: account.verify_email(token=_given("token")))


@account_pages.get("/account/reset")
def reset_form() -> Response:
    """Ask for a new password."""
    return _page("reset.html")


@account_pages.post("/account/reset")
def reset() -> Response:
    """Set the new password."""
    admit(costly=True)
    return _done("reset.html", lambda: account.reset_password(token=_given("token"), password=_given("password")))


def _done(template: str, operation: Callable[[], None]) -> Response:
    """Run an operation and say how it went; the page with the form again, where something can be mended there."""
    try:
        in_one_unit_of_work(operation)
    except (Refusal, SQLAlchemyError) as error:
        refusal = error if isinstance(error, Refusal) else refusal_from(error)
        if refusal is None:
            raise
        return _page(template, refusal=refusal, faults=[fault.detail for fault in refusal.faults])
    return _page(template, is_done=True)


def _given(name: str) -> str:
    value = request.form.get(name, "")
    if not 0 < len(value) <= MAX_LENGTH or not re.fullmatch(ONE_LINE, unicodedata.normalize("NFC", value)):
        raise Invalid(f"The {name} is missing or cannot be read.")
    return value


def _page(template: str, **values: Any) -> Response:
    token = request.form.get("token") or request.args.get("token", "")
    page = render_template(template, token=token[:200], **{"is_done": False, "refusal": None, "faults": [], **values})
    return Response(page, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})
