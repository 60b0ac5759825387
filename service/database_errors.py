"""What an error of the database means to whoever asked."""

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from service.errors import EmailTaken, ExternalIdTaken, Invalid, NotFound, Refusal, Unavailable, VersionMismatch

# The refusal for each constraint, by its name on PostgreSQL and by its columns on SQLite, which names no others.
CONSTRAINTS: dict[str, type[Refusal]] = {
    "uq_users_email_key": EmailTaken,
    "users.email_key": EmailTaken,
    "uq_users_external_id": ExternalIdTaken,
    "users.external_id": ExternalIdTaken,
    "fk_posts_user_id": NotFound,
}
READ_ONLY = "25006"  # PostgreSQL's read_only_sql_transaction.


def refusal_from(error: SQLAlchemyError) -> Refusal | None:
    """Return the refusal that a database error means, or None where it is a fault of ours."""
    if isinstance(error, IntegrityError):
        refusal = CONSTRAINTS.get(_constraint(error))
        return refusal() if refusal else None
    if isinstance(error, StaleDataError):
        return VersionMismatch()
    if isinstance(error, DataError):
        return Invalid("A value does not fit.")
    if isinstance(error, (OperationalError, PoolTimeout)) or _is_out_of_reach(error):
        return Unavailable()
    return None


def _is_out_of_reach(error: SQLAlchemyError) -> bool:
    """Tell whether the connection was lost, or leads to a standby that cannot be written to."""
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) == READ_ONLY


def _constraint(error: IntegrityError) -> str:
    """Name the violated constraint; SQLite offers only a sentence that ends in the column."""
    diagnostics = getattr(error.orig, "diag", None)
    return str(diagnostics.constraint_name) if diagnostics else str(error.orig).rpartition(": ")[2]
