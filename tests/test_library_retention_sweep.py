"""library/retention_sweep.py: on real files and databases."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from fmp4_helpers import make_segment
from patience import fail_after

from edged.access.grants import Upkeep
from edged.clock import Clock
from edged.errors import NotFound
from edged.library import deleted_recordings
from edged.library.obstacles import FULL, ONLY_PROTECTED, STOPPED
from edged.library.recording_files import RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.library.retention import CameraPolicy, Policy
from edged.library.retention_policies import RetentionPolicies
from edged.library.retention_sweep import OnFull, RetentionSweep
from edged.store import recordings as rows
from edged.store import segments
from edged.store.database import Database
from edged.store.migrations import TRUST, USAGE
from edged.store.recordings import RecordingRecord
from edged.store.retention import RetentionSetting
from edged.store.segments import SegmentRow

BEGAN = 1_796_000_000


@dataclass
class Kept:
    root: Path
    index: RecordingIndex
    trust: Database
    clock: Clock
    deleted: list[str]
    stop_bytes: int = 0
    on_full: OnFull = "oldest"

    async def add(self, number: int, camera: str = "camera0") -> int:
        """A segment of this minute; its bytes."""
        path = self.root / "open" / camera / "x" / f"{number}-000000.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_segment(at_ns=(BEGAN + 60 * number) * 10**9, parts=3))
        (row,) = (await self.index.look()).closed
        return row.size

    def names(self) -> list[str]:
        return [file for _, file in self.index.files.list_kept()]

    def sweep(self, **policy: object) -> RetentionSweep:
        policies = RetentionPolicies(self.trust, Policy(**policy))  # type: ignore[arg-type]
        return RetentionSweep(
            self.index, self.trust, self.clock, policies, stop_bytes=self.stop_bytes, on_full=self.on_full
        )


@asynccontextmanager
async def kept(folder: Path) -> AsyncIterator[Kept]:
    async with (
        Database.open(folder / "trust.db", TRUST, name="trust") as trust,
        Database.open(folder / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage,
    ):
        deleted: list[str] = []
        root = folder / "recordings"
        index = RecordingIndex(RecordingFiles(root), usage, lambda reason, _size: deleted.append(reason))
        clock = Clock(system=lambda: BEGAN + 3600.0, synchronized=lambda: True)
        clock.look()
        yield Kept(root, index, trust, clock, deleted)


async def test_the_oldest_files_go_until_the_rest_fits(tmp_path: Path) -> None:
    async with kept(tmp_path) as box:
        *_, size = [await box.add(number) for number in range(6)]
        sweep = box.sweep(max_bytes=int(3.5 * size))
        assert await sweep.run_once() == {"size": 3 * size}
        assert len(box.names()) == 3
        assert box.deleted == ["size"] * 3
        assert sweep.files_deleted == 3
        assert await sweep.run_once() == {}
        assert (await box.index.sums())["camera0"] == (3, 3 * size)


async def test_files_of_a_protected_recording_stay_and_younger_ones_go(tmp_path: Path) -> None:
    async with kept(tmp_path) as box:
        *_, size = [await box.add(number) for number in range(6)]
        record = RecordingRecord(
            recording_id="rec_1", filename="a.mp4", camera="camera0", format="fmp4", began=BEGAN, ended=BEGAN + 61,
            is_protected=True,
        )  # fmt: skip
        await box.trust.write(partial(rows.insert, record=record))
        first = box.names()[:2]
        await box.sweep(max_bytes=3 * size).run_once()
        assert box.names()[:2] == first
        assert len(box.names()) == 3


async def test_a_recording_without_files_becomes_a_tombstone(tmp_path: Path) -> None:
    async with kept(tmp_path) as box:
        await box.add(0)
        await box.add(10)
        for name, began in (("old", BEGAN), ("new", BEGAN + 600)):
            record = RecordingRecord(
                recording_id=f"rec_{name}", filename=f"{name}.mp4", camera="camera0", format="fmp4", began=began,
                ended=began + 2.0,
            )  # fmt: skip
            await box.trust.write(partial(rows.insert, record=record))
        size = (await box.index.sums())["camera0"][1] // 2
        await box.sweep(max_bytes=size).run_once()
        found, total = await box.trust.read(partial(rows.list_page, cameras=["camera0"], limit=9, offset=0))
        assert ([record.filename for record in found], total) == (["new.mp4"], 1)
        assert await box.trust.read(partial(rows.is_taken, filename="old.mp4"))


async def test_policies_that_were_set_are_found_again(tmp_path: Path) -> None:
    """Those of a camera hold before its settings, its settings before what holds for all."""
    async with kept(tmp_path) as box:
        policies = RetentionPolicies(box.trust, Policy(max_bytes=5, keep_free_bytes=7))
        policies.set_cameras({"camera1": CameraPolicy(max_bytes=9), "camera2": CameraPolicy(max_age=60.0)})
        await policies.save()
        await policies.set_policy("", RetentionSetting("age", enabled=True, max_age_days=2.0), Upkeep(box.trust))
        await policies.set_policy("camera2", RetentionSetting("size", enabled=True, max_size_gb=2.0), Upkeep(box.trust))
        found = RetentionPolicies(box.trust, Policy(max_bytes=5, keep_free_bytes=7))
        found.load()
        assert found.policy == policies.policy
        assert found.policy == Policy(
            max_age=2 * 86400, keep_free_bytes=7,
            cameras={
                "camera1": CameraPolicy(max_age=2 * 86400, max_bytes=9),
                "camera2": CameraPolicy(max_bytes=2_000_000_000),
            },
        )  # fmt: skip
        await policies.set_policy("camera2", RetentionSetting("size", enabled=False), Upkeep(box.trust))
        assert policies.policy.cameras["camera2"] == CameraPolicy(max_age=60.0)
        await policies.set_policy("", RetentionSetting("manual", enabled=True), Upkeep(box.trust))
        assert policies.policy.max_age is policies.policy.max_bytes is None
        # A camera that is there and has no limits any more has none; one that is not plugged in keeps those of before.
        policies.set_cameras({"camera1": None})
        assert set(policies.policy.cameras) == {"camera2"}


async def test_joined_files_go_before_any_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They can be made again; a file that somebody may be fetching stays."""
    async with kept(tmp_path) as box:
        await box.add(0)
        joined = box.root / "joined"
        joined.mkdir()
        for name, age in (("rec_0000000000000000.mp4", 600), ("rec_1111111111111111.mp4", 0)):
            (joined / name).write_bytes(b"x")
            os.utime(joined / name, (box.clock.system - age,) * 2)

        async def free() -> tuple[int, int]:
            await trio.lowlevel.checkpoint()
            return (0 if len(list(joined.iterdir())) == 2 else 1000), 10_000

        monkeypatch.setattr(box.index, "free", free)
        assert await box.sweep(keep_free_bytes=500).run_once() == {}
        assert [path.name for path in joined.iterdir()] == ["rec_1111111111111111.mp4"]
        assert len(box.names()) == 1


