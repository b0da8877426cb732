"""What happens to cameras, recordings, pictures and the clock → the ring of events (contract 3b)."""

from __future__ import annotations

from typing import Any, Final, Protocol

from edged.cameras.model import CameraChanged
from edged.clock import iso
from edged.feeds import Lagged, Reader
from edged.library.active_recordings import RecordingChanged
from edged.library.gaps import Gap
from edged.library.snapshots import SnapshotChanged
from edged.store.events import LOST


class Ring(Protocol):
    """What library.event_ring.EventRing takes."""

    def put(self, kind: str, camera: str = "", details: dict[str, object] | None = None) -> float: ...


CLOCK_JUMP: Final = "system.clock_jump"


async def follow_cameras(changes: Reader[CameraChanged], ring: Ring) -> None:
    """An event for each change of a camera's status; runs until cancelled. Why it gives no picture is not in it: that
    may name addresses, which only administrators are told."""
    while True:
        change = await _receive(changes, ring)
        if change is None or (change.previous is not None and change.previous.status is change.camera.status):
            continue
        camera = change.camera
        ring.put(change.event, camera.name, {"name": camera.label, "status": camera.status.value})


async def follow_recordings(changes: Reader[RecordingChanged], ring: Ring) -> None:
    """An event for each change of a recording; runs until cancelled."""
    while True:
        if (change := await _receive(changes, ring)) is not None:
            ring.put(change.event, change.record.camera, _describe(change))


async def follow_gaps(gaps: Reader[Gap], ring: Ring) -> None:
    """An event for each gap in a recording that runs, and for files of it that overlap; runs until cancelled."""
    while True:
        if (gap := await _receive(gaps, ring)) is not None:
            details = {
                "recording_id": gap.record.recording_id, "filename": gap.record.filename, "begin": iso(gap.begin),
                "end": iso(gap.end), "seconds": round(gap.end - gap.begin, 3),
            }  # fmt: skip
            ring.put(gap.event, gap.record.camera, details)


async def follow_snapshots(changes: Reader[SnapshotChanged], ring: Ring) -> None:
    """An event for each picture that was kept, or could not be; runs until cancelled."""
    while True:
        if (change := await _receive(changes, ring)) is None:
            continue
        details: dict[str, object] = {"event_id": change.event_id} if change.event_id else {}
        if change.problem:
            ring.put(change.event, change.camera, {"error": change.problem, **details})
        else:
            ring.put(
                change.event, change.camera, {"filename": change.filename, "file_size": change.size, **details}
            )  # fmt: skip


async def follow_jumps(jumps: Reader[float], ring: Ring) -> None:
    """An event for each time that the system clock was set; runs until cancelled."""
    while True:
        if (seconds := await _receive(jumps, ring)) is not None:
            ring.put(CLOCK_JUMP, details={"seconds": round(seconds, 3)})


def _describe(change: RecordingChanged) -> dict[str, object]:
    record = change.record
    details: dict[str, object] = {
        "recording_id": record.recording_id, "filename": record.filename, "status": change.status,
    }  # fmt: skip
    if change.status == "STOPPED":
        details |= {"duration": round(change.duration, 3), "file_size": change.size}
    return details | {"error": change.problem} if change.problem else details


async def _receive(reader: Reader[Any], ring: Ring) -> Any:
    """The next value; None where some were lost, of which the ring is told."""
    found = await reader.receive()
    if isinstance(found, Lagged):
        ring.put(LOST)
        return None
    return found
