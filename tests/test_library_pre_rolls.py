"""library/pre_rolls.py without MediaMTX: pieces appear as it writes them; what belongs to a recording is kept once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from fmp4_helpers import make_segment
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after
from structlog.testing import capture_logs

from edged.clock import Clock
from edged.library import tails
from edged.library.active_recordings import ActiveRecording
from edged.library.pre_roll_files import Piece, PreRollFiles
from edged.library.pre_roll_plan import SPARE_SECONDS, plan
from edged.library.pre_rolls import Claim, PreRolls
from edged.library.recording_files import Look, RecordingFiles
from edged.library.recording_index import RecordingIndex
from edged.library.tails import await_tail, fetch_pieces
from edged.store import recordings as rows
from edged.store.database import Database
from edged.store.migrations import TRUST, USAGE
from edged.store.recordings import RecordingRecord

NOW = 1_796_000_000.0
#: Seconds of a piece that `Box.write` makes.
PIECE = 10 * 6000 / 90000

moments = st.integers(-100, 100).map(lambda seconds: NOW + seconds)
pieces = st.lists(
    st.builds(
        lambda number, camera, began, size: Piece(Path(f"{number}"), camera, began, began + 2, size),
        st.integers(0, 9999), st.sampled_from(["camera0", "camera1", "gone"]), moments, st.integers(1, 50),
    ),
    max_size=20, unique_by=lambda piece: piece.path,
)  # fmt: skip


@given(pieces, st.sets(st.integers(0, 19)), st.integers(0, 400), st.integers(0, 400), st.booleans())
def test_what_is_planned_loses_nothing_and_never_exceeds_the_memory(
    found: list[Piece], needed: set[int], open_bytes: int, limit: int, can_keep: bool
) -> None:
    belonging = {found[number].path for number in needed if number < len(found)}
    seconds = {"camera0": 10.0, "camera1": 30.0}
    made = plan(
        found, lambda piece: piece.path in belonging, seconds, now=NOW, open_bytes=open_bytes, limit=limit,
        can_keep=can_keep,
    )  # fmt: skip
    going = [*made.keep, *made.old, *made.excess]
    assert len({piece.path for piece in going}) == len(going)
    if can_keep:
        assert {piece.path for piece in made.keep} == belonging
    else:
        assert not made.keep
    for piece in made.old:
        assert piece.path not in belonging
        reach = seconds.get(piece.camera)
        # No recording that is asked for now could want it.
        assert reach is None or piece.ended <= NOW - reach or piece.began > NOW
    left = [piece for piece in found if piece not in going]
    assert open_bytes + sum(piece.size for piece in left) <= max(limit, open_bytes)
    if made.excess:
        last = max(piece.began for piece in made.excess)
        assert all(piece.began >= last for piece in left)
        assert open_bytes + sum(piece.size for piece in (*left, made.excess[-1])) > limit
    for piece in left:
        if piece.path not in belonging:
            assert NOW - seconds[piece.camera] - SPARE_SECONDS <= piece.ended


@dataclass
class Box:
    memory: Path
    root: Path
    trust: Database
    index: RecordingIndex
    pre_rolls: PreRolls = field(init=False)
    clock: Clock = field(init=False)
    now: float = NOW

    def write(self, ago: float, camera: str = "camera0", **options: object) -> Path:
        """A closed piece that began so many seconds ago."""
        began = self.now - ago
        path = self.memory / camera / "yard" / f"{int(began)}-{round(began % 1 * 1e6):06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_segment(at_ns=round(began * 1e6) * 1000, **options))  # type: ignore[arg-type]
        return path

    async def look(self, *running: RecordingRecord, can_keep: bool = True) -> Look:
        held = await self.pre_rolls.look([ActiveRecording(record, 0.0) for record in running], can_keep=can_keep)
        return await self.index.look(held)

    def kept(self) -> list[float]:
        """When the files on the disk began, seconds before NOW."""
        names = [path.stem.split("-") for path in (self.root).rglob("*.mp4")]
        return sorted(NOW - int(seconds) - int(parts) / 1e6 for seconds, parts in names)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Box]:
    with fail_after(30):
        async with (
            Database.open(folder / "trust.db", TRUST, name="trust") as trust,
            Database.open(folder / "usage.db", USAGE, name="usage", synchronous="NORMAL") as usage,
        ):
            files = RecordingFiles(folder / "recordings")
            index = RecordingIndex(files, usage)
            box = Box(folder / "memory", files.root, trust, index)
            box.clock = Clock(system=lambda: box.now, synchronized=lambda: False)
            box.pre_rolls = PreRolls(PreRollFiles(box.memory, files), index, box.clock)
            box.pre_rolls.set_cameras({"camera0": 10.0}, {"camera0"})
            yield box


def recording(began: float, ended: float | None = None, camera: str = "camera0") -> RecordingRecord:
    return RecordingRecord(
        recording_id=f"rec_{camera}{began}", filename=f"{camera}{began}.mp4", camera=camera, format="fmp4",
        began=NOW + began, ended=None if ended is None else NOW + ended,
    )  # fmt: skip


async def test_without_a_recording_old_pieces_go_and_nothing_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        paths = [box.write(ago) for ago in (30.0, 20.0, 9.0, 2.0)]
        assert await box.look() == Look((), ())
        assert [path.exists() for path in paths] == [False, False, True, True]
        assert box.kept() == []


async def test_a_recording_takes_the_pieces_that_reach_into_its_pre_roll(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        for ago in (11.5, 10.5, 9.75, 2.0):
            box.write(ago)
        await box.look()
        began = await box.pre_rolls.reach_back("camera0", NOW)
        assert NOW - began == pytest.approx(10.5)
        look = await box.look(recording(began - NOW))
        assert [row.file.partition("/")[0] for row in look.closed] == ["camera0"] * 3
        assert box.kept() == [2.0, 9.75, 10.5]
        known = [NOW - row.began for row in await box.index.list_between("camera0", 0, NOW)]
        assert known == pytest.approx([10.5, 9.75, 2.0])
        # What is on the disk already belongs to the next recording, too, as far as it reaches.
        assert await box.pre_rolls.reach_back("camera0", NOW + 0.5) == pytest.approx(NOW - 9.75)
        assert await box.pre_rolls.reach_back("camera1", NOW) == NOW


async def test_the_last_piece_of_a_recording_comes_after_its_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        record = recording(-5.0, -0.5)
        await box.look(recording(-5.0))
        box.write(0.75)
        assert await box.pre_rolls.is_waiting(record)
        box.pre_rolls.note_end(record)
        await box.look()
        box.now += 1
        box.write(0.0)
        await box.look()
        assert box.kept() == [0.75]
        assert not await box.pre_rolls.is_waiting(record)


async def test_a_running_recording_gets_every_new_piece_whatever_the_clock_says(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        record = recording(0.0)
        await box.look(record)
        box.now -= 7200
        box.write(1.0)
        await box.look(record)
        assert box.kept() == [7201.0]
        # Without a recording it is one from before the clock was set.
        path = box.write(-3600.0)
        await box.look()
        assert not path.exists()


async def test_the_pieces_of_a_run_that_was_killed_go_to_its_recordings(tmp_path: Path) -> None:
    """One that ran, one that had just ended, and the same piece at both places."""
    async with opened(tmp_path) as box:
        for record in (recording(-8.0, -6.0), recording(-3.0), recording(-8.0, camera="camera1")):
            await box.trust.write(partial(rows.insert, record=record))
        box.write(7.0)
        await box.pre_rolls.load(box.trust)
        await box.look(recording(-3.0))
        for ago in (7.0, 5.0, 2.0):
            box.write(ago)
        (box.root / "moving").mkdir(exist_ok=True)
        (box.root / "moving" / "half.mp4").write_bytes(b"half")
    async with opened(tmp_path) as box:
        await box.pre_rolls.load(box.trust)
        await box.look(recording(-3.0))
        assert box.kept() == [2.0, 7.0]
        assert [path for path in box.memory.rglob("*.mp4") if path.name.startswith(str(int(NOW - 7)))] == []
        assert not list((box.root / "moving").iterdir())


async def test_on_a_full_disk_pieces_wait_in_memory(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        box.write(2.0)
        await box.look(recording(-60.0), can_keep=False)
        box.now += 30
        await box.look(recording(-60.0), can_keep=False)
        assert box.kept() == []
        await box.look(recording(-60.0))
        assert box.kept() == [2.0]


async def test_a_disk_that_takes_nothing_leaves_the_piece_for_the_next_look(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        await box.look()
        path = box.write(2.0)
        box.root.mkdir(exist_ok=True)
        (box.root / "moving").write_text("in the way")
        with capture_logs() as told:
            for _ in range(5):
                await box.look(recording(-60.0))
            assert path.exists()
            assert [(line["event"], "remedy" in line) for line in told] == [("pre_roll_not_kept", True)]
            (box.root / "moving").unlink()
            for _ in range(2):
                await box.look(recording(-60.0))
            assert (path.exists(), box.kept()) == (False, [2.0])
            assert [line["event"] for line in told] == ["pre_roll_not_kept", "pre_roll_kept_again"]


async def test_a_file_that_grows_without_a_key_frame_halts_its_recorder_until_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreRollFiles, "limit", lambda _self, _most: 100)
    async with opened(tmp_path) as box:
        path = box.write(2.0)
        with path.open("ab"):
            await box.look()
            assert box.pre_rolls.halted == {"camera0"}
        await box.look()
        assert box.pre_rolls.halted == set()
        assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"no mp4 at all", make_segment(parts=0)])
async def test_a_file_with_nothing_in_it_goes(tmp_path: Path, content: bytes) -> None:
    async with opened(tmp_path) as box:
        path = box.write(2.0)
        path.write_bytes(content)
        await box.look(recording(-60.0))
        assert not path.exists()
        assert box.kept() == []


async def test_a_piece_of_a_recording_that_was_deleted_meanwhile_is_not_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as box:
        record = recording(-5.0, 0.0)
        await box.look(recording(-5.0))
        box.pre_rolls.note_end(record)
        box.pre_rolls.forget(record.recording_id)
        box.write(1.0)
        await box.look()
        assert box.kept() == []


async def test_what_somebody_waits_for_goes_to_the_disk_and_nothing_else(tmp_path: Path) -> None:
    """Also what would be too old for a recording by then; the piece that is being written is waited for."""
    async with opened(tmp_path) as box:
        for ago in (11.5, 9.0, 6.0, 5.0, 3.0):
            box.write(ago)
        await box.look()
        looks = list[Look]()
        with (last := box.write(1.0)).open("ab") as being_written:

            async def wait_look() -> None:
                looks.append(await box.look())
                if len(looks) == 2:
                    being_written.close()

            assert not await box.pre_rolls.has_some(Claim("camera0", NOW - 30, NOW - 20))
            assert not await box.pre_rolls.has_some(Claim("camera1", NOW - 10, NOW))
            box.now += 2
            fetch = partial(fetch_pieces, Claim("camera0", NOW - 6.5, NOW - 0.5), box.pre_rolls, clock=box.clock)
            assert await fetch(wait_look=wait_look)
        assert len(looks) == 3
        assert not last.exists()
        assert box.kept() == [1.0, 3.0, 5.0, 6.0]
        box.write(2.25)
        await box.look()
        assert box.kept() == [1.0, 3.0, 5.0, 6.0]
        assert await fetch(wait_look=wait_look)
        assert len(looks) == 3
        # Of what was sent just now nothing may be seen yet.
        box.now = NOW

        async def go_on() -> None:
            box.now += 1

        assert await fetch(wait_look=go_on)
        assert box.now == NOW + 1


async def test_a_piece_that_is_not_closed_or_not_taken_by_the_disk_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "WAIT_SECONDS", 0.3)
    async with opened(tmp_path) as box:
        box.write(2.0)
        look = partial(box.look, can_keep=False)
        assert not await fetch_pieces(Claim("camera0", NOW - 3, NOW), box.pre_rolls, clock=box.clock, wait_look=look)
        assert box.kept() == []
        # Nobody waits any more.
        await box.look()
        assert box.kept() == []


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_piece_that_cannot_be_seen_yet_is_waited_for_where_the_recorder_goes_on(
    tmp_path: Path, goes_on: bool
) -> None:
    """MediaMTX makes a file a second after its first picture: who asks before that gets the last seconds all the same.
    Where nothing is recorded any more there is nothing to wait for."""
    async with opened(tmp_path) as box:
        ended = recording(-8.0, 0.0)
        box.pre_rolls.note_end(ended)
        box.write(2.0)
        looks: list[float] = []

        async def look() -> None:
            box.now += 0.4
            looks.append(box.now)
            if len(looks) == 3:
                box.write(box.now - NOW + 0.5)  # it began half a second before the end
            await box.look()

        await box.look()
        await await_tail(ended, box.index, box.pre_rolls, goes_on=goes_on, clock=box.clock, wait_look=look)
        assert box.kept() == ([0.5, 2.0] if goes_on else [2.0])
        assert (len(looks) >= 3) == goes_on