async def test_no_file_is_looked_at_while_nothing_can_exceed_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(tmp_path) as box:
        await box.add(0)
        sweep = box.sweep(max_bytes=10**9)
        await sweep.run_once()

        def list_oldest(*_: object) -> list[object]:
            raise AssertionError("looked at")

        monkeypatch.setattr(segments, "list_oldest", list_oldest)
        assert await sweep.run_once() == {}


async def test_a_camera_is_kept_by_its_own_limits_and_others_by_those_of_all(tmp_path: Path) -> None:
    async with kept(tmp_path) as box:
        for number in range(4):
            *_, size = [await box.add(number, camera) for camera in ("camera0", "camera1", "camera2")]
        sweep = box.sweep(max_age=box.clock.now() - BEGAN - 100)
        sweep.policies.set_cameras(
            {"camera1": CameraPolicy(max_age=1e9, max_bytes=3 * size), "camera2": CameraPolicy(max_age=1e9)}
        )
        # The first two of each are older.
        assert await sweep.run_once() == {"age": 2 * size, "camera_size": size}
        left = {camera: count for camera, (count, _) in (await box.index.sums()).items()}
        assert left == {"camera0": 2, "camera1": 3, "camera2": 4}


async def test_a_file_that_cannot_be_deleted_is_passed_over_and_another_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(tmp_path) as box:
        *_, size = [await box.add(number) for number in range(4)]
        remove = box.index.files.remove

        def refuse(files: tuple[str, ...]) -> tuple[str, ...]:
            return remove(tuple(file for file in files if not Path(file).name.startswith(str(BEGAN))))

        monkeypatch.setattr(box.index.files, "remove", refuse)
        sweep = box.sweep(max_bytes=3 * size)
        assert await sweep.run_once() == {"size": size}
        assert [Path(name).name for name in box.names()] == [
            f"{BEGAN + 60 * number}-000000.mp4" for number in (0, 2, 3)
        ]


