"""Whether the service has what it needs: the database with the schema that this code knows, and the broker if any."""

from flask import current_app
from sqlalchemy.exc import SQLAlchemyError

from models import migrations
from service.errors import Unavailable
from service.jobs.relay import Broker, BrokerAway


def check() -> None:
    """Return quietly when all is well; raises Unavailable with what is wrong."""
    _check_database()
    broker: Broker | None = current_app.extensions.get("broker")
    if broker is not None:
        _check_broker(broker)


def _check_database() -> None:
    try:
        revision = migrations.current()
    except SQLAlchemyError:
        raise Unavailable("The database cannot be reached.") from None
    if revision != migrations.head():
        raise Unavailable(
            f"The database is at revision {revision}, this code needs {migrations.head()}: run flask migrate-on-start."
        )


def _check_broker(broker: Broker) -> None:
    try:
        broker.check()
    except BrokerAway:
        raise Unavailable("The broker cannot be reached.") from None
