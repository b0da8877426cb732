"""Something that a sensor or a script has noticed: an event, a recording and a picture of that moment (contract 3)."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
import structlog

from edged.access.asking import asked_by
from edged.clock import iso, iso_or_none
from edged.credentials.decision import outside_reason
from edged.errors import EdgedError, InvalidParams, Refused
from edged.library.event_kinds import check_kind
from edged.operations.catalogue import OperationCall, operation
from edged.operations.file_params import confirmation, grant_on
from edged.operations.pictures import describe_problem
from edged.operations.rest import create
from edged.operations.snapshots import SnapshotParams, keep_picture
from edged.store.recordings import RecordingRecord

#: Longest recording of one event, seconds; another event of the camera prolongs it.
LONGEST_SECONDS: Final = 3600
LONGEST_TEXT: Final = 500
#: Control characters, halves of characters, ends of lines and paragraphs; and what turns the direction of a text.
_REFUSED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_log = structlog.get_logger("events")


class CreateEventParams(msgspec.Struct, frozen=True):
    """On which camera, which kind of event in the reporter's own words, and what people may read of it. The camera is
    recorded for `record_seconds` from now, and a picture is kept unless `snapshot` is false."""

    device: str
    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    text: Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)] = ""
    record_seconds: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_SECONDS)] | None = None
    snapshot: bool = True


class ReportedRecording(msgspec.Struct, frozen=True):
    """The recording that has the event: until when it runs, None until it is stopped; `is_new`: for this event."""

    recording_id: str
    filename: str
    until: str | None
    is_new: bool


class ReportedPicture(msgspec.Struct, frozen=True):
    """The picture of that moment, bytes."""

    filename: str
    file_size: int
    download_url: str


class ReportProblem(msgspec.Struct, frozen=True):
    """What of it could not be done, `recording` or `snapshot`, or not yet; the reason as contract 4b has it."""

    part: str
    reason: str
    message: str


class ReportedEvent(msgspec.Struct, frozen=True):
    """The event stands, whatever `problems` say of the rest."""

    device: str
    event_id: str
    kind: str
    text: str
    time: str
    recording: ReportedRecording | None
    snapshot: ReportedPicture | None
    problems: list[ReportProblem]


@operation(
    "camera:write",
    on_camera=True,
    rest=create("/api/cameras/{device}/events", source="body"),
    counted_as="recordings",
)
async def create_event(call: OperationCall, params: CreateEventParams) -> ReportedEvent:
    """Report an event on a camera: kept and notified at once, then a picture is taken. A recording that runs goes on,
    for longer if it would end before `record_seconds` from now."""
    camera, services = call.camera, call.services
    kind, text = check_kind(params.kind), check_text(params.text)
    confirm = confirmation(call, "camera:write", camera.name)
    event_id = f"event_{secrets.token_hex(8)}"
    problems: list[ReportProblem] = []
    recording = None
    if params.record_seconds is not None:
        recording = await _record(call, params.record_seconds, confirm, problems)
    confirm()
    details = {"event_id": event_id} | ({"text": text} if text else {})
    if recording is not None:
        details |= {"recording_id": recording.recording_id, "filename": recording.filename}
    time = services.events.put(kind, camera.name, details)
    _log.info("event_reported", camera=camera.name, kind=kind, event_id=event_id, **asked_by())
    picture = await _take_picture(call, event_id, problems) if params.snapshot else None
    return ReportedEvent(camera.name, event_id, kind, text, iso(time), recording, picture, problems)


def check_text(text: str) -> str:
    """The text itself. Raises InvalidParams for one that would not be shown as it is."""
    if any(each in _TURNS or unicodedata.category(each) in _REFUSED for each in text):
        raise InvalidParams("text has a control character", hint="send one line of plain text", field="text")
    return text


async def _record(
    call: OperationCall, seconds: float, confirm: Callable[[], None], problems: list[ReportProblem]
) -> ReportedRecording | None:
    """Raises Refused."""
    camera, caller = call.camera, call.session.caller
    assert caller is not None, "the gate lets nobody in without a caller"
    confirm()
    try:
        record, is_new = await call.services.recordings.cover(
            camera.name, seconds, made_by=caller.who, grant=grant_on(call, "camera:write", camera.name)
        )
    except EdgedError as problem:
        confirm()
        problems.append(_explain("recording", problem))
        return None
    if not camera.is_attached:
        problems.append(
            ReportProblem(
                "recording", "dependency_failed", f"{_describe_absence(call)}: it is recorded when it returns"
            )
        )
    return _show(record, is_new)


async def _take_picture(call: OperationCall, event_id: str, problems: list[ReportProblem]) -> ReportedPicture | None:
    try:
        saved = await keep_picture(call, SnapshotParams(call.camera.name), event_id)
    except EdgedError as problem:
        problems.append(_explain("snapshot", problem))
        return None
    return ReportedPicture(saved.filename, saved.size, f"/files/snapshots/{saved.filename}")


def _explain(part: str, problem: EdgedError) -> ReportProblem:
    reason = outside_reason(problem.reason) if isinstance(problem, Refused) else problem.slug
    return ReportProblem(part, reason, problem.sentence)


def _describe_absence(call: OperationCall) -> str:
    camera = call.camera
    problem = describe_problem(camera, call.session.caller)
    return f"{camera.name} is {camera.status.value.lower()}" + (f" ({problem})" if problem else "")


def _show(record: RecordingRecord, is_new: bool) -> ReportedRecording:
    return ReportedRecording(record.recording_id, record.filename, iso_or_none(record.until), is_new)
