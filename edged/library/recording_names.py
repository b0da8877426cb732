"""Names of recordings: checked, completed, and made unique."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from edged.errors import InvalidParams, InvalidState, NotFound
from edged.library.snapshots import check_name
from edged.store import recordings as rows
from edged.store.recordings import Format, RecordingRecord

_ENDINGS: Final[Mapping[Format, str]] = {"fmp4": ".mp4", "mp4": ".mp4", "mkv": ".mkv"}
#: Characters of a given name; a counter may be added, up to a highest one.
_LONGEST_NAME: Final = 100
_HIGHEST_COUNT: Final = 10_000


def no_recording(name: str) -> NotFound:
    """The one error for a recording that is not there and for one that the asker may not know of."""
    return NotFound(f"no recording {name!r}", hint="list_recordings names all", resource="file", id=name)


def no_segment(name: str) -> NotFound:
    """As `no_recording`, of one file of a recording."""
    return NotFound(f"no segment {name!r}", hint="get_recording_evidence names all", resource="file", id=name)


def complete_name(filename: str | None, camera: str, form: Format, now: float) -> str:
    """The name of a new recording: as given, with the ending of its format; without one, camera and time (UTC).

    Raises InvalidParams for an unsafe name, or for the ending of another format.
    """
    ending = _ENDINGS[form]
    if not filename:
        return f"{camera}_{datetime.fromtimestamp(now, UTC):%Y-%m-%d_%H-%M-%S}{ending}"
    name = check_name(filename)
    if len(name) > _LONGEST_NAME:
        raise InvalidParams(f"filename is longer than {_LONGEST_NAME} characters", field="filename")
    suffix = Path(name).suffix.lower()
    if suffix == ending:
        return name
    if suffix in _ENDINGS.values():
        raise InvalidParams(f"filename ends in {suffix} but the format is {form}", field="filename")
    return f"{name}{ending}"


def insert_named(connection: sqlite3.Connection, record: RecordingRecord) -> RecordingRecord:
    """Its row, under a name that is free: the second `yard.mp4` becomes `yard-1.mp4`. Raises InvalidState."""
    path = Path(record.filename)
    for count in range(_HIGHEST_COUNT):
        name = f"{path.stem}-{count}{path.suffix}" if count else record.filename
        if not rows.is_taken(connection, name):
            named = replace(record, filename=name)
            rows.insert(connection, named)
            return named
    raise InvalidState(f"{_HIGHEST_COUNT} recordings are named like {record.filename!r}", hint="choose another name")
