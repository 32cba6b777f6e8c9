"""URLs of the shop."""

from django.urls import path

from . import views

app_name = "shop"
urlpatterns = [
    path("", views.home, name="home"),
    path("samples/<str:name>", views.sample, name="sample"),
    path("uploads/<int:pk>/", views.upload, name="upload"),
    path("uploads/<int:pk>/status.json", views.upload_status, name="upload-status"),
]
