"""Lists: which page a query string asks for, and how an answer says where its neighbours are."""

import hmac
from base64 import urlsafe_b64decode
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import orjson
from flask import Request, current_app, g, request

from models.paging import Key, Page, PageRequest
from resources.http.arguments import RequestParser
from resources.http.problems import InvalidParameter
from resources.http.types import Choice, Line, Several, Whole
from service.errors import Fault
from service.feed import Stretch
from service.keyed import in_letters, keyed_hash

SIGNATURE_BYTES = 16
# What a cursor is not bound to: where it stands and how much is shown from there.
UNBOUND = frozenset({"cursor", "page", "per_page", "fields", "sort"})


class PageParser(RequestParser):
    """A parser for a list: paging, sorting, `fields`, and whatever filters are added to it."""

    def __init__(self, sorts: Iterable[str], members: Iterable[str]) -> None:
        super().__init__()
        ways = [way for sort in sorts for way in (sort, f"-{sort}")]
        self.add_argument("per_page", type=Whole(1, 100), default=20, help="Items on a page.")
        self.add_argument(
            "cursor", type=Line(1, 2000), help="Where to go on: a `next_cursor`, with the same sort and filters."
        )
        self.add_argument(
            "page",
            type=Whole(1, 1_000_000_000),
            help="A numbered page, with the count of all; not together with `cursor`.",
        )
        self.add_argument("sort", type=Choice(ways), default="id", help="The order; a minus sign turns it round.")
        self.add_argument("fields", type=Several(members), help="The members of each item to show.")

    def parse_args(self, req: Request | None = None, strict: bool = True, http_error_code: int = 400) -> dict[str, Any]:
        """Return the filters, and the page wanted as `page`; raises InvalidParameter."""
        values = super().parse_args(req, strict, http_error_code)
        cursor, number, sort = values.pop("cursor", None), values.pop("page", None), values.pop("sort")
        if cursor is not None and number is not None:
            raise InvalidParameter(faults=[Fault("/query/page", "invalid", "Use either cursor or page.")])
        key, backwards = _read_cursor(cursor, sort) if cursor is not None else (None, False)
        size = values.pop("per_page")
        g.listing = PageRequest(size=size, sort=sort, key=key, backwards=backwards, number=number)
        return {**values, "page": g.listing}


class FeedParser(RequestParser):
    """A parser for a feed: from where, how much, how long to wait for it, and whatever filters are added to it."""

    def __init__(self, members: Iterable[str], *, longest_wait: int) -> None:
        super().__init__()
        self.add_argument(
            "after",
            type=Whole(0, 2**63 - 1),
            default=0,
            help="Only what comes after this event: a `next_after`, or the `id` of the last event seen.",
        )
        self.add_argument("per_page", type=Whole(1, 100), default=20, dest="size", help="At most so many.")
        self.add_argument(
            "wait",
            type=Whole(0, longest_wait),
            default=0,
            help="Where there is nothing yet, wait for it so many seconds at most.",
        )
        self.add_argument("fields", type=Several(members), help="The members of each item to show.")


def neighbours(page: Page | Stretch) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what an answer says besides its items: members of the body, and the Link header (RFC 8288)."""
    if isinstance(page, Stretch):
        return {"next_after": page.next_after}, {"Link": _links({"next": f"after={page.next_after}"}, {"after"})}
    asked: PageRequest = g.listing
    next_cursor = page.next_key and _write_cursor(page.next_key, asked.sort)
    members: dict[str, Any] = {"next_cursor": next_cursor}
    if page.total is not None:
        members |= {"page": asked.number, "pages": _pages(page.total, asked.size), "total": page.total}
    places: dict[str, str | None]
    if asked.number is None:
        previous = page.previous_key and _write_cursor(page.previous_key, asked.sort, backwards=True)
        places = {
            "first": "",
            "prev": previous and f"cursor={previous}",
            "next": next_cursor and f"cursor={next_cursor}",
        }
    else:
        number, last = asked.number, _pages(page.total or 0, asked.size)
        places = {
            "first": "page=1",
            "prev": f"page={min(number - 1, last)}" if number > 1 else None,
            "next": f"page={number + 1}" if number < last else None,
            "last": f"page={last}",
        }
    return members, {"Link": _links(places, {"cursor", "page"})}


def _links(places: dict[str, str | None], replaced: Collection[str]) -> str:
    """Return the addresses of neighbouring pages, each with the parameters of this one but for its place."""
    address = f"{current_app.config['PUBLIC_URL']}{request.path}"
    kept = urlencode([(name, value) for name, value in request.args.items() if name not in replaced])
    queries = {name: "&".join(filter(None, (kept, place))) for name, place in places.items() if place is not None}
    return ", ".join(f'<{address}{query and "?"}{query}>; rel="{name}"' for name, query in queries.items())


def _pages(total: int, size: int) -> int:
    return max(1, -(-total // size))


def _write_cursor(key: Key, sort: str, *, backwards: bool = False) -> str:
    text = orjson.dumps([backwards, *key], option=orjson.OPT_UTC_Z)
    return in_letters(_signature(text, sort) + text)


def _read_cursor(cursor: str, sort: str) -> tuple[Key, bool]:
    """Return a cursor's key and direction; raises InvalidParameter for one that this very list never gave out."""
    try:
        signed = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except ValueError:
        signed = b""
    signature, text = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
    # Reading base64 passes over characters that do not belong there; only what we wrote is one of ours.
    if cursor != in_letters(signed) or not hmac.compare_digest(signature, _signature(text, sort)):
        fault = Fault("/query/cursor", "invalid", "Not a cursor of this list with this sort and these filters.")
        raise InvalidParameter(faults=[fault])
    backwards, value, item_id = orjson.loads(text)
    if sort.endswith("_at"):
        value = datetime.fromisoformat(value)
    return (value, item_id), backwards


def _signature(text: bytes, sort: str) -> bytes:
    """Sign a cursor for this list only: its path, sort and filters."""
    filters = sorted((name, value) for name, value in request.args.items() if name not in UNBOUND)
    bound = orjson.dumps([request.path, sort, filters])
    return keyed_hash("cursor", bound + b"\0" + text)[:SIGNATURE_BYTES]
