"""Addresses that are given out: always made from PUBLIC_URL, never from what a request says of its host."""

import re
from typing import Any

from flask import current_app, request, url_for
from werkzeug.routing import Rule


def address_of(endpoint: str, **values: Any) -> str:
    """Return the absolute address of an endpoint; one that begins with a dot is of the same version of the API."""
    return str(current_app.config["PUBLIC_URL"]) + url_for(endpoint, **values)


def item_address(endpoint: str, item_id: int) -> str:
    """Return the absolute address of an item, whose rule has one argument: its id."""
    rule = next(current_app.url_map.iter_rules(f"{request.blueprint}.{endpoint}"))
    (argument,) = rule.arguments
    return address_of(f".{endpoint}", **{argument: item_id})


def template(rule: Rule) -> str:
    """Return the path of a rule as documents have it, with its arguments in braces."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
