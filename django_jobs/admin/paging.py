"""Lists that stay fast over millions of rows: counted up to a cap, and always in the order of the primary key."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy

from ..models import window

MOST_LISTED = 10_000
LARGEST_ID = 2**63 - 1

# The name in the address of the id below which a list begins.
BEFORE = "before"

_NEWEST_SEARCHED = gettext_lazy(
    "The newest %(count)s jobs are searched, and of older ones up to %(most)s each of those that are ready, scheduled or"
    " running, or finished last."
)
_NEWEST_SEARCHED_BEFORE = gettext_lazy(
    "The newest %(count)s jobs before job %(before)s are searched, and of older ones up to %(most)s each of those that are"
    " ready, scheduled or running, or finished last."
)


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
    """The newest first, whatever the address says: any other order would sort the whole table.

    A filter or a search looks through a window of the newest jobs, and through what indexes find beside it;
    ``newest_left_out`` is the id of the newest job before the window, None if nothing is left out.
    """

    newest_left_out: int | None = None

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[Any]:
        return ["-id"]

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet:
        # Arguments may be a megabyte each, and the list shows none of them.
        jobs = super().get_queryset(request, exclude_parameters).defer("args", "kwargs", "progress", "meta")
        if not self._is_narrowed() or self._is_one(jobs):
            return jobs
        self.newest_left_out = window.newest_left_out(self._before())
        if self.newest_left_out is None:
            return jobs
        # As numbers: whatever else narrows the list, a database then reads these rows and no others.
        return jobs.filter(pk__in=self._found(jobs, self.newest_left_out))

    @property
    def what_is_searched(self) -> str:
        """Say which jobs were looked through, or nothing if all were."""
        if self.newest_left_out is None:
            return ""
        numbers = {"count": window.MOST_SEARCHED, "most": MOST_LISTED}
        words = {name: number_format(number, force_grouping=True) for name, number in numbers.items()}
        before = self._before()
        if before is None:
            return _NEWEST_SEARCHED % words
        return _NEWEST_SEARCHED_BEFORE % (words | {"before": before})

    @property
    def older_link(self) -> str:
        """Return the address of the same list that looks through the jobs before the window."""
        return self.get_query_string({BEFORE: (self.newest_left_out or 0) + 1})

    def _is_narrowed(self) -> bool:
        return bool(self.query.strip() or set(self.get_filters_params()) - {BEFORE})

    def _is_one(self, jobs: QuerySet) -> bool:
        """Say whether the search is for an id, and has found it."""
        pk = as_id(self.query)
        return pk is not None and jobs.filter(pk=pk).exists()

    def _before(self) -> int | None:
        return as_id(self.params.get(BEFORE, ""))

    def _found(self, jobs: QuerySet, newest_left_out: int) -> list[int]:
        """Return the ids of those that match, newest first, one more than are listed at the most."""
        most = MOST_LISTED + 1
        ids = jobs.values_list("pk", flat=True)
        found = list(ids.filter(pk__gt=newest_left_out).order_by("-pk")[:most])
        for indexed in window.found_by_indexes(most, self.query.strip()):
            older = [pk for pk in indexed if pk <= newest_left_out]
            found += ids.filter(pk__in=older)
        return sorted(set(found), reverse=True)[:most]


def as_id(text: str) -> int | None:
    """Return the id that somebody typed, or None if it cannot be one."""
    text = text.strip()
    is_short = len(text) <= len(str(LARGEST_ID))
    return int(text) if is_short and text.isdecimal() and int(text) <= LARGEST_ID else None
