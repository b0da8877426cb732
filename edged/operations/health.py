"""The health of the box: facts in, one assessment out. `/health`, get_system_status and the metrics all use this
one.

`assess` is pure. `gather_facts` reads the services from memory and never waits. To add a fact: a field of `Facts`,
the line of `gather_facts` that fills it, and the rule of `assess` that judges it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from edged.accounts.restores import COMMAND
from edged.cameras.model import Camera, Status
from edged.clock import iso
from edged.library.disks import Disk
from edged.library.obstacles import Obstacle
from edged.library.retention_sweep import Overdue
from edged.mediamtx import causes
from edged.operations.services import Services

#: What a problem is about.
Part: TypeAlias = Literal["mediamtx", "cameras", "disk", "store", "restore"]
PARTS: Final[tuple[Part, ...]] = ("mediamtx", "cameras", "disk", "store", "restore")
#: A sentence and the remedy.
Told: TypeAlias = tuple[str, str]
#: MediaMTX states in which streams flow, or are not wanted.
_WHOLE: Final = ("ready", "off")
_MIB: Final = 1024 * 1024


class MediaFact(msgspec.Struct, frozen=True):
    """MediaMTX: its state, what is wrong, and the remedy; `answers` is False while it is ready and does not answer."""

    status: str
    detail: str = ""
    remedy: str = ""
    answers: bool = True


class CameraFact(msgspec.Struct, frozen=True):
    """One camera, and whether it gives a picture or would if somebody asked; `problem` says why not; `is_unplugged`: a
    USB camera that is not there."""

    name: str
    works: bool
    problem: str = ""
    is_unplugged: bool = False


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the assessment rests on.

    `late_denials`: revocations in force that could not be written; `has_reserve`: the blocks reserved for
    revocations on a full disk exist; `is_saving`: the last commit of the trust database succeeded; `damage`: what is
    wrong with its file; `unconfirmed`: what is said of a restored trust database that is not confirmed, "" if there
    is none; `recording_obstacle`: why nothing is recorded; `recordings_overdue`: why recordings are older than allowed;
    `waiting_devices`: how many are plugged in and wait, since nobody can tell which cameras they are;
    `quarantined_ports`: left alone, since their contact comes and goes; `unrecorded`:
    cameras that have given no bytes for a while although nothing hinders it.
    """

    mediamtx: MediaFact
    cameras: tuple[CameraFact, ...] = ()
    waiting_devices: int = 0
    quarantined_ports: int = 0
    disks: tuple[Disk, ...] = ()
    late_denials: int = 0
    has_reserve: bool = True
    is_saving: bool = True
    damage: str = ""
    unconfirmed: str = ""
    recording_obstacle: Told | None = None
    recordings_overdue: Told | None = None
    unrecorded: tuple[str, ...] = ()


class Problem(msgspec.Struct, frozen=True):
    """Something that does not work: a sentence without paths and addresses, and the remedy.

    `is_start`: expected to pass by itself, since the box has just started. `stops_saving`: nothing can be saved.
    """

    part: Part
    message: str
    remedy: str = ""
    is_start: bool = False
    stops_saving: bool = False


class Assessment(msgspec.Struct, frozen=True):
    """Every problem, the most severe first."""

    problems: tuple[Problem, ...] = ()

    @property
    def can_save(self) -> bool:
        """Whether accounts and pictures can be written."""
        return not any(problem.stops_saving for problem in self.problems)

    @property
    def health(self) -> Literal["healthy", "degraded", "unhealthy"]:
        """As /health says it."""
        if not self.can_save:
            return "unhealthy"
        return "degraded" if self.problems else "healthy"

    @property
    def status(self) -> Literal["ready", "starting", "partial"]:
        """As get_system_status says it."""
        if not self.problems:
            return "ready"
        return "starting" if all(problem.is_start for problem in self.problems) else "partial"

    @property
    def message(self) -> str:
        """Every problem in one line."""
        if not self.problems:
            return "everything works"
        told = "; ".join(problem.message for problem in self.problems)
        return f"partial: {told}" if self.status == "partial" else told


