"""What MediaMTX itself recorded, sealed over two days, and changed as somebody with the files could: each is found and
named, with the box's key and without."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from daemon_helpers import make_config, running_daemon
from patience import FACTOR, fail_after
from seal_helpers import sealing_box
from test_library_seal_evidence import fetch
from test_recordings import until_active

from edged.cli.verification import verify
from edged.credentials.seal_signatures import read, thumbprint_of
from edged.credentials.seals import SegmentSeal
from edged.library.fmp4 import read_segment
from edged.mediamtx import settings
from edged.store.segments import list_oldest

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg, pytest.mark.slow]

DAY_NS = 86_400 * 10**9
#: Segments of each camera on each of the two days.
EACH = 3


@dataclass
class Evidence:
    """A folder as it is fetched, and the key of its box."""

    root: Path
    known: frozenset[str]

    def files(self, camera: str, day: int) -> list[Path]:
        """Of a camera on the first or second day, oldest first."""
        return sorted(sorted((self.root / camera).iterdir())[day].glob("*.mp4"))

    def judge(self, *, knows: bool) -> list[str]:
        """All problems, as kind and name."""
        found = verify([self.root], known=self.known if knows else None)
        return [f"{each.kind} {each.number} {each.where} {each.text}" for each in found.problems]


async def record(folder: Path) -> dict[str, list[bytes]]:
    """Segments of two seconds of two cameras, by the real MediaMTX."""
    config = make_config(folder, cameras=2, mediamtx=True)
    cameras = tuple(msgspec.structs.replace(camera, rate=10.0) for camera in config.camera)
    config = msgspec.structs.replace(config, camera=cameras)
    names = ("camera0", "camera1")
    with fail_after(100):
        async with running_daemon(folder, config=config) as daemon, daemon.local() as admin:
            for name in names:
                await admin.call("start_recording", device=name, filename=name)
            for name in names:
                await until_active(admin, name)
            while any(len(list((config.recording.folder / name).rglob("*.mp4"))) < EACH for name in names):
                await trio.sleep(0.1)
            for name in names:
                await admin.call("stop_recording", device=name)
    return {
        name: [path.read_bytes() for path in sorted((config.recording.folder / name).rglob("*.mp4"))][:EACH]
        for name in names
    }


def move_by(data: bytes, nanoseconds: int) -> bytes:
    """The same segment, recorded so much later: MediaMTX notes the time in its box mtxi."""
    at = data.index(b"mtxi") + 4 + 4 + 16 + 8 + 8
    (before,) = struct.unpack_from(">q", data, at)
    return data[:at] + struct.pack(">q", before + nanoseconds) + data[at + 8 :]


async def seal(folder: Path, segments: dict[str, list[bytes]]) -> Evidence:
    root = folder / "evidence"
    with fail_after(60):
        async with sealing_box(folder) as box:
            for day in range(2):
                for number in range(EACH):
                    for camera, recorded in segments.items():
                        path = box.root / "open" / camera / camera / f"{number}-000000.mp4"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(move_by(recorded[number], day * DAY_NS))
                        await box.until_sealed([row.file for row in (await box.index.look()).closed])
            for camera in segments:
                rows = await box.usage.read(partial(list_oldest, camera=camera, limit=1000))
                part = await fetch(box, folder / camera, rows)
                (part / "camera0.statements").rename(part / f"{camera}.statements")
                shutil.copytree(part, root, dirs_exist_ok=True)
            public = box.keyring.current("ES256").public
    return Evidence(root, frozenset({thumbprint_of(public["x"], public["y"])}))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "SEGMENT_DURATION", "2s")
        segments = trio.run(record, folder)
    assert FACTOR >= 1
    assert all(len(recorded) == EACH for recorded in segments.values())
    return trio.run(seal, folder, segments)


@pytest.fixture
def evidence(sealed: Evidence, tmp_path: Path) -> Evidence:
    return Evidence(Path(shutil.copytree(sealed.root, tmp_path / "evidence")), sealed.known)


def seal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.seal")


def swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def remux(path: Path, *options: str) -> None:
    other = path.with_name("other.mp4")
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-c", "copy", *options, other], check=True)
    other.replace(path)


# Each changes the evidence, and gives the names of which the first problem must tell one -----------------------------


def two_segments_swapped(evidence: Evidence) -> set[str]:
    one, _, two = evidence.files("camera0", 0)
    swap(one, two)
    return {one.name}


def two_segments_swapped_with_their_seals(evidence: Evidence) -> set[str]:
    one, _, two = evidence.files("camera0", 0)
    swap(one, two)
    swap(seal_of(one), seal_of(two))
    return {one.name}


def one_of_another_camera(evidence: Evidence) -> set[str]:
    mine, other = evidence.files("camera0", 0)[1], evidence.files("camera1", 0)[1]
    mine.write_bytes(other.read_bytes())
    return {mine.name}


def one_of_another_camera_with_its_seal(evidence: Evidence) -> set[str]:
    mine, other = evidence.files("camera0", 0)[1], evidence.files("camera1", 0)[1]
    mine.write_bytes(other.read_bytes())
    number = numbers(evidence, "camera0", 0)[1]
    seal_of(mine).write_bytes(seal_of(other).read_bytes())
    return {mine.name, f"missing {number} "}


def one_of_another_camera_beside_the_others(evidence: Evidence) -> set[str]:
    """Under its own name: nothing is exchanged, one is more."""
    other = evidence.files("camera1", 0)[1]
    more = evidence.files("camera0", 0)[0].with_name(other.name)
    assert not more.exists()
    shutil.copy(other, more)
    shutil.copy(seal_of(other), seal_of(more))
    return {more.name}


def the_cameras_exchanged(evidence: Evidence) -> set[str]:
    names = {path.name for path in (*evidence.files("camera0", 0), *evidence.files("camera1", 0))}
    (evidence.root / "camera0").rename(evidence.root / "camera2")
    (evidence.root / "camera1").rename(evidence.root / "camera0")
    (evidence.root / "camera2").rename(evidence.root / "camera1")
    return names


def truncated_by_a_byte(evidence: Evidence) -> set[str]:
    path = evidence.files("camera1", 1)[0]
    path.write_bytes(path.read_bytes()[:-1])
    return {path.name}


def truncated_to_whole_parts(evidence: Evidence) -> set[str]:
    """It is a good file with fewer pictures."""
    path = evidence.files("camera0", 0)[2]
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moof") - 4])
    with path.open("rb") as file:
        assert read_segment(file).parts
    return {path.name}


def truncated_to_nothing(evidence: Evidence) -> set[str]:
    path = evidence.files("camera0", 1)[2]
    path.write_bytes(b"")
    return {path.name}


def something_appended(evidence: Evidence) -> set[str]:
    """A box that every player passes over."""
    path = evidence.files("camera0", 0)[0]
    path.write_bytes(path.read_bytes() + struct.pack(">I4s", 16, b"free") + bytes(8))
    return {path.name}


def remuxed(evidence: Evidence) -> set[str]:
    """The same pictures, bit for bit."""
    path = evidence.files("camera0", 0)[1]
    remux(path)
    return {path.name}


def remuxed_into_fragments(evidence: Evidence) -> set[str]:
    path = evidence.files("camera1", 0)[1]
    remux(path, "-movflags", "frag_keyframe+empty_moov")
    return {path.name}


def the_time_in_the_file_changed(evidence: Evidence) -> set[str]:
    path = evidence.files("camera0", 0)[1]
    path.write_bytes(move_by(path.read_bytes(), 10**9))
    return {path.name}


def a_seal_of_another_day(evidence: Evidence) -> set[str]:
    """By the same key, of the same camera, and of nearly the same bytes."""
    mine, other = evidence.files("camera0", 0)[1], evidence.files("camera0", 1)[1]
    number = numbers(evidence, "camera0", 0)[1]
    seal_of(mine).write_bytes(seal_of(other).read_bytes())
    return {mine.name, f"missing {number} "}


def a_segment_of_another_day(evidence: Evidence) -> set[str]:
    """With its seal, in the place and under the name of the one that is not wanted."""
    mine, other = evidence.files("camera0", 1)[1], evidence.files("camera0", 0)[1]
    mine.write_bytes(other.read_bytes())
    seal_of(mine).write_bytes(seal_of(other).read_bytes())
    return {mine.name}


def two_days_exchanged(evidence: Evidence) -> set[str]:
    one, two = sorted((evidence.root / "camera1").iterdir())
    names = {path.name for day in (0, 1) for path in evidence.files("camera1", day)}
    other = one.with_name("other")
    one.rename(other)
    two.rename(one)
    other.rename(two)
    return names


def a_day_removed(evidence: Evidence) -> set[str]:
    """The last one: only the head tells."""
    first = numbers(evidence, "camera0", 1)[0]
    shutil.rmtree(sorted((evidence.root / "camera0").iterdir())[1])
    return {f"missing {first} "}


def a_segment_removed(evidence: Evidence) -> set[str]:
    path = evidence.files("camera0", 0)[1]
    number = numbers(evidence, "camera0", 0)[1]
    path.unlink()
    seal_of(path).unlink()
    return {f"missing {number} "}


def a_segment_removed_and_its_seal_left(evidence: Evidence) -> set[str]:
    path = evidence.files("camera0", 0)[1]
    path.unlink()
    return {path.name}


def numbers(evidence: Evidence, camera: str, day: int) -> list[int]:
    found = [read(seal_of(path).read_bytes()).statement for path in evidence.files(camera, day)]
    return [each.number for each in found if isinstance(each, SegmentSeal)]


CHANGES: tuple[Callable[[Evidence], set[str]], ...] = (
    two_segments_swapped, two_segments_swapped_with_their_seals, one_of_another_camera,
    one_of_another_camera_with_its_seal, one_of_another_camera_beside_the_others, the_cameras_exchanged,
    truncated_by_a_byte, truncated_to_whole_parts, truncated_to_nothing, something_appended, remuxed,
    remuxed_into_fragments, the_time_in_the_file_changed, a_seal_of_another_day, a_segment_of_another_day,
    two_days_exchanged, a_day_removed, a_segment_removed, a_segment_removed_and_its_seal_left,
)  # fmt: skip


def test_what_nobody_has_changed_is_as_it_was_sealed(sealed: Evidence) -> None:
    verdict = verify([sealed.root], known=sealed.known)
    assert (verdict.problems, verdict.notes, verdict.proven, verdict.segments) == ([], [], True, 4 * EACH)
    assert len(list((sealed.root / "camera0").iterdir())) == 2


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_each_change_is_found_and_named(evidence: Evidence, change: Callable[[Evidence], set[str]]) -> None:
    named = change(evidence)
    for knows in (True, False):
        problems = evidence.judge(knows=knows)
        assert problems
        assert any(name in problems[0] for name in named), (named, problems)
