"""Rate limits: how many requests a caller may send in a while, and what every answer says of it.

The headers are those of draft-ietf-httpapi-ratelimit-headers-11. What is counted where, and why:
docs/decisions/0012-rate-limits.md.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from flask import Flask, Response, current_app, g, request

from config.values import Rate
from resources.http.api import note
from service.counters import KEY_BYTES, Bucket, Counters
from service.errors import RateLimited
from service.identity import ANONYMOUS, Identity
from service.keyed import keyed_hash
from service.throttle import network_of

Verb = Callable[..., Any]
POLICIES = ("key", "user", "address", "costly")
CALLERS_AT_HAND = 4096  # Whose plans are kept, so that they need not be made at each request.


class Policy(NamedTuple):
    """How many requests of what kind are allowed in how many seconds."""

    name: str
    requests: int
    seconds: int


class Plan(NamedTuple):
    """The policies that count for a caller's request, what is counted for each, and how answers name them."""

    policies: list[Policy]
    buckets: list[Bucket]
    header: str


class Limits:
    """What is allowed to whom, and where it is counted."""

    def __init__(self, config: Mapping[str, Any], counters: Counters) -> None:
        rates: dict[str, Rate] = {name: config[f"RATE_LIMIT_{name.upper()}"] for name in POLICIES}
        self.counters = counters
        self._policies = {name: Policy(name, rate.requests, rate.seconds) for name, rate in rates.items() if rate}
        self.plan = lru_cache(CALLERS_AT_HAND)(self._plan)

    def _plan(self, caller: str, subject: object, is_costly: bool) -> Plan:
        names = [caller, "costly"] if is_costly else [caller]
        policies = [self._policies[name] for name in names if name in self._policies]
        counted = network_of(str(subject)) if caller == "address" else subject
        buckets = [Bucket(_key(policy.name, caller, counted), policy.seconds) for policy in policies]
        header = ", ".join(f'"{policy.name}";q={policy.requests};w={policy.seconds}' for policy in policies)
        return Plan(policies, buckets, header)


def init_limits(app: Flask, counters: Counters) -> None:
    """Let requests be counted, and let every answer to one that was say so."""
    app.extensions["limits"] = Limits(app.config, counters)

    @app.after_request
    def _tell(response: Response) -> Response:
        if "limits" in g:
            for name, value in g.limits:
                response.headers.add(name, value)
        return response


def costly(function: Verb) -> Verb:
    """Count each request by the stricter limit as well."""
    note(function, costly=True)
    return function


def costly_with(parameter: str) -> Callable[[Verb], Verb]:
    """Count each request that has a parameter in its query string by the stricter limit as well."""

    def decorate(function: Verb) -> Verb:
        note(function, costly=parameter)
        return function

    return decorate


def admit(identity: Identity = ANONYMOUS, *, costly: bool | str = False) -> None:
    """Count a request of somebody, or, where nothing is known of them, of their address; raises RateLimited."""
    limits: Limits = current_app.extensions["limits"]
    is_costly = costly is True or (costly and costly in request.args)
    policies, buckets, header = limits.plan(*_caller(identity), bool(is_costly))
    if not policies:
        return
    counts = limits.counters.hit(*buckets)
    states = [
        (policy, policy.requests - number, math.ceil(left))
        for policy, (number, left) in zip(policies, counts, strict=True)
    ]
    told = ", ".join(f'"{policy.name}";r={max(0, rest)};t={wait}' for policy, rest, wait in states)
    g.limits = (("RateLimit-Policy", header), ("RateLimit", told))
    if exceeded := [(wait, policy) for policy, rest, wait in states if rest < 0]:
        wait, policy = max(exceeded)
        detail = f'The limit "{policy.name}", {policy.requests} requests in {policy.seconds} seconds, is used up.'
        raise RateLimited(detail, retry_after=wait)


def _caller(identity: Identity) -> tuple[str, object]:
    if identity.key_id is not None:
        return "key", identity.key_id
    if identity.user_id is not None:
        return "user", identity.user_id
    return "address", request.environ.get("REMOTE_ADDR")


def _key(*parts: object) -> bytes:
    """Return a key that tells nobody who is counted, and that nobody can choose to push others out."""
    return keyed_hash("rate limit", " ".join(map(str, parts)).encode())[:KEY_BYTES]
