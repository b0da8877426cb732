"""library/sealing.py: numbers, digests, heads and tombstones over real files, databases and keys."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from fmp4_helpers import make_segment
from seal_helpers import NOW, SealingBox, sealing_box, write_open
from structlog.testing import capture_logs

from edged.clock import Clock
from edged.credentials.identities import Identity
from edged.credentials.seal_signatures import Signed, read
from edged.credentials.seals import DerivedSeal, SegmentSeal, digest
from edged.errors import StoreFailed
from edged.library import sealing as module
from edged.library.retention import Policy
from edged.library.retention_policies import RetentionPolicies
from edged.library.retention_sweep import RetentionSweep
from edged.library.seal_files import measure, seal_of
from edged.store import seals as rows
from edged.store.segments import SegmentRow


def seals(box: SealingBox, camera: str = "camera0") -> list[Any]:
    """The seals beside the files of a camera, by number."""
    found = [read(path.read_bytes()) for path in (box.root / camera).rglob("*.seal")]
    return sorted(found, key=number)


def number(signed: Signed) -> int:
    assert isinstance(signed.statement, SegmentSeal)
    return signed.statement.number


async def statements(box: SealingBox, kind: str) -> list[Any]:
    query = "SELECT text FROM statements WHERE kind = ? ORDER BY last"
    found = await box.trust.read(lambda connection: connection.execute(query, (kind,)).fetchall())
    return [read(row[0]).statement for row in found]


async def test_each_closed_segment_is_sealed_and_names_the_one_before(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        closed = await box.record(3)
        first, second, third = (each.statement for each in seals(box))
        assert [each.number for each in (first, second, third)] == [1, 2, 3]
        assert [each.file for each in (first, second, third)] == [row.file for row in closed]
        assert first.previous == "-"
        assert second.previous == seals(box)[0].digest
        assert third.previous == seals(box)[1].digest
        path = box.root / closed[2].file
        assert (third.sha256, third.size) == measure(path) == (digest(path.read_bytes()), path.stat().st_size)
        assert (third.began, third.ended) == pytest.approx((closed[2].began, closed[2].ended), abs=0.001)
        assert (third.camera, third.synchronised, third.recovered) == ("camera0", True, False)
        assert seals(box)[0].kid == box.keyring.current("ES256").kid


async def test_each_camera_has_a_series_of_its_own(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        for camera in ("camera0", "camera1"):
            await box.record(2, camera)
        assert [[number(each) for each in seals(box, camera)] for camera in ("camera0", "camera1")] == [[1, 2], [1, 2]]
        assert len({each.statement.series for camera in ("camera0", "camera1") for each in seals(box, camera)}) == 2


@pytest.mark.parametrize("lost", [[], ["usage.db", "usage.db-wal", "usage.db-shm"]], ids=["nothing", "the index"])
async def test_the_series_goes_on_after_a_restart_whatever_was_lost(tmp_path: Path, lost: list[str]) -> None:
    async with sealing_box(tmp_path) as box:
        await box.record(2)
    for name in lost:
        (tmp_path / name).unlink(missing_ok=True)
    async with sealing_box(tmp_path, written=2) as box:
        await box.record(1)
        assert [number(each) for each in seals(box)] == [1, 2, 3]
        assert seals(box)[2].statement.previous == seals(box)[1].digest
        assert not seals(box)[2].statement.recovered


async def test_a_segment_that_was_closed_while_edged_did_not_run_is_sealed_as_recovered(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        await box.record(1)
    write_open(tmp_path / "recordings", "camera0", NOW + 60)
    async with sealing_box(tmp_path, written=2) as box:
        await box.record(1)
        assert [each.statement.recovered for each in seals(box)] == [False, True, False]


async def test_a_segment_that_its_writer_did_not_close_is_sealed_as_recovered(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        write_open(box.root, "camera0", NOW, declared=0)
        (row,) = (await box.index.look()).closed
        await box.until_sealed([row.file])
        assert seals(box)[0].statement.recovered


async def test_a_seal_whose_row_a_crash_has_cost_keeps_its_number(tmp_path: Path) -> None:
    """kill -9 between the seal and the index."""
    async with sealing_box(tmp_path) as box:
        await box.record(3)
        before = [each.text for each in seals(box)]
        await box.usage.write(lambda connection: connection.execute("DELETE FROM seals WHERE number > 1"))
    async with sealing_box(tmp_path, written=3) as box:
        await box.record(1)
        assert [each.text for each in seals(box)][:3] == before
        assert [number(each) for each in seals(box)] == [1, 2, 3, 4]


async def test_a_file_whose_seal_was_changed_is_never_sealed_anew(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        (row,) = await box.record(1)
        seal = seal_of(box.root / row.file)
        seal.write_bytes(forged := seal.read_bytes().replace(b"recovered no", b"recovered ye"))
        await box.usage.write(lambda connection: connection.execute("DELETE FROM seals"))
    async with sealing_box(tmp_path, written=1) as box:
        await box.record(1)
        assert seal.read_bytes() == forged


async def test_a_series_that_ends_and_each_hour_of_one_that_goes_on_has_a_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sealing_box(tmp_path, ends=1000.0) as box:
        await box.record(3)
        assert await box.statements("head") == 0
        monkeypatch.setattr(module, "HEAD_SECONDS", 0.0)
        await box.record(1)
        await box.until_head()
        monkeypatch.setattr(module, "HEAD_SECONDS", 3600.0)
        monkeypatch.setattr(module, "END_SECONDS", 0.0)
        await box.record(2)
        await box.until_head(2)
        found = await statements(box, "head")
        assert found[-1].last == 6
        assert found[-1].digest == seals(box)[-1].digest
        # Together they cover every number once.
        assert [head.first for head in found] == [1, *(head.last + 1 for head in found[:-1])]


async def test_files_that_are_deleted_leave_one_tombstone_that_bridges_them(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        closed = await box.record(6)
        kept = {number(each): each for each in seals(box)}
        await box.index.remove(closed[1:3], dict.fromkeys((row.file for row in closed), "age"))
        await box.index.remove(closed[3:4], {closed[3].file: "age"})
        await box.index.remove(closed[4:5], {closed[4].file: "request"})
        aged, asked = await statements(box, "tombstone")
        assert (aged.first, aged.last, aged.reason) == (2, 4, "age")
        assert (aged.previous, aged.digest) == (kept[1].digest, kept[4].digest)
        assert (asked.first, asked.last, asked.reason, asked.previous) == (5, 5, "request", kept[4].digest)
        assert [number(each) for each in seals(box)] == [1, 6]
        assert not [path for path in box.root.rglob("*.seal") if not path.with_suffix("").exists()]


async def test_a_reason_that_is_no_plain_word_keeps_no_file_from_being_deleted(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        closed = await box.record(2)
        assert await box.index.remove(closed[:1], {closed[0].file: "Too old!"})
        (stone,) = await statements(box, "tombstone")
        assert stone.reason == "other"


async def test_the_number_of_a_deleted_end_is_not_given_twice(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        closed = await box.record(2)
        await box.index.remove(closed, dict.fromkeys((row.file for row in closed), "request"))
    async with sealing_box(tmp_path, written=2) as box:
        await box.record(1)
        assert [number(each) for each in seals(box)] == [3]


async def test_a_full_disk_keeps_no_file_from_being_deleted_and_the_tombstone_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sealing_box(tmp_path) as box:
        closed = await box.record(2)
        await box.until_head()
        monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.01)
        with monkeypatch.context() as full:

            async def refuse(*_: object, **__: object) -> None:
                await trio.lowlevel.checkpoint()
                raise StoreFailed("the disk is full")

            full.setattr(box.trust, "write", refuse)
            assert await box.index.remove(closed[:1], {closed[0].file: "space"})
            assert not (box.root / closed[0].file).exists()
            assert await box.statements("tombstone") == 0
        while await box.statements("tombstone") == 0:
            await trio.sleep(0.005)


async def test_many_tombstones_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STATEMENTS", 2)
    async with sealing_box(tmp_path) as box:
        closed = await box.record(6)
        for row, reason in zip(closed, ("age", "size", "age", "size", "age", "size"), strict=True):
            await box.index.remove([row], {row.file: reason})
        found = await statements(box, "tombstone")
        assert [(each.first, each.last) for each in found] == [(1, 1), (2, 6)]
        assert [each.reason for each in found] == ["age", "several"]


async def test_a_file_made_of_segments_names_them(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        closed = await box.record(3)
        clip = tmp_path / "clip.mp4"
        clip.write_bytes(b"cut")
        assert await box.sealing.seal_derived(clip, closed[1:])
        made = read(seal_of(clip).read_bytes()).statement
        assert isinstance(made, DerivedSeal)
        assert (made.name, made.sha256, made.size) == ("clip.mp4", digest(b"cut"), 3)
        assert made.parts == tuple((number(each), each.digest) for each in seals(box)[1:])


async def test_a_file_of_a_segment_without_a_seal_gets_none(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        closed = await box.record(1)
        clip = tmp_path / "clip.mp4"
        clip.write_bytes(b"cut")
        strange = SegmentRow("camera0/2026-01-01/1-0.mp4", "camera0", NOW, 1.0, 5)
        assert not await box.sealing.seal_derived(clip, [*closed, strange])
        assert not seal_of(clip).exists()


async def test_a_distrusted_key_seals_nothing_more(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        await box.record(1)
        before = box.keyring.current("ES256")
        box.denied.add(Identity.of_signing_key(before.kid))
        assert box.keyring.sealing_key() is None
        await box.keyring.give_up(before.kid)
        await box.record(1)
        assert [each.kid for each in seals(box)] == [before.kid, box.keyring.current("ES256").kid]


async def test_the_index_finds_the_next_number_among_many(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        await box.record(1)
        plan = await box.usage.read(
            lambda connection: connection.execute(
                "EXPLAIN QUERY PLAN SELECT * FROM seals WHERE series = ? ORDER BY number DESC LIMIT 1", ("x",)
            ).fetchall()
        )
        assert "seals_by_number" in str([tuple(row) for row in plan])
        assert await box.usage.read(rows.list_key_times) == [(box.keyring.current("ES256").kid, NOW + 60, NOW + 60)]


def test_a_segment_of_a_test_differs_from_the_next() -> None:
    assert make_segment(number=1) != make_segment(number=2)


async def test_the_seal_of_a_vanished_segment_tells_of_it_until_retention_has_passed_it(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        closed = await box.record(6)
        (box.root / closed[1].file).unlink()
        (box.root / closed[4].file).unlink()
        with capture_logs() as logs:
            await box.index.reconcile()
        (told,) = [entry for entry in logs if entry["event"] == "recordings_vanished"]
        assert (told["files"], told["first"], told["last"]) == (2, closed[1].file, closed[4].file)
        policy = Policy(max_bytes=sum(row.size for row in closed[3:]) - closed[4].size)
        clock = Clock(system=lambda: box.time[0], synchronized=lambda: True)
        sweep = RetentionSweep(box.index, box.trust, clock, RetentionPolicies(box.trust, policy), stop_bytes=0)
        assert await sweep.run_once() != {}
        seals = sorted(str(path.relative_to(box.root)) for path in box.root.rglob("*.seal"))
        assert seals == [f"{row.file}.seal" for row in closed[3:]]
        sealed = await box.usage.read(partial(rows.find, files=[row.file for row in closed]))
        assert [row.file for row in sealed] == [row.file for row in closed[3:]]
        assert await sweep.run_once() == {}
        assert (box.root / f"{closed[4].file}.seal").exists()


async def test_a_vanished_day_goes_with_its_folder_once_retention_has_passed_it(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        first = await box.record(2)
        box.written += 24 * 60
        later = await box.record(3)
        for row in first:
            (box.root / row.file).unlink()
        await box.index.reconcile()
        folder = (box.root / first[0].file).parent
        await box.index.remove(later[:1], {later[0].file: "request"})
        assert len(list(folder.iterdir())) == 2
        policy = Policy(max_bytes=later[-1].size)
        clock = Clock(system=lambda: box.time[0], synchronized=lambda: True)
        await RetentionSweep(box.index, box.trust, clock, RetentionPolicies(box.trust, policy), stop_bytes=0).run_once()
        assert not folder.exists()
        assert (box.root / later[2].file).exists()
