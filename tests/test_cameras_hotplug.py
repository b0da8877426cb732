"""Real libudev, real ioctls, mock devices: a registry in a process of its own sees cameras come and go."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from cameras_helpers import Bus
from patience import fail_after

pytestmark = pytest.mark.umockdev


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus()
    yield bus
    bus.close()


class Lines:
    """What the registry's process prints, a JSON value a line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._rest = b""

    async def next(self) -> Any:
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            more = await self.process.stdout.receive_some()
            assert more, "the registry's process ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


@asynccontextmanager
async def serving(bus: Bus, state: Path, **timing: float) -> AsyncIterator[Lines]:
    """A registry that lives on this bus; `timing` as cameras_helpers.change_timing."""
    helper = str(Path(__file__).with_name("cameras_helpers.py"))
    environment = {**bus.environment(), "PYTHONPATH": str(Path(__file__).parents[1])}
    with fail_after(3600 if timing else 60):
        async with trio.open_nursery() as nursery:
            command = [sys.executable, helper, "serve", str(state), *([json.dumps(timing)] if timing else [])]
            run = partial(trio.run_process, command, env=environment, stdout=subprocess.PIPE, check=False)
            process = await nursery.start(run)
            yield Lines(process)
            nursery.cancel_scope.cancel()


async def test_a_camera_that_is_there_at_the_start_is_asked_what_it_can_do(bus: Bus, tmp_path: Path) -> None:
    """Its mode is the one nearest to the default of 640x480 at 15 a second, without re-encoding if possible."""
    bus.plug("video0", "1")
    bus.plug("video1", "1", index=1, metadata=True)
    async with serving(bus, tmp_path) as lines:
        assert await lines.next() == "ready"
        assert await lines.next() == ["camera0", "CONNECTED", "/dev/video0", "MJPG 640x480@30", ""]


async def test_replugged_cameras_keep_their_names_whatever_their_nodes_are(bus: Bus, tmp_path: Path) -> None:
    """Two pieces of one model without serials get other nodes: each is known by its port."""
    async with serving(bus, tmp_path) as lines:
        assert await lines.next() == "ready"
        bus.plug("video0", "1")
        assert (await lines.next())[:3] == ["camera0", "CONNECTED", "/dev/video0"]
        bus.plug("video2", "2")
        assert (await lines.next())[:3] == ["camera1", "CONNECTED", "/dev/video2"]
        bus.unplug("video0", "1")
        assert (await lines.next())[:3] == ["camera0", "DISCONNECTED", None]
        bus.unplug("video2", "2")
        assert (await lines.next())[:3] == ["camera1", "DISCONNECTED", None]
        bus.plug("video4", "2")
        assert (await lines.next())[:3] == ["camera1", "CONNECTED", "/dev/video4"]
        bus.plug("video6", "1")
        assert (await lines.next())[:3] == ["camera0", "CONNECTED", "/dev/video6"]


async def test_a_camera_with_a_serial_of_its_own_may_change_its_port(bus: Bus, tmp_path: Path) -> None:
    """The serial says that it is the same piece."""
    async with serving(bus, tmp_path) as lines:
        assert await lines.next() == "ready"
        bus.plug("video0", "1", serial="7E19B2F4")
        assert (await lines.next())[:2] == ["camera0", "CONNECTED"]
        bus.unplug("video0", "1")
        assert (await lines.next())[:2] == ["camera0", "DISCONNECTED"]
        bus.plug("video1", "4", serial="7E19B2F4")
        assert (await lines.next())[:2] == ["camera0", "CONNECTED"]


async def test_a_contact_that_bounces_ends_in_what_is_there(bus: Bus, tmp_path: Path) -> None:
    """However it flapped meanwhile, it is one camera with one name. (A longer storm ends the emitter, not us: its
    socket holds ten events and it does not wait.)"""
    async with serving(bus, tmp_path) as lines:
        assert await lines.next() == "ready"
        for _ in range(2):
            bus.plug("video0", "1")
            bus.unplug("video0", "1")
        bus.plug("video0", "1")
        bus.plug("video2", "2")
        states: dict[str, str] = {}
        while states != {"camera0": "CONNECTED", "camera1": "CONNECTED"}:
            name, status, *_ = await lines.next()
            states[name] = status
