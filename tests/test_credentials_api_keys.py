"""credentials/api_keys.py and callers.parse_credential: what was presented, and what a key looks like."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.credentials.api_keys import KeyRecord, digest, is_well_formed, mint, mint_key_id
from edged.credentials.callers import API_KEY_PREFIX, ApiKey, NoCredential, Token, parse_credential

any_text = st.text() | st.text(st.characters(categories=["Cs", "Ll"]))


def test_a_key_has_the_documented_form() -> None:
    """`camera_service_sk_` and 64 hex: 82 characters (contract S1-5)."""
    key_id, secret, stored = mint()
    assert re.fullmatch(r"camera_service_sk_[0-9a-f]{64}", secret)
    assert re.fullmatch(r"key_[0-9a-f]{16}", key_id)
    assert stored == hashlib.sha256(secret.encode()).digest()
    assert is_well_formed(secret)


def test_no_two_keys_are_alike() -> None:
    """Neither secrets nor ids repeat."""
    minted = [mint() for _ in range(500)]
    assert len({key.secret for key in minted}) == len({key.key_id for key in minted}) == 500
    assert mint_key_id() != mint_key_id()


@pytest.mark.parametrize(
    "text", ["", API_KEY_PREFIX, API_KEY_PREFIX + "a" * 63, API_KEY_PREFIX + "a" * 65, "x" + API_KEY_PREFIX + "a" * 64,
             API_KEY_PREFIX + "a" * 64 + "\n", API_KEY_PREFIX + "ä" * 64],
)  # fmt: skip
def test_anything_else_is_not_well_formed(text: str) -> None:
    """The whole text must match, to the last character."""
    assert not is_well_formed(text)


@given(any_text)
def test_any_text_has_a_digest(text: str) -> None:
    """Whatever JSON can hold, lone surrogates too, is looked up and never raises."""
    assert len(digest(text)) == 32


@given(any_text, st.sampled_from(["auto", "jwt", "api_key", "", "password"]))
@example("a.b.c", "auto")
@example(API_KEY_PREFIX + "a.b.c", "auto")
@example("a.b.c", "api_key")
@example("no dots", "jwt")
def test_what_was_presented_becomes_exactly_one_credential(text: str, kind: str) -> None:
    """Nothing → none; a named kind wins; else the prefix, then two dots, then a key (contract S1-25)."""
    credential = parse_credential(text, kind)
    if not text:
        assert credential == NoCredential()
    elif kind == "jwt" or (kind != "api_key" and text.count(".") == 2 and not text.startswith(API_KEY_PREFIX)):
        assert credential == Token(text)
    else:
        assert credential == ApiKey(text)


def test_a_credential_does_not_show_its_text() -> None:
    """A traceback or a log line of one tells nothing."""
    assert "hunter2" not in repr([ApiKey("hunter2"), Token("hunter2.a.b")])


@pytest.mark.parametrize(
    ("changes", "status"),
    [({}, "active"), ({"expires_at": 11.0}, "active"), ({"expires_at": 10.0}, "expired"),
     ({"revoked_at": 1.0}, "revoked"), ({"revoked_at": 1.0, "expires_at": 1.0}, "revoked")],
)  # fmt: skip
def test_a_key_is_active_expired_or_revoked(changes: dict[str, Any], status: str) -> None:
    """Revoked wins; the very second of its end is past it."""
    record = KeyRecord(key_id="key_1", name="k", role="viewer", digest=b"", created_at=0.0, **changes)
    assert record.status(10.0) == status
