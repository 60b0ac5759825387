"""OAuth 2.0 for programs: tokens for keys, their end, and what is known of them, in the forms of the RFCs.

Requests are forms, and refusals are those of RFC 6749 §5.2, because that is what its clients understand.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, current_app, request

from resources.http.api import in_one_unit_of_work
from resources.http.limits import admit
from resources.http.links import address_of
from service import oauth
from service.errors import AuthenticationRequired
from service.identity import Identity
from service.oauth import OAuthRefusal
from service.service_accounts import SCOPES

oauth_pages = Blueprint("oauth", __name__)

FORM = "application/x-www-form-urlencoded"
CLIENT_METHODS = ["client_secret_basic", "client_secret_post"]


@oauth_pages.get("/.well-known/oauth-authorization-server")
def metadata() -> tuple[dict[str, Any], dict[str, str]]:
    """Say what there is and where (RFC 8414)."""
    found = {
        "issuer": current_app.config["PUBLIC_URL"],
        "token_endpoint": address_of("oauth.token"),
        "revocation_endpoint": address_of("oauth.revoke"),
        "introspection_endpoint": address_of("oauth.introspect"),
        "jwks_uri": address_of("root.jwks"),
        "grant_types_supported": [oauth.GRANT_TYPE],
        "response_types_supported": [],
        "scopes_supported": [*SCOPES],
        "service_documentation": address_of("docs.swagger_ui"),
        **{
            f"{endpoint}_endpoint_auth_methods_supported": CLIENT_METHODS
            for endpoint in ("token", "revocation", "introspection")
        },
    }
    return found, {"Cache-Control": "public, max-age=300"}


@oauth_pages.post("/oauth/token")
def token() -> dict[str, Any] | Response:
    """Give a program a token (RFC 6749 §4.4)."""
    return _answered(_issue, costly=True)


@oauth_pages.post("/oauth/revoke")
def revoke() -> dict[str, Any] | Response:
    """End a token (RFC 7009)."""
    return _answered(_revoke)


@oauth_pages.post("/oauth/introspect")
def introspect() -> dict[str, Any] | Response:
    """Say what a token is good for (RFC 7662)."""
    return _answered(_introspect)


def _issue(client: Identity, form: Mapping[str, str]) -> dict[str, Any]:
    return oauth.issue(client, grant_type=_needed(form, "grant_type"), scope=form.get("scope"))._asdict()


def _revoke(client: Identity, form: Mapping[str, str]) -> dict[str, Any]:
    oauth.revoke(client, _needed(form, "token"))
    return {}


def _introspect(client: Identity, form: Mapping[str, str]) -> dict[str, Any]:
    return oauth.introspect(client, _needed(form, "token"))


def _answered(
    operation: Callable[[Identity, Mapping[str, str]], dict[str, Any]], *, costly: bool = False
) -> dict[str, Any] | Response:
    """Run an operation for the program that asks, with what its form says."""
    try:
        client, form = _admitted(costly)
        return in_one_unit_of_work(lambda: operation(client, form))  # type: ignore[no-any-return]
    except OAuthRefusal as refusal:
        answer = current_app.json.response(error=refusal.error, error_description=refusal.description)
        answer.status_code = 401 if refusal.error == "invalid_client" else 400
        if answer.status_code == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="rollcall"'
        return answer


def _admitted(costly: bool) -> tuple[Identity, Mapping[str, str]]:
    """Return the program that asks, counted against its key's limit, and its form; a bad one counts for the address."""
    try:
        form = _form()
        client = oauth.authenticate(*_credentials(form))
    except (OAuthRefusal, AuthenticationRequired):
        admit()
        raise
    admit(client, costly=costly)
    return client, form


def _form() -> Mapping[str, str]:
    """Return the members of the form: each may stand there once, and without a value it does not (RFC 6749 §3.2)."""
    if request.mimetype != FORM:
        raise OAuthRefusal("invalid_request", f"Send {FORM}.")
    if any(len(values) > 1 for _, values in request.form.lists()):
        raise OAuthRefusal("invalid_request", "Send each parameter once.")
    return {name: value for name, value in request.form.items() if value}


def _credentials(form: Mapping[str, str]) -> tuple[str, str]:
    """Return the client and its secret, from the header or the form, but not from both."""
    if "Authorization" not in request.headers:
        return _needed(form, "client_id"), _needed(form, "client_secret")
    if "client_secret" in form:
        raise OAuthRefusal("invalid_request", "Authenticate in one way.")
    given = request.authorization
    if given is None or given.type != "basic":
        raise OAuthRefusal("invalid_client", "Authenticate by Basic, or in the form.")
    if form.get("client_id", given.username) != given.username:
        raise OAuthRefusal("invalid_request", "The form names another client than the header.")
    return given.username or "", given.password or ""


def _needed(form: Mapping[str, str], name: str) -> str:
    if name not in form:
        error = "invalid_client" if name.startswith("client") else "invalid_request"
        raise OAuthRefusal(error, f"The parameter {name} is missing.")
    return form[name]
