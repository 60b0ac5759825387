"""What ends a session ends it at once, in every process of every instance."""

import contextlib
from collections.abc import Callable
from secrets import token_hex
from typing import NamedTuple

import pytest

from tests.served.letters import Letter, letter_to
from tests.served.service import API, PASSWORD, WORKERS, Caller, Person, Service
from tests.served.workers import statuses_of_each_worker

pytestmark = pytest.mark.served

ME, SESSIONS = f"{API}/me", f"{API}/me/sessions"
NEW_PASSWORD = "quite another pass phrase"
ALL_REFUSED, ALL_SERVED = [{401}] * 2 * WORKERS, [{200}] * 2 * WORKERS
Instances = tuple[Service, Service]


class Scene(NamedTuple):
    """Somebody with two sessions: their own, which is to end, and another; and an admin."""

    service: Service
    person: Person
    own: Caller
    other: Caller
    admin: Caller


def suspend(scene: Scene) -> int:
    return scene.admin.patch(scene.person.path, json={"is_active": False}).status_code


def delete(scene: Scene) -> int:
    return scene.admin.delete(scene.person.path).status_code


def delete_themself(scene: Scene) -> int:
    return scene.own.delete(ME).status_code


def delete_and_restore(scene: Scene) -> int:
    scene.admin.delete(scene.person.path)
    return scene.admin.post(f"{scene.person.path}/restore").status_code


def delete_and_erase(scene: Scene) -> int:
    scene.admin.delete(scene.person.path)
    return scene.admin.post(f"{scene.person.path}/erase").status_code


def promote(scene: Scene) -> int:
    return scene.admin.patch(scene.person.path, json={"role": "admin"}).status_code


def demote(scene: Scene) -> int:
    return scene.admin.patch(scene.person.path, json={"role": "member"}).status_code


def sign_out(scene: Scene) -> int:
    return scene.own.post(f"{API}/auth/logout").status_code


def end_it_from_the_other(scene: Scene) -> int:
    sessions = scene.other.get(SESSIONS).json()["sessions"]
    (session_id,) = [session["id"] for session in sessions if not session["is_current"]]
    return scene.other.delete(f"{SESSIONS}/{session_id}").status_code


def end_all_others(scene: Scene) -> int:
    return scene.other.delete(SESSIONS).status_code


def end_it_as_an_admin(scene: Scene) -> int:
    (session_id,) = [found["id"] for found in scene.own.get(SESSIONS).json()["sessions"] if found["is_current"]]
    return scene.admin.delete(f"{scene.person.path}/sessions/{session_id}").status_code


def end_all_as_an_admin(scene: Scene) -> int:
    return scene.admin.delete(f"{scene.person.path}/sessions").status_code


def change_password(scene: Scene) -> int:
    body = {"current_password": PASSWORD, "password": NEW_PASSWORD}
    return scene.other.post(f"{ME}/password", json=body).status_code


def reset_by_code(scene: Scene) -> int:
    letter = letter_of_reset(scene)
    body = {"email": scene.person.email, "code": letter.code, "password": NEW_PASSWORD}
    return scene.service.send("POST", f"{API}/auth/password/reset", json=body).status_code


def reset_by_link(scene: Scene) -> int:
    letter = letter_of_reset(scene)
    page = "/account/reset"
    assert scene.service.send("GET", f"{page}?token={letter.token}").status_code == 200  # As a mail scanner would.
    assert scene.own.get(ME).status_code == 200
    return scene.service.send("POST", page, data={"token": letter.token, "password": NEW_PASSWORD}).status_code


def letter_of_reset(scene: Scene) -> Letter:
    asked = scene.service.send("POST", f"{API}/auth/password/forgot", json={"email": scene.person.email})
    assert asked.status_code == 202
    return letter_to(scene.service, scene.person.email, "Set a new password")


def change_address(scene: Scene) -> int:
    address = f"new-{token_hex(6)}@example.com"
    asked = scene.other.post(f"{ME}/email", json={"current_password": PASSWORD, "email": address})
    assert asked.status_code == 202
    assert scene.own.get(ME).status_code == 200  # Nothing has changed yet.
    letter = letter_to(scene.service, address, "Confirm your new e-mail address")
    return scene.service.send("POST", f"{API}/auth/email/verify", json={"token": letter.token}).status_code


def change_address_as_an_admin(scene: Scene) -> int:
    return scene.admin.patch(scene.person.path, json={"email": f"new-{token_hex(6)}@example.com"}).status_code


ENDS = [
    *(suspend, delete, delete_themself, delete_and_restore, delete_and_erase, promote, demote, sign_out),
    *(end_it_from_the_other, end_all_others, end_it_as_an_admin, end_all_as_an_admin),
    *(change_password, reset_by_code, reset_by_link, change_address, change_address_as_an_admin),
]
KEEP_THE_OTHER = {sign_out, end_it_from_the_other, end_all_others, end_it_as_an_admin, change_password, change_address}


def statuses_everywhere(instances: Instances, path: str, token: str) -> list[set[int]]:
    """Return what each process of each instance answers."""
    return [statuses for instance in instances for statuses in statuses_of_each_worker(instance, path, token)]


@pytest.mark.parametrize("end", ENDS)
def test_token_is_refused_by_every_worker_of_every_instance_after(
    instances: Instances, end: Callable[[Scene], int]
) -> None:
    service, elsewhere = instances
    person = service.make_user(role="support")
    own, other = service.grant(person.email), service.grant(person.email)
    tokens = [own["access_token"], other["access_token"]]
    # Every worker has seen the tokens, so that one which remembers them would be found out.
    for token in tokens:
        assert statuses_everywhere(instances, f"{API}/users?per_page=1", token) == ALL_SERVED

    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(service.caller(token)) for token in (*tokens, service.admin_token())]
        assert end(Scene(service, person, *callers)) in {200, 204}

    assert statuses_everywhere(instances, f"{API}/users?per_page=1", tokens[0]) == ALL_REFUSED
    assert statuses_everywhere(instances, ME, tokens[0]) == ALL_REFUSED
    assert statuses_everywhere(instances, ME, tokens[1]) == (ALL_SERVED if end in KEEP_THE_OTHER else ALL_REFUSED)
    refreshed = elsewhere.send("POST", f"{API}/auth/refresh", json={"refresh_token": own["refresh_token"]})
    assert refreshed.status_code == 401


def test_sign_out_leaves_other_sessions_alone(instances: Instances) -> None:
    service, elsewhere = instances
    person = service.make_user()
    here, there = service.sign_in(person.email), elsewhere.sign_in(person.email)

    assert service.send("POST", f"{API}/auth/logout", here).status_code == 204

    assert statuses_everywhere(instances, ME, here) == ALL_REFUSED
    assert statuses_everywhere(instances, ME, there) == ALL_SERVED


def test_user_who_is_active_again_must_sign_in_again(instances: Instances) -> None:
    service, elsewhere = instances
    person, admin_token = service.make_user(), service.admin_token()
    token = service.sign_in(person.email)

    for is_active in (False, True):
        assert service.send("PATCH", person.path, admin_token, json={"is_active": is_active}).status_code == 200

    assert statuses_everywhere(instances, ME, token) == ALL_REFUSED
    assert statuses_everywhere(instances, ME, elsewhere.sign_in(person.email)) == ALL_SERVED
