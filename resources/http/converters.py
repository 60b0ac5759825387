"""How ids are read from a path."""

from werkzeug.routing import IntegerConverter


class IdConverter(IntegerConverter):
    """A positive 64-bit integer in plain ASCII digits; anything else is simply not found."""

    regex = r"[1-9][0-9]{0,18}"

    def __init__(self, url_map: object) -> None:
        super().__init__(url_map, max=2**63 - 1)
