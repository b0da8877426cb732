"""web/logins.py: what a login's body says, whatever somebody sends."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from edged.errors import InvalidParams
from edged.web.logins import _read

FORM = "application/x-www-form-urlencoded"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.sampled_from(["application/json", FORM, f"{FORM}; charset=utf-8", "text/plain", ""]), st.binary(max_size=200))
def test_any_body_is_read_or_refused(kind: str, body: bytes) -> None:
    """Never another exception than its own; and nothing but the two members comes of it."""
    try:
        found = _read(Headers({"content-type": kind}), body)
    except InvalidParams:
        return
    if found is None:
        assert kind in ("text/plain", "")
    else:
        assert found.keys() <= {"username", "password"}


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