def assess(facts: Facts) -> Assessment:
    """Judge the facts."""
    found = [
        *_judge_restore(facts),
        *_judge_store(facts),
        *_judge_disks(facts),
        *_judge_recording(facts),
        *_judge_media(facts),
        *_judge_cameras(facts),
    ]
    return Assessment(tuple(sorted(found, key=lambda problem: not problem.stops_saving)))


def see_all(_camera: str) -> bool:
    """For the health of the whole box, which names no camera and is nobody's view."""
    return True


def gather_facts(services: Services, sees: Callable[[str], bool]) -> Facts:
    """The facts of now, of the cameras that `sees` admits by their names; the disks as they were checked last."""
    media, registrar = services.mediamtx.state, services.registrar
    cameras = services.cameras.all()
    sees_every_one = all(sees(camera.name) for camera in cameras)
    return Facts(
        mediamtx=MediaFact(media.status, media.detail, media.remedy, media.answers),
        cameras=tuple(
            CameraFact(camera.name, camera.status is Status.CONNECTED, camera.problem, camera.is_unplugged)
            for camera in cameras
            if sees(camera.name)
        ),
        # Nobody knows which cameras these are: told to whoever sees all.
        waiting_devices=services.cameras.waiting if sees_every_one else 0,
        quarantined_ports=services.cameras.quarantined if sees_every_one else 0,
        disks=services.disks.latest,
        late_denials=registrar.pending if registrar.is_late else 0,
        has_reserve=registrar.has_reserve,
        is_saving=registrar.is_saving,
        damage=registrar.damage,
        unconfirmed=services.restores.message,
        recording_obstacle=_tell(services.recordings.obstacle),
        recordings_overdue=_tell(find_overdue(services, sees)),
        unrecorded=tuple(filter(sees, services.recordings.silent)),
    )


def find_overdue(services: Services, sees: Callable[[str], bool]) -> Overdue | None:
    """Why recordings are older than allowed, of the cameras that `sees` admits."""
    found = services.recordings.sweep.overdue
    return None if found is None else found.narrowed(sees)


def _tell(problem: Obstacle | Overdue | None) -> Told | None:
    return None if problem is None else (problem.message, problem.remedy)


def assess_services(services: Services, sees: Callable[[str], bool]) -> Assessment:
    """`assess` of the facts of now, as `gather_facts` gives them."""
    return assess(gather_facts(services, sees))


class Report(NamedTuple):
    """An assessment with what the health routes say besides: ISO 8601 `time`; seconds of `uptime` since a moment by the
    daemon's clock (`begin_uptime`); denials that are `pending`, and whether one is late; bytes of the reserve for them,
    None without one; free bytes of the disk of the state."""

    assessment: Assessment
    time: str
    uptime: float
    pending: int
    is_late: bool
    reserve_bytes: int | None
    free_bytes: int


def begin_uptime(services: Services) -> float:
    """Now, for `report`."""
    return services.clock.monotonic()


async def report(services: Services, since: float) -> Report:
    """What is now, with the disks as they are now."""
    await services.disks.refresh()
    state = next((disk for disk in services.disks.latest if disk.name == "state"), None)
    clock, registrar = services.clock, services.registrar
    return Report(
        assess_services(services, see_all), iso(clock.now()), round(clock.monotonic() - since, 3), registrar.pending,
        registrar.is_late, registrar.reserve_bytes, state.free_bytes if state else 0,
    )  # fmt: skip


def count_causes(cameras: Iterable[Camera]) -> dict[str, int]:
    """Cameras whose sources give no picture, by the slugs of causes.SLUGS that occur, for the metrics."""
    found = Counter(camera.cause for camera in cameras)
    return {slug: found[slug] for slug in causes.SLUGS if found[slug]}


def count_problems(services: Services) -> dict[str, int]:
    """Problems of each part, for the metrics."""
    found = assess_services(services, see_all).problems
    return {part: sum(problem.part == part for problem in found) for part in PARTS}


