"""Processes: commands that are told nothing but the settings given, and several at the same moment."""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask

from config.development import new_signing_key
from tests.servers import ROOT, inherited

SECRET_KEY = "only for processes: 0123456789 abcdefghijklmnop"
SIGNING_KEY = new_signing_key()
DOCTOR = ("flask", "--app", "wsgi", "doctor")
CHECK_CONFIG = ("gunicorn", "--check-config", "-c", "config/gunicorn.py", "wsgi:app")


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of a process whose settings are good, but for those given."""
    good = {
        "APP_ENV": "testing",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1/nothing",
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEY,
        "PUBLIC_URL": "http://localhost",
    }
    return inherited() | good | variables


def run(module: str, *arguments: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module to its end, in the project's folder or another."""
    command = [sys.executable, "-m", module, *arguments]
    variables = {"PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, cwd=folder, env=environment(**variables), capture_output=True, text=True)


def at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    """Do some work in several processes at the same moment, and return what each of them answers."""
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(count), context.SimpleQueue()

    def take_part() -> None:
        answer: Any = "ended early"
        try:
            start.wait()
            answer = work()
        finally:
            answers.put(answer)

    processes = [context.Process(target=take_part) for _ in range(count)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def command_at_once(count: int, app: Flask, *arguments: str) -> list[tuple[int, str]]:
    """Run a command of an application in several processes at once; return their exit statuses and output."""

    def run_command() -> tuple[int, str]:
        with app.app_context():
            result = app.test_cli_runner().invoke(args=arguments)
        return result.exit_code, result.output

    return at_once(count, run_command)
