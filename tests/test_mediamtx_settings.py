"""Our settings as MediaMTX's configuration, the search for the program, and versions: all pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.cameras.model import Camera, Status
from edged.config.model import MediaMTXSettings
from edged.config.sources import RtspTransport, SourceKind
from edged.mediamtx.settings import (
    OPTIONAL,
    Version,
    find_binary,
    parse_version,
    path_conf,
    port_of,
    protocols,
    render,
    show_version,
)
from edged.mediamtx.sources import CameraSource


@dataclass
class FakeSource:
    """A source with a name."""

    name: str
    always_on: bool = False
    kind: SourceKind = "test"
    node: str | None = None
    url: str | None = None
    pixel_format: str = ""
    width: int = 640
    height: int = 480
    rate: float = 15.0
    bitrate: int = 1_000_000
    encoder: str = ""
    transport: RtspTransport = "tcp"
    is_pinned: bool = False
    is_held_in_memory: bool = False
    still_seconds: float = 1.0
    audio: bool = False
    audio_codec: str = ""
    ribbon: int = 0

    @property
    def path(self) -> str:
        return self.name


def rendered(version: Version = (1, 20, 1), leave_out: tuple[str, ...] = (), **settings: Any) -> dict[str, object]:
    text = render(
        MediaMTXSettings(**settings),
        hook_url="http://127.0.0.1:1/asks/x",
        api_address="127.0.0.1:2",
        paths={"camera0": {"source": "publisher"}},
        version=version,
        leave_out=leave_out,
    )
    document = json.loads(text)
    assert isinstance(document, dict)
    return document


def test_a_camera_is_a_source() -> None:
    """The type of edged.cameras satisfies what edged.mediamtx asks for."""
    source: CameraSource = Camera(name="camera0", label="x", kind="test", status=Status.CONNECTED)
    assert path_conf(source)["source"] == "publisher"


def test_every_question_goes_to_the_hook() -> None:
    """The hook decides everything, the control API included, and nobody's defaults open anything."""
    document = rendered()
    assert document["authMethod"] == "http"
    assert document["authHTTPAddress"] == "http://127.0.0.1:1/asks/x"
    assert document["authHTTPExclude"] == []
    assert document["apiAddress"] == "127.0.0.1:2"
    for key in ("metrics", "pprof", "playback", "moq", "rtmp", "srt"):
        assert document[key] is False


def test_rtsp_is_tcp_only_and_unknown_paths_are_refused() -> None:
    """A kick must be seen by the client; a path that nobody configured does not exist."""
    document = rendered()
    assert document["rtspTransports"] == ["tcp"]
    assert document["paths"] == {"camera0": {"source": "publisher"}}
    assert document["pathDefaults"] == {"source": "publisher", "overridePublisher": True}


@pytest.mark.parametrize(
    ("version", "absent"),
    [
        ((1, 20, 1), set()),
        ((1, 18, 0), {"moq"}),
        ((1, 15, 5), {"moq", "logStructured"}),
        ((1, 15, 3), {"moq", "logStructured", "apiAllowOrigins"}),
        ((2, 3, 4), set()),
    ],
)
def test_an_older_version_is_spared_keys_that_it_does_not_know(version: Version, absent: set[str]) -> None:
    """Unknown keys are fatal to MediaMTX; an unknown newer version gets the newest file we know."""
    assert {"moq", "logStructured", "apiAllowOrigins"} - rendered(version).keys() == absent


def test_only_harmless_keys_can_be_left_out() -> None:
    """A version that refuses a key that protects something is refused itself."""
    document = rendered(leave_out=(*OPTIONAL, "authMethod", "authHTTPAddress", "rtspTransports"))
    assert not OPTIONAL & document.keys()
    assert {"authMethod", "authHTTPAddress", "authHTTPExclude", "rtspTransports"} <= document.keys()


def test_each_protocol_can_be_switched_off_and_on() -> None:
    """`off` closes a protocol altogether; an address opens it there."""
    document = rendered(rtsp="off", hls="off", webrtc="off", webrtc_udp="off", rtmp=":1935", srt="127.0.0.1:8890")
    assert (document["rtsp"], document["hls"], document["webrtc"]) == (False, False, False)
    assert "rtspAddress" not in document
    assert document["webrtcLocalUDPAddress"] == ""
    assert (document["rtmp"], document["rtmpAddress"]) == (True, ":1935")
    assert document["srtAddress"] == "127.0.0.1:8890"
    assert protocols(MediaMTXSettings(rtsp="off", rtmp=":1935")) == ("webrtc", "hls", "rtmp")


def test_an_on_demand_path_holds_its_reader_and_leaves_no_process() -> None:
    """MediaMTX waits while edged starts the encoder; its own command ends at once."""
    conf = path_conf(FakeSource("camera0"))
    assert conf["runOnDemand"] == "/bin/true"
    assert conf["runOnDemandRestart"] is False
    assert path_conf(FakeSource("camera0", always_on=True))["runOnDemand"] == ""


def test_the_program_is_looked_for_where_the_operator_says_only() -> None:
    """A configured program that is not there is missing: nothing else is run in its place."""
    found = find_binary("/opt/mtx", "/usr/bin", ["/usr/bin/mediamtx"])
    assert found.path is None
    assert found.searched == ("/opt/mtx",)
    assert find_binary("/opt/mtx", "", ["/opt/mtx"]).path == "/opt/mtx"


def test_the_program_is_looked_for_on_the_path_then_in_the_library_folder() -> None:
    """PATH in its order, then /usr/lib/edged; the answer says where."""
    assert find_binary("", "/a:/b", ["/b/mediamtx", "/usr/lib/edged/mediamtx"]).path == "/b/mediamtx"
    assert find_binary("", "/a::/b", ["/usr/lib/edged/mediamtx"]).path == "/usr/lib/edged/mediamtx"
    assert find_binary("", "/a", []).searched == ("/a/mediamtx", "/usr/lib/edged/mediamtx")


def test_a_program_is_a_file_that_can_be_run(tmp_path: Path) -> None:
    """A folder, or a file without its execute bit, is not the program."""
    program = tmp_path / "mediamtx"
    program.mkdir()
    assert find_binary(str(program), "").path is None
    program.rmdir()
    program.write_text("")
    program.chmod(0o600)
    assert find_binary(str(program), "").path is None
    program.chmod(0o700)
    assert find_binary("", str(tmp_path)).path == str(program)


@given(st.tuples(*[st.integers(0, 99999)] * 3))
def test_a_version_is_read_as_it_is_written(version: Version) -> None:
    """With or without `v`, with a line end, with a build suffix."""
    text = show_version(version)
    for written in (text, f"v{text}\n", f"v{text}-3-gabcdef", f"mediamtx v{text}"):
        assert parse_version(written) == version


@given(st.text())
def test_no_text_breaks_the_reading_of_a_version(text: str) -> None:
    """Whatever a program prints, the answer is a version or None."""
    version = parse_version(text)
    assert version is None or len(version) == 3


@pytest.mark.parametrize(
    ("address", "port"),
    [(":8554", 8554), ("127.0.0.1:0", 0), ("[::1]:1", 1), ("off", None)],
)
def test_the_port_of_an_address(address: str, port: int | None) -> None:
    """None if the listener is off."""
    assert port_of(address) == port
