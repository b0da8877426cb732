"""operations/listings.py: addresses of a camera, its row in lists, and lists that are kept while they are true."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from operations_helpers import GATE, NOW, YARD, Bench

from edged.cameras.model import Status
from edged.library.active_recordings import ActiveRecording
from edged.mediamtx.server_state import ServerState
from edged.operations.listings import Listings, list_streams, row, srt_stream_id
from edged.store.recordings import RecordingRecord

READY = ServerState(
    "ready", rtsp_port=8554, hls_port=8888, webrtc_port=8889, rtmp_port=1935, srt_port=8890,
    addresses={"rtsp": ":8554", "srt": "192.0.2.9:8890"},
)  # fmt: skip
OFF = ServerState("off")
ACTIVE = ActiveRecording(
    RecordingRecord(recording_id="rec_1", filename="gate.mp4", camera="camera0", format="fmp4", began=NOW - 90.5),
    moved_at=NOW,
)


@pytest.mark.parametrize(
    ("asked_at", "address", "shown"),
    [
        ("box.example", ":8554", "box.example"),
        ("box.example", "[::]:8554", "box.example"),
        ("box.example", "192.0.2.7:8554", "192.0.2.7"),
        ("box.example", "[2001:db8::7]:8554", "[2001:db8::7]"),
        ("127.0.0.1", "127.0.0.2:8554", "127.0.0.2"),
        ("[::1]", "127.0.0.2:8554", "127.0.0.2"),
        # A relay may hand the port on.
        ("box.example", "127.0.0.1:8554", "box.example"),
        ("2001:db8::1", ":8554", "[2001:db8::1]"),
    ],
)
def test_a_url_names_the_address_that_its_listener_is_bound_to(asked_at: str, address: str, shown: str) -> None:
    state = ServerState("ready", rtsp_port=8554, addresses={"rtsp": address})
    assert list_streams(YARD, asked_at, state) == {"rtsp": f"rtsp://{shown}:8554/camera1"}


def test_addresses_name_the_path_and_only_what_is_switched_on() -> None:
    assert list_streams(GATE, "box", READY) == {
        "rtsp": "rtsp://box:8554/gate",
        "hls": "http://box:8888/gate",
        "webrtc": "http://box:8889/gate",
        "rtmp": "rtmp://box:1935/gate",
        "srt": "srt://192.0.2.9:8890?streamid=read:gate",
    }
    assert set(list_streams(GATE, "box", replace(READY, hls_port=None, srt_port=None))) == {"rtsp", "webrtc", "rtmp"}


@pytest.mark.parametrize(
    "status", ["missing", "refused_version", "starting", "port_taken", "waiting", "stopped", "off"]
)
def test_a_mediamtx_that_is_not_ready_has_no_address(status: Any) -> None:
    """Its ports may be somebody else's."""
    assert list_streams(GATE, "box", replace(READY, status=status)) == {}


def test_a_stream_id_names_action_path_and_credential_as_mediamtx_reads_them() -> None:
    assert srt_stream_id(GATE) == "read:gate"
    assert srt_stream_id(GATE, "publish", "edged_ticket_x") == "publish:gate:x:edged_ticket_x"


@given(
    width=st.integers(0, 4000),
    height=st.integers(0, 3000),
    rate=st.floats(0, 240),
    status=st.sampled_from(list(Status)),
)
def test_a_row_is_whole_whatever_is_known_of_a_camera(width: int, height: int, rate: float, status: Status) -> None:
    """Unknown pixels are no 0x0, and less than one picture a second is not none."""
    shown = row(replace(YARD, width=width, height=height, rate=rate, status=status), "box", OFF)
    assert shown.resolution == (f"{width}x{height}" if width and height else "unknown")
    assert (shown.fps > 0) == (rate > 0)
    assert abs(shown.fps - rate) <= 1
    assert (shown.status, shown.device_path, shown.stream_url, shown.streams) == (status.value, "", "", {})


def test_a_row_never_shows_where_a_network_camera_is_or_what_is_wrong_with_it() -> None:
    """The address may hold a password; the problem is for administrators."""
    camera = replace(YARD, kind="rtsp", url="rtsp://u:SECRET@192.0.2.1/", problem="SECRET", stand_in="/dev/SECRET")
    assert "SECRET" not in str(row(camera, "box", READY))


def test_a_camera_that_is_recorded_says_which_file_and_for_how_long() -> None:
    shown = row(GATE, "box", READY, ACTIVE, NOW)
    assert (shown.recording, shown.recording_session, shown.current_file) == (True, "rec_1", "gate.mp4")
    assert shown.elapsed_time == 90.5
    # The clock was set back meanwhile.
    assert row(GATE, "box", READY, ACTIVE, NOW - 1000).elapsed_time == 0.0
    assert row(GATE, "box", READY).recording is False


class Box:
    """A bench whose list is asked for by hand."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.listings = Listings()
        self.cameras = (GATE, YARD)
        self.server = READY

    def list(self, caller: Any, host: str = "box", active: Any = None) -> Any:
        def may_see(camera: Any) -> bool:
            return caller.sees(camera.names) and "camera:read" in caller.capabilities

        return self.listings.get(caller, host, self.cameras, self.server, may_see, active or {}, NOW)


def test_a_list_is_the_same_object_until_something_changes() -> None:
    """Most calls ask for what did not change."""
    box = Box()
    caller = box.bench.caller()
    first = box.list(caller)
    assert box.list(box.bench.caller("operator")) is first
    assert box.list(caller, "192.0.2.1") is not first
    box.server = replace(READY, hls_port=None)
    second = box.list(caller)
    assert "hls" not in second.cameras[0].streams
    box.cameras = (GATE, replace(YARD, status=Status.DISCONNECTED))
    assert [box.list(caller).connected, second.connected] == [1, 2]


def test_a_list_is_of_those_cameras_only_that_the_caller_may_see() -> None:
    """Also where another caller's was made just before; the totals count no others."""
    box = Box()
    assert box.list(box.bench.caller()).total == 2
    narrow = box.list(box.bench.caller(camera_access=("camera1",)))
    assert ([each.device for each in narrow.cameras], narrow.total, narrow.connected) == (["camera1"], 1, 1)
    none = box.list(box.bench.caller(permissions=("system:read",)))
    assert (none.cameras, none.total) == ((), 0)
    assert box.list(box.bench.caller()).total == 2


def test_while_something_is_recorded_each_list_is_made_anew() -> None:
    """The time that it takes is in it, and it is not shown to who comes after its end."""
    box = Box()
    caller = box.bench.caller()
    shown = box.list(caller, active={"camera0": ACTIVE})
    assert [each.recording for each in shown.cameras] == [True, False]
    assert [each.recording for each in box.list(caller).cameras] == [False, False]


def test_no_client_can_make_edged_keep_more_than_a_few_lists() -> None:
    """The host is whatever a client sends."""
    box = Box()
    caller = box.bench.caller()
    for number in range(1000):
        box.list(caller, f"host{number}")
    assert len(box.listings._kept) <= 64
