"""What proves a recording: the seals of its segments, heads, tombstones, and keys (docs/seals.md)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import trio
from msgspec import UNSET

from edged.errors import DependencyFailed
from edged.library.recording_files import RecordingFiles
from edged.operations.catalogue import OperationCall, operation
from edged.operations.pages import Cursor, NextCursor, read_cursor, write_cursor
from edged.operations.recordings import find
from edged.operations.rest import get
from edged.store.segments import SegmentRow

#: Segments of one reply, with a seal of some 700 bytes each.
MOST: Final = 200


class EvidenceParams(msgspec.Struct, frozen=True):
    """Of which recording; `limit` segments behind those of the reply whose `next_cursor` is given as `cursor`."""

    filename: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = MOST
    cursor: Cursor | None = None


class EvidenceFile(msgspec.Struct, frozen=True):
    """A segment: where it is fetched from, its bytes, and the text of its seal, "" while it has none."""

    file: str
    file_size: int
    seal: str
    download_url: str


class RecordingEvidence(msgspec.Struct, frozen=True):
    """`segments` in the order of their times; `statements` heads and tombstones over these, and `keys` the archive of
    keys, as signed texts; `seal` that of the joined file, "" while there is none."""

    filename: str
    device: str
    segments: list[EvidenceFile]
    statements: str
    keys: str
    seal: str
    next_cursor: NextCursor = UNSET


@operation("camera:read", rest=get("/api/recordings/{filename}/evidence"), counted_as="recordings")
async def get_recording_evidence(call: OperationCall, params: EvidenceParams) -> RecordingEvidence:
    """The seals of a recording's segments, with all that is needed to verify them elsewhere."""
    from edged.library.seal_evidence import NoKey, collect_page, make_archive

    record = await find(call, params.filename, "camera:read")
    recordings = call.services.recordings
    sealing = recordings.index.sealing
    assert sealing is not None, "the daemon always seals"
    # What is still being written has neither a seal nor a place of its own.
    files = [row for row in (await recordings.measure(record)).files if not RecordingFiles.is_open(row)]
    after = None if params.cursor is None else read_cursor(call.operation.name, params.cursor)
    behind = [row for row in files if after is None or _place(row) > after]
    page = behind[: params.limit]
    before = next((row for row in reversed(files) if after is not None and _place(row) <= after), None)
    try:
        found = await collect_page(sealing, page, before)
        keys = await make_archive(sealing)
    except NoKey as problem:
        raise DependencyFailed(str(problem), hint="make a key: edged signing-key create ES256") from problem
    seal = await trio.to_thread.run_sync(recordings.index.files.read_joined_seal, record.recording_id)
    # To wait for the seals may have taken seconds.
    await find(call, params.filename, "camera:read")
    return RecordingEvidence(
        filename=record.filename,
        device=record.camera,
        segments=[EvidenceFile(row.file, row.size, text, segment_url(row.file)) for row, text in found.segments],
        statements=found.statements.decode(),
        keys=keys.decode(),
        seal=seal.decode(errors="replace"),
        next_cursor=UNSET if len(page) == len(behind) else write_cursor(call.operation.name, _place(page[-1])),
    )


def segment_url(file: str) -> str:
    """Where a segment is fetched from, without a host."""
    return f"/files/segments/{file}"


def _place(row: SegmentRow) -> tuple[float, str]:
    return row.began, row.file
