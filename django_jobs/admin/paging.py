"""Lists that stay fast over millions of rows: counted up to a cap, and always in the order of the primary key."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

MOST_LISTED = 10_000


class CappedPaginator(Paginator):
    """Pages through the first MOST_LISTED rows, and never counts more than that."""

    object_list: QuerySet

    @cached_property
    def count(self) -> int:
        return min(self._counted, MOST_LISTED)

    @property
    def has_more(self) -> bool:
        """Say whether rows match that no page shows."""
        return self._counted > MOST_LISTED

    @cached_property
    def _counted(self) -> int:
        return self.object_list.order_by().values("pk")[: MOST_LISTED + 1].count()


class JobChangeList(ChangeList):
    """The newest first, whatever the address says: any other order would sort the whole table."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[Any]:
        return ["-id"]

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet:
        # Arguments may be a megabyte each, and the list shows none of them.
        return super().get_queryset(request, exclude_parameters).defer("args", "kwargs", "progress", "meta")
