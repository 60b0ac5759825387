"""Every URL."""

from django.urls import path

from drf.views import Login, UserItem, UserList

urlpatterns = [
    path("api/v1/users", UserList.as_view()),
    path("api/v1/users/<int:pk>", UserItem.as_view()),
    path("api/v1/auth/login", Login.as_view()),
]
