"""The plan from the paths that are to those that should be, and the loop that carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st
from media_helpers import eventually, running
from patience import fail_after
from test_mediamtx_settings import FakeSource

from edged.errors import DependencyFailed
from edged.feeds import Feed
from edged.mediamtx.client import PathState
from edged.mediamtx.paths import Paths, plan
from edged.mediamtx.server_state import ServerState
from edged.mediamtx.settings import PathConf

confs = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 2), max_size=3)
trees = st.dictionaries(st.sampled_from(["camera0", "camera1", "camera2", "old"]), confs)


@given(trees, trees)
def test_carrying_out_the_plan_leaves_nothing_to_do(wanted: dict[str, Any], present: dict[str, Any]) -> None:
    """After the steps every wanted path is as wanted, and there is no other; a second plan is empty."""
    there = dict(present)
    for step in plan(wanted, present):
        if step.do == "delete":
            del there[step.name]
        else:
            there[step.name] = step.conf
    assert there.keys() == wanted.keys()
    assert all(there[name].get(key) == value for name, conf in wanted.items() for key, value in conf.items())
    assert plan(wanted, there) == []


def test_a_path_that_is_well_is_left_alone() -> None:
    """Values that MediaMTX adds from its defaults are no difference: readers must not be disturbed."""
    assert plan({"camera0": {"a": 1}}, {"camera0": {"a": 1, "record": False, "name": "camera0"}}) == []


class FakeClient:
    """A control API in memory, which can be told to fail."""

    def __init__(self) -> None:
        self.confs: dict[str, PathConf] = {}
        self.calls: list[str] = []
        self.failing = False

    async def list_path_configs(self) -> dict[str, PathConf]:
        await trio.lowlevel.checkpoint()
        if self.failing:
            raise DependencyFailed("it is away")
        return dict(self.confs)

    async def replace_path(self, name: str, conf: PathConf) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append(f"replace {name}")
        self.confs[name] = conf

    async def delete_path(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append(f"delete {name}")
        del self.confs[name]

    async def list_paths(self) -> list[PathState]:
        return [PathState(name, False, 0, 0, 0, "") for name in self.confs]


class FakeServer:
    """A supervisor's face."""

    def __init__(self, client: FakeClient | None) -> None:
        self.client: Any = client
        self.states: Feed[ServerState] = Feed()


def fake_server(client: FakeClient | None) -> Any:
    """For whoever asks a supervisor for its client only."""
    return FakeServer(client)


async def test_a_change_reaches_the_server(autojump_clock: trio.testing.MockClock) -> None:
    """Cameras that come and go become paths that come and go; the same again calls nothing."""
    server, paths = fake_server(FakeClient()), Paths()
    server.client.confs["stale"] = {}
    paths.set_wanted([FakeSource("camera0")])
    with fail_after(5):
        async with running(partial(paths.run, server)):
            await eventually(lambda: paths.converged)
            assert server.client.calls == ["delete stale", "replace camera0", "replace all_others"]
            paths.set_wanted([FakeSource("camera0")])
            assert paths.converged
            paths.set_wanted([FakeSource("camera1")])
            await eventually(lambda: paths.converged)
            assert server.client.calls[3:] == ["delete camera0", "replace camera1"]
            assert [path.name for path in await paths.list()] == ["all_others", "camera1"]


async def test_a_failed_converge_is_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    """A server that fails for a while gets its paths afterwards, without any new change."""
    server, paths = fake_server(FakeClient()), Paths()
    server.client.failing = True
    paths.set_wanted([FakeSource("camera0")])
    with fail_after(30):
        async with running(partial(paths.run, server)):
            await trio.sleep(3)
            assert not paths.converged
            server.client.failing = False
            await eventually(lambda: paths.converged)
            assert server.client.calls == ["replace camera0", "replace all_others"]


async def test_without_a_server_nothing_is_done_until_one_is_ready(autojump_clock: trio.testing.MockClock) -> None:
    """There are no paths while MediaMTX is away; its next state brings them."""
    server, paths = fake_server(None), Paths()
    paths.set_wanted([FakeSource("camera0")])
    assert await paths.list() == []
    with fail_after(30):
        async with running(partial(paths.run, server)):
            await trio.sleep(5)
            assert await paths.list() == []
            assert not paths.converged
            server.client = client = FakeClient()
            server.states.publish(ServerState("ready"))
            await eventually(lambda: paths.converged)
            assert client.calls == ["replace camera0", "replace all_others"]


@dataclass
class Named(FakeSource):
    """A camera whose path has another name."""

    stream: str = ""

    @property
    def path(self) -> str:
        return self.stream or self.name


async def test_a_path_that_becomes_another_camera_s_is_made_anew(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever was let in to one camera must not see the other; also where both are told within one step."""
    server, paths = fake_server(FakeClient()), Paths()
    paths.set_wanted([Named("camera0", stream="dock"), FakeSource("camera1")])
    with fail_after(5):
        async with running(partial(paths.run, server)):
            await eventually(lambda: paths.converged)
            del server.client.calls[:]
            paths.set_wanted([FakeSource("camera0"), Named("camera1", stream="dock")])
            await eventually(lambda: paths.converged)
            assert server.client.calls == ["delete camera1", "delete dock", "replace camera0", "replace dock"]
            del server.client.calls[:]
            # A camera that goes while MediaMTX does not answer, and one that gets its path.
            server.client.failing = True
            paths.set_wanted([FakeSource("camera0")])
            await trio.sleep(1.5)
            paths.set_wanted([Named("camera0", stream="dock")])
            await trio.sleep(1.5)
            server.client.failing = False
            await eventually(lambda: paths.converged)
            assert server.client.calls == ["delete camera0", "delete dock", "replace dock"]
            # The same camera again is no change.
            del server.client.calls[:]
            paths.set_wanted([Named("camera0", stream="dock")])
            assert paths.converged
            assert server.client.calls == []
