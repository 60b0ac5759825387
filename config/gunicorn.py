"""How gunicorn serves the application: processes, threads, limits, and what a slow client may cost.

Start it from the project's folder: `python -m gunicorn -c config/gunicorn.py wsgi:app`.
"""

import gc
import os
import socket
import struct
import sys
from typing import Any

from gunicorn.glogging import Logger

from config.logging import logging_dictionary
from config.start import settings_or_exit

settings = settings_or_exit()

SILENCE_SECONDS = 5


class ServerLog(Logger):
    """Gunicorn's own lines; the application writes a better one for each request."""

    def access(self, *_: object) -> None:
        """Write nothing."""

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Say of a malformed request only what kind it is: its bytes may hold anything."""
        if str(msg).startswith("Invalid request"):
            msg, args = "malformed request: %s", (type(sys.exc_info()[1]).__name__,)
        super().warning(msg, *args, **kwargs)

    def exception(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing of a client that fell silent: it is dropped, as it should be."""
        if not isinstance(sys.exc_info()[1], BlockingIOError):
            super().exception(*args, **kwargs)


def when_ready(server: Any) -> None:
    """Drop clients that send or read nothing for a while: they would each hold a thread for ever.

    On Linux an accepted socket inherits the limit from the listening one. A client that sends a byte now and then
    still holds its thread: production stands behind a proxy that reads whole requests first.
    """
    seconds = struct.pack("@ll", SILENCE_SECONDS, 0)
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
    gc.freeze()  # What was loaded so far stays shared between the workers, because no collection touches it.


bind = f"0.0.0.0:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "gthread"
threads = settings.THREADS
preload_app = True  # Loaded once and shared; what will not start ends the server and not one worker after another.

# Long enough for the calls of one page; a kept connection waits in the poller and holds no thread.
# A proxy in front must drop its idle connections sooner than this, or it will send on a closed one.
keepalive = 5
timeout = 30  # A worker whose main loop stands still this long is replaced; a slow request is not counted.
graceful_timeout = 25  # Below the 30 seconds that orchestrators commonly allow between SIGTERM and SIGKILL.
max_requests = 20_000  # A slow leak of memory never grows old,
max_requests_jitter = 2_000  # and the workers are not renewed at the same moment.

limit_request_line = 8_190
limit_request_fields = 64
forwarded_allow_ips = ""  # Only TRUSTED_PROXIES decides whose forwarded headers count.
control_socket_disable = True  # Signals are enough, and the socket would lie in the home directory.
# The heartbeat touches a file; on a disk it could stall behind other writes.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

logger_class = ServerLog
# At DEBUG gunicorn would print its whole configuration.
log_level = "INFO" if settings.LOG_LEVEL == "DEBUG" else settings.LOG_LEVEL
logconfig_dict = logging_dictionary(log_level, settings.LOG_TARGET)
