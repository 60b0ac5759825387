"""Whether the service can answer requests: the database is there, and its schema is the one this code knows."""

from sqlalchemy.exc import SQLAlchemyError

from models import migrations
from service.errors import Unavailable


def check() -> None:
    """Return quietly when all is well; raises Unavailable with what is wrong."""
    try:
        revision = migrations.current()
    except SQLAlchemyError:
        raise Unavailable("The database cannot be reached.") from None
    if revision != migrations.head():
        raise Unavailable(
            f"The database is at revision {revision}, this code needs {migrations.head()}: run flask migrate-on-start."
        )
