"""The settings a process starts with, or the end of the process."""

import os
import sys
from typing import NoReturn

from dotenv import find_dotenv

from config.checks import check
from config.refusal import ConfigurationError
from config.settings import Settings, load, misspelled


def settings_or_exit() -> Settings:
    """Read and check the settings of this process; exit with status 2 and a line a fault when they will not do."""
    for warning in misspelled(os.environ):
        print(f"rollcall: {warning}", file=sys.stderr)
    try:
        settings = load(os.environ)
        if settings.APP_ENV == "production":
            _refuse_dotenv()
        check(settings)
    except ConfigurationError as error:
        refuse_to_start(error)
    return settings


def _refuse_dotenv() -> None:
    """Refuse the files that the flask command reads by itself, from this folder or one above, in every environment."""
    for name in (".env", ".flaskenv"):
        if found := find_dotenv(name, usecwd=True):
            remedy = "move its values to the environment and delete it."
            raise ConfigurationError([f"{found} is for development: {remedy}"])


def refuse_to_start(error: ConfigurationError) -> NoReturn:
    """Say why, and end the process with exit status 2."""
    print(error, file=sys.stderr)
    raise SystemExit(2)
