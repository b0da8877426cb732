"""accounts/first_admin.py and its code: who can read it on the box, and nobody else, makes the first administrator."""

from __future__ import annotations

import math
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edged.accounts.first_admin import SECONDS, TRIES, FirstAdmin, show_on_terminal
from edged.credentials.first_admin import ALPHABET, LENGTH, digest, mint_code
from edged.errors import InvalidState, StoreFailed


class Offers:
    """A first admin who is needed, until a test says otherwise, and what was shown on the terminal."""

    def __init__(self, folder: Path) -> None:
        self.needed = True
        self.shown: list[str] = []
        self.first = FirstAdmin(folder, lambda: self.needed, console=folder / "issue", show=self.shown.append)

    @property
    def code(self) -> str:
        return self.first.path.read_text().strip()


@pytest.fixture
def offers(tmp_path: Path) -> Offers:
    return Offers(tmp_path)


@asynccontextmanager
async def running(first: FirstAdmin) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


def test_a_code_has_fifty_random_bits_in_letters_that_nobody_misreads() -> None:
    """No I, L, O and U; every other digit and letter comes up."""
    assert math.log2(len(ALPHABET)) * LENGTH == 50
    assert not set("ILOU") & set(ALPHABET)
    seen = {letter for _ in range(300) for letter in mint_code()}
    assert seen == set(ALPHABET)
    assert len({mint_code() for _ in range(1000)}) == 1000


@given(st.text(alphabet=ALPHABET, min_size=LENGTH, max_size=LENGTH), st.data())
def test_a_code_is_understood_as_people_type_it(code: str, data: st.DataObject) -> None:
    """Small letters, hyphens, spaces, and the letters that look like digits."""
    typed = "".join(
        data.draw(st.sampled_from({"0": "0oO", "1": "1iIlL"}.get(letter, letter + letter.lower()))) for letter in code
    )
    at = data.draw(st.integers(0, LENGTH))
    assert digest(f" {typed[:at]}-{typed[at:]}\n") == digest(code)


@given(st.text(max_size=30))
def test_any_text_can_be_shown_as_a_code(text: str) -> None:
    """Also half a surrogate pair; another code is another digest."""
    assert len(digest(text)) == 32
    assert digest(text) != digest("ABCDEFGHJK") or "ABCDEFGHJK" in text.upper().replace("-", "").replace(" ", "")


async def test_the_code_is_in_a_file_for_root_alone_and_nowhere_in_the_log(offers: Offers) -> None:
    """The log says that there is no administrator, and where to look."""
    with capture_logs() as logs:
        offers.first.offer()
    assert stat.S_IMODE(offers.first.path.stat().st_mode) == 0o600
    assert offers.shown == [offers.code]
    (line,) = logs
    assert line["event"] == "no administrator yet"
    assert line["code_in"] == str(offers.first.path)
    assert offers.code not in str(logs)
    assert offers.code not in str(vars(offers.first))
    assert offers.first.takes(offers.code.lower())


async def test_the_console_is_told_the_same_code_for_as_long_as_it_is_good(offers: Offers, tmp_path: Path) -> None:
    """agetty, which shows the file, reads as root; a backslash would be an order to it (agetty(8))."""
    issue = tmp_path / "issue"
    issue.touch(0o600)
    offers.first.offer()
    assert stat.S_IMODE(issue.stat().st_mode) == 0o600
    assert offers.code in issue.read_text()
    assert "sudo edged claim" in issue.read_text()
    assert "\\" not in issue.read_text()
    before = offers.code
    offers.first.offer()
    assert offers.code in issue.read_text()
    assert before not in issue.read_text()
    offers.first.withdraw()
    assert list(tmp_path.iterdir()) == [issue]
    assert issue.read_text() == ""


async def test_a_link_or_anything_else_in_the_consoles_place_is_left_alone(offers: Offers, tmp_path: Path) -> None:
    """agetty reads it as root: what edged writes there must not be chosen by a link, and nothing is made there."""
    issue, secret = tmp_path / "issue", tmp_path / "secret"
    offers.first.offer()
    assert not issue.exists()
    secret.write_text("of root's")
    issue.symlink_to(secret)
    offers.first.offer()
    offers.first.withdraw()
    assert secret.read_text() == "of root's"
    issue.unlink()
    os.link(secret, issue)
    offers.first.offer()
    assert secret.read_text() == "of root's"
    issue.unlink()
    os.mkfifo(issue)
    offers.first.offer()
    assert offers.first.takes(offers.code)


