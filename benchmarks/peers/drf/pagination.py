"""Pages by cursor, or by number where one is asked for."""

from base64 import b64encode
from urllib.parse import parse_qs, urlencode, urlsplit

from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination, CursorPagination, PageNumberPagination
from rest_framework.response import Response


def checked_size(paginator, request):
    """Refuse a page size that is not allowed; the framework itself would take the largest."""
    text = request.query_params.get(paginator.page_size_query_param, str(paginator.page_size))
    if not text.isdecimal() or not 1 <= int(text) <= paginator.max_page_size:
        raise ValidationError({paginator.page_size_query_param: "Use 1 to 100."})
    return int(text)


class ByCursor(CursorPagination):
    ordering = "id"
    page_size = 20
    page_size_query_param = "per_page"
    max_page_size = 100
    get_page_size = checked_size

    def get_paginated_response(self, data):
        link = self.get_next_link()
        after = parse_qs(urlsplit(link).query)["cursor"][0] if link else None
        return Response({"users": data, "next_cursor": after})


class ByNumber(PageNumberPagination):
    page_size = 20
    page_size_query_param = "per_page"
    max_page_size = 100
    get_page_size = checked_size

    def get_paginated_response(self, data):
        pages = self.page.paginator
        counts = {"page": self.page.number, "pages": pages.num_pages, "total": pages.count}
        # The form that CursorPagination reads.
        after = b64encode(urlencode({"p": data[-1]["id"]}).encode()).decode() if self.page.has_next() else None
        return Response({"users": data, "next_cursor": after, **counts})


class CursorOrNumber(BasePagination):
    def paginate_queryset(self, queryset, request, view=None):
        self.chosen = ByNumber() if "page" in request.query_params else ByCursor()
        return self.chosen.paginate_queryset(queryset.order_by("id"), request, view)

    def get_paginated_response(self, data):
        return self.chosen.get_paginated_response(data)
