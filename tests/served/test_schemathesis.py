"""The API against its own OpenAPI document: generated requests of every kind, and chains of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.served.service import API, PASSWORD, Service, served
from tests.servers import ROOT

pytestmark = pytest.mark.served

EXAMPLES = os.environ.get("ROLLCALL_EXAMPLES")
SEED = os.environ.get("ROLLCALL_SEED", "20260131")
# Coverage, which is the same requests on each database and takes most of the time, is left out on one of them, unless
# somebody asks for more examples than usual and so has the time.
PHASES = {"sqlite": "examples,fuzzing,stateful", "postgresql": "examples,coverage,fuzzing,stateful"}


@pytest.fixture
def disposable(database_kind: str, make_database: Callable[[str, str], str]) -> Iterator[Service]:
    """Serve the application with users of whom none need survive; the hooks sign in from networks of their own."""
    with served(make_database(database_kind, "generated"), TRUSTED_PROXIES="1") as service:
        yield service


def test_every_generated_request_is_answered_as_documented(disposable: Service, database_kind: str) -> None:
    # The same installation as this process runs in, whether or not it is on the path.
    program = Path(sys.executable).with_name("schemathesis")
    create = [sys.executable, "-m", "flask", "--app", str(ROOT / "wsgi.py"), "users", "create"]
    environment = {
        **os.environ,
        **disposable.environment,
        "TARGET": disposable.url,
        "ADMIN_CREATE": json.dumps([*create, "--role", "admin", "--password", PASSWORD]),
        "SCHEMATHESIS_HOOKS": str(ROOT / "tests" / "schemathesis_hooks.py"),
        "PYTHONPATH": str(ROOT),
    }
    phases = PHASES["postgresql" if EXAMPLES else database_kind]
    options = ["--checks", "all", "--mode", "all", "--phases", phases]
    options += ["--max-examples", EXAMPLES or "5", "--seed", SEED, "--generation-database", "none", "--no-color"]
    document = f"{disposable.url}{API}/openapi.json"

    done = subprocess.run(
        [program, "run", document, "--url", disposable.url, *options],
        cwd=ROOT,  # Where schemathesis.toml says which answers are right beside those of the document.
        env=environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert disposable.unforeseen() == []
