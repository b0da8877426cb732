"""Network cameras and test pictures: described by the settings or added by a call, never discovered.

An added camera is bound to its slot, whatever is changed of it; one of the settings is recognised by its id or source.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeAlias
from urllib.parse import urlsplit

import structlog
import trio
from msgspec.structs import replace

from edged.access.grants import Commit
from edged.cameras.addresses import replace_host
from edged.cameras.entries import CameraEntry, recognise
from edged.cameras.model import Camera, Status
from edged.cameras.slots import Slots
from edged.config.sources import KINDS, with_login
from edged.errors import StartFailed
from edged.store.cameras import Slot

_log = structlog.get_logger("cameras")

#: Seconds between two looks at the test cameras' files.
TEST_INTERVAL: Final = 0.2


class Shown(Protocol):
    """The registry, as this module uses it."""

    def put(self, number: int, camera: Camera) -> None: ...
    def shown(self, number: int) -> Camera | None: ...
    def forget(self, number: int) -> None: ...


#: Commits an added camera with its slot, in one transaction, and what both were before (None: the slot is new);
#: raises EdgedError if it cannot.
SaveAdded: TypeAlias = Callable[["AddedSlot", "AddedSlot | None", Commit], Awaitable[None]]
#: Commits that this added camera is no more.
RemoveAdded: TypeAlias = Callable[["AddedSlot", Commit], Awaitable[None]]


class AddedSlot(NamedTuple):
    """A slot; and the added camera in it, None while there is none."""

    slot: Slot
    one: CameraEntry | None


class FixedCameras:
    """The described cameras. `state`: folder that holds `test-cameras/`."""

    def __init__(
        self, slots: Slots, registry: Shown, state: Path, save_added: SaveAdded, remove_added: RemoveAdded
    ) -> None:
        self._slots = slots
        self._registry = registry
        self._tests = state / "test-cameras"
        self._save_added = save_added
        self._remove_added = remove_added
        self._entries: dict[int, CameraEntry] = {}
        #: Set when the settings describe others; another one takes its place.
        self._described = trio.Event()
        #: Paths that the settings give, also to USB cameras: an added camera has to do without them.
        self._taken: frozenset[str] = frozenset()

    @property
    def entries(self) -> Mapping[int, CameraEntry]:
        """What is described now, by slot."""
        return MappingProxyType(self._entries)

    async def set_configured(self, configured: Sequence[CameraEntry], added: Sequence[CameraEntry] = ()) -> None:
        """These are the settings' cameras now, and no other; slots are found or made, and stored before any is shown.

        `added`: cameras that calls have added, at the start; later they stay as they are. Raises StoreFailed,
        Overloaded, StartFailed; what was shown before is then still shown.
        """
        kept = added or tuple(one for one in self._entries.values() if one.number is not None)
        wanted = [one for one in configured if one.kind != "usb"]
        numbers = {one.number for one in kept}
        found = recognise(wanted, [slot for slot in self._slots.all() if slot.number not in numbers])
        entries: dict[int, CameraEntry] = {}
        for one, slot in zip(wanted, found, strict=True):
            before = slot
            slot = replace(
                slot or Slot(self._slots.first_free(), {}, one.settings.name, one.slot_kind),
                identity=one.identity, label=one.settings.name, kind=one.slot_kind, path=one.settings.path,
            )  # fmt: skip
            if one.kind == "test":
                self._plug_in(one, before)
            await self._slots.give(slot)
            await self._slots.store(slot)
            entries[slot.number] = one
        entries |= {one.number: one for one in kept if one.number is not None}
        # No checkpoint from here on, so that readers of the changes see all of them at once.
        self._taken = frozenset(one.settings.path for one in configured) - {""}
        for number in self._entries.keys() - entries.keys():
            self._registry.forget(number)
        self._entries = entries
        for number, one in entries.items():
            self._show(number, one)
        self._described.set()
        self._described = trio.Event()

    async def set_added(self, one: CameraEntry, commit: Commit) -> Camera:
        """Add a camera (`number` None), or change one that was added; it is stored before it is shown.

        A camera that was removed is recognised and gets its slot back. Raises StoreFailed or Overloaded.
        """
        slot = next((slot for slot in self._slots.all() if slot.number == one.number), None)
        if slot is None:
            (slot,) = recognise([one], [slot for slot in self._slots.all() if slot.number not in self._entries])
        before = None if slot is None else AddedSlot(slot, self._entries.get(slot.number))
        slot = slot or Slot(self._slots.first_free(), {}, one.settings.name, one.slot_kind)
        slot = replace(slot, identity=one.identity, label=one.settings.name, kind=one.slot_kind, path=one.settings.path)
        one = replace(one, number=slot.number)
        # A commit that was begun may come true, so that its number is not given back meanwhile.
        with trio.CancelScope(shield=True), self._slots.reserved(slot):
            await self._save_added(AddedSlot(slot, one), before, commit)
        self._entries[slot.number] = one
        return self._show(slot.number, one)

    async def remove(self, number: int, commit: Commit) -> None:
        """Remove an added camera. Its slot stays stored and is not given to another camera."""
        (slot,) = (slot for slot in self._slots.all() if slot.number == number)
        with trio.CancelScope(shield=True):
            await self._remove_added(AddedSlot(slot, self._entries[number]), commit)
        self._entries.pop(number, None)
        self._registry.forget(number)

    async def look_at_files(self) -> None:
        """Show a test camera as plugged in while its file exists; runs until cancelled."""
        while True:
            tests = [(number, one) for number, one in self._entries.items() if one.kind == "test"]
            if not tests:
                await self._described.wait()
            await trio.sleep(TEST_INTERVAL)
            for number, one in tests:
                camera = self._registry.shown(number)
                if camera is None or self._entries.get(number) is not one:
                    continue
                status = self._status(one)
                if camera.is_attached is not (status is Status.CONNECTED):
                    self._registry.put(number, replace(camera, status=status, cause="", problem=""))

    def _show(self, number: int, one: CameraEntry) -> Camera:
        camera = self._camera(number, one)
        self._registry.put(number, camera)
        return camera

    def _camera(self, number: int, one: CameraEntry) -> Camera:
        path, tells_figures = one.settings.path, KINDS[one.kind].tells_figures
        if one.number is not None and path in self._taken:
            _log.warning("path_taken", camera=f"camera{number}", path=path, remedy="a camera of the settings has it")
            path = ""
        return Camera(
            name=f"camera{number}",
            label=one.settings.name,
            kind=one.kind,
            status=self._status(one),
            url=_url(one),
            always_on=one.always_on,
            record_always=one.settings.record == "always",
            schedule=one.settings.windows,
            pre_roll=one.settings.pre_roll_seconds,
            max_age_days=one.settings.max_age_days,
            max_size_gb=one.settings.max_size_gb,
            # Such a stream is what the camera makes it: nothing is known of it until it has been seen.
            width=0 if tells_figures else one.settings.width,
            height=0 if tells_figures else one.settings.height,
            rate=0.0 if tells_figures else one.settings.rate,
            bitrate=one.settings.bitrate,
            encoder=one.settings.encoder,
            problem="it is where an added camera may not be: see sources.also_allowed" if _is_nowhere(one) else "",
            path=path,
            transport=one.settings.rtsp_transport,
            stand_in=one.stand_in,
            sub_url=_sub_url(one),
            audio=one.settings.audio,
            ribbon=one.settings.ribbon,
            still_seconds=one.settings.still_seconds,
            is_pinned=one.number is not None,
        )

    def _status(self, one: CameraEntry) -> Status:
        if one.kind != "test":
            return Status.ERROR if _is_nowhere(one) else Status.CONNECTED
        return Status.CONNECTED if (self._tests / one.settings.name).exists() else Status.DISCONNECTED

    def _plug_in(self, one: CameraEntry, before: Slot | None) -> None:
        """A new test camera is there to begin with; one that was renamed stays as it was."""
        file = self._tests / one.settings.name
        try:
            self._tests.mkdir(parents=True, exist_ok=True)
            if before is None or before.kind != "test":
                file.touch()
            elif before.label != one.settings.name and (old := self._tests / before.label).exists():
                old.rename(file)
        except OSError as failure:
            raise StartFailed(
                f"cannot make {file}: {failure.strerror}", hint="the state folder must be writable"
            ) from failure


def _url(one: CameraEntry) -> str | None:
    """What is opened: of an added camera the literal address that was judged, and nothing else."""
    if not one.settings.is_network:
        return None
    return one.settings.source if one.number is None else one.address or None


def _sub_url(one: CameraEntry) -> str | None:
    """The same of its smaller stream, which is at the same host."""
    url, sub = _url(one), one.settings.sub_source
    if not sub or url is None:
        return None
    sub = with_login(sub, one.settings.source)
    return sub if one.number is None else replace_host(sub, ip_address(urlsplit(url).hostname or ""))


def _is_nowhere(one: CameraEntry) -> bool:
    return one.number is not None and one.settings.is_network and not one.address
