"""access/token_uses.py: how often tokens were shown, of so many at most, and a word when one is shown very often."""

from __future__ import annotations

import pytest

from edged.access.token_uses import EXCESSIVE, MOST, TokenUses


def test_uses_are_counted_by_the_hash_of_the_text() -> None:
    """The most used first, and no more than asked for."""
    uses = TokenUses()
    for name, times in ((b"\x01", 2), (b"\x02", 3), (b"\x03", 1), (b"\x04", 2)):
        for _ in range(times):
            uses.count(name)
    assert uses.most_used(3) == {"02": 3, "01": 2, "04": 2}
    assert list(uses.most_used(10)) == ["02", "01", "04", "03"]


def test_no_more_tokens_are_counted_than_fit() -> None:
    """The one that was shown longest ago is forgotten, however often that was; nobody can make this grow."""
    uses = TokenUses()
    for _ in range(5):
        uses.count(b"old")
    uses.count(b"busy")
    for number in range(MOST - 1):
        uses.count(number.to_bytes(4))
        uses.count(b"busy")
    found = uses.most_used(2 * MOST)
    assert len(found) == MOST
    assert found[b"busy".hex()] == MOST
    assert b"old".hex() not in found


def test_a_token_that_is_shown_very_often_is_told_of_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Past a thousand, and at each thousand more: a line a use would be one more trouble (S0-28)."""
    uses = TokenUses()
    for _ in range(EXCESSIVE):
        uses.count(b"\xab")
    assert capsys.readouterr().out == ""
    for _ in range(EXCESSIVE + 1):
        uses.count(b"\xab")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("token_used_often" in line and "credential=ab" in line for line in lines)
    assert ["uses=1001" in lines[0], "uses=2001" in lines[1]] == [True, True]
