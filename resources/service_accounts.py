"""Service accounts: the programs of partners, and the keys by which they are known."""

from flask_restful import fields

from resources.fields import Moment, Nullable, NullableId, NullableMoment
from resources.http import types
from resources.http.api import Resource
from resources.http.arguments import RequestParser, parse_args, use_kwargs
from resources.http.auth import current_identity, requires
from resources.http.conditional import if_match
from resources.http.marshal import marshal_with, no_content
from resources.http.paging import PageParser
from resources.http.schema import Choices, Name, StrictSchema
from resources.http.schema import Moment as MomentInput
from resources.http.shapes import FieldMap
from service import keys, oauth, service_accounts
from service.permissions import Permission


class ClientId(fields.Raw):
    """Its name in OAuth."""

    __schema__ = {"type": "string"}

    def format(self, value):
        return oauth.client_id_of(value)


account_fields = FieldMap(
    "ServiceAccount",
    {
        "id": fields.Integer,
        "client_id": ClientId(attribute="id"),
        "name": fields.String,
        "scopes": fields.List(fields.String),
        "maker_id": NullableId,
        "version": fields.Integer,
        "created_at": Moment,
        "updated_at": Moment,
    },
)
key_fields = FieldMap(
    "Key",
    {
        "id": fields.Integer,
        "prefix": fields.String,
        "created_at": Moment,
        "last_used_at": NullableMoment,
        "expires_at": NullableMoment,
        "revoked_at": NullableMoment,
    },
)
new_key_fields = FieldMap("NewKey", {**key_fields, "key": Nullable})

account_view = RequestParser()
account_view.add_argument("fields", type=types.Several(account_fields), help="The members to show.")
account_page = PageParser(service_accounts.SORTS, account_fields)
key_page = PageParser(keys.SORTS, key_fields)


class AccountInput(StrictSchema):
    """A whole service account."""

    name = Name(1, 80, required=True)
    scopes = Choices(service_accounts.SCOPES, required=True)


class AccountPatch(StrictSchema):
    """A merge patch: what is absent stays."""

    name = Name(1, 80)
    scopes = Choices(service_accounts.SCOPES)


class KeyInput(StrictSchema):
    """When the key is to end, if it is to end by itself."""

    expires_at = MomentInput()


class ServiceAccountList(Resource):
    @requires(Permission.KEYS_READ)
    @parse_args(account_page)
    @marshal_with(account_fields, envelope="service_accounts")
    def get(self, page):
        """List service accounts."""
        return service_accounts.page(page)

    @requires(Permission.KEYS_WRITE)
    @use_kwargs(AccountInput())
    @marshal_with(account_fields, status=201, location="serviceaccountitem")
    def post(self, **values):
        """Add a service account; it can never do more than you."""
        return service_accounts.create(actor=current_identity(), **values)


class ServiceAccountItem(Resource):
    @requires(Permission.KEYS_READ)
    @parse_args(account_view)
    @marshal_with(account_fields)
    def get(self, service_account_id):
        """Read a service account."""
        return service_accounts.read(service_account_id)

    @requires(Permission.KEYS_WRITE)
    @if_match
    @use_kwargs(AccountPatch())
    @marshal_with(account_fields)
    def patch(self, service_account_id, **values):
        """Change some of a service account; who sets the scopes is its maker from then on."""
        return service_accounts.change(service_account_id, actor=current_identity(), **values)

    @requires(Permission.KEYS_WRITE)
    @if_match
    @no_content
    def delete(self, service_account_id, **precondition):
        """Remove a service account; its keys are refused at once."""
        service_accounts.delete(service_account_id, actor=current_identity(), **precondition)


class KeyList(Resource):
    @requires(Permission.KEYS_READ)
    @parse_args(key_page)
    @marshal_with(key_fields, envelope="keys")
    def get(self, service_account_id, page):
        """List a service account's keys, by their beginnings."""
        return keys.page_of_account(service_account_id, page)

    @requires(Permission.KEYS_WRITE)
    @use_kwargs(KeyInput(), or_nothing=True)
    @marshal_with(new_key_fields, status=201)
    def post(self, service_account_id, **values):
        """Make a key, beside the one in use; the answer shows it, once."""
        return keys.create(service_account_id, actor=current_identity(), **values)


class KeyItem(Resource):
    @requires(Permission.KEYS_WRITE)
    @no_content
    def delete(self, service_account_id, key_id):
        """End a key at once."""
        keys.revoke(service_account_id, key_id, actor=current_identity())
