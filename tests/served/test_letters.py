"""Letters: what was asked for is sent, whoever dies meanwhile; and nobody can have others flooded with them."""

from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

import pytest

from tests.served.letters import letter_to, letters_to
from tests.served.service import API, PASSWORD, Service, eventually, somewhere

pytestmark = pytest.mark.served


def register(service: Service, email: str, network: dict[str, str]) -> dict[str, Any]:
    body = {"email": email, "name": "Some Person", "password": PASSWORD}
    answer = service.send("POST", f"{API}/users", json=body, headers=network)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def no_job_waits(service: Service) -> bool:
    return service.rows("SELECT id FROM jobs") == []


def test_letter_of_which_only_the_job_was_left_is_sent_by_the_worker_that_follows(mortal: Service) -> None:
    mortal.kill_staff()
    person, moment = mortal.make_user(), mortal.kept(datetime.now(UTC))
    job = {"kind": "reset_password", "email_key": person.email, "arguments": "{}", "attempts": 0, "leased": False}
    mortal.insert("jobs", [{**job, "run_at": moment, "created_at": moment}])

    mortal.employ()

    assert letter_to(mortal, person.email, "Set a new password").code


def test_no_more_than_three_letters_an_hour_reach_one_address_by_registering_again(mortal: Service) -> None:
    email = f"flooded-{token_hex(6)}@example.com"

    for _ in range(5):
        network = somewhere()
        register(mortal, email, network)
        token = mortal.grant(email, headers=network)["access_token"]
        assert mortal.send("DELETE", f"{API}/me", token).status_code == 204

    eventually(lambda: no_job_waits(mortal))
    assert len(letters_to(mortal, email)) <= 3


def test_one_network_causes_no_more_than_twenty_letters_an_hour_by_registering(mortal: Service) -> None:
    network, mark = somewhere(), token_hex(6)
    emails = [f"flooded-{mark}-{number}@example.com" for number in range(25)]

    for email in emails:
        register(mortal, email, network)

    eventually(lambda: no_job_waits(mortal))
    assert sum(len(letters_to(mortal, email)) for email in emails) <= 20
