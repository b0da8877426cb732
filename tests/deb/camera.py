"""What the package does with a camera of the kernel's (vivid), on a Debian 13 with a kernel and udev of its own.

scripts/test-vm starts it as root at the end of the boot, after scripts/provision installed the package. That machine
is emulated and slow: seconds are shown, nothing is judged by them.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from steps import SOCKET, STATE, NotRun, expect, journal, processes, run, show, step, tell, until

NODE = "/dev/video0"
DRIVER = Path("/sys/bus/platform/drivers/vivid")
CGROUP = Path("/sys/fs/cgroup/system.slice/edged.service/cgroup.procs")
#: Where a MediaMTX of the machine outside is handed in, if it has one.
MEDIAMTX = Path("/job/mediamtx")
SIZE = (640, 480)
#: How long a change may take to show, seconds.
PATIENCE = 120.0
BEFORE: dict[str, str] = {}


def ask(method: str, **params: Any) -> Any:
    """One call on the local socket, as root."""
    import trio

    from edged.cli.client import call_once

    return trio.run(call_once, SOCKET, method, params)


def camera() -> dict[str, Any]:
    """The one camera, as clients see it."""
    (found,) = ask("get_camera_list")["cameras"]
    return dict(found)


def snapshot() -> Path:
    """A picture taken now."""
    taken = ask("take_snapshot", device="camera0")
    (path,) = STATE.glob(f"media/snapshots/**/{taken['filename']}")
    return path


def pixels(picture: Path) -> bytes:
    """As red, green and blue, row by row."""
    command = ("ffmpeg", "-v", "error", "-i", picture, "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE).stdout


def check_bars(picture: Path) -> None:
    """It shows vivid's bars: white, yellow, cyan, green, magenta, red, blue, black."""
    width, height = SIZE
    image = pixels(picture)
    expect(len(image) == width * height * 3, f"{len(image)} bytes are no {width}x{height}")
    row = height // 2 * width
    starts = [(row + width * (2 * part + 1) // 16) * 3 for part in range(8)]
    bars = [tuple(int(value > 96) for value in image[start : start + 3]) for start in starts]
    expect(bars == [(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0)], bars)


def noticed(since: float, status: str) -> str:
    """How long after `since` (Unix seconds) the daemon said that the camera is in this state."""

    def look() -> float:
        for line in run("journalctl", "-u", "edged.service", "-o", "short-unix").splitlines():
            at = line.partition(" ")[0]
            if f"status={status}" in line and "camera=camera0" in line and float(at) >= since:
                return float(at) - since
        return 0.0

    seconds = until(look, f"camera0 is {status}; the journal ends:\n" + "\n".join(journal()[-5:]), PATIENCE)
    return f"{status} after {seconds:.2f} s"


def bind(how: str) -> float:
    """As if its cable were pulled or put back; when, in Unix seconds."""
    began = time.time()
    (DRIVER / how).write_text("vivid.0")
    return began


def modprobe(*words: str) -> float:
    """A driver, loaded or unloaded; when it began, in Unix seconds."""
    began = time.time()
    run("modprobe", *words, seconds=PATIENCE)
    return began


def unload(module: str) -> None:
    """A module, after all that need it."""
    for name, _, _, users, *_ in (line.split() for line in Path("/proc/modules").read_text().splitlines()):
        if name == module:
            for user in users.rstrip(",").split(","):
                if user != "-":
                    unload(user)
            run("rmmod", module, check=False)


def is_read() -> bool:
    """Whether an ffmpeg runs for the daemon."""
    return "ffmpeg" in processes()


def classes() -> list[str]:
    """The classes of character devices that the kernel knows now."""
    return [line.split()[-1] for line in Path("/proc/devices").read_text().splitlines() if " " in line.strip()]


# The story ---------------------------------------------------------------------------------------------------------


@step
def booted() -> str:
    """It runs since the boot, in its sandbox, and no unit of the system failed."""
    expect(show("ActiveState") == "active" and show("NRestarts") == "0", journal())
    failed = run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
    expect(not failed, failed)
    expect(show("DevicePolicy") == "closed" and show("DeviceAllow") == "char-video4linux rw", show("DeviceAllow"))
    BEFORE["pid"] = show("MainPID")
    return f"Linux {os.uname().release}, {Path('/proc/uptime').read_text().split()[0]} s after its start"


@step
def listed() -> str:
    """The camera is listed, with what the driver and udev say of it."""
    noticed(0.0, "CONNECTED")
    found = camera()
    expect(found["device"] == "camera0" and found["status"] == "CONNECTED", found)
    udev = run("udevadm", "info", "--query=property", "--name", NODE)
    expect("ID_V4L_CAPABILITIES=:capture:" in udev, udev)
    status = ask("get_camera_status", device="camera0")
    expect("640x480" in status["capabilities"]["resolutions"] and status["capabilities"]["formats"], status)
    return f"{found['name']}, {found['resolution']} at {found['fps']}, {' '.join(status['capabilities']['formats'])}"


@step
def pictured() -> str:
    """A snapshot shows what the camera shows: colour bars, with a clock that runs."""
    began = time.monotonic()
    first = snapshot()
    seconds = time.monotonic() - began
    expect((first.owner(), first.group()) == ("edged", "edged"), first.stat())
    check_bars(first)
    expect(pixels(snapshot()) != pixels(first), "two pictures are the same")
    return f"{first.stat().st_size} bytes after {seconds:.1f} s"


@step
def fenced() -> str:
    """In the unit's control group cameras can be opened, and other devices not even by root."""
    (disk,) = (line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == "/")
    said = {}
    for where in ("outside", "inside"):
        for device in (disk, NODE):
            script = f"exec 3<{device} && echo opened"
            if where == "inside":
                script = f"echo $$ > {CGROUP} && {script}"
            said[where, device] = run("sh", "-c", script, check=False)
    wanted = {("outside", disk), ("outside", NODE), ("inside", NODE)}
    expect({case for case, words in said.items() if words == "opened"} == wanted, said)
    expect("Operation not permitted" in said["inside", disk], said)
    return said["inside", disk]


@step
def pulled_while_watched() -> str:
    """Pulled out while somebody watches: noticed, and no ffmpeg is left; put back it is the same camera."""
    key = ask("create_key", name="a viewer", role="viewer")["api_key"]
    viewer = http.client.HTTPConnection("127.0.0.1", 8002, timeout=PATIENCE)
    viewer.request("GET", "/api/cameras/camera0/live.mjpeg", headers={"X-API-Key": key})
    picture = viewer.getresponse()
    expect(picture.status == 200 and b"image/jpeg" in picture.read(4096), picture.status)
    expect(is_read(), "nothing reads the camera")
    gone = noticed(bind("unbind"), "DISCONNECTED")
    expect(camera()["status"] == "DISCONNECTED", camera())
    until(lambda: not is_read(), "ffmpeg has ended", PATIENCE)
    viewer.close()
    back = noticed(bind("bind"), "CONNECTED")
    check_bars(snapshot())
    return f"{gone}, {back}"


@step
def unloaded() -> str:
    """Without its driver it is listed as disconnected and a snapshot is refused; with it, it is back."""
    until(lambda: not is_read(), "nobody holds the camera", PATIENCE)
    gone = noticed(modprobe("-r", "vivid"), "DISCONNECTED")
    expect(not Path(NODE).exists() and camera()["status"] == "DISCONNECTED", camera())
    try:
        snapshot()
    except Exception as refusal:
        said = str(refusal)
    else:
        raise AssertionError("a picture of a camera that is not there")
    back = noticed(modprobe("vivid"), "CONNECTED")
    check_bars(snapshot())
    return f"{gone}, {back}; meanwhile: {said}"


@step
def shaken() -> str:
    """In and out twenty times, its port is left alone; released, it is one camera by its old name, and the daemon is
    the same process."""
    began = time.time()
    for _ in range(20):
        bind("unbind")
        last = bind("bind")
    seconds = time.time() - began
    run("udevadm", "settle", seconds=PATIENCE)
    until(lambda: camera()["status"] == "ERROR", "its port is left alone", PATIENCE)
    (seen,) = [one for one in ask("list_camera_devices")["devices"] if one["state"] == "quarantined"]
    ask("release_camera_device", port=seen["port"])
    until(lambda: camera()["status"] == "CONNECTED", "it is back", PATIENCE)
    check_bars(snapshot())
    expect(camera()["device"] == "camera0" and last, camera())
    expect(show("MainPID") == BEFORE["pid"] and show("NRestarts") == "0", journal())
    return f"within {seconds:.1f} s"


@step
def first_camera_after_the_start() -> str:
    """Started where the kernel never heard of cameras, it may open the first one that is plugged in."""
    run("systemctl", "stop", "edged", seconds=PATIENCE)
    unload("videodev")
    expect("video4linux" not in classes(), classes())
    run("systemctl", "start", "edged", seconds=PATIENCE)
    expect("video4linux" in classes(), "the unit did not have videodev loaded")
    expect(camera()["status"] == "DISCONNECTED", camera())
    back = noticed(modprobe("vivid"), "CONNECTED")
    check_bars(snapshot())
    return back


@step
def streamed() -> str:
    """MediaMTX shows it: ffmpeg reads and encodes the camera in the sandbox for whoever has a key."""
    if not MEDIAMTX.exists():
        raise NotRun("no mediamtx on the machine outside (scripts/get-mediamtx)")
    shutil.copy(MEDIAMTX, "/usr/local/bin/mediamtx")
    until(lambda: "mediamtx: ready" in "\n".join(journal()), "MediaMTX is ready", PATIENCE)
    key = ask("create_key", name="another viewer", role="viewer")["api_key"]
    began = time.monotonic()
    source = f"rtsp://any:{key}@127.0.0.1:8554/camera0"
    command = ["ffmpeg", "-v", "error", "-rtsp_transport", "tcp", "-i", source, "-frames:v", "1", "-y", "/tmp/seen.png"]
    run(*command, seconds=PATIENCE)
    check_bars(Path("/tmp/seen.png"))
    return f"a picture after {time.monotonic() - began:.1f} s"


@step
def quiet() -> None:
    """Through all of this it neither crashed nor complained."""
    lines = journal()
    expect(not [line for line in lines if "Traceback" in line], lines)
    expect(show("NRestarts") == "0", lines)


if __name__ == "__main__":
    sys.exit(tell())
