"""Whether the service is alive, and whether it is ready for requests."""

from flask import Blueprint

from service import readiness

health = Blueprint("health", __name__)


@health.get("/health")
def alive() -> dict[str, str]:
    """Say that the process answers; nothing else is asked."""
    return {"status": "alive"}


@health.get("/health/ready")
def ready() -> dict[str, str]:
    """Say that requests will be answered; raises Unavailable."""
    readiness.check()
    return {"status": "ready"}