def _judge_restore(facts: Facts) -> Iterator[Problem]:
    if facts.unconfirmed:
        yield Problem(
            "restore", facts.unconfirmed,
            f"revoke what was revoked since then, then on this machine: {COMMAND}",
        )  # fmt: skip


def _judge_store(facts: Facts) -> Iterator[Problem]:
    if not facts.is_saving:
        yield Problem(
            "store", "what was to be saved last could not be written",
            "free space on the disk of paths.state, or look for disk errors: journalctl -k", stops_saving=True,
        )  # fmt: skip
    if facts.damage:
        yield Problem(
            "store", "the trust database is damaged: what is in force is in memory, a restart will refuse the file",
            "the journal of edged names the backup to restore; look for disk errors: journalctl -k", stops_saving=True,
        )  # fmt: skip
    if facts.late_denials:
        yield Problem(
            "store", f"{facts.late_denials} of what was denied is not saved yet, and a restart would undo it",
            "do not restart edged; free space on the disk of paths.state",
        )  # fmt: skip
    if not facts.has_reserve:
        yield Problem(
            "store", "the space that is kept for denials on a full disk is short",
            "free space on the disk of paths.state",
        )  # fmt: skip


def _judge_disks(facts: Facts) -> Iterator[Problem]:
    for disk in facts.disks:
        if disk.is_spent:
            what = "cannot be written to" if not disk.writable else "is full"
            yield Problem(
                "disk", f"the disk of {disk.setting} {what}",
                f"free space there, or make it writable for edged; {disk.setting} in the settings names it",
                stops_saving=disk.name == "state",
            )  # fmt: skip
        elif disk.is_low:
            yield Problem(
                "disk", f"the disk of {disk.setting} has {disk.free_bytes // _MIB} MiB left",
                "free space there: below limits.disk_low_mib this is shown",
            )  # fmt: skip


def _judge_recording(facts: Facts) -> Iterator[Problem]:
    for told in (facts.recording_obstacle, facts.recordings_overdue):
        if told is not None:
            yield Problem("disk", *told)
    if facts.unrecorded:
        yield Problem(
            "cameras", f"nothing is recorded of {', '.join(facts.unrecorded)}",
            "see that the camera gives a picture, and that MediaMTX may write to recording.folder",
        )  # fmt: skip


def _judge_media(facts: Facts) -> Iterator[Problem]:
    media = facts.mediamtx
    if media.status not in _WHOLE:
        is_start = media.status == "starting"
        yield Problem("mediamtx", f"MediaMTX: {media.detail or media.status}", media.remedy, is_start=is_start)
    elif not media.answers:
        yield Problem("mediamtx", "MediaMTX does not answer", media.remedy)


def _judge_cameras(facts: Facts) -> Iterator[Problem]:
    if waiting := facts.waiting_devices:
        yield Problem(
            "cameras", f"{waiting} {'devices wait' if waiting > 1 else 'device waits'}, since nobody can tell which"
            f" {'cameras they are' if waiting > 1 else 'camera it is'}",
            "say which: edged camera devices names them, edged camera bind says which camera one is",
        )  # fmt: skip
    if ports := facts.quarantined_ports:
        yield Problem(
            "cameras", f"{ports} {'ports are' if ports > 1 else 'port is'} left alone: the contact comes and goes",
            "see to cable and power; edged camera devices names them, edged camera release has one looked at again",
        )  # fmt: skip
    unplugged = sum(camera.is_unplugged for camera in facts.cameras)
    silent = sum(not camera.works for camera in facts.cameras) - unplugged
    if silent:
        yield Problem(
            "cameras", f"{silent} of {len(facts.cameras)} cameras give no picture",
            "get_camera_list shows which, get_camera_status why",
        )  # fmt: skip
    if unplugged:
        yield Problem(
            "cameras", f"{unplugged} of {len(facts.cameras)} cameras {'are' if unplugged > 1 else 'is'} not plugged in",
            "plug it in again, or remove a camera that will not come back: edged camera remove cameraN",
        )  # fmt: skip
