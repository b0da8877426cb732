"""/api/users: make, list, change, re-password and delete users (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.requests import Request, Route, json_response


async def list_all(request: Request) -> Response:
    """Every user."""
    return json_response(await request.call("list_users", {}))


async def create(request: Request) -> Response:
    """A new user: 201."""
    return await bodies.create(request, "create_user")


async def show(request: Request) -> Response:
    """One user."""
    return json_response(await request.call("get_user", request.http.path_params))


async def update(request: Request) -> Response:
    """What the body names changes; the rest stays."""
    return await bodies.change(request, "update_user")


async def delete(request: Request) -> Response:
    """The user in the path is no more."""
    return json_response(await request.call("delete_user", request.http.path_params))


async def set_password(request: Request) -> Response:
    """{"password": …}, and for one's own {"old_password": …} beside it."""
    return await bodies.change(request, "set_password")


ROUTES = (
    Route(method="GET", path="/api/users", answer=list_all, operation="list_users"),
    Route(method="POST", path="/api/users", answer=create, operation="create_user"),
    Route(method="GET", path="/api/users/{name}", answer=show, operation="get_user"),
    Route(method="PATCH", path="/api/users/{name}", answer=update, operation="update_user"),
    Route(method="DELETE", path="/api/users/{name}", answer=delete, operation="delete_user"),
    Route(method="PUT", path="/api/users/{name}/password", answer=set_password, operation="set_password"),
)
