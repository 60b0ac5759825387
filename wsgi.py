"""The front step: what a WSGI server loads."""

from resources.app import create_app

app = create_app()
