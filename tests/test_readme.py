"""The README is true: its commands, run in a copy of the project, answer what it says."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT, free_port, inherited

BLOCK = re.compile(r"```(sh|json)\n(.*?)```", re.DOTALL)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of what is committed or would be, with this run's virtual environment."""
    environment = Path(sys.prefix)
    if not (environment / "installed-lock").exists():
        pytest.skip("run by make test: dev.py start would install the dependencies anew")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(environment)
    return tmp_path


@contextlib.contextmanager
def started(folder: Path, port: int) -> Iterator[Path]:
    """Run `dev.py start` and return the file that holds what it prints."""
    printed = folder / "printed.log"
    with printed.open("wb") as output:
        environment = {**inherited(), "PORT": str(port)}
        command = [sys.executable, "dev.py", "start"]
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while not answers(port):
                assert server.poll() is None, printed.read_text()
                time.sleep(0.1)
            yield printed
        finally:
            server.terminate()
            server.wait(timeout=40)


def answers(port: int) -> bool:
    """Tell whether the service answers yet."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
        return answer.status == 200
    return False


def without_what_varies(text: str) -> str:
    """Return JSON text as the README prints it: spaces folded, times and ids left out."""
    text = re.sub(r'("(?:created_at|updated_at|request_id)":)"[^"]*"', r'\1"…"', text)
    return re.sub(r"\s*\n\s*", "", text.strip())


def test_five_calls_of_the_readme_answer_what_it_says(copy: Path) -> None:
    port = free_port()
    readme = (copy / "README.md").read_text().replace("localhost:8000", f"localhost:{port}")
    calls = readme.partition("in five calls")[2].partition("\n## ")[0]
    blocks = [(kind, re.sub(r"^   ", "", text, flags=re.MULTILINE)) for kind, text in BLOCK.findall(calls)]
    expected = [without_what_varies(text) for kind, text in blocks if kind == "json"]
    script = "\n".join(f"{text}\necho" for kind, text in blocks if kind == "sh")

    with started(copy, port) as printed:
        password = re.search(r"with the password (\S+)", printed.read_text()).group(1)
        environment = {**inherited(), "PASSWORD": password}
        ran = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, cwd=copy)

    assert ran.returncode == 0, ran.stderr
    assert [without_what_varies(line) for line in ran.stdout.splitlines() if line] == expected


def test_seed_and_doctor_of_the_readme_run(copy: Path) -> None:
    flask = [os.fspath(copy / ".venv/bin/flask")]
    subprocess.run([*flask, "migrate-on-start"], cwd=copy, env=inherited(), check=True, capture_output=True)

    seeded = subprocess.run([*flask, "users", "seed", "--count", "100"], cwd=copy, env=inherited(), capture_output=True)
    refused = subprocess.run(
        [*flask, "doctor"], cwd=copy, env={**inherited(), "APP_ENV": "production"}, capture_output=True, text=True
    )

    assert seeded.returncode == 0
    assert refused.returncode == 2
    assert "SECRET_KEY is missing" in refused.stderr


def test_every_file_and_command_the_readme_names_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#:]+)\)", readme)
    verbs = set(re.findall(r"`make ([a-z-]+)`", readme))
    makefile = (ROOT / "Makefile").read_text()

    assert [target for target in targets if not (ROOT / target).exists()] == []
    assert [verb for verb in verbs if f"\n{verb}: ;" not in makefile] == []