async def test_four_wrong_tries_are_forgiven_the_fifth_ends_the_code(offers: Offers) -> None:
    """A right one in between does not count; after the fifth the right one is as wrong as any."""
    offers.first.offer()
    code = offers.code
    for number in range(TRIES - 1):
        assert not offers.first.takes(f"wrong{number}")
        assert offers.first.takes(code)
    assert not offers.first.takes("")
    assert not offers.first.takes(code)
    assert not offers.first.path.exists()
    assert offers.first.seconds_left == 0


async def test_the_same_wrong_code_again_uses_nothing_up(offers: Offers) -> None:
    """Neither this code nor the next one: only different ones count, and none twice."""
    offers.first.offer()
    for _ in range(50):
        assert not offers.first.takes("WRONG00000")
        assert not offers.first.takes("wrong-ooooo")
    assert offers.first.takes(offers.code)
    for number in range(TRIES):
        offers.first.takes(f"WRONG{number:05}")
    assert offers.first.seconds_left == 0
    offers.first.offer()
    for _ in range(10):
        for number in range(TRIES):
            assert not offers.first.takes(f"WRONG{number:05}")
    assert offers.first.takes(offers.code)


async def test_a_code_ends_after_fifteen_minutes_and_its_file_with_it(
    offers: Offers, mock_clock: trio.testing.MockClock
) -> None:
    """By the monotonic clock."""
    async with running(offers.first):
        code = offers.code
        mock_clock.jump(SECONDS - 1)
        await trio.testing.wait_all_tasks_blocked()
        assert offers.first.takes(code)
        mock_clock.jump(1)
        assert not offers.first.takes(code)
        await trio.testing.wait_all_tasks_blocked()
        assert not offers.first.path.exists()


async def test_a_new_code_lives_its_own_fifteen_minutes_and_the_old_one_ends(
    offers: Offers, mock_clock: trio.testing.MockClock
) -> None:
    """Also after the first has expired; and it has five tries of its own."""
    async with running(offers.first):
        old = offers.code
        mock_clock.jump(SECONDS - 60)
        for number in range(TRIES - 1):
            offers.first.takes(f"wrong{number}")
        offers.first.offer()
        await trio.testing.wait_all_tasks_blocked()
        new = offers.code
        assert not offers.first.takes(old)
        mock_clock.jump(120)
        await trio.testing.wait_all_tasks_blocked()
        assert offers.first.takes(new)
        mock_clock.jump(SECONDS)
        await trio.testing.wait_all_tasks_blocked()
        assert not offers.first.path.exists()
        offers.first.offer()
        assert offers.first.takes(offers.code)


async def test_a_box_that_has_users_offers_nothing(offers: Offers) -> None:
    """A code that a kill left behind goes, and none can be asked for."""
    offers.first.path.write_text("LEFTOVER00")
    offers.needed = False
    async with running(offers.first):
        assert not offers.first.path.exists()
        with pytest.raises(InvalidState, match="administrator already"):
            offers.first.offer()
    assert offers.shown == []


async def test_a_code_is_worth_nothing_once_somebody_made_a_user_another_way(offers: Offers) -> None:
    """The unix socket, for example."""
    offers.first.offer()
    offers.needed = False
    assert not offers.first.takes(offers.code)


async def test_stopping_removes_the_file(offers: Offers) -> None:
    """A code is good for one run."""
    async with running(offers.first):
        code = offers.code
    assert not offers.first.path.exists()
    assert not offers.first.takes(code)


async def test_a_file_or_link_that_lies_there_is_replaced_not_followed(offers: Offers, tmp_path: Path) -> None:
    """Whoever put it there reads nothing, and nothing of theirs is written to."""
    target = tmp_path / "target"
    target.write_text("theirs")
    target.chmod(0o644)
    offers.first.path.symlink_to(target)
    offers.first.offer()
    assert target.read_text() == "theirs"
    assert not offers.first.path.is_symlink()
    assert stat.S_IMODE(offers.first.path.stat().st_mode) == 0o600


async def test_without_a_file_there_is_no_code(tmp_path: Path) -> None:
    """A folder that cannot be written is said at the start, and to whoever asks for a code."""
    offers = Offers(tmp_path / "missing")
    with capture_logs() as logs:
        async with running(offers.first):
            with pytest.raises(StoreFailed, match="cannot be written") as caught:
                offers.first.offer()
    assert caught.value.hint
    assert [line["event"] for line in logs] == ["claim_code_not_written"]
    assert offers.shown == []
    assert offers.first.seconds_left == 0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_code_is_printed_on_a_terminal_and_never_into_a_journal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    """systemd connects standard error to the journal, which others may read."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    show_on_terminal("ABCDEFGHJK")
    assert ("ABCDEFGHJK" in capsys.readouterr().err) is is_terminal
