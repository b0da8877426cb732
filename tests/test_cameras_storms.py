"""Real libudev, mock devices: whatever the order of plugging, however many events, whatever gets lost."""

from __future__ import annotations

import os
import random
from itertools import cycle
from pathlib import Path

import pytest
import trio
from patience import IS_FULL, fail_after, times
from test_cameras_hotplug import Lines, serving
from umockdev_bus import Function, Plugs, plugs

pytestmark = pytest.mark.umockdev

TWINS = Function("1", "7E19B2F4"), Function("2", "7E19B2F4")
#: Of one camera: the picture, its metadata, and the same picture once more.
SEVERAL = Function("3"), Function("3", index=1, capabilities=":"), Function("3", index=2)
ON_A_HUB = Function("4.2", "SN0001")
FUNCTIONS = (*TWINS, *SEVERAL, ON_A_HUB)
PORTS = {one.port for one in FUNCTIONS}


class Round:
    """Who is plugged in where, under which node of this round, and what the registry says of it."""

    def __init__(self, lines: Lines, made: Plugs) -> None:
        self._lines = lines
        self._made = made
        self.here: dict[Function, str] = {}
        #: The node of each function in this round.
        self.nodes: dict[Function, str] = {}
        self.shown: dict[str, str | None] = {}
        #: Camera → the port that it was first seen at.
        self.owner: dict[str, str] = {}

    def toggle(self, one: Function) -> None:
        if one in self.here:
            self._made.unplug(self.here.pop(one), one)
        else:
            self.here[one] = self.nodes[one]
            self._made.plug(self.nodes[one], one)

    async def listen(self) -> None:
        """The next change: a camera that is shown is the piece that its name was first given to."""
        name, status, node, _, problem = await self._lines.next()
        assert problem == ""
        self.shown[name] = node if status == "CONNECTED" else None
        if status == "CONNECTED":
            port = next(one.port for one, known in self.nodes.items() if f"/dev/{known}" == node)
            assert self.owner.setdefault(name, port) == port, f"{name} was {self.owner[name]} and is shown as {port}"

    async def until(self, ports: set[str]) -> None:
        """Until just the cameras at these ports are shown."""
        while {self.owner[name] for name, node in self.shown.items() if node} != ports:
            await self.listen()


async def test_no_order_of_plugging_shows_a_wrong_camera(tmp_path: Path) -> None:
    """Two with one serial, one with three nodes, one on a hub, under node names that change each time; some are pulled
    and plugged again while others come."""
    choose = random.Random(7)
    nodes = [f"video{number}" for number in range(9)]
    with plugs(*nodes) as (bus, made):
        async with serving(bus, tmp_path, debounce=0.02) as lines:
            assert await lines.next() == "ready"
            rounds = Round(lines, made)
            for round_number in range(times(1000)):
                with fail_after(60):
                    rounds.nodes = dict(zip(FUNCTIONS, choose.sample(nodes, len(FUNCTIONS)), strict=True))
                    steps = choose.sample(FUNCTIONS, len(FUNCTIONS))
                    if round_number:  # the twins meet once before they can be told apart
                        again = choose.sample(FUNCTIONS, choose.randrange(3)) * 2
                        steps = choose.sample([*steps, *again], len(steps) + len(again))
                    for one in steps:
                        rounds.toggle(one)
                        await trio.sleep(choose.choice((0, 0, 0, 0.005, 0.03)))
                    for one in FUNCTIONS:
                        if one not in rounds.here:
                            rounds.toggle(one)
                    await rounds.until(PORTS)
                    for one in choose.sample(FUNCTIONS, len(FUNCTIONS)):
                        rounds.toggle(one)
                    await rounds.until(set())
            assert sorted(rounds.owner.values()) == sorted(PORTS)


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_storm_that_overflows_hides_nothing(tmp_path: Path) -> None:
    """500 events a second of two devices, lost again and again: other cameras are told of as ever, the two stay what
    they are, and one that is pulled without a word is seen as soon as the storm is over."""
    seconds = 60.0 if IS_FULL else 6.0
    noisy = Function("1", "7E19B2F4"), Function("2", "91C7E2B0")
    others = [Function(str(port), f"A93F02C1{port}D") for port in range(3, 33)]
    nodes = [f"video{number}" for number in range(3)]
    with plugs(*nodes) as (bus, made):
        for node, one in zip(nodes, noisy, strict=False):
            made.appear(node, one)
        async with serving(bus, tmp_path, overflow=50) as lines:
            assert await lines.next() == "ready"
            names = {(await lines.next())[0] for _ in noisy}
            seen: list[tuple[str, str]] = []
            heard = lost = 0
            is_over = False

            async def storm() -> None:
                nonlocal heard, lost
                start = trio.current_time()
                while not is_over:
                    due = int((trio.current_time() - start) * 500) - heard - lost
                    for number in range(due):
                        if made.tell_or_lose("change", nodes[number % 2], noisy[number % 2]):
                            heard += 1
                        else:
                            lost += 1
                    await trio.sleep(0.004)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(storm)
                before, since = cpu_seconds(lines.process.pid), trio.current_time()
                for one in cycle(others):
                    for change in (made.plug, made.unplug):
                        await trio.to_thread.run_sync(change, nodes[2], one)
                        name, status, *_ = await lines.next()
                        assert name not in names
                        seen.append((name, status))
                    if trio.current_time() - since > seconds:
                        break
                share = (cpu_seconds(lines.process.pid) - before) / (trio.current_time() - since)
                made.vanish(nodes[0], noisy[0])  # and nobody says so
                await trio.sleep(0.5)
                is_over = True
            with fail_after(2):
                assert (await lines.next())[1:3] == ["DISCONNECTED", None]
    assert [status for _, status in seen] == ["CONNECTED", "DISCONNECTED"] * (len(seen) // 2)
    print(f"{heard + lost} events, {lost} lost, {len(seen)} changes told, {share:.1%} of a core")
    if IS_FULL:
        assert share < 0.2
