"""A state disk that is full shows in health, status and metrics, which rest on one assessment."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from daemon_helpers import make_config, port_of, running_daemon
from patience import fail_after
from rtsp_client import RtspReader

MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The state folder, on a tmpfs of 8 MiB."""
    folder = tmp_path / "state"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("not root: no disk can be mounted here")
    words = ["mount", "-t", "tmpfs", "-o", f"size={8 * MIB}", "edged-test", str(folder)]
    mounted = subprocess.run(words, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, leave: int = 0) -> None:
    free = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - leave)))


@pytest.mark.ffmpeg
@pytest.mark.mediamtx
async def test_a_full_state_disk_ends_no_stream(tmp_path: Path, small_disk: Path) -> None:
    """Who watches goes on watching, another viewer gets in, and a recording that cannot go on is no reason to end."""
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon:
            await daemon.wait_media()
            _, key = await daemon.create_key("viewer")
            viewers = [RtspReader(daemon.rtsp, "camera0", "viewer", key)]
            await viewers[0].play()
            await viewers[0].wait_packet()
            fill(small_disk)
            assert (await daemon.request("GET", "/health/ready")).status == 503
            viewers.append(RtspReader(daemon.rtsp, "camera0", "viewer", key))
            await viewers[1].play()
            for viewer in viewers:
                for _ in range(30):
                    await viewer.wait_packet()
                await viewer.aclose()


async def test_a_full_state_disk_shows_in_health_status_and_metrics(tmp_path: Path, small_disk: Path) -> None:
    """/health/ready is 503 and says why, /health/live stays 200, streams go on; with space all is well again."""
    async with running_daemon(tmp_path, config=make_config(tmp_path)) as daemon:
        assert (await daemon.request("GET", "/health")).json["status"] == "healthy"
        fill(small_disk, leave=600 * 1024)
        degraded = await daemon.request("GET", "/health")
        assert (degraded.status, degraded.json["status"]) == (200, "degraded")
        (small_disk / "filler").unlink()
        fill(small_disk)
        full = await daemon.request("GET", "/health")
        assert (full.status, full.json["status"]) == (503, "unhealthy")
        short = await daemon.request("GET", "/healthz")
        assert (short.status, short.json["writable"]) == (503, False)
        ready = await daemon.request("GET", "/health/ready")
        assert (ready.status, ready.json["ready"]) == (503, False)
        assert "nothing can be saved" in ready.json["message"]
        assert (await daemon.request("GET", "/health/live")).status == 200
        async with daemon.local() as admin:
            told = await admin.call("get_system_status")
        assert told["status"] == "partial"
        assert "paths.state is full" in told["message"]
        assert {"disk"} <= {each["part"] for each in told["problems"]}
        scraped = (await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))).body.decode()
        # Nothing can be saved; and nothing is recorded, as soon as retention has looked at the disk.
        assert re.search(r'edged_health_problems\{part="disk"\} [12]\.0', scraped)
        assert 'edged_disk_free_bytes{disk="state"} 0.0' in scraped
        (small_disk / "filler").unlink()
        with fail_after(20):
            while (await daemon.request("GET", "/health/ready")).status != 200:
                await trio.sleep(0.05)
