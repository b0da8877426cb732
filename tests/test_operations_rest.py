"""operations/rest.py: what each shorthand of a route means, and what holds for every route that is declared."""

from __future__ import annotations

import re

import msgspec
import pytest
from operations_helpers import CATALOGUE

from edged.operations.rest import Rest, create, delete, get, patch, post, put

ROUTES = {name: each.rest for name, each in CATALOGUE.operations.items() if each.rest is not None}


@pytest.mark.parametrize(
    ("made", "method", "source", "status"),
    [
        (get("/a"), "GET", "query", 200),
        (delete("/a"), "DELETE", "query", 200),
        (create("/a"), "POST", "body", 201),
        (create("/a", source="optional body"), "POST", "optional body", 201),
        (post("/a"), "POST", "optional body", 200),
        (post("/a", source="body"), "POST", "body", 200),
        (patch("/a"), "PATCH", "body", 200),
        (put("/a"), "PUT", "body", 200),
    ],
)
def test_a_shorthand_says_method_source_and_status(made: Rest, method: str, source: str, status: int) -> None:
    """And none of them lets root in without a credential, or takes a token for files, unless it is told so."""
    assert (made.method, made.path, made.source, made.status) == (method, "/a", source, status)
    assert (made.root_may, made.at_files) == (False, False)


def test_what_needs_no_credential_of_root_is_said_and_goes_to_the_route() -> None:
    for made in (get("/a", root_may=True), delete("/a", root_may=True), create("/a", root_may=True)):
        assert made.root_may
    assert post("/a", root_may=True, at_files=True).at_files


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_each_member_of_a_path_is_a_param_of_its_operation(name: str) -> None:
    """One that is misspelled would be a route that can never be called."""
    kind = CATALOGUE.operations[name].params
    members = re.findall(r"{(\w+)(?::path)?}", ROUTES[name].path)
    assert set(members) <= {field.encode_name for field in msgspec.structs.fields(kind)}


def test_no_two_operations_have_the_same_method_and_path() -> None:
    """Whatever the members of the path are called."""
    shapes = [(each.method, re.sub(r"{[^}]+}", "{}", each.path)) for each in ROUTES.values()]
    assert len(set(shapes)) == len(shapes)


def test_the_one_route_under_v1_files_says_that_service_tokens_are_taken_there() -> None:
    """And no other says so (contract 7.3)."""
    for name, each in ROUTES.items():
        assert each.at_files == each.path.startswith("/v1/files/"), name


def test_a_get_changes_nothing() -> None:
    """Its params are in a query, which ends in logs and in a browser's history: its operation begins with get or list,
    or only looks."""
    looks = ("get_", "list_")
    others = {name for name, each in ROUTES.items() if each.method == "GET" and not name.startswith(looks)}
    assert others == {"whoami", "ping"} & others
