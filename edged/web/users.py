"""/api/users: make, list, change, re-password and delete users (contract 10.1)."""

from __future__ import annotations

from starlette.responses import Response

from edged.web import bodies
from edged.web.exchange import Exchange, Way, json_response


async def list_all(asked: Exchange) -> Response:
    """Every user."""
    return json_response(await asked.call("list_users", {}))


async def create(asked: Exchange) -> Response:
    """A new user: 201."""
    return await bodies.create(asked, "create_user")


async def show(asked: Exchange) -> Response:
    """One user."""
    return json_response(await asked.call("get_user", asked.request.path_params))


async def update(asked: Exchange) -> Response:
    """What the body names changes; the rest stays."""
    return await bodies.change(asked, "update_user")


async def delete(asked: Exchange) -> Response:
    """The user in the path is no more."""
    return json_response(await asked.call("delete_user", asked.request.path_params))


async def set_password(asked: Exchange) -> Response:
    """{"password": …}, and for one's own {"old_password": …} beside it."""
    return await bodies.change(asked, "set_password")


WAYS = (
    Way(method="GET", path="/api/users", answer=list_all, operation="list_users"),
    Way(method="POST", path="/api/users", answer=create, operation="create_user"),
    Way(method="GET", path="/api/users/{name}", answer=show, operation="get_user"),
    Way(method="PATCH", path="/api/users/{name}", answer=update, operation="update_user"),
    Way(method="DELETE", path="/api/users/{name}", answer=delete, operation="delete_user"),
    Way(method="PUT", path="/api/users/{name}/password", answer=set_password, operation="set_password"),
)
