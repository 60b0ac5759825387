"""What ends a session ends it at once and in every process of the server."""

from collections.abc import Callable

import pytest

from tests.served.service import API, Caller, Person, Service
from tests.served.workers import statuses_of_each_worker

pytestmark = pytest.mark.served

ME = f"{API}/me"


def suspend(admin: Caller, _own: Caller, person: Person) -> int:
    return admin.patch(person.path, json={"is_active": False}).status_code


def delete(admin: Caller, _own: Caller, person: Person) -> int:
    return admin.delete(person.path).status_code


def delete_themself(_admin: Caller, own: Caller, _person: Person) -> int:
    return own.delete(ME).status_code


def promote(admin: Caller, _own: Caller, person: Person) -> int:
    return admin.patch(person.path, json={"role": "admin"}).status_code


def demote(admin: Caller, _own: Caller, person: Person) -> int:
    return admin.patch(person.path, json={"role": "member"}).status_code


def sign_out(_admin: Caller, own: Caller, _person: Person) -> int:
    return own.post(f"{API}/auth/logout").status_code


@pytest.mark.parametrize("end", [suspend, delete, delete_themself, promote, demote, sign_out])
def test_token_is_refused_by_every_worker_after(service: Service, end: Callable[[Caller, Caller, Person], int]) -> None:
    person = service.make_user(role="support")
    token = service.sign_in(person.email)
    # Every worker has seen the token, so that one which remembers it would be found out.
    assert statuses_of_each_worker(service, f"{API}/users?per_page=1", token) == [{200}, {200}]

    with service.caller(service.admin_token()) as admin, service.caller(token) as own:
        assert end(admin, own, person) in {200, 204}

    assert statuses_of_each_worker(service, f"{API}/users?per_page=1", token) == [{401}, {401}]
    assert statuses_of_each_worker(service, ME, token) == [{401}, {401}]


def test_sign_out_leaves_other_sessions_alone(service: Service) -> None:
    person = service.make_user()
    here, there = service.sign_in(person.email), service.sign_in(person.email)

    assert service.send("POST", f"{API}/auth/logout", here).status_code == 204

    assert statuses_of_each_worker(service, ME, here) == [{401}, {401}]
    assert statuses_of_each_worker(service, ME, there) == [{200}, {200}]


def test_restored_user_must_sign_in_again(service: Service) -> None:
    person, admin_token = service.make_user(), service.admin_token()
    token = service.sign_in(person.email)

    for is_active in (False, True):
        assert service.send("PATCH", person.path, admin_token, json={"is_active": is_active}).status_code == 200

    assert statuses_of_each_worker(service, ME, token) == [{401}, {401}]
    assert statuses_of_each_worker(service, ME, service.sign_in(person.email)) == [{200}, {200}]
