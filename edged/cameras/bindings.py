"""Which camera each device is: decided (identity.py), stored, then shown.

Decisions are made one after the other, since each looks at all others. A device of which nobody can tell which camera
it is waits: the cameras that it may be say so, and each later decision is a reason to judge it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog
import trio
from msgspec.structs import replace

from edged.access.grants import Commit
from edged.cameras.entries import ID, CameraEntry
from edged.cameras.fixed import Shown
from edged.cameras.identity import DRIVER, PATH, PORT, SERIAL, Decision, Present, decide, find_part
from edged.cameras.model import Camera, Status
from edged.cameras.parts import Part, choose_first, is_surely_a_camera
from edged.cameras.slots import SaveChanged, Slots
from edged.cameras.usb_camera import unplugged, usb_camera
from edged.config.model import CameraSettings
from edged.errors import InvalidState, NotFound
from edged.store.cameras import Slot

log = structlog.get_logger("cameras")

#: Why a device is the camera that bind_camera made it.
BY_HAND: Final = "an administrator said so"


class DeviceNotFound(NotFound):
    """Nothing that is a camera, or may be one, is plugged in there."""

    def __init__(self, port: str) -> None:
        super().__init__(
            f"no device that is a camera, or may be one, is at {port!r}",
            hint="list_camera_devices names the ports", resource="device", id=port,
        )  # fmt: skip


class Bindings:
    """`plugged_in` are the nodes that there are now, `leaving` those whose removal is not settled yet."""

    def __init__(
        self,
        slots: Slots,
        registry: Shown,
        matches: Sequence[CameraEntry],
        *,
        plugged_in: Callable[[], Iterable[Part]],
        leaving: Callable[[], Iterable[Part]],
    ) -> None:
        self._slots = slots
        self._registry = registry
        self._matches = matches
        self._plugged_in = plugged_in
        self._leaving = leaving
        self._deciding = trio.Lock()
        #: Set when a device became another camera than it was, or none; another one takes its place.
        self.changed = trio.Event()
        #: Why a node is no camera, as it was logged last, by its path.
        self._told: dict[str, str] = {}

    async def settle(self, parts: Sequence[Part]) -> None:
        """Show the one camera that a device is; `parts` are its nodes, all asked. Raises StoreFailed, Overloaded."""
        async with self._deciding:
            first = choose_first(parts)
            mine = [part for part in parts if part is first or (part.gives_pictures and self._is_own(part, first))]
            for part in parts:
                if part not in mine:
                    self._pass_over(part, first)
            for part in mine:
                part.why_not = ""
                self._told.pop(part.node.sys_path, None)
                await self._show(part, [other.key for other in mine if other is not part], is_first=part is first)
            self._tell_who_waits()

    def release(self, part: Part) -> None:
        """A node is not the camera any more that it was."""
        number, part.slot, part.waits, part.candidates = part.slot, None, "", ()
        if number is not None:
            if (camera := self._registry.shown(number)) is not None:
                self._registry.put(number, unplugged(camera))
            self.judge_anew()

    def quarantine(self, part: Part, why: str) -> None:
        """The port of a node is left alone: what is the camera there says so and gives no picture."""
        part.quarantine = why
        camera = None if part.slot is None else self._registry.shown(part.slot)
        if camera is not None:
            shown = replace(camera, status=Status.ERROR, node=part.node.node, problem=why, cause="")
            self._registry.put(int(camera.name.removeprefix("camera")), shown)

    def leave(self, part: Part) -> None:
        """A node was unplugged, and nothing came after it."""
        self.forget(part.node.sys_path)
        self.release(part)
        self._tell_who_waits()

    def forget(self, path: str) -> None:
        """A node is gone."""
        self._told.pop(path, None)

    def pass_over(self, part: Part, why: str) -> None:
        """Log once why a node is no camera."""
        part.why_not = why
        if self._told.get(part.node.sys_path) != why:
            self._told[part.node.sys_path] = why
            name = part.node.properties.get("ID_V4L_PRODUCT")
            log.info("device_passed_over", node=part.node.node, name=name, why=why)

    async def set_matches(self, matches: Sequence[CameraEntry]) -> None:
        """These are the settings' entries now. Raises StoreFailed, Overloaded."""
        self._matches = matches
        paths = {one.settings.path for one in matches}
        bound = {part.slot for part in self._plugged_in()}
        for slot in self._slots.all():
            camera = self._registry.shown(slot.number)
            if slot.kind == "usb" and slot.number not in bound and camera is not None and camera.path not in paths:
                self._registry.put(slot.number, replace(camera, path=camera.name))
        async with self._deciding:
            for part in list(self._plugged_in()):
                if part.slot is not None and part.found is not None and not part.quarantine:
                    await self._show(part, (), is_first=False)
        self.judge_anew()

    @property
    def waiting(self) -> int:
        """How many devices wait, since nobody can tell which cameras they are."""
        return sum(bool(part.waits) for part in self._plugged_in())

    def judge_anew(self) -> None:
        """Which cameras are stored has changed: devices that wait may be judged otherwise now."""
        self.changed.set()
        self.changed = trio.Event()

    def find(self, port: str) -> Part:
        """The one device at this port, or at this node, that is a camera or waits. Raises NotFound, InvalidState."""
        found = [
            part for part in self._plugged_in()
            if port in (part.record[PORT], part.record[PATH], part.node.node) and (part.slot is not None or part.waits)
        ]  # fmt: skip
        if not found:
            raise DeviceNotFound(port)
        if len(found) > 1:
            nodes = " and ".join(part.node.node for part in found)
            raise InvalidState(f"{nodes} are at {port}", hint="name one of them by its node")
        return found[0]

    async def bind(self, part: Part, number: int | None, save: SaveChanged, commit: Commit) -> Slot:
        """Somebody says which camera a device is, None for a new one.

        A device that was another camera before changes places with the device of this one. Raises InvalidState, and
        what the commit raises: nothing has changed then.
        """
        async with self._deciding:
            mine, target, holder = self._check_bind(part, number)
            if target is None:
                new = self._new_slot(part, self._record(part), "", "", f"{BY_HAND}: it is a new camera")
                changes = [new]
            elif target.number == part.slot:
                return target
            else:
                new = _with_record(target, self._record(part), BY_HAND)
                changes = [new]
                if mine is not None:
                    record = self._record(holder) if holder is not None else target.identity
                    why = BY_HAND if holder is not None else target.binding
                    changes.append(_with_record(mine, record, why))
            await self._slots.change(changes, save, commit)
            moved = [part] if holder is None else [part, holder]
            for one in moved:
                self.release(one)
            for one in moved:
                await self._show(one, (), is_first=True)
            self._tell_who_waits()
            self.judge_anew()
        return new

    def _check_bind(self, part: Part, number: int | None) -> tuple[Slot | None, Slot | None, Part | None]:
        """The camera that the device is, that it is to be, and the device that this one is. Raises InvalidState."""
        slots = {slot.number: slot for slot in self._slots.all()}
        port, entry = part.record[PORT], self._entry_of(part)
        mine = None if part.slot is None else slots[part.slot]
        if part not in self._plugged_in():
            raise InvalidState(f"nothing is plugged in at {port} any more", hint="ask list_camera_devices again")
        if part.quarantine:
            raise InvalidState(f"the port {port} is left alone, since it flaps", hint="edged camera release, first")
        if entry is not None and entry.settings.id:
            raise InvalidState(
                f"the settings say with the id {entry.settings.id!r} which camera the device at {port} is",
                hint=f"change {entry.place or 'the settings'}, then: systemctl reload edged",
            )
        if number is None:
            if mine is not None:
                raise InvalidState(f"the device at {port} is {mine.name}", hint="name the camera that it is to be")
            if self._slots.is_full:
                raise InvalidState("there are too many cameras", hint="forget one that is not used any more")
            return None, None, None
        target = slots.get(number)
        if target is None or target.kind != "usb" or target.is_retired:
            raise InvalidState(f"camera{number} is no camera that is plugged in here", hint="name one that is")
        holder = next((one for one in self._plugged_in() if one.slot == number), None)
        if holder is not None and mine is None:
            raise InvalidState(
                f"{target.name} is the device at {holder.record[PORT]}", hint="say first which camera that one is"
            )
        return mine, target, holder

    async def rename(self, number: int, label: str, save: SaveChanged, commit: Commit) -> None:
        """Somebody gives a camera another name. Raises InvalidState, and what the commit raises: nothing has changed
        then."""
        async with self._deciding:
            slot = next(slot for slot in self._slots.all() if slot.number == number)
            part = next((part for part in self._plugged_in() if part.slot == number), None)
            entry = None if part is None else self._entry_of(part)
            if entry is not None:
                raise InvalidState(
                    f"{slot.name} has its name from {entry.place or 'the settings'}",
                    hint="change it there, then: systemctl reload edged",
                )
            await self._slots.change([replace(slot, label=label)], save, commit)
            if (camera := self._registry.shown(number)) is not None:
                self._registry.put(number, replace(camera, label=label))

    def _is_own(self, part: Part, first: Part | None) -> bool:
        """Whether a further node is a camera of its own: it was one before, or the settings describe it alone."""
        if find_part(part.record, self._slots.all()) is not None:
            return True
        entry = self._entry_of(part)
        return entry is not None and first is not None and not entry.fits(first.node.properties)

    def _pass_over(self, part: Part, first: Part | None) -> None:
        self.release(part)
        if part.found is not None and not part.found.is_camera:
            self.pass_over(part, part.found.why_not)
        elif part.gives_pictures and first is not None:
            what = "the infrared or depth picture" if part.is_colourless else "another picture"
            self.pass_over(part, f"it is {what} of the device at {first.node.node}")
        else:
            part.why_not = part.problem

    def _entry_of(self, part: Part) -> CameraEntry | None:
        return next((one for one in self._matches if one.fits(part.node.properties)), None)

    async def _show(self, part: Part, siblings: Sequence[tuple[str, str]], *, is_first: bool) -> None:
        """Bind a node to its slot and show it. A new slot is stored first, so that its number is never another's."""
        entry = self._entry_of(part)
        settings = entry.settings if entry else None
        slot = self._slot_of(part, settings, siblings, may_be_new=is_first or entry is not None)
        if slot is None:
            self.release_slot(part)
            return
        for other in (*self._plugged_in(), *self._leaving()):
            if other is not part and other.slot == slot.number:
                other.slot = None
        is_news = part.slot != slot.number
        if part.slot is not None and is_news:
            self.release(part)
        part.slot = slot.number
        await self._slots.give(slot)
        self._take_path(slot)
        self._registry.put(slot.number, usb_camera(slot, part, settings))
        if is_news:
            log.info("camera_bound", camera=slot.name, node=part.node.node, why=slot.binding)
            self.judge_anew()
        await self._slots.store(slot)

    def release_slot(self, part: Part) -> None:
        """A node is no camera for now, and still says why."""
        waits, candidates = part.waits, part.candidates
        self.release(part)
        part.waits, part.candidates = waits, candidates

    def _slot_of(
        self, part: Part, settings: CameraSettings | None, siblings: Sequence[tuple[str, str]], *, may_be_new: bool
    ) -> Slot | None:
        """The slot of a node as it should be stored, maybe a new one; None for a node that gets none."""
        others = [one for one in self._plugged_in() if one is not part]
        taken = {other.slot for other in others}
        present = [Present(other.record, other.slot) for other in others if other.node.device != part.node.device]
        own = settings.id if settings else ""
        slot = next(
            (slot for slot in self._slots.all() if slot.kind == "usb" and own and slot.identity.get(ID) == own), None
        )
        if slot is not None and slot.number in taken:
            own, slot = "", None  # several devices fit one entry: the first has its id
        decision = decide(part.record, self._slots.all(), present, held=part.slot, parts=siblings)
        if slot is not None:
            decision = Decision(slot, f"the settings describe it with the id {own}")
        if decision.waits:
            self._wait(part, decision)
            return None
        part.waits, part.candidates = "", ()
        label = settings.name if settings else ""
        record = self._record(part)
        identity = {**record, ID: own} if own else record
        path = self._path_for(part, settings)
        slot = decision.slot
        if slot is not None:
            if slot.number == part.slot and not record[SERIAL]:  # it had one when it was plugged in
                record[SERIAL] = identity[SERIAL] = slot.identity.get(SERIAL, "")
            # What a person said, and what was said when it was plugged in, holds until it is another device.
            is_known = all(slot.identity.get(name) == value for name, value in record.items())
            is_told = slot.number == part.slot or slot.binding.startswith(BY_HAND)
            reason = slot.binding if is_known and is_told and slot.binding else decision.reason
            return replace(slot, identity=identity, label=label or slot.label, path=path, binding=reason)
        if not may_be_new:
            return None
        if part.found is None and not is_surely_a_camera(part.node.properties):
            self.pass_over(part, part.problem)
            return None
        if self._slots.is_full:
            log.error("too_many_cameras", node=part.node.node, slots=len(self._slots.all()))
            self.pass_over(part, "there are too many cameras: forget one that is not used any more")
            return None
        return self._new_slot(part, identity, label, path, f"it is a new camera: {decision.reason}")

    @staticmethod
    def _record(part: Part) -> dict[str, str]:
        """What is stored of a device."""
        return {**part.record, DRIVER: part.record[DRIVER] or (part.found.driver if part.found else "")}

    def _new_slot(self, part: Part, identity: dict[str, str], label: str, path: str, why: str) -> Slot:
        product = (part.found.card if part.found else "") or part.node.properties.get("ID_V4L_PRODUCT")
        return Slot(self._slots.first_free(), identity, label or product or part.node.node, "usb", path, why)

    def _wait(self, part: Part, decision: Decision) -> None:
        if part.waits != decision.reason:
            log.warning(
                "camera_waits", node=part.node.node, port=part.record[PORT], why=decision.reason,
                remedy="say which camera it is, or that it is a new one: edged camera bind",
            )  # fmt: skip
        part.waits, part.candidates = decision.reason, decision.candidates

    def _tell_who_waits(self) -> None:
        """Each camera that a waiting device may be says so, and asks."""
        asks: dict[int, list[str]] = {}
        for part in self._plugged_in():
            for number in part.candidates:
                asks.setdefault(number, []).append(part.record[PORT])
        for slot in self._slots.all():
            camera = self._registry.shown(slot.number)
            if slot.kind != "usb" or camera is None or not camera.is_unplugged:
                continue
            ports = asks.get(slot.number, [])
            problem = _ask_which(camera, ports) if ports else ""
            if camera.problem != problem:
                self._registry.put(slot.number, replace(camera, problem=problem))

    def _path_for(self, part: Part, settings: CameraSettings | None) -> str:
        """The path that the settings give; of several devices that one entry fits, the first has it."""
        if settings is None or not settings.path:
            return ""
        shown = (
            self._registry.shown(one.slot)
            for one in self._plugged_in()
            if one is not part and one.slot is not None
        )  # fmt: skip
        return "" if any(camera is not None and camera.path == settings.path for camera in shown) else settings.path

    def _take_path(self, slot: Slot) -> None:
        """A camera that is not plugged in loses its path to one that is."""
        for other in self._slots.all():
            camera = self._registry.shown(other.number)
            if slot.path and other.number != slot.number and camera is not None and camera.path == slot.path:
                self._registry.put(other.number, replace(camera, path=camera.name))


def _with_record(slot: Slot, record: Mapping[str, str], why: str) -> Slot:
    """The camera with another device; the operator's id is the camera's, and stays."""
    own = {ID: slot.identity[ID]} if ID in slot.identity else {}
    identity = {name: value for name, value in record.items() if name != ID} | own
    return replace(slot, identity=identity, binding=why)


def _ask_which(camera: Camera, ports: Sequence[str]) -> str:
    where = " and ".join(ports)
    return (
        f"the device at {where} waits, since it may be {camera.name} or another one: say which"
        f" (edged camera bind {ports[0]} {camera.name}, or --new), or plug {camera.name} in where it was"
    )
