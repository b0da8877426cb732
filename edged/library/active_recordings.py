"""The recordings that run: those that somebody asked for, and the hours of cameras that are always recorded."""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias

from edged.store.recordings import RecordingRecord

Status: TypeAlias = Literal["STARTING", "RECORDING", "STOPPED", "ERROR"]
#: The reason in the record of an hour of a camera that is always recorded.
ALWAYS: Final = "always"
HOUR_SECONDS: Final = 3600.0


class Recorders(Protocol):
    """What records: MediaMTX, and the encoders that it records."""

    def set_recorded(self, cameras: Collection[str]) -> None:
        """From here on these cameras are recorded, and no others. Returns at once."""

    def wake(self, camera: str) -> None:
        """Its encoder is needed for some seconds more. Returns at once."""


@dataclass(frozen=True, slots=True)
class RecordingChanged:
    """A recording began (STARTING), gave its first bytes (RECORDING), ended or failed; `problem` says why.

    `duration` seconds and `size` bytes of one that ended.
    """

    record: RecordingRecord
    status: Status
    problem: str = ""
    duration: float = 0.0
    size: int = 0


@dataclass(slots=True)
class ActiveRecording:
    """A recording that runs.

    `deadline` is when it ends by itself, by trio's clock; `written` bytes of the file that is being written; `first`
    and `last`, Unix seconds, begin and end of the files that it gave so far.
    """

    record: RecordingRecord
    deadline: float = math.inf
    status: Status = "STARTING"
    written: int = 0
    first: float = math.inf
    last: float = -math.inf

    def holds(self, at: float) -> bool:
        """Whether a moment, Unix seconds, lies in the hour of a camera that is always recorded."""
        return self.record.began <= at < (self.record.until or math.inf)


class ActiveRecordings:
    """At most one that was asked for and one hour for each camera."""

    def __init__(self) -> None:
        self._asked: dict[str, ActiveRecording] = {}
        self._hours: dict[str, ActiveRecording] = {}
        self._shown: Mapping[str, ActiveRecording] = MappingProxyType({})

    @property
    def by_camera(self) -> Mapping[str, ActiveRecording]:
        """One for each camera that is recorded: the one that was asked for, else the hour."""
        return self._shown

    def __iter__(self) -> Iterator[ActiveRecording]:
        return iter((*self._asked.values(), *self._hours.values()))

    def find_asked(self, camera: str) -> ActiveRecording | None:
        """The one that somebody asked for."""
        return self._asked.get(camera)

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

    def _table(self, active: ActiveRecording) -> dict[str, ActiveRecording]:
        return self._hours if active.record.reason == ALWAYS else self._asked

    def _show(self) -> None:
        self._shown = MappingProxyType({**self._hours, **self._asked})


def end_of_hour(at: float) -> float:
    """The next full hour of UTC, Unix seconds."""
    return (at // HOUR_SECONDS + 1) * HOUR_SECONDS


def new_id() -> str:
    """The id of a new recording."""
    return f"rec_{secrets.token_hex(8)}"
