"""What the admins of jobs, queues, schedules and workers have in common: the database, the permission, the buttons.

A button on a row's page posts to ``act_view``, which calls the action of the same name with that one row: an
action is written once, for the list and for the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import model_ngettext, quote, unquote
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.db.models.functions import Now
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import conf
from .paging import CappedPaginator


class Button(NamedTuple):
    label: Any
    url: str


class RowAdmin(admin.ModelAdmin):
    """Base of our admins. ``button_labels`` maps names of actions to what their buttons on a row's page say."""

    button_labels: Mapping[str, Any] = {}
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()

    class Media:
        css = {"all": ["django_jobs/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """Return the rows, each with the database's clock as ``now``, by which ages are shown."""
        return super().get_queryset(request).annotate(now=Now())

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Say whether the user may act on rows: that is the permission to change them."""
        codename = get_permission_codename("change", self.opts)
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def offers(self, name: str, row: Any) -> bool:
        """Say whether the page of this row shows the button of the action ``name``."""
        return True

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.act_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_act"
        return [path("<path:object_id>/act/<slug:name>/", view, name=name), *super().get_urls()]

    def act_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Do the action ``name`` to one row, and show its page again."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if name not in self.button_labels:
            raise Http404
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self.gone(request)
        if request.method == "POST":
            if not self._may(request, name):
                raise PermissionDenied
            response = getattr(self, name)(request, self.get_queryset(request).filter(pk=row.pk))
            if response is not None:
                return response
        return HttpResponseRedirect(self.page_url(request, row))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Ask, then delete one row: as the admin's own action ``delete_selected``, if it has one, does it for many."""
        delete_selected: Any = getattr(self, "delete_selected", None)
        if delete_selected is None:
            return super().delete_view(request, object_id, extra_context)
        if not self.has_delete_permission(request):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self.gone(request)
        response = delete_selected(request, self.get_queryset(request).filter(pk=row.pk))
        return response or HttpResponseRedirect(self.list_url(request))

    def link_to_list(self, model: type[Model], text: object, **query: Any) -> str:
        """Return a link to the list of another model's rows, searched or filtered."""
        url = reverse(f"{self.admin_site.name}:{model._meta.app_label}_{model._meta.model_name}_changelist")
        return format_html('<a href="{}?{}">{}</a>', url, urlencode(query), text)

    def link_to_page(self, model: type[Model], pk: Any, text: object) -> str:
        """Return a link to the page of another model's row."""
        url = reverse(f"{self.admin_site.name}:{model._meta.app_label}_{model._meta.model_name}_change", args=[pk])
        return format_html('<a href="{}">{}</a>', url, text)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        row = kwargs.get("obj")
        context["buttons"] = [] if row is None else self._buttons(request, row)
        return super().render_change_form(request, context, *args, **kwargs)

    def confirmation(
        self, request: HttpRequest, queryset: QuerySet, template: str, title: str, **context: Any
    ) -> TemplateResponse:
        """Return a page that asks before an action; its form posts to where the action was called."""
        request.current_app = self.admin_site.name  # type: ignore[attr-defined]
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        context |= {
            **self.admin_site.each_context(request),
            "title": title,
            "original": title,
            "opts": self.opts,
            "media": self.media,
            "has_view_permission": True,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            "selected": selected,
            "select_across": request.POST.get("select_across", "0"),
            "back_url": self._back_url(request, queryset, is_list=bool(selected)),
        }
        return TemplateResponse(request, f"admin/django_jobs/{self.opts.model_name}/{template}", context)

    def report_changed(self, request: HttpRequest, changed: Sequence[Model], selected: int, log: str) -> None:
        """Log each changed row; tell the user how many there are, and how many of the selected were as asked already."""
        for row in changed:
            self.log_change(request, row, log)
        if changed:
            text = ngettext(
                "%(count)d %(rows)s was changed: %(log)s", "%(count)d %(rows)s were changed: %(log)s", len(changed)
            )
            told = {"count": len(changed), "rows": model_ngettext(self.opts, len(changed)), "log": log}
            self.message_user(request, text % told, messages.SUCCESS)
        left = selected - len(changed)
        if left:
            text = ngettext(
                "%(count)d %(rows)s was left as it was: it is in that state already.",
                "%(count)d %(rows)s were left as they were: they are in that state already.",
                left,
            )
            told = {"count": left, "rows": model_ngettext(self.opts, left)}
            self.message_user(request, text % told, messages.WARNING)

    def gone(self, request: HttpRequest) -> HttpResponseRedirect:
        """Say that the row does not exist, and show the list."""
        self.message_user(request, _("It does not exist any more: it has been deleted."), messages.WARNING)
        return HttpResponseRedirect(self.list_url(request))

    def list_url(self, request: HttpRequest) -> str:
        """Return the address of the list, with the filters that the user came with."""
        return self._with_filters(request, self._url("changelist"))

    def page_url(self, request: HttpRequest, row: Model) -> str:
        """Return the address of a row's page, with the filters that the user came with."""
        return self._with_filters(request, self._url("change", quote(row.pk)))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        # Only what was edited: a pause, or a worker's report, of the meantime stays.
        fields = [name for name in form.changed_data if name in form.cleaned_data] if change else None
        if fields is None or fields:
            obj.save(using=conf.database(), update_fields=fields)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        obj.delete(using=conf.database())

    def _may(self, request: HttpRequest, name: str) -> bool:
        permissions = getattr(self, name).allowed_permissions
        return any(getattr(self, f"has_{permission}_permission")(request) for permission in permissions)

    def _buttons(self, request: HttpRequest, row: Any) -> list[Button]:
        return [
            Button(label, self._url("act", quote(row.pk), name))
            for name, label in self.button_labels.items()
            if self.offers(name, row) and self._may(request, name)
        ]

    def _back_url(self, request: HttpRequest, queryset: QuerySet, is_list: bool) -> str:
        row = None if is_list else queryset.first()
        return request.get_full_path() if row is None else self.page_url(request, row)

    def _url(self, view: str, *args: Any) -> str:
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{view}"
        return reverse(name, args=args)

    def _with_filters(self, request: HttpRequest, url: str) -> str:
        return add_preserved_filters({"preserved_filters": self.get_preserved_filters(request), "opts": self.opts}, url)
