"""operations/cameras.py: the list in pages, and one camera in full, for whoever may see it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace
from operations_helpers import GATE, NOW, YARD, Bench

from edged.cameras.model import Mode, Status
from edged.mediamtx.client import PathState
from edged.mediamtx.server_state import ServerState
from edged.operations.cameras import measure
from edged.operations.pages import write_cursor

MODES = (Mode("MJPG", 640, 480, (15.0,)), Mode("MJPG", 1280, 720, (15.0,)), Mode("YUYV", 640, 480, (5.0,)))
FULL = replace(
    GATE, modes=MODES, status=Status.ERROR, problem="192.0.2.1 refused the password", binding="its serial is 7E19B2F4"
)
MANY = tuple(replace(YARD, name=f"camera{number}", path=f"camera{number}") for number in (10, 2, 1))


class Box:
    """A bench whose MediaMTX is ready; `meanwhile` is called while it is asked."""

    def __init__(self, *cameras: Any) -> None:
        self.meanwhile: Any = lambda: None
        self.bench = Bench(
            *(cameras or (FULL, YARD)), paths=SimpleNamespace(list=self._list),
            mediamtx=SimpleNamespace(state=ServerState("ready", rtsp_port=8554, addresses={"rtsp": ":8554"})),
            publishers=SimpleNamespace(states={"gate": SimpleNamespace(restarts=3)}),
        )  # fmt: skip

    async def _list(self) -> list[PathState]:
        await trio.lowlevel.checkpoint()
        self.meanwhile()
        return [PathState("gate", True, 2, 0, 4096, "rtspSession", ready_since=NOW - 12.5)]

    async def status(self, who: Any, device: str = "camera0") -> Any:
        return msgspec.to_builtins(await self.bench.ask(who, "get_camera_status", device=device))


async def test_a_caller_sees_the_cameras_that_it_has_access_to() -> None:
    """In the list; and any other camera is not found, as one that does not exist."""
    box = Box()
    caller = box.bench.caller(camera_access=("camera1",))
    listed = await box.bench.ask(caller, "get_camera_list")
    assert ([each.device for each in listed.cameras], listed.total) == (["camera1"], 1)
    for device in ("camera0", "gate", "/dev/video0", "camera7"):
        assert await box.bench.outcome(caller, "get_camera_status", device=device) == "camera_not_found"


async def test_a_monitor_sees_no_camera() -> None:
    """It lacks camera:read, and is told so."""
    box = Box()
    assert await box.bench.outcome(box.bench.caller("monitor"), "get_camera_list") == "missing_scope"


async def test_a_list_that_did_not_change_is_the_same_object() -> None:
    """So that its JSON can be kept."""
    box = Box()
    assert await box.bench.ask(box.bench.caller(), "get_camera_list") is await box.bench.ask(
        box.bench.caller(), "get_camera_list"
    )


async def test_pages_go_by_the_number_of_a_camera_and_count_all() -> None:
    """camera10 comes behind camera2; the totals are of the whole list."""
    box = Box(*MANY)
    caller, found, cursor = box.bench.caller(), list[str](), None
    while True:
        params = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = msgspec.to_builtins(await box.bench.ask(caller, "get_camera_list", **params))
        assert (page["total"], page["connected"]) == (3, 3)
        found += [each["device"] for each in page["cameras"]]
        if (cursor := page.get("next_cursor")) is None:
            break
    assert found == ["camera1", "camera2", "camera10"]
    behind = await box.bench.ask(caller, "get_camera_list", cursor=write_cursor("get_camera_list", (2.5, "")))
    assert [each.device for each in behind.cameras] == ["camera10"]


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 1001}, {"cursor": ""}, {"cursor": "x"}])
async def test_a_page_that_is_none_is_an_error(params: dict[str, Any]) -> None:
    box = Box()
    assert await box.bench.outcome(box.bench.caller(), "get_camera_list", **params) == "invalid_params"


async def test_one_camera_is_shown_with_its_formats_its_figures_and_its_restarts() -> None:
    box = Box()
    status = await box.status(box.bench.caller())
    assert status["capabilities"] == {"formats": ("MJPG", "YUYV"), "resolutions": ("640x480", "1280x720")}
    assert status["metrics"] == {"bytes_sent": 4096, "readers": 2, "uptime": 12.5}
    assert (status["restarts"], status["stream_url"]) == (3, "rtsp://localhost:8554/gate")
    other = await box.status(box.bench.caller(), "camera1")
    assert other["metrics"] == {"bytes_sent": 0, "readers": 0, "uptime": 0.0}
    assert (other["restarts"], other["problem"]) == (0, "")


@pytest.mark.parametrize(
    ("role", "problem", "binding"),
    [
        ("admin", FULL.problem, FULL.binding),
        ("operator", "no picture from its source", ""),
        ("viewer", "no picture from its source", ""),
    ],
)
async def test_what_names_addresses_serials_and_ports_is_told_to_administrators(
    role: str, problem: str, binding: str
) -> None:
    """Others are told that there is a problem."""
    box = Box()
    status = await box.status(box.bench.caller(role))
    assert (status["problem"], status["binding"]) == (problem, binding)


@pytest.mark.parametrize("change", ["narrow", "revoke"])
async def test_a_camera_that_is_lost_while_mediamtx_is_asked_is_not_shown(change: str) -> None:
    box = Box()
    caller = box.bench.caller()
    box.meanwhile = lambda: box.bench.narrow(caller, "camera1") if change == "narrow" else box.bench.revoke(caller)
    outcome = await box.bench.outcome(caller, "get_camera_status", device="camera0")
    assert outcome == ("camera_not_found" if change == "narrow" else "revoked")


def test_a_stream_is_never_up_for_less_than_no_time() -> None:
    """The clock was set back since it began; or MediaMTX does not say when that was."""
    state = PathState("gate", True, 2, 0, 1, "rtspSession", ready_since=NOW)
    assert measure(state, NOW - 60).uptime == 0.0
    assert measure(replace(state, ready_since=None), NOW).uptime == 0.0