def record_of(number: int, minutes: int = 1, *, is_protected: bool = False) -> RecordingRecord:
    """A recording of camera0 from this minute on."""
    began = float(BEGAN + 60 * number)
    return RecordingRecord(
        recording_id=f"rec_{number:016x}", filename=f"m{number}.mp4", camera="camera0", format="fmp4", began=began,
        ended=began + 60 * minutes - 50, is_protected=is_protected,
    )  # fmt: skip


async def test_what_is_protected_stays_until_that_is_ended(tmp_path: Path) -> None:
    async with kept(tmp_path) as box:
        grant = Upkeep(box.trust)
        for number in range(3):
            await box.add(number)
            await box.trust.write(partial(rows.insert, record=record_of(number)))
        sweep = box.sweep(max_age=1.0)
        await sweep.protect(record_of(1), True, grant)
        await sweep.run_once()
        assert [Path(name).name for name in box.names()] == [f"{BEGAN + 60}-000000.mp4"]
        await sweep.protect(record_of(1), False, grant)
        await sweep.run_once()
        assert box.names() == []
        with pytest.raises(NotFound):
            await sweep.protect(record_of(1), True, grant)


async def test_a_protected_recording_without_files_stays_in_the_list(tmp_path: Path) -> None:
    """Its medium may be away."""
    async with kept(tmp_path) as box:
        await box.trust.write(partial(rows.insert, record=record_of(0, is_protected=True)))
        await box.sweep().run_once()
        assert await box.trust.read(partial(rows.find, name="m0")) is not None


async def test_whatever_is_protected_while_files_are_deleted_is_so_before_or_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(tmp_path) as box:
        await box.add(0)
        await box.trust.write(partial(rows.insert, record=record_of(0)))
        sweep = box.sweep(max_age=1.0)
        chosen, go_on = trio.Event(), trio.Event()
        remove = box.index.remove

        async def wait(going: Sequence[SegmentRow], reasons: Mapping[str, str]) -> frozenset[str]:
            chosen.set()
            await go_on.wait()
            return await remove(going, reasons)

        monkeypatch.setattr(box.index, "remove", wait)
        with fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sweep.run_once)
                await chosen.wait()
                nursery.start_soon(sweep.protect, record_of(0), True, Upkeep(box.trust))
                await trio.testing.wait_all_tasks_blocked()
                # The file that was chosen is not promised to anybody.
                assert not await box.trust.read(rows.list_protected)
                go_on.set()
        assert box.names() == []


def set_free(box: Kept, monkeypatch: pytest.MonkeyPatch, total: int, used: int = 0) -> None:
    """A disk of so many bytes that holds the segments, and `used` others."""

    async def free() -> tuple[int, int]:
        return total - used - sum(size for _, size in (await box.index.sums()).values()), total

    monkeypatch.setattr(box.index, "free", free)


async def test_on_a_full_disk_the_oldest_go_and_what_is_left_when_that_does_not_help_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(tmp_path) as box:
        grant = Upkeep(box.trust)
        *_, size = [await box.add(number) for number in range(6)]
        total = 100 * size
        set_free(box, monkeypatch, total, used=total - 8 * size)
        box.stop_bytes = 2 * size
        sweep = box.sweep(keep_free_bytes=4 * size)
        assert await sweep.run_once() == {"disk_full": 2 * size}
        assert sweep.obstacle is None
        for number in range(2, 6):
            await box.trust.write(partial(rows.insert, record=record_of(number, is_protected=True)))
        set_free(box, monkeypatch, total, used=total - 5 * size)
        assert await sweep.run_once() == {}
        assert sweep.obstacle is ONLY_PROTECTED
        await sweep.protect(record_of(2), False, grant)
        assert await sweep.run_once() == {"disk_full": size}
        assert len(box.names()) == 3
        # Nothing is left that could go, and none is protected: another program has filled the disk.
        for number in range(3, 6):
            await sweep.protect(record_of(number), False, grant)
        set_free(box, monkeypatch, total, used=total - size)
        await sweep.run_once()
        assert (sweep.obstacle, box.names()) == (FULL, [])
        set_free(box, monkeypatch, total)
        await sweep.run_once()
        assert sweep.obstacle is None


async def test_with_on_full_stop_nothing_goes_for_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with kept(tmp_path) as box:
        size = await box.add(0)
        set_free(box, monkeypatch, 100 * size, used=98 * size)
        box.stop_bytes, box.on_full = 2 * size, "stop"
        sweep = box.sweep(keep_free_bytes=10 * size)
        assert await sweep.run_once() == {}
        assert sweep.obstacle is STOPPED
        assert len(box.names()) == 1
        # Only below the limit at which recording stops is it short: what keep_free_mib says deletes nothing.
        assert (sweep.is_short(size, 100 * size), sweep.is_short(3 * size, 100 * size)) == (True, False)


