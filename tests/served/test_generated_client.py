"""A partner's program, written with a client that was generated from the committed document, against the real thing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from types import ModuleType
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from tests.pictures import TYPES
from tests.receivers import Receiver, listening
from tests.served.conftest import all_foreseen
from tests.served.service import API, Service, eventually, served
from tests.servers import ROOT

pytestmark = pytest.mark.served

DOCUMENT = ROOT / "docs" / "openapi.json"
PACKAGE = "rollcall_client"
# Where a body may be of several types and nothing else is optional, the generator forgets to import what it uses.
FAULTY = {"put_user_avatar"}
REQUESTS_A_MINUTE = 60  # Of one key; more than any other test here sends with its own.
SCOPES = ["users:read", "users:write", "events:read", "webhooks:read", "webhooks:write"]


@pytest.fixture(scope="module")
def service(database_kind: str, make_database: Callable[[str, str], str]) -> Iterator[Service]:
    """Serve the application in development, whose webhooks may go to this machine."""
    variables = {"WEBHOOK_ALLOWED_HOSTS": "127.0.0.1", "RATE_LIMIT_KEY": f"{REQUESTS_A_MINUTE}/minute"}
    url = make_database(database_kind, "generated_client")
    with served(url, APP_ENV="development", **variables) as service, all_foreseen(service):
        yield service


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Generate the client; nothing in the document may be passed over."""
    folder = tmp_path_factory.mktemp("generated")
    # The generator knows files by one type only. What the code looks like is of no interest.
    files = dict.fromkeys(TYPES.values(), "application/octet-stream")
    config = folder / "config.json"
    config.write_text(json.dumps({"content_type_overrides": files, "post_hooks": []}))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(DOCUMENT), "--meta", "none"]
    command += ["--output-path", str(folder / PACKAGE), "--config", str(config), "--fail-on-warning"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield import_module(PACKAGE)
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


class Partner:
    """A program with a key; every answer that it gets must be one that the document knows."""

    def __init__(self, package: ModuleType, url: str, key: str) -> None:
        self.models = import_module(f"{PACKAGE}.models")
        self.types = import_module(f"{PACKAGE}.types")
        alone = {"trust_env": False}  # No proxy of the developer's.
        self.client = package.AuthenticatedClient(
            base_url=url, token=key, raise_on_unexpected_status=True, httpx_args=alone
        )

    def call(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """Call an operation, such as `users.get_user_list`, and return the whole answer."""
        return import_module(f"{PACKAGE}.api.{operation}").sync_detailed(*arguments, client=self.client, **options)

    def person(self, **fields: Any) -> Any:
        """Return what makes a user with an address that nobody has."""
        return self.models.UserCreate(email=f"{token_hex(8)}@example.com", name="Ada Lovelace", **fields)

    def refused(self, answer: Any) -> tuple[int, Any]:
        """Return what an answer was refused for, which must have its type."""
        assert isinstance(answer.parsed, self.models.Problem)
        assert answer.parsed.status == answer.status_code and answer.parsed.request_id
        return answer.status_code.value, answer.parsed.code


@pytest.fixture
def make_partner(service: Service, package: ModuleType) -> Iterator[Callable[..., Partner]]:
    """Return a function by which an admin makes a service account and a key, and the partner a program with it."""
    made = []

    def make(*scopes: str) -> Partner:
        with service.caller(service.admin_token()) as admin:
            account = admin.post(f"{API}/service-accounts", json={"name": "Partner", "scopes": [*scopes]}).json()
            key = admin.post(f"{API}/service-accounts/{account['id']}/keys").json()["key"]
        partner = Partner(package, service.url, key)
        partner.client.__enter__()
        made.append(partner)
        return partner

    yield make
    for partner in made:
        partner.client.__exit__(None, None, None)


@pytest.fixture
def partner(make_partner: Callable[..., Partner]) -> Partner:
    """Return a program that may do all that partners do."""
    return make_partner(*SCOPES)


def test_every_operation_of_the_document_can_be_called(package: ModuleType) -> None:
    paths = json.loads(DOCUMENT.read_text("utf-8"))["paths"].values()
    operations = [operation for item in paths for verb, operation in item.items() if verb != "parameters"]

    for operation in operations:
        if operation["operationId"] not in FAULTY:
            module = import_module(f"{PACKAGE}.api.{operation['tags'][0]}.{operation['operationId']}")
            assert callable(module.sync_detailed)
    found = {path.stem for path in Path(str(package.__file__)).parent.glob("api/*/*.py")} - {"__init__"}
    assert found == {operation["operationId"] for operation in operations}


def test_partner_reads_all_users_page_by_page(service: Service, partner: Partner) -> None:
    people = {service.make_user(password=None).id for _ in range(5)}
    seen, cursor = [], partner.types.UNSET

    while cursor is not None:
        page = partner.call("users.get_user_list", per_page=100 if len(seen) > 3 else 2, cursor=cursor).parsed
        seen += [user.id for user in page.users]
        cursor = page.next_cursor

    assert len(seen) == len(set(seen)) and people <= set(seen)


def test_partner_finds_a_user_by_filters_of_every_type(service: Service, partner: Partner) -> None:
    made = partner.call("users.post_user_list", body=partner.person(external_id=token_hex(8))).parsed
    wanted = {"role": partner.models.GetUserListRole.MEMBER, "is_active": True, "external_id": made.external_id}

    (found,) = partner.call(
        "users.get_user_list", **wanted, updated_before=made.updated_at.replace(year=2999)
    ).parsed.users
    since = partner.call("users.get_user_list", **wanted, created_after=made.created_at).parsed.users

    assert (found.id, found.email, found.created_at) == (made.id, made.email, made.created_at)
    assert since == []


def test_partner_creates_a_user_once_however_often_it_asks(service: Service, partner: Partner) -> None:
    metadata = partner.models.Metadata.from_dict({"plan": "pro", "seats": 5, "tags": ["a"], "by": {"team": True}})
    body = partner.person(metadata=metadata)

    first, again = (
        partner.call("users.post_user_list", body=body, idempotency_key="the-first-of-mine") for _ in range(2)
    )

    assert isinstance(first.parsed, partner.models.User) and (first.status_code, again.status_code) == (201, 201)
    assert first.parsed == again.parsed and first.parsed.metadata.to_dict() == metadata.to_dict()
    assert "Idempotency-Replayed" not in first.headers and again.headers["Idempotency-Replayed"] == "true"
    assert first.headers["Location"].endswith(f"{API}/users/{first.parsed.id}")
    assert len(service.rows("SELECT id FROM users WHERE email = %s", body.email)) == 1


def test_partner_is_told_in_its_own_types_what_is_wrong(partner: Partner) -> None:
    code, body = partner.models.ProblemCode, partner.person()
    partner.call("users.post_user_list", body=body)

    taken = partner.call("users.post_user_list", body=body)
    short = partner.call("users.post_user_list", body=partner.models.UserCreate(email=body.email, name="A"))
    missing = partner.call("users.get_user_item", 2**62)

    assert partner.refused(taken) == (409, code.EMAIL_TAKEN)
    assert [(fault.pointer, fault.code) for fault in taken.parsed.errors] == [("/json/email", "taken")]
    assert partner.refused(short) == (422, code.INVALID)
    assert partner.refused(missing) == (404, code.NOT_FOUND)


def test_partner_changes_what_it_has_read_and_nothing_newer(partner: Partner) -> None:
    made = partner.call("users.post_user_list", body=partner.person(external_id=token_hex(8)))
    read = partner.call("users.get_user_item", made.parsed.id)
    patch = partner.models.UserPatch(name="Countess", external_id=None)

    known = partner.call("users.get_user_item", made.parsed.id, if_none_match=read.headers["ETag"])
    changed = partner.call("users.patch_user_item", made.parsed.id, body=patch, if_match=read.headers["ETag"])
    late = partner.call("users.patch_user_item", made.parsed.id, body=patch, if_match=read.headers["ETag"])

    assert (known.status_code, known.parsed) == (304, None)
    assert (changed.status_code, changed.parsed.name, changed.parsed.external_id) == (200, "Countess", None)
    assert changed.parsed.version == made.parsed.version + 1 and changed.parsed.email == made.parsed.email
    assert partner.refused(late) == (412, partner.models.ProblemCode.VERSION_MISMATCH)


def test_partner_hears_what_happened_after_a_place(partner: Partner) -> None:
    place, events = 0, [None]
    while events:
        stretch = partner.call("events.get_event_feed", after=place, per_page=100).parsed
        place, events = stretch.next_after, stretch.events
    user = partner.call("users.post_user_list", body=partner.person()).parsed
    partner.call("users.patch_user_item", user.id, body=partner.models.UserPatch(name="Countess"))

    told: list[Any] = []
    while len(told) < 2:
        stretch = partner.call("events.get_event_feed", after=place, user_id=user.id, wait=5).parsed
        told, place = told + stretch.events, stretch.next_after

    assert [(event.type_, event.subject_id, event.version) for event in told] == [
        ("user.created", user.id, 1),
        ("user.updated", user.id, 2),
    ]
    assert told[1].changed == ["name"] and told[1].key_id is not None and told[1].user_id == user.id


def test_partner_adds_a_webhook_and_tries_it(partner: Partner) -> None:
    receiver = Receiver()
    with listening(receiver.talk) as listener:
        wanted = [partner.models.WebhookInputEventTypesItem.USER_ALL]
        body = partner.models.WebhookInput(url=listener.url, event_types=wanted)
        made = partner.call("webhooks.post_webhook_list", body=body)

        tried = partner.call("webhooks.post_webhook_ping", made.parsed.id)

        assert (made.status_code, tried.status_code) == (201, 202)
        assert isinstance(tried.parsed, partner.models.Accepted)
        eventually(lambda: bool(receiver.requests))
        removed = partner.call("webhooks.delete_webhook_item", made.parsed.id)
    (request,) = receiver.requests
    assert Verifier(made.parsed.secret).verify(request.body, request.headers)["type"] == "webhook.ping"
    assert (removed.status_code, removed.parsed) == (204, None)


def test_partner_may_do_what_its_key_is_for_and_nothing_else(
    service: Service, make_partner: Callable[..., Partner], package: ModuleType
) -> None:
    reader = make_partner("users:read")
    with_garbage = Partner(package, service.url, "rk_garbage")

    refused = reader.call("webhooks.get_webhook_list")
    with with_garbage.client:
        unknown = with_garbage.call("users.get_user_list")

    assert reader.refused(refused) == (403, reader.models.ProblemCode.PERMISSION_DENIED)
    assert with_garbage.refused(unknown)[0] == 401


def test_partner_sees_what_is_left_of_its_limit_and_when_to_come_back(partner: Partner) -> None:
    answer = partner.call("users.get_user_list", per_page=1)
    assert answer.headers["RateLimit-Policy"] == f'"key";q={REQUESTS_A_MINUTE};w=60'
    assert answer.headers["RateLimit"].startswith('"key";r=')

    for _ in range(2 * REQUESTS_A_MINUTE):  # A minute may begin anew while these are sent.
        if answer.status_code == 200:
            answer = partner.call("users.get_user_list", per_page=1)

    assert partner.refused(answer) == (429, partner.models.ProblemCode.RATE_LIMITED)
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["RateLimit"].startswith('"key";r=0;')
