"""The life of an account, from registering to being erased, told step by step against a running service.

It needs nothing but Python, a service that puts its letters into a folder, and an admin of it; see README.md here.
"""

import argparse
import http.client
import json
import os
import re
import sys
import time
from email import message_from_bytes
from email.policy import default
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 15  # Seconds for a letter to come.
FIRST_PASSWORD, SECOND_PASSWORD = "violet harbour tuesday lamp", "paper comet under the stairs"

steps = count(1)


class Surprise(Exception):
    """The service did not do what it says of itself."""


class Service:
    """A running service, and the folder into which it puts its letters."""

    def __init__(self, url: str, letters: Path) -> None:
        self.url, self.letters = urlsplit(url), letters

    def call(self, method: str, path: str, status: int, *, token: str = "", device: str = "", **body: str) -> Any:
        """Send a request, and return the body of the answer; raises Surprise where its status is another."""
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.url.netloc, timeout=30)
        headers = {"User-Agent": device or "account-life/1.0"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, f"/api/v1{path}", json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Surprise(f"{self.url.geturl()} does not answer: {error}") from None
        finally:
            connection.close()
        if answer.status != status:
            raise Surprise(f"{method} {path} was answered {answer.status} rather than {status}: {text}")
        return json.loads(text) if text else None

    def sign_in(self, email: str, password: str, *, device: str = "") -> Any:
        """Return the tokens of a new session."""
        return self.call("POST", "/auth/login", 200, device=device, email=email, password=password)

    def code_to(self, address: str, subject: str) -> str:
        """Wait for the letter to an address, and return the code in it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for path in self.letters.glob("[!.]*.eml"):
                letter = message_from_bytes(path.read_bytes(), policy=default)
                body = letter.get_body(("plain",))
                code = re.search(r"code: ([0-9 ]+)", body.get_content()) if body else None
                if letter["To"] == address and letter["Subject"] == subject and code:
                    return code[1]
            time.sleep(0.1)
        raise Surprise(f"No letter to {address} came into {self.letters}: is MAIL_URL file://{self.letters.resolve()}?")


def live(service: Service, admin_email: str, admin_password: str) -> None:
    """Lead a life from beginning to end."""
    admin = service.sign_in(admin_email, admin_password)["access_token"]
    mark = token_hex(4)
    old, new = f"ada-{mark}@example.com", f"countess-{mark}@example.com"

    register(service, old)
    grant = sign_in(service, old)
    user_id, token = grant["user"]["id"], stay_signed_in(service, grant)
    look_at_devices(service, old, token)
    change_address(service, token, new)
    token = forget_password(service, new)
    take_everything_along(service, token)

    service.call("DELETE", "/me", 204, token=token)
    service.call("POST", "/auth/login", 401, email=new, password=SECOND_PASSWORD)
    say("Ada deletes her account; at once she can no longer sign in.")
    service.call("POST", f"/users/{user_id}/restore", 200, token=admin)
    service.sign_in(new, SECOND_PASSWORD)
    say("She wants it back: an admin restores it, as can be done for 30 days, and she signs in.")
    service.call("DELETE", f"/users/{user_id}", 204, token=admin)
    service.call("POST", f"/users/{user_id}/erase", 204, token=admin)
    say("She has thought better of it: an admin deletes it again, and erases it.")
    service.call("GET", f"/users/{user_id}", 404, token=admin)
    service.call("POST", "/auth/login", 401, email=new, password=SECOND_PASSWORD)
    say(f"Nobody can find user {user_id} any more, not even the admin.")


def register(service: Service, address: str) -> None:
    """Open an account, and confirm the address by the code of the letter."""
    body = {"email": address, "name": "Ada Lovelace", "password": FIRST_PASSWORD}
    try:
        service.call("POST", "/users", 201, **body)
        subject = "Confirm your e-mail address"
    except Surprise as surprise:
        if "answered 202" not in str(surprise):
            raise
        subject = "Confirm your new account"  # Where REGISTRATION is confirmed, there is no account before that.
    say(f"Ada registers as {address}.")
    code = service.code_to(address, subject)
    service.call("POST", "/auth/email/verify", 204, email=address, code=code)
    say(f"A letter brings her the code {code}; she types it, and the address is confirmed.")


def sign_in(service: Service, address: str) -> Any:
    """Sign in, and return the tokens."""
    grant = service.sign_in(address, FIRST_PASSWORD, device="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0")
    if not grant["user"]["email_verified"]:
        raise Surprise("The address is not confirmed.")
    say(f"She signs in; her access token is good for {grant['expires_in'] // 60} minutes.")
    return grant


def stay_signed_in(service: Service, grant: Any) -> str:
    """Exchange the refresh token, and once more as if the answer had been lost; return the new access token."""
    renewed = service.call("POST", "/auth/refresh", 200, refresh_token=grant["refresh_token"])
    again = service.call("POST", "/auth/refresh", 200, refresh_token=grant["refresh_token"])
    if again["refresh_token"] != renewed["refresh_token"]:
        raise Surprise("The same refresh token gave two successors.")
    say("She exchanges her refresh token; asking again, as if the answer had been lost, gives the same successor.")
    return str(renewed["access_token"])


def look_at_devices(service: Service, address: str, token: str) -> None:
    """List the sessions, and end the one that is not the present one."""
    phone = "Mozilla/5.0 (Linux; Android 15; Pixel 9) Chrome/140.0 Mobile Safari/537.36"
    other = service.sign_in(address, FIRST_PASSWORD, device=phone)["access_token"]
    sessions = service.call("GET", "/me/sessions", 200, token=token)["sessions"]
    devices = " and ".join(f"{found['device']}{' (this one)' if found['is_current'] else ''}" for found in sessions)
    say(f"She sees where she is signed in: {devices}.")
    (session_id,) = [session["id"] for session in sessions if not session["is_current"]]
    service.call("DELETE", f"/me/sessions/{session_id}", 204, token=token)
    service.call("GET", "/me", 401, token=other)
    say("She ends the session on her phone, which is refused from then on.")


def change_address(service: Service, token: str, address: str) -> None:
    """Move to another address, once it is confirmed."""
    service.call("POST", "/me/email", 202, token=token, current_password=FIRST_PASSWORD, email=address)
    code = service.code_to(address, "Confirm your new e-mail address")
    service.call("POST", "/auth/email/verify", 204, email=address, code=code)
    if service.call("GET", "/me", 200, token=token)["email"] != address:
        raise Surprise("The address has not changed.")
    say(f"She moves to {address}, and confirms it with the code {code}.")


def forget_password(service: Service, address: str) -> str:
    """Set a new password by a letter, and sign in with it; return the access token."""
    service.call("POST", "/auth/password/forgot", 202, email=address)
    code = service.code_to(address, "Set a new password")
    service.call("POST", "/auth/password/reset", 204, email=address, code=code, password=SECOND_PASSWORD)
    token = str(service.sign_in(address, SECOND_PASSWORD)["access_token"])
    say(f"She has forgotten her password, sets another with the code {code}, and signs in with it.")
    return token


def take_everything_along(service: Service, token: str) -> None:
    """Read everything that is held."""
    held = service.call("GET", "/me/export", 200, token=token)
    what = ", ".join(f"{len(found)} {name}" for name, found in held.items() if isinstance(found, list))
    say(f"She reads everything that is held about her: her account, {what}.")


def say(text: str) -> None:
    """Print a step."""
    sys.stdout.write(f"{next(steps):2}. {text}\n")
    sys.stdout.flush()


def main() -> None:
    """Run it; exit with status 1, and say why, when the service does something else than it should."""
    environ = os.environ
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, variable, meaning in (
        ("url", "ROLLCALL_URL", "where the service answers, such as http://localhost:8000"),
        ("letters", "ROLLCALL_LETTERS", "the folder of its MAIL_URL"),
        ("admin_email", "ADMIN_EMAIL", "the address of an admin"),
        ("admin_password", "ADMIN_PASSWORD", "the admin's password"),
    ):
        given = environ.get(variable)
        parser.add_argument(name, nargs="?" if given else None, default=given, help=f"{meaning} ({variable})")
    told = parser.parse_args()
    try:
        live(Service(told.url, Path(told.letters)), told.admin_email, told.admin_password)
    except Surprise as surprise:
        sys.exit(f"Surprise: {surprise}")


if __name__ == "__main__":
    main()
