"""A partner's program, written with a library that knows nothing of us, against the real thing; the end of its key."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

from tests.served.service import API, Person, Service, eventually
from tests.served.workers import statuses_of_each_worker

pytestmark = pytest.mark.served

METADATA = "/.well-known/oauth-authorization-server"
ACCOUNTS, USERS = f"{API}/service-accounts", f"{API}/users?per_page=1"
PUBLIC_URL = "https://users.example.com"
SCOPES = ["users:read", "posts:read", "posts:write"]
Instances = tuple[Service, Service]


class Program(NamedTuple):
    """A program and a key of it; `path` is where the API has it, `key_path` where it has the key."""

    path: str
    client_id: str
    key: str
    key_path: str
    maker: Person


@pytest.fixture
def program(service: Service) -> Program:
    """Add a program that has one key, made by an admin who is not the first one."""
    maker = service.make_user(role="admin")
    token = service.sign_in(maker.email)
    account = service.send("POST", ACCOUNTS, token, json={"name": "CRM", "scopes": SCOPES})
    assert account.status_code == 201, account.text
    path = f"{ACCOUNTS}/{account.json()['id']}"
    made = service.send("POST", f"{path}/keys", token)
    assert made.status_code == 201, made.text
    key = made.json()
    return Program(path, account.json()["client_id"], key["key"], f"{path}/keys/{key['id']}", maker)


@pytest.fixture
def metadata(service: Service) -> dict[str, Any]:
    """Return what the service says of itself, with its addresses as they are reached from here."""
    found = service.send("GET", METADATA).json()
    return {
        name: value.replace(PUBLIC_URL, service.url) if isinstance(value, str) else value
        for name, value in found.items()
    }


@pytest.fixture
def partner(
    service: Service, program: Program, metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., OAuth2Session]]:
    """Return a function that makes a client of the library, for the program unless told otherwise."""
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # There is no TLS between here and the server.
    made = []

    def make(**more: Any) -> OAuth2Session:
        facts = {"client_id": program.client_id, "client_secret": program.key, **more}
        made.append(OAuth2Session(token_endpoint=metadata["token_endpoint"], **facts))
        made[-1].trust_env = False  # No proxy of the developer's.
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_metadata_are_as_the_library_wants_them(service: Service) -> None:
    found = service.send("GET", METADATA).json()

    # The library knows no server at which nobody signs in; the standard asks for the list all the same.
    AuthorizationServerMetadata({**found, "response_types_supported": ["none"]}).validate()

    assert (found["issuer"], found["response_types_supported"]) == (PUBLIC_URL, [])


@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post"])
def test_program_gets_a_token_uses_it_and_gives_it_back(
    service: Service, partner: Callable[..., OAuth2Session], metadata: dict[str, Any], way: str
) -> None:
    client = partner(token_endpoint_auth_method=way, revocation_endpoint_auth_method=way, scope="users:read posts:read")
    person = service.make_user()

    token = client.fetch_token()
    read = client.get(service.url + person.path)
    written = client.patch(service.url + person.path, json={"name": "New"})
    told = client.introspect_token(metadata["introspection_endpoint"], token=token["access_token"])
    given_back = client.revoke_token(metadata["revocation_endpoint"], token=token["access_token"])
    refused = client.get(service.url + person.path)

    assert (token["token_type"], token["scope"], token["expires_in"]) == ("Bearer", "posts:read users:read", 900)
    assert (read.status_code, read.json()["email"]) == (200, person.email)
    assert (written.status_code, written.json()["code"]) == (403, "permission_denied")
    assert told.json()["active"] is True and told.json()["scope"] == token["scope"]
    assert given_back.status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")


def test_program_gets_another_token_by_itself_when_one_is_over(
    service: Service, partner: Callable[..., OAuth2Session]
) -> None:
    client = partner(grant_type="client_credentials")
    first = dict(client.fetch_token())

    client.token["expires_at"] = 1
    answer = client.get(service.url + USERS)

    assert answer.status_code == 200
    assert client.token["access_token"] != first["access_token"]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"client_secret": f"rk_{'x' * 36}"}, "invalid_client"),
        ({"client_id": "sa_999999"}, "invalid_client"),
        ({"scope": "users:write"}, "invalid_scope"),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, "unsupported_grant_type"),
    ],
)
def test_library_understands_why_it_is_refused(
    partner: Callable[..., OAuth2Session], more: dict[str, str], error: str
) -> None:
    grant = {"grant_type": more["grant_type"]} if "grant_type" in more else {}
    client = partner(**{name: value for name, value in more.items() if name != "grant_type"})

    with pytest.raises(OAuthError) as caught:
        client.fetch_token(**grant)

    assert caught.value.error == error and caught.value.description


def revoke_key(service: Service, program: Program) -> int:
    return service.send("DELETE", program.key_path, service.admin_token()).status_code


def remove_program(service: Service, program: Program) -> int:
    return service.send("DELETE", program.path, service.admin_token()).status_code


def suspend_maker(service: Service, program: Program) -> int:
    body = {"is_active": False}
    return service.send("PATCH", program.maker.path, service.admin_token(), json=body).status_code


def take_its_scopes(service: Service, program: Program) -> int:
    body = {"scopes": ["webhooks:read"]}
    return service.send("PATCH", program.path, service.admin_token(), json=body).status_code


@pytest.mark.parametrize(
    ("end", "status"), [(revoke_key, 401), (remove_program, 401), (suspend_maker, 401), (take_its_scopes, 403)]
)
def test_key_and_its_tokens_are_refused_by_every_worker_of_every_instance_after(
    instances: Instances,
    program: Program,
    partner: Callable[..., OAuth2Session],
    end: Callable[[Service, Program], int],
    status: int,
) -> None:
    service, _ = instances
    credentials = [program.key, partner().fetch_token()["access_token"]]

    def statuses() -> list[set[int]]:
        return [
            found
            for credential in credentials
            for instance in instances
            for found in statuses_of_each_worker(instance, USERS, credential)
        ]

    # Every worker has seen them, so that one which remembers would be found out.
    before = statuses()
    assert end(service, program) in {200, 204}

    assert before and {*map(frozenset, before)} == {frozenset({200})}
    assert {*map(frozenset, statuses())} == {frozenset({status})}


def test_neither_key_nor_token_is_logged(
    service: Service, program: Program, partner: Callable[..., OAuth2Session], metadata: dict[str, Any]
) -> None:
    token = partner().fetch_token()["access_token"]
    service.send("GET", USERS, program.key)
    service.send("GET", f"{USERS}&access_token={program.key}", token)
    service.send("GET", USERS, program.key[:-1])
    form = {"client_id": program.client_id, "client_secret": program.key, "token": token}
    service.send("POST", "/oauth/introspect", data=form)
    last = service.send("POST", "/oauth/token", data={**form, "client_secret": program.key[:-1]})

    eventually(lambda: last.headers["X-Request-ID"] in service.server.log())

    secrets = [program.key[11:-1], token.rpartition(".")[2]]
    assert [secret for secret in secrets if secret in service.log()] == []
