"""What is told of the nodes that are plugged in. Pure."""

from __future__ import annotations

import msgspec

from edged.cameras.identity import MODEL, PORT, SERIAL
from edged.cameras.model import Camera
from edged.cameras.parts import Part


class DeviceFacts(msgspec.Struct, frozen=True):
    """One node that may give pictures.

    `state`: `camera`, `waiting` (nobody can tell which camera it is), `no_camera`, `quarantined` (its port flaps and is
    left alone) or `settling` (it is being asked); `camera` the number of the camera that it is; `why` explains the
    state.
    """

    port: str
    node: str
    name: str
    serial: str
    state: str
    camera: int | None
    why: str
    candidates: tuple[int, ...] = ()


def describe(part: Part, camera: Camera | None) -> DeviceFacts:
    """A node as it is known now; `camera` is the one that it is."""
    if part.quarantine:
        state, why = "quarantined", part.quarantine
    elif camera is not None:
        state, why = "camera", camera.binding
    elif part.waits:
        state, why = "waiting", part.waits
    else:
        state, why = ("no_camera", part.why_not) if part.why_not else ("settling", "")
    name = (part.found.card if part.found else "") or part.record[MODEL]
    slot = None if camera is None else part.slot
    return DeviceFacts(part.record[PORT], part.node.node, name, part.record[SERIAL], state, slot, why, part.candidates)
