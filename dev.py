"""The project's commands; the Makefile calls them one for one. Needs nothing but Python 3.11 or newer."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / "python"
STAMP = VENV / "installed-lock"
LOCK = ROOT / "requirements.txt"
DEV_LOCK = ROOT / "requirements-dev.txt"  # Everything in LOCK, and the tools.


def develop(_: list[str]) -> None:
    """Prepare the virtual environment with all tools."""
    install_tools()
    print("Ready. `make start` serves on port 8000; `make test` tests; `make sure` is what CI runs.")


def start(_: list[str]) -> None:
    """Migrate the database, make the first admin, run the jobs, and serve."""
    if installed() not in {digest(LOCK), digest(LOCK, DEV_LOCK)}:
        install(LOCK, digest(LOCK))
    flask("migrate-on-start")
    flask("users", "first-admin")
    address = f"http://localhost:{os.environ.get('PORT', '8000')}"
    print(f"Rollcall answers at {address}, its reference is {address}/docs", flush=True)
    # Gunicorn takes this process over, so that a signal sent to it reaches gunicorn; the worker ends with it.
    subprocess.Popen([PYTHON, "-m", "flask", "--app", "wsgi", "worker", "--with-parent", str(os.getpid())])
    os.execv(PYTHON, [str(PYTHON), "-m", "gunicorn", "-c", "config/gunicorn.py", "wsgi:app"])


def test(arguments: list[str]) -> None:
    """Run the tests; arguments go to pytest."""
    install_tools()
    python("pytest", "-n", "2", *arguments)


def format_code(_: list[str]) -> None:
    """Format the code and repair what the linter can."""
    install_tools()
    python("ruff", "format", ".")
    python("ruff", "check", "--fix", ".")


def lint(_: list[str]) -> None:
    """Check format, lint rules and which room imports which."""
    install_tools()
    python("ruff", "format", "--check", ".")
    python("ruff", "check", ".")
    run(BIN / "lint-imports")


def types(_: list[str]) -> None:
    """Check the types."""
    install_tools()
    python("mypy")


def sure(arguments: list[str]) -> None:
    """Run lint, types, breaking, and tests with coverage, as CI does."""
    lint([])
    types([])
    breaking([])
    coverage = ["--cov", "--cov-branch", "--cov-fail-under=95"]
    test(["--database", "sqlite", "--ignore", "tests/served", "--ignore", "tests/test_plans.py", *coverage, *arguments])
    # With what depends on the database most, and with real servers; `make test` has everything on both.
    test(
        ["--database", "postgresql", "tests/models", "tests/test_migrations.py", "tests/test_plans.py", "tests/served"]
    )


def lock(arguments: list[str]) -> None:
    """Pin the dependencies; arguments go to uv (--upgrade)."""
    install_tools()
    python("pip", "install", "--quiet", "uv")
    # For the oldest Python that pyproject.toml allows, whichever runs this; and a header without paths.
    options = ["--universal", "--generate-hashes", "--quiet", "--python-version", "3.11"]
    options += ["--custom-compile-command", "make lock"]
    pin: list[str | Path] = [BIN / "uv", "pip", "compile", "pyproject.toml", *options]
    run(*pin, "-o", LOCK.name, *arguments)
    run(*pin, "--extra", "dev", "-c", LOCK.name, "-o", DEV_LOCK.name, *arguments)


def load_test(arguments: list[str]) -> None:
    """Put load on a running server; arguments go to locust."""
    install_tools()
    host = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
    size = ["--users", "50", "--spawn-rate", "10", "--run-time", "60s", "--exit-code-on-error", "1"]
    python("locust", "--headless", "-f", "benchmarks/locustfile.py", "--host", host, *size, *arguments)


def bench(arguments: list[str]) -> None:
    """Compare with peers and the limit; arguments go to benchmarks/run.py (--help)."""
    install_tools()
    python("benchmarks.run", *arguments)


def openapi(_: list[str]) -> None:
    """Write the OpenAPI document anew."""
    install_tools()
    flask("openapi", "--write")


def breaking(_: list[str]) -> None:
    """Check that docs/openapi.json would break no client of the last tag."""
    run(sys.executable, "-m", "docs.breaking")


def clean(_: list[str]) -> None:
    """Remove the virtual environments and caches; never data."""
    caches = [
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".import_linter_cache",
        ".schemathesis",
        ".hypothesis",
        ".coverage*",
        "htmlcov",
        ".venv-bench",
    ]
    for path in [VENV, *(match for pattern in caches for match in ROOT.glob(pattern))]:
        print(f"Removing {path.relative_to(ROOT)}")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in list(ROOT.rglob("__pycache__")):
        shutil.rmtree(path)


def install_tools() -> None:
    """Install the lock of all tools, unless it is installed already."""
    if installed() != digest(LOCK, DEV_LOCK):
        install(DEV_LOCK, digest(LOCK, DEV_LOCK))


def install(requirements: Path, stamp: str) -> None:
    """Install a lock into the virtual environment, and remember which."""
    began = time.monotonic()
    if not PYTHON.exists():
        print(f"Making {VENV.name} with Python {sys.version.split()[0]}", flush=True)
        run(sys.executable, "-m", "venv", VENV)
    print(f"Installing {requirements.name}", flush=True)
    STAMP.unlink(missing_ok=True)
    python("pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", requirements)
    STAMP.write_text(stamp)
    print(f"Installed in {time.monotonic() - began:.0f} s", flush=True)


def installed() -> str:
    """Return the digest of what the virtual environment holds, if that is known."""
    return STAMP.read_text() if PYTHON.exists() and STAMP.exists() else ""


def digest(*locks: Path) -> str:
    """Return a digest that changes with any of the locks."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()


def flask(*arguments: str) -> None:
    """Run one of the application's own commands."""
    python("flask", "--app", "wsgi", *arguments)


def python(module: str, *arguments: str | Path) -> None:
    """Run a module in the virtual environment."""
    run(PYTHON, "-m", module, *arguments)


def run(*command: str | Path) -> None:
    """Run a command; when it fails, end with its exit status, since it has said what is wrong."""
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        sys.exit(status if status > 0 else 128 - status)


COMMANDS = {
    "develop": develop,
    "start": start,
    "test": test,
    "sure": sure,
    "format": format_code,
    "lint": lint,
    "types": types,
    "lock": lock,
    "load-test": load_test,
    "bench": bench,
    "openapi": openapi,
    "breaking": breaking,
    "clean": clean,
}
PASS_ARGUMENTS = {"test", "sure", "lock", "load-test", "bench"}


def main() -> None:
    """Run the command that was asked for."""
    if sys.version_info < (3, 11):  # noqa: UP036 - An older one can still say what is wrong.
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    parser = argparse.ArgumentParser(description="The project's commands.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__, description=command.__doc__, allow_abbrev=False)
    wanted, others = parser.parse_known_args()
    if others and wanted.command not in PASS_ARGUMENTS:
        parser.error(f"{wanted.command} takes no arguments: {' '.join(others)}")
    os.chdir(ROOT)
    try:
        COMMANDS[wanted.command](others)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
