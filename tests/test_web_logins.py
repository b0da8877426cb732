"""web/logins.py: what a login's body says, whatever somebody sends."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers, QueryParams

from edged.errors import InvalidParams
from edged.web.logins import _read, create_stream_token

FORM = "application/x-www-form-urlencoded"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.sampled_from(["application/json", FORM, f"{FORM}; charset=utf-8", "text/plain", ""]), st.binary(max_size=200))
def test_any_body_is_read_or_refused(kind: str, body: bytes) -> None:
    """Never another exception than its own; and nothing but the three members comes of it."""
    try:
        found = _read(Headers({"content-type": kind}), body)
    except InvalidParams:
        return
    if found is None:
        assert kind in ("text/plain", "")
    else:
        assert found.keys() <= {"username", "password", "alg"}


@given(TEXT, TEXT)
def test_a_form_and_json_say_the_same(username: str, password: str) -> None:
    """Blanks, signs and every script."""
    said = {"username": username, "password": password}
    by_form = _read(Headers({"content-type": FORM}), urlencode(said).encode())
    by_json = _read(Headers({"content-type": "application/json"}), json.dumps({**said, "more": 1}).encode())
    assert by_form == by_json == said


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null", b"", b"{", b"[" * 5000])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    """Also an empty body, and one that is nested deep."""
    with pytest.raises(InvalidParams):
        _read(Headers({"content-type": "application/json"}), body)


@pytest.mark.parametrize(
    ("query", "body", "alg"),
    [({"alg": "ES256"}, {}, "ES256"), ({}, {"alg": "ES256"}, "ES256"), ({"alg": "ES256"}, {"alg": "ES256"}, "ES256")],
)
async def test_the_algorithm_may_stand_in_the_query_or_in_the_body(
    query: dict[str, str], body: dict[str, str], alg: str
) -> None:
    """As ?alg= for clients of the contract, beside the name as the method of the same name takes it."""
    assert (await heard(query, body))["alg"] == alg


async def test_two_algorithms_are_refused() -> None:
    """Neither wins over the other without a word."""
    with pytest.raises(InvalidParams, match="alg in the body"):
        await heard({"alg": "ES256"}, {"alg": "RS256"})


async def heard(query: dict[str, str], body: dict[str, str]) -> Any:
    """What the operation is asked with."""

    async def read() -> bytes:
        await trio.lowlevel.checkpoint()
        return json.dumps({"username": "ann", "password": "x", **body}).encode()

    asked: list[Any] = []

    async def listen(_operation: str, params: Any) -> None:
        await trio.lowlevel.checkpoint()
        asked.append(params)

    request = SimpleNamespace(
        headers=Headers({"content-type": "application/json"}), body=read, query_params=QueryParams(query)
    )
    await create_stream_token(SimpleNamespace(http=request, query=request.query_params, call=listen))  # type: ignore[arg-type]
    return asked[0]
