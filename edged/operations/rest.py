"""Where an operation is reached over HTTP: declared at the operation, read by web.routes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Verb: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
#: Where params come from beside the path: the query, or a JSON object that must or may be there.
Source: TypeAlias = Literal["query", "body", "optional body"]


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """A method on a path. `{member}` in the path is a member of the params; the others come from `source`.

    `status` is that of success. `root_may` is the credential-free rule of contract 5.1. `at_files` is set for paths
    under /v1/files: X-Service-Token and tokens for files are accepted there and nowhere else.
    """

    method: Verb
    path: str
    source: Source
    status: int = 200
    root_may: bool = False
    at_files: bool = False


def get(path: str, *, root_may: bool = False) -> Rest:
    """GET, with the other params in the query."""
    return Rest(method="GET", path=path, source="query", root_may=root_may)


def delete(path: str, *, root_may: bool = False) -> Rest:
    """DELETE, with the other params in the query."""
    return Rest(method="DELETE", path=path, source="query", root_may=root_may)


def create(path: str, *, source: Source = "body", root_may: bool = False) -> Rest:
    """POST of something new, which the body describes: 201."""
    return Rest(method="POST", path=path, source=source, status=201, root_may=root_may)


def post(path: str, *, source: Source = "optional body", root_may: bool = False, at_files: bool = False) -> Rest:
    """POST of something that is to be done; the body, a JSON object, may be left out unless `source` says otherwise."""
    return Rest(method="POST", path=path, source=source, root_may=root_may, at_files=at_files)


def patch(path: str, *, root_may: bool = False) -> Rest:
    """PATCH of what the path names; the body says what changes."""
    return Rest(method="PATCH", path=path, source="body", root_may=root_may)


def put(path: str, *, source: Source = "body") -> Rest:
    """PUT of what the path names; the body is its new value, where it has one."""
    return Rest(method="PUT", path=path, source=source)
