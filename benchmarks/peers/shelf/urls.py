"""No pages: the settings must name a module."""

urlpatterns: list[object] = []
