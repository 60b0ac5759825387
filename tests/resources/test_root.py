"""What lies round the API: the service document, the public keys, the pages for people, and its health."""

import re

import pytest

from models.base import driver_url
from models.migrations import create_sqlite_file, head
from resources.http.problems import catalogue, page_path, status_of
from tests.client import Client

PAGES = ["/docs", "/problems", *(page_path(kind) for kind in catalogue())]


def test_service_document_says_where_everything_is(client, app):
    response = client.get("/")

    assert response.status_code == 200
    assert response.json["name"] == "Rollcall"
    assert response.json["version"] == app.config["VERSION"]
    links = response.json["links"]
    assert links.pop("api") == "http://localhost/api/v1"
    assert {"documentation", "openapi", "problems", "health", "ready", "jwks", "oauth"} == links.keys()
    for address in links.values():
        assert client.get(address.removeprefix("http://localhost")).status_code == 200


def test_addresses_are_those_that_clients_use(another_app, contract):
    client = Client(another_app(PUBLIC_URL="https://users.example.com"), contract)

    links = client.get("/").json["links"]

    assert all(address.startswith("https://users.example.com/") for address in links.values())
    assert client.get("/nothing").json["type"] == "https://users.example.com/problems/not-found"
    assert client.get("/api/v1/openapi.json").json["servers"] == [{"url": "https://users.example.com"}]


def test_only_the_public_half_of_a_key_is_published(client):
    response = client.get("/.well-known/jwks.json")

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "public, max-age=300"
    (key,) = response.json["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")


# Pages


@pytest.mark.parametrize("path", PAGES)
def test_page_holds_nothing_of_other_hosts(client, path):
    response = client.get(path)

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    addresses = re.findall(r"""(?:src|href|action|data-document)\s*=\s*["']?([^"'\s>]*)""", response.text)
    assert addresses and all(re.match(r"/(?!/)", address) for address in addresses)
    assert "://" not in response.text and "<style" not in response.text and "onload=" not in response.text
    assert not re.search(r"<script(?![^>]*\bsrc=)", response.text)
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "http" not in policy and "*" not in policy


@pytest.mark.parametrize("path", PAGES)
def test_everything_a_page_refers_to_is_there(client, path):
    addresses = re.findall(r'(?:src|href|data-document)="([^"]*)"', client.get(path).text)

    for address in set(addresses):
        assert client.get(address, buffered=True).status_code == 200


@pytest.mark.parametrize("path", ["/static/page.css", "/static/swagger.js"])
def test_our_own_files_refer_to_no_other_host(client, path):
    response = client.get(path, buffered=True)

    assert response.status_code == 200
    assert "//" not in response.text.replace("// ", "")


@pytest.mark.parametrize("kind", catalogue(), ids=lambda kind: kind.code)
def test_every_kind_of_problem_has_its_page(client, kind):
    page = client.get(page_path(kind))

    assert page.status_code == 200
    assert kind.code in page.text and str(status_of(kind)) in page.text
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", page_path(kind).removeprefix("/problems/"))
    assert f'href="{page_path(kind)}"' in client.get("/problems").text


def test_every_kind_of_problem_is_explained(client):
    codes = [kind.code for kind in catalogue()]

    assert len(codes) == len(set(codes))
    assert all(kind.title and kind.__doc__ and kind.__doc__.strip().endswith(".") for kind in catalogue())


def test_documentation_is_served_with_its_document(client):
    page = client.get("/docs")
    document = client.get("/api/v1/openapi.json")

    assert 'data-document="/api/v1/openapi.json"' in page.text
    assert document.status_code == 200 and document.mimetype == "application/json"
    assert document.json["openapi"].startswith("3.1")
    assert document.headers["Cache-Control"] == "public, max-age=300"
    assert client.get("/api/v1/openapi.json").data == document.data


# Health


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_healthy_service_says_so(client, path):
    response = client.get(path)

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert client.head(path).status_code == 200


def test_service_is_alive_whatever_its_database_does(client, queries):
    with queries() as statements:
        response = client.get("/health")

    assert response.json == {"status": "alive"}
    assert statements == []


@pytest.fixture
def unmigrated(another_app, contract, database_kind, make_database):
    """Return a client of an application whose database is empty."""
    url = make_database(database_kind, "unmigrated")
    create_sqlite_file(driver_url(url))
    return Client(another_app(url), contract)


def test_service_is_not_ready_before_its_database_is_migrated(unmigrated):
    response = unmigrated.get("/health/ready")

    assert response.problem == (503, "unavailable")
    assert head() in response.json["detail"]
    assert unmigrated.get("/health").status_code == 200
