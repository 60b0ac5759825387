"""Counters in Redis, for all instances together; while it is away, each instance counts for itself."""

import logging
import time
from threading import Lock, Thread

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.counters import Bucket, Count, Counters

log = logging.getLogger("rollcall.counters")

PREFIX = b"rollcall:count:"
SECONDS = 0.2  # For each step, since a request waits for it.
TRIED_EVERY = 1.0  # Seconds between looks at a Redis that is away.
# A key without an end, or with one too far away because the clock there was set back, is given a new window.
SCRIPT = """
local counts = {}
for place, key in ipairs(KEYS) do
    local window = tonumber(ARGV[place])
    local number = redis.call('INCR', key)
    local left = redis.call('PTTL', key)
    if left < 0 or left > window then
        redis.call('PEXPIRE', key, window)
        left = window
    end
    counts[2 * place - 1], counts[2 * place] = number, left
end
return counts
"""


class RedisCounters:
    """Counters in a Redis that many instances share.

    What is counted there is counted here as well, so that an instance whose Redis goes away lets nobody do more than
    they may do at one instance. One wait is enough to find it away: from then on nothing is asked of it but, beside
    the requests, whether it is back.
    """

    def __init__(self, url: str, own: Counters) -> None:
        # RESP2, and no retries: everything else is more round trips than one.
        options = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS, "protocol": 2}
        self._script = Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options).register_script(SCRIPT)
        self._own = own
        self._lock = Lock()
        self._is_away = False

    def hit(self, *buckets: Bucket) -> list[Count]:
        """Count each of them once more."""
        own = self._own.hit(*buckets)
        if self._is_away:
            return own
        try:
            return self._ask(*buckets)
        except RedisError as error:
            self._do_without(error)
            return own

    def _ask(self, *buckets: Bucket) -> list[Count]:
        keys = [PREFIX + bucket.key for bucket in buckets]
        answer = self._script(keys=keys, args=[1000 * bucket.window for bucket in buckets])
        # In its last millisecond, nothing is left of a window that is still there.
        return [Count(number, max(1, left) / 1000) for number, left in zip(answer[::2], answer[1::2], strict=True)]

    def _do_without(self, error: RedisError) -> None:
        with self._lock:
            if self._is_away:
                return
            self._is_away = True
        log.warning("redis is away: each instance counts for itself", extra={"error": type(error).__name__})
        Thread(target=self._look_for_it, name="redis-counters", daemon=True).start()

    def _look_for_it(self) -> None:
        """Return when Redis counts again; one that answers but refuses to write does not."""
        while self._is_away:
            time.sleep(TRIED_EVERY)
            try:
                self._ask(Bucket(b"is it back?", 1))
            except RedisError:
                continue
            self._is_away = False
            log.info("redis is back")
