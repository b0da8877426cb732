"""No error that leaves the box names a file in a folder of its own; whoever is on the box is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_helpers import make_config, running_daemon
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after

from edged.config.model import SnapshotSettings
from edged.errors import DependencyFailed, StoreFailed, without_paths
from edged.library.snapshots import Snapshots
from edged.web.faults import fault


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cannot write /var/lib/edged/media/x.jpg: full", "cannot write a file of the box: full"),
        ("'/run/edged-work/.edged-private-1.ffconcat': Invalid", "'a file of the box': Invalid"),
        ("no ffmpeg at /opt/x/ffmpeg", "no ffmpeg at a file of the box"),
        ("run sudo /usr/share/edged/scripts/get-mediamtx", "run sudo /usr/share/edged/scripts/get-mediamtx"),
        ("see /etc/edged/conf.d/a.toml line 3", "see /etc/edged/conf.d/a.toml line 3"),
        ("POST /api/claim, /dev/video0", "POST /api/claim, /dev/video0"),
        ("rtsp://192.0.2.1/media/main", "rtsp://192.0.2.1/media/main"),
    ],
)
def test_names_of_private_files_are_left_out(text: str, told: str) -> None:
    """What everybody's box has stays: it is the remedy."""
    assert without_paths(text) == told


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    """And nothing private is left of it."""
    assert "/var/lib" not in without_paths(f"{text} /var/lib/edged {text}".replace("/var/lib/", " /var/lib/"))


@pytest.mark.parametrize("kind", [DependencyFailed, StoreFailed])
def test_a_503_names_no_private_file(kind: Any) -> None:
    """Neither in its sentence nor in what to do next."""
    reply = fault(kind("/tmp/a/b: gone", hint="look at /home/pi/edged"))
    assert reply.status_code == 503
    assert b"/tmp" not in reply.body
    assert b"/home" not in reply.body


async def test_a_picture_that_cannot_be_kept_is_told_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the network; on the unix socket it is there to be mended."""

    async def fail(*_: object, **__: object) -> None:
        raise StoreFailed("/srv/edged/snapshots/x.jpg was not saved", hint="is /srv/edged full?")

    monkeypatch.setattr(Snapshots, "save", fail)
    config = make_config(tmp_path, cameras=1)
    config = msgspec.structs.replace(config, snapshots=SnapshotSettings(folder=tmp_path / "snapshots"))
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon:
            _, secret = await daemon.create_key("operator")
            async with daemon.websocket() as client, daemon.local() as admin:
                await client.call("authenticate", auth_token=secret, auth_type="api_key")
                remote = (await client.ask("take_snapshot", device="camera0"))["error"]
                local = (await admin.ask("take_snapshot", device="camera0"))["error"]
    assert "/srv/edged" not in str(remote)
    assert "/srv/edged/snapshots/x.jpg" in str(local)
