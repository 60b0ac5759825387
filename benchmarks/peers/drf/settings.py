"""Django's settings, with what the deployment checklist asks for."""

from urllib.parse import urlsplit

import rules

_url = urlsplit(rules.DATABASE_URL)

DEBUG = False
SECRET_KEY = "only for benchmarks, and nothing is signed with it: 0123456789"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "drf.urls"
WSGI_APPLICATION = "drf.wsgi.application"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False

INSTALLED_APPS = ["rest_framework", "drf"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path[1:],
        "USER": _url.username,
        "HOST": _url.hostname,
        "PORT": _url.port,
        "CONN_MAX_AGE": None,  # Each thread keeps its connection.
    }
}

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": ["drf.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["drf.authentication.MayReadOrWrite"],
    "DEFAULT_PAGINATION_CLASS": "drf.pagination.CursorOrNumber",
    "UNAUTHENTICATED_USER": None,
}
