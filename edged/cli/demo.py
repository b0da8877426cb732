"""`edged demo`: edged on loopback with two test cameras; with `--once` checks are run against it.

The daemon runs as a child, as a user's would; everything here is what a client can do: HTTP, WebSocket,
RTSP, and deleting the file that stands for a test camera's plug.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

import trio

from edged.children import Child
from edged.cli.demo_box import (
    CAMERAS,
    PREFIX,
    Box,
    call_local,
    held,
    make_key,
    prepare,
    remove_abandoned,
    run_daemon,
    wait_ready,
)
from edged.cli.demo_checks import run_checks

#: Each ends the demo in order.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(*, once: bool) -> int:
    """Serve until Ctrl-C, SIGTERM or a closed terminal, or run the checks; returns the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell ignores it for what it starts with &; whoever sends it means it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return trio.run(partial(_main, once=once))


async def _main(*, once: bool) -> int:
    heeded = [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    code = 0
    remove_abandoned(Path(tempfile.gettempdir()))
    # The folder outlives everything in it, whatever ends the demo.
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, held(Path(folder)):
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                nonlocal code
                with trio.open_signal_receiver(*heeded) as signals:
                    async for number in signals:
                        code = 128 + number
                        nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            box = prepare(Path(folder), any_port=once)
            async with run_daemon(box, quiet=once) as daemon:
                code = await run_checks(box, daemon) if once else await serve(box, daemon)
            nursery.cancel_scope.cancel()
    return code


async def serve(box: Box, daemon: Child) -> int:
    """Print where to look, a key and the lines to try; then wait for the daemon's end."""
    await wait_ready(box, daemon)
    key = (await make_key(box, "demo", "admin"))["api_key"]
    await call_local(box, "create_demo_login", {})
    print("\n".join(describe(box, key)), flush=True)
    return await daemon.wait()


def describe(box: Box, key: str) -> list[str]:
    """What a reader can do now, the nearest first; nothing that this machine lacks the program for."""
    at = f"http://127.0.0.1:{box.main}"
    socket_path = box.config.parent / "run" / "edged.sock"
    lines = ["", f"Open this in a browser, and give it the key below:  {at}/", "", f"  {key}", ""]
    if box.mediamtx is None:
        lines += ["MediaMTX was not found: pictures come from edged itself; scripts/get-mediamtx fetches it.", ""]
    lines += [
        "In another terminal:",
        "",
        f"  export EDGED_SOCKET={socket_path}    # for the commands: edged key list, edged session list",
    ]
    if shutil.which("ffplay") and box.mediamtx is not None:
        lines.append(f"  ffplay -rtsp_transport tcp rtsp://demo:{key}@127.0.0.1:{box.ports['rtsp']}/camera0")
    if shutil.which("curl"):
        if shutil.which("ffplay"):
            lines.append(f"  curl -sH 'X-API-Key: {key}' {at}/api/cameras/camera0/live.mjpeg | ffplay -f mpjpeg -")
        lines += [
            f"  curl -H 'X-API-Key: {key}' {at}/api/keys",
            f"  curl {at}/api/token -d 'username=demo&password=demo'    # a token for streams, on this machine only",
            f"  curl http://127.0.0.1:{box.ports['local']}/metrics",
        ]
    lines.append(f"  rm '{box.plug(CAMERAS[0])}'    # unplugs a camera; touch plugs it in again")
    return [*lines, "", "Ctrl-C stops it."]
