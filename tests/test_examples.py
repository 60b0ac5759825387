"""The examples work: each runs against a real server, with nothing but the standard library, and says what it did."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.served.service import ADMIN_EMAIL, PASSWORD, Service, served
from tests.servers import ROOT, inherited

pytestmark = pytest.mark.served

SURPRISES = {
    "a wrong password": ({"ADMIN_PASSWORD": "not the password"}, "was answered 401 rather than 200"),
    "nobody there": ({"ROLLCALL_URL": "http://127.0.0.1:1"}, "does not answer"),
}
STEPS = """
 1. Ada registers as ada-MARK@example.com.
 2. A letter brings her the code CODE; she types it, and the address is confirmed.
 3. She signs in; her access token is good for 15 minutes.
 4. She exchanges her refresh token; asking again, as if the answer had been lost, gives the same successor.
 5. She sees where she is signed in: Firefox on Linux (this one) and Chrome on Android.
 6. She ends the session on her phone, which is refused from then on.
 7. She moves to countess-MARK@example.com, and confirms it with the code CODE.
 8. She has forgotten her password, sets another with the code CODE, and signs in with it.
 9. She reads everything that is held about her: her account, 0 posts, 3 sessions, 0 avatars, N letters, N events.
10. Ada deletes her account; at once she can no longer sign in.
11. She wants it back: an admin restores it, as can be done for 30 days, and she signs in.
12. She has thought better of it: an admin deletes it again, and erases it.
13. Nobody can find user N any more, not even the admin.
"""


@pytest.fixture(scope="module", params=["open", "confirmed"])
def service(
    request: pytest.FixtureRequest, database_kind: str, make_database: Callable[[str, str], str]
) -> Iterator[Service]:
    url = make_database(database_kind, f"examples_{request.param}")
    with served(url, REGISTRATION=request.param) as service:
        yield service


def run(service: Service, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the example about a service, with no package in its reach."""
    told = {
        "ROLLCALL_URL": service.url,
        "ROLLCALL_LETTERS": service.environment["MAIL_URL"].removeprefix("file://"),
        "ADMIN_EMAIL": ADMIN_EMAIL,
        "ADMIN_PASSWORD": PASSWORD,
        **variables,
    }
    command = [sys.executable, "-I", "-S", str(ROOT / "examples" / "account_life.py")]
    return subprocess.run(command, env=inherited() | told, capture_output=True, text=True)


def test_life_of_an_account_can_be_followed_from_registering_to_erasing(service: Service) -> None:
    done = run(service)

    assert (done.returncode, done.stderr) == (0, "")
    without_what_varies = re.sub(r"-[0-9a-f]{8}@", "-MARK@", done.stdout)
    without_what_varies = re.sub(r"code \d{4} \d{4}", "code CODE", without_what_varies)
    without_what_varies = re.sub(r"(?<=user )\d+|\d+(?= (letters|events))", "N", without_what_varies)
    assert without_what_varies.strip() == STEPS.strip()
    assert service.unforeseen() == []


@pytest.mark.parametrize("kind", SURPRISES)
def test_surprise_is_told_and_ends_the_example(service: Service, kind: str) -> None:
    variables, reason = SURPRISES[kind]

    done = run(service, **variables)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Surprise: ") and reason in done.stderr