async def test_files_that_are_older_than_allowed_and_cannot_be_deleted_are_a_warning_until_they_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(tmp_path) as box:
        for number in range(4):
            await box.add(number)
        remove = box.index.files.remove

        def refuse(files: tuple[str, ...]) -> tuple[str, ...]:
            return remove(tuple(file for file in files if not Path(file).name.startswith(str(BEGAN))))

        monkeypatch.setattr(box.index.files, "remove", refuse)
        sweep = box.sweep(max_age=60.0)
        await sweep.run_once()
        assert [Path(name).name for name in box.names()] == [f"{BEGAN}-000000.mp4"]
        assert sweep.overdue is not None
        assert sweep.overdue.cameras == ("camera0",)
        assert "could not be deleted" in sweep.overdue.message
        # What is protected may be as old as it likes.
        await box.trust.write(partial(rows.insert, record=record_of(0, is_protected=True)))
        await sweep.run_once()
        assert sweep.overdue is None


async def test_while_the_clock_is_not_trusted_nothing_goes_for_its_age_and_that_is_a_warning(tmp_path: Path) -> None:
    async with kept(tmp_path) as box:
        await box.add(0)
        box.clock = Clock(system=lambda: BEGAN + 3600.0, synchronized=lambda: False)
        sweep = box.sweep(max_age=60.0)
        assert await sweep.run_once() == {}
        assert sweep.overdue is not None
        assert "the clock is not trusted" in sweep.overdue.message


async def test_a_file_that_is_kept_after_its_recording_was_deleted_goes_too(tmp_path: Path) -> None:
    """It was still being written, edged was killed between the row and the file, or the disk refused."""
    async with kept(tmp_path) as box:
        for record in (record_of(0, 3), record_of(2, 9)):
            await box.trust.write(partial(rows.insert, record=record))
        gone = [record_of(0, 3).recording_id]
        await box.trust.write(partial(rows.delete, recording_ids=gone, at=box.clock.system, reason="request"))
        for number in range(4):
            await box.add(number)
        await box.sweep().run_once()
        assert [Path(name).name for name in box.names()] == [
            f"{BEGAN + 60 * number}-000000.mp4" for number in (2, 3)
        ]  # fmt: skip
        assert box.deleted == ["request", "request"]
        assert await box.trust.read(partial(rows.list_unswept, limit=9)) != []
        # Some minutes later nothing more is waited for.
        box.clock = Clock(system=lambda: BEGAN + 7200.0, synchronized=lambda: True)
        await box.sweep().run_once()
        assert await box.trust.read(partial(rows.list_unswept, limit=9)) == []


async def test_deleted_recordings_are_forgotten_after_90_days_and_their_names_are_free(tmp_path: Path) -> None:
    async with kept(tmp_path) as box:
        for number in range(3):
            await box.trust.write(partial(rows.insert, record=record_of(number)))
        for number, reason in enumerate(("request", "retention")):
            gone = [record_of(number).recording_id]
            await box.trust.write(partial(rows.delete, recording_ids=gone, at=5.0, reason=reason))
        deleted = box.sweep().deleted
        assert await deleted.prune(5 + 89 * 86400) == 0
        # Of the other one the files were not looked for once more.
        assert await deleted.prune(6 + 90 * 86400) == 1
        await box.trust.write(partial(rows.note_swept, recording_ids=[record_of(0).recording_id]))
        assert await deleted.prune(6 + 90 * 86400) == 1
        taken = [await box.trust.read(partial(rows.is_taken, filename=f"m{number}.mp4")) for number in range(3)]
        assert taken == [False, False, True]
        assert await box.trust.read(rows.list_cameras) == ["camera0"]


async def test_recordings_without_files_are_found_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look takes up where the one before has ended."""
    monkeypatch.setattr(deleted_recordings, "BATCH", 2)
    monkeypatch.setattr(deleted_recordings, "_LOOK_SECONDS", 0.0)
    async with kept(tmp_path) as box:
        for number in range(5):
            await box.trust.write(partial(rows.insert, record=record_of(number)))
        for number in (0, 1, 2):
            await box.add(number)
        sweep = box.sweep()
        for _ in range(3):
            await sweep.run_once()
        found, _ = await box.trust.read(partial(rows.list_page, cameras=["camera0"], limit=9, offset=0))
        assert [record.filename for record in found] == ["m2.mp4", "m1.mp4", "m0.mp4"]
