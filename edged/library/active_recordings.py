"""The recordings that run: those that somebody asked for, and the hours of cameras that are always recorded."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from edged.clock import Clock
from edged.errors import InvalidState
from edged.library.recording_files import Look
from edged.library.recording_index import Measured, Summary
from edged.store.recordings import RecordingRecord

F = TypeVar("F", Measured, Summary)
Status: TypeAlias = Literal["STARTING", "RECORDING", "STOPPED", "ERROR"]
#: What happens to a recording, by what it is then (contract 3b).
EVENTS: Final[Mapping[Status, str]] = {
    "STARTING": "recording.start",
    "RECORDING": "recording.progress",
    "STOPPED": "recording.stop",
    "ERROR": "recording.error",
}
#: The reason in the record of an hour of a camera that its settings record, always or by schedule.
ALWAYS: Final = "always"
#: The reason in the record of a clip.
CLIP: Final = "clip"
HOUR_SECONDS: Final = 3600.0
#: Without a byte for so long a recording counts as one that gives none: the slowest camera gives one in 30 s.
SILENT_SECONDS: Final = 60.0


class Recorders(Protocol):
    """What records: MediaMTX, and the encoders that it records."""

    def set_recorded(self, cameras: Collection[str]) -> None:
        """From here on these cameras are recorded, and no others. Returns at once."""

    def wake(self, camera: str) -> None:
        """Its encoder is needed for some seconds more. Returns at once."""


class RecordingChanged(msgspec.Struct, frozen=True):
    """A recording began (STARTING), gave its first bytes (RECORDING), ended or failed; `problem` says why.

    `duration` seconds and `size` bytes of one that ended.
    """

    record: RecordingRecord
    status: Status
    problem: str = ""
    duration: float = 0.0
    size: int = 0

    @property
    def event(self) -> str:
        """Its name in contract 3b."""
        return EVENTS[self.status]


class ActiveRecording(msgspec.Struct):
    """A recording that runs.

    `moved_at` is when it gave bytes last, or began; `deadline` when it ends by itself, both by trio's clock; `written`
    bytes of the file that is being written; `first` and `last`, Unix seconds, begin and end of the files that it gave;
    `is_told` whether it was told that it began, before which nothing else is told of it.
    """

    record: RecordingRecord
    moved_at: float
    deadline: float = math.inf
    status: Status = "STARTING"
    written: int = 0
    first: float = math.inf
    last: float = -math.inf
    is_told: bool = True

    def holds(self, at: float) -> bool:
        """Whether a moment, Unix seconds, lies in the hour of a camera that is always recorded."""
        return self.record.began <= at < (self.record.until or math.inf)


class ActiveRecordings:
    """At most one that was asked for and one hour for each camera."""

    def __init__(self) -> None:
        self._asked: dict[str, ActiveRecording] = {}
        self._hours: dict[str, ActiveRecording] = {}
        self._shown: Mapping[str, ActiveRecording] = MappingProxyType({})
        self._by_id: dict[str, ActiveRecording] = {}

    @property
    def by_camera(self) -> Mapping[str, ActiveRecording]:
        """One for each camera that is recorded: the one that was asked for, else the hour."""
        return self._shown

    def __iter__(self) -> Iterator[ActiveRecording]:
        return iter((*self._asked.values(), *self._hours.values()))

    def find_asked(self, camera: str) -> ActiveRecording | None:
        """The one that somebody asked for."""
        return self._asked.get(camera)

    def refuse_second(self, camera: str) -> None:
        """Raises InvalidState for a camera of which somebody has asked for a recording."""
        if (other := self.find_asked(camera)) is not None:
            raise InvalidState(
                f"{camera} is being recorded already", hint="stop_recording ends it", resource="recording",
                filename=other.record.filename,
            )  # fmt: skip

    def find_hour(self, camera: str) -> ActiveRecording | None:
        """The hour that is recorded because the camera always is."""
        return self._hours.get(camera)

    def has(self, active: ActiveRecording) -> bool:
        """Whether it still runs."""
        return self._table(active).get(active.record.camera) is active

    def add(self, active: ActiveRecording) -> None:
        """From here on it runs."""
        self._table(active)[active.record.camera] = active
        self._show()

    def remove(self, active: ActiveRecording) -> None:
        """It runs no more, if it did."""
        if self.has(active):
            del self._table(active)[active.record.camera]
            self._show()

    def note(self, look: Look, now: float) -> list[tuple[ActiveRecording, Status]]:
        """What a look found; `now` by trio's clock. Those whose status changes: they have bytes now, or none any more.

        A recording without bytes goes on when there are some again: its camera was away, or MediaMTX could not write.
        """
        sizes: dict[str, int] = {}
        for file in look.writing:
            sizes[file.camera] = sizes.get(file.camera, 0) + file.size
        changed: list[tuple[ActiveRecording, Status]] = []
        for active in self:
            camera = active.record.camera
            closed = [row for row in look.closed if row.camera == camera]
            for row in closed:
                active.first, active.last = min(active.first, row.began), max(active.last, row.ended)
            written = sizes.get(camera, 0)
            if closed or written != active.written:
                active.written, active.moved_at = written, now
                if active.status != "RECORDING" and active.is_told:
                    changed.append((active, "RECORDING"))
            elif active.status == "RECORDING" and now - active.moved_at > SILENT_SECONDS:
                changed.append((active, "STARTING"))
        return changed

    def with_open(self, measured: F, now: float) -> F:
        """A recording with the bytes of the file that is being written; `now` Unix seconds."""
        active = self._by_id.get(measured.record.recording_id)
        if active is None:
            return measured
        elapsed = max(0.0, now - measured.record.began) if active.status == "RECORDING" else 0.0
        return replace(measured, size=measured.size + active.written, duration=max(measured.duration, elapsed))

    def list_silent(self, now: float) -> list[str]:
        """Cameras that gave no byte for SILENT_SECONDS."""
        return sorted({each.record.camera for each in self if now - each.moved_at > SILENT_SECONDS})

    def _table(self, active: ActiveRecording) -> dict[str, ActiveRecording]:
        return self._hours if active.record.reason == ALWAYS else self._asked

    def _show(self) -> None:
        self._by_id = {each.record.recording_id: each for each in self}
        self._shown = MappingProxyType({**self._hours, **self._asked})


def deadline_of(record: RecordingRecord, clock: Clock) -> float:
    """When it ends by itself, by trio's clock; an hour ends by the system clock."""
    if record.until is None or record.reason == ALWAYS:
        return math.inf
    return clock.monotonic() + record.until - clock.system


def end_of_hour(at: float) -> float:
    """The next full hour of UTC, Unix seconds."""
    return (at // HOUR_SECONDS + 1) * HOUR_SECONDS


def new_id() -> str:
    """The id of a new recording."""
    return f"rec_{secrets.token_hex(8)}"
