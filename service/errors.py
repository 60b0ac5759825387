"""The tree of refusals, each with a stable code; a class's docstring is its page in the documentation."""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple


class Fault(NamedTuple):
    """One thing wrong with the input: where (a JSON Pointer into the request), which kind, and a sentence."""

    pointer: str
    code: str
    detail: str


class Refusal(Exception):
    """A request that was understood and not carried out."""

    code = "refused"
    title = "The request was refused"
    keeps_changes = False

    def __init__(self, detail: str | None = None, *, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title + "."
        self.faults = faults


class Invalid(Refusal):
    """The body was read, but something in it is not allowed.

    `errors` names each field and what is wrong with it. Correct the fields and send the request again.
    """

    code = "invalid"
    title = "Some of the input is not valid"


class IdempotencyKeyReused(Invalid):
    """The `Idempotency-Key` was sent with another request within 24 hours. Use a new one for each request."""

    code = "idempotency_key_reused"
    title = "The Idempotency-Key belongs to another request"

    def __init__(self) -> None:
        super().__init__(faults=[Fault("/headers/Idempotency-Key", "reused", "It was sent with something else.")])


class InvalidOneTimeToken(Invalid):
    """The link or the code of the letter is wrong, has been used, or is too old. Ask for another letter."""

    code = "invalid_one_time_token"
    title = "The link or code cannot be used"

    def __init__(self, member: str) -> None:
        super().__init__(faults=[Fault(f"/json/{member}", "invalid", "It is wrong, used or too old.")])


class AuthenticationRequired(Refusal):
    """The operation needs a credential and none was sent.

    Sign in with `POST /api/v1/auth/login` and send `Authorization: Bearer <access token>`.
    """

    code = "authentication_required"
    title = "Sign in first"


class InvalidToken(AuthenticationRequired):
    """The access token is malformed or expired, or its session has ended.

    A session ends by sign-out, a change of role or password, suspension or deletion. Sign in again.
    """

    code = "invalid_token"
    title = "The access token is not valid"


class InvalidKey(InvalidToken):
    """The key is unknown, revoked or expired, or whoever made its service account may no longer sign in."""

    code = "invalid_key"
    title = "The key is not valid"


class MalformedKey(InvalidToken):
    """The key has a typing error: its checksum is wrong, so it never was a key of this service."""

    code = "malformed_key"
    title = "That is no key"


class ReusedToken(InvalidToken):
    """The refresh token had been exchanged before, so that somebody may have copied it: its session was ended.

    Sign in again. The same token again within a minute is no reuse, and is answered with the same successor.
    """

    code = "reused_token"
    title = "The refresh token was used before"
    keeps_changes = True


class InvalidCredentials(AuthenticationRequired):
    """E-mail address and password do not belong together.

    The answer is the same whether or not the address is known.
    """

    code = "invalid_credentials"
    title = "The e-mail address or the password is wrong"


class Forbidden(Refusal):
    """The caller is known but may not do this.

    `errors` names the fields that need a permission, where it is only some of them.
    """

    code = "permission_denied"
    title = "This needs a permission you do not have"


class AccountSuspended(Forbidden):
    """The password is right, but the account is suspended. An administrator can make it active again."""

    code = "account_suspended"
    title = "The account is suspended"
    keeps_changes = True  # Who knows the password has not been guessing.


class WrongPassword(Forbidden):
    """`current_password` is not the password of the account. Wrong ones are counted, as in signing in."""

    code = "wrong_password"
    title = "The current password is wrong"


class RegistrationClosed(Forbidden):
    """Nobody can create an account on their own here. Ask an administrator for one."""

    code = "registration_closed"
    title = "Registration is closed"


class StorageMissing(Forbidden):
    """Pictures cannot be uploaded here: no place for files was set up (`STORAGE_URL`). Ask who runs the service."""

    code = "storage_missing"
    title = "Files cannot be kept here"


class NotFound(Refusal):
    """There is nothing here, or nothing that you may see: both look the same."""

    code = "not_found"
    title = "Not found"


class Conflict(Refusal):
    """The change contradicts something that is already there."""

    code = "conflict"
    title = "The change conflicts with what is there"


class EmailTaken(Conflict):
    """Another user has this e-mail address. Capital letters and Unicode spellings make no difference."""

    code = "email_taken"
    title = "The e-mail address is taken"

    def __init__(self) -> None:
        super().__init__(faults=[Fault("/json/email", "taken", "Another user has this address.")])


class ExternalIdTaken(Conflict):
    """Another user has this `external_id`."""

    code = "external_id_taken"
    title = "The external_id is taken"

    def __init__(self) -> None:
        super().__init__(faults=[Fault("/json/external_id", "taken", "Another user has this external_id.")])


class LastAdmin(Conflict):
    """No other active administrator is left, so this one can be neither deleted, suspended nor given another role.

    Make somebody else an administrator first.
    """

    code = "last_admin"
    title = "One active administrator must remain"


class VersionMismatch(Refusal):
    """The item has changed since the ETag in `If-Match` was given out, and nothing was done.

    Read it again, look at what changed, and send your change with the new ETag.
    """

    code = "version_mismatch"
    title = "The item has changed meanwhile"


class NotDeleted(Conflict):
    """Only who has been deleted can be restored or erased. Delete the user first."""

    code = "not_deleted"
    title = "The user has not been deleted"


class IdempotencyKeyInUse(Conflict):
    """A request with this `Idempotency-Key` is being worked on. Send it again a little later to get its answer."""

    code = "idempotency_key_in_use"
    title = "The same request is running"


class TooManyKeys(Conflict):
    """The service account has two live keys: one in use, and the next. Revoke one first."""

    code = "too_many_keys"
    title = "No more keys can be made"


class TooManyWebhooks(Conflict):
    """There are as many webhooks as there can be. Remove one first, or let one take in the events of another."""

    code = "too_many_webhooks"
    title = "No more webhooks can be added"


class WebhookDisabled(Conflict):
    """Nothing is delivered to a webhook that is not active. Make it active first."""

    code = "webhook_disabled"
    title = "The webhook is not active"


class DeliveryPending(Conflict):
    """The delivery is on its way still. Only what was delivered or given up can be delivered again."""

    code = "delivery_pending"
    title = "The delivery is on its way"


class TooManyAttempts(Refusal):
    """Too many wrong attempts were made at this account, or from this network. Nothing was checked.

    Try again after the time in `Retry-After`; each further wrong attempt makes the wait longer. Whoever is known to the
    account, by network or device, does not have to wait because others guess.
    """

    code = "too_many_attempts"
    title = "Too many attempts"

    def __init__(self, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__()
        self.retry_after = max(1, math.ceil(retry_after.total_seconds()))


class RateLimited(Refusal):
    """You sent more requests than you may in this time, and nothing was done.

    `RateLimit-Policy` says how many you may send, and `RateLimit` what is left; wait for the time in `Retry-After`.
    """

    code = "rate_limited"
    title = "Too many requests"

    def __init__(self, detail: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(Refusal):
    """The service cannot answer just now, usually because its database is away or busy.

    Nothing was done. Try again after the time in `Retry-After`.
    """

    code = "unavailable"
    title = "Not available just now"


class Busy(Unavailable):
    """More people are signing in than the service can check at once. Try again after the time in `Retry-After`."""

    code = "busy"
    title = "Too much to do just now"
