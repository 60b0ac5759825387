"""The front step of Celery: what `celery -A worker worker` and `celery -A worker beat` load."""

from resources.app import create_app

broker = create_app().extensions.get("broker")
if broker is None:
    raise SystemExit("rollcall: CELERY_BROKER_URL is missing: name the broker, redis://host:port/number.")
app = broker.celery
