"""A trust database that has gone back in time lets nobody in before somebody confirms it."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import IS_FULL, times
from restore_helpers import History, live
from structlog.testing import capture_logs

from edged.access.authority import EDGED
from edged.errors import StoreFailed
from edged.store import meta, restores, usage
from edged.store.restores import Lineage, Restored, examine

HISTORIES = times(200)
#: A thousand histories in all with EDGED_TEST_FULL=1.
PARTS = 5 if IS_FULL else 1


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
async def test_nothing_that_was_revoked_is_let_in_without_the_confirmation(part: int) -> None:
    """In any history of commits, copies, older files put in place, and ends of every kind."""
    # In memory where that can be: what is asked is what stands in the files, and not what a sync costs.
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as folder:
        await run_histories(Path(folder))


async def run_histories(tmp_path: Path) -> None:
    base = random.Random().randrange(2**32)
    for seed in range(base, base + HISTORIES):
        folder = tmp_path / "history"
        folder.mkdir()
        history = History(folder, random.Random(seed))
        try:
            await history.run()
        except* AssertionError as problems:
            raise AssertionError(f"seed {seed}: {history.steps}") from problems
        shutil.rmtree(folder)


marks = st.none() | st.builds(
    Restored, st.sampled_from(["copy", "behind"]), st.floats(0, 4e9), st.none() | st.integers(0, 2**40)
)


@given(st.builds(Lineage, marks, st.integers(0, 100), st.integers(0, 2**40)), st.integers(0, 100))
def test_a_file_is_good_only_if_it_bears_no_mark_and_is_not_behind(found: Lineage, known: int) -> None:
    mark = examine(found, known, 5.0)
    assert (mark is None) == (found.mark is None and found.commits >= known)
    if mark is not None:
        assert mark.epoch is not None
        is_told_already = found.mark is not None and found.mark.epoch is not None and found.commits >= known
        assert is_told_already == (mark == found.mark)
        assert is_told_already or mark.epoch > found.epoch


def put_back(state: Path, older: Path) -> None:
    for name in ("trust.db", "trust.db-wal", "trust.db-shm"):
        (state / name).unlink(missing_ok=True)
    shutil.copy(older, state / "trust.db")


async def make_older(state: Path, tmp_path: Path) -> tuple[Path, str, str]:
    """A file of before the revocation of the first of two keys; and both of their secrets."""
    async with live(state) as life:
        record, secret = await life.api_keys.create(EDGED, name="k", role="admin")
        _, other = await life.api_keys.create(EDGED, name="other", role="viewer")
    older = tmp_path / "older.db"
    shutil.copy(state / "trust.db", older)
    async with live(state) as life:
        await life.api_keys.revoke(record.key_id, "")
        await life.usage.flush()
    return older, secret, other


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("lost", ["trust.reserve", "usage.db"])
async def test_either_witness_alone_gives_an_older_file_away(state: Path, tmp_path: Path, lost: str) -> None:
    older, secret, other = await make_older(state, tmp_path)
    put_back(state, older)
    (state / lost).unlink()
    async with live(state) as life:
        assert life.restores.pending is not None
        assert not life.lets_in(secret)
        assert not life.lets_in(other)


async def test_the_confirmation_outlives_a_restart_and_so_does_its_absence(state: Path, tmp_path: Path) -> None:
    older, secret, other = await make_older(state, tmp_path)
    put_back(state, older)
    for _ in range(3):
        async with live(state) as life:
            assert not life.lets_in(other)
            await life.api_keys.create(EDGED, name="made meanwhile", role="viewer")
    async with live(state) as life:
        await life.restores.confirm(EDGED, "root")
        assert life.lets_in(other)
        assert life.lets_in(secret), "the file says so"
    async with live(state) as life:
        assert life.restores.pending is None
        assert life.lets_in(other)
    # The file of before the confirmation is an older one again.
    put_back(state, older)
    async with live(state) as life:
        assert not life.lets_in(other)


async def test_a_mark_that_cannot_be_saved_is_in_force_and_goes_with_the_first_commit(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many commits follow, none of them makes the older file pass for the newer."""
    older, secret, _ = await make_older(state, tmp_path)
    put_back(state, older)

    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched, capture_logs() as told:
        patched.setattr(restores, "put_mark", fail)
        async with live(state) as life:
            assert not life.lets_in(secret)
            with pytest.raises(StoreFailed):
                await life.api_keys.create(EDGED, name="k", role="viewer")
    assert "mark_not_saved" in [line["event"] for line in told]
    async with live(state) as life:
        assert not life.lets_in(secret)
        for _ in range(5):
            await life.api_keys.create(EDGED, name="k", role="viewer")
    async with live(state) as life:
        assert not life.lets_in(secret)


async def test_a_start_notes_a_commit_that_the_end_of_the_process_kept_from_being_noted(state: Path) -> None:
    async with live(state) as life:
        _, secret = await life.api_keys.create(EDGED, name="k", role="viewer")
        reserve = life.trust._reserve
        assert reserve is not None
        cast(Any, reserve).note_commits = lambda _number: None
        await life.api_keys.create(EDGED, name="k", role="viewer")
    async with live(state) as life:
        assert life.restores.pending is None
        assert life.trust.known_commits == life.trust.commits
        assert life.lets_in(secret)


async def test_each_commit_counts_once_and_one_that_changes_nothing_not_at_all(state: Path) -> None:
    async with live(state) as life:
        before = life.trust.commits
        assert before is not None
        await life.api_keys.create(EDGED, name="k", role="viewer")
        assert life.trust.commits == before + 1
        await life.trust.write(lambda _connection: None)
        with pytest.raises(ZeroDivisionError):
            await life.trust.write(lambda connection: meta.save_epoch(connection, 1 // 0))
        assert life.trust.commits == before + 1
    with closing(sqlite3.connect(state / "trust.db")) as connection:
        assert meta.load_commits(connection) == before + 1


async def test_the_usage_database_hears_of_commits_with_its_flush(state: Path) -> None:
    async with live(state) as life:
        await life.api_keys.create(EDGED, name="k", role="viewer")
        await life.usage.flush()
        known = life.trust.commits
    with closing(sqlite3.connect(state / "usage.db")) as connection:
        assert usage.load_trust_commits(connection) == known
