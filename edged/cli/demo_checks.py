"""The checks of `edged demo --once`, one after the other; one that cannot run on this machine says why."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import trio
from trio_websocket import ConnectionClosed, connect_websocket_url, open_websocket_url

from edged.children import Child
from edged.cli.demo_box import CAMERAS, Box, StepFailed, expect, fetch, make_key, revoke_key, status_of, wait_ready
from edged.cli.demo_viewers import FRAMES, Client, Picture, RtspViewer, decode_gray, refused_over_rtsp

_STEP_SECONDS: Final = 30.0


class Checks(msgspec.Struct):
    """The outcome of each check and how long it took, printed as it ends."""

    passed: int = 0
    failed: int = 0
    not_run: int = 0

    async def step(self, name: str, action: Callable[[], Any], *, unless: str = "") -> bool:
        """Run one step; `unless` is why it cannot run here. Returns whether it held."""
        if unless:
            self.not_run += 1
            print(f"  --     {name}: not run: {unless}", flush=True)
            return False
        began = time.perf_counter()
        try:
            with trio.fail_after(_STEP_SECONDS):
                note = await action()
        except (StepFailed, OSError, trio.TooSlowError, ConnectionClosed, http.client.HTTPException) as problem:
            self.failed += 1
            print(
                f"  FAILED {name} ({time.perf_counter() - began:.2f} s): {problem or type(problem).__name__}",
                flush=True,
            )
            return False
        self.passed += 1
        print(f"  ok     {name} ({time.perf_counter() - began:.2f} s){f': {note}' if note else ''}", flush=True)
        return True


async def run_checks(box: Box, daemon: Child) -> int:
    """Run all checks against the box; the exit code is 0 only if each that could run passed."""
    checks = Checks()
    facts: dict[str, Any] = {}
    missing = "" if box.mediamtx else "mediamtx not found"
    began = time.perf_counter()

    async def ready() -> str:
        await wait_ready(box, daemon)
        return f"{time.perf_counter() - began:.2f} s after its start"

    if not await checks.step("the daemon starts and is ready", ready):
        print((box.config.parent / "edged.log").read_text()[-4000:])
        return finish(checks)

    async def create() -> str:
        facts["key"] = await make_key(box, "viewer", "operator")
        return str(facts["key"]["key_id"])

    if not await checks.step("a key is created", create):
        return finish(checks)
    key = facts["key"]["api_key"]

    async with trio.open_nursery() as nursery:
        connection = await connect_websocket_url(nursery, f"ws://127.0.0.1:{box.main}/ws")
        client = Client(connection)
        nursery.start_soon(client.read)

        async def authenticate() -> str:
            result = await client.call("authenticate", {"auth_token": key, "auth_type": "api_key"})
            expect(result.get("authenticated") is True, f"answered {result}")
            await client.call("subscribe_events", {"topics": ["camera_status_update"]})
            return f"as {result['role']}"

        async def list_cameras() -> str:
            listed = await client.call("get_camera_list")
            expect(listed["total"] == 2 and listed["connected"] == 2, f"answered {listed}")
            return ", ".join(f"{row['device']} ({row['name']})" for row in listed["cameras"])

        async def snapshot() -> str:
            taken = await client.call("take_snapshot", {"device": "camera0"})
            data = await fetch(box.main, taken["download_url"], key)
            expect(len(data) == taken["file_size"], f"{len(data)} bytes came, {taken['file_size']} were promised")
            pixels = await decode_gray(data)
            expect(len(set(pixels)) > 8, "the picture is one colour")
            return f"{len(data)} bytes, {len(set(pixels))} shades"

        async def replug() -> str:
            plug = box.plug(CAMERAS[1])
            seen = []
            for change in (plug.unlink, plug.touch):
                change()
                news = await client.notification("camera_status_update")
                seen.append(str(news["status"]))
            expect(seen == ["DISCONNECTED", "CONNECTED"], f"saw {seen}")
            return " then ".join(seen)

        picture = Picture(box.main, "camera0", key)

        async def watch() -> str:
            await nursery.start(picture.run)
            different = await picture.wait_for(FRAMES)
            return f"{different} different frames"

        async def refuse() -> str:
            status = await status_of(
                box.main, "GET", "/api/cameras/camera0/live.mjpeg", "camera_service_sk_" + "0" * 64
            )
            expect(status == 401, f"HTTP {status}")
            async with open_websocket_url(f"ws://127.0.0.1:{box.main}/ws") as other:
                await other.send_message('{"jsonrpc":"2.0","id":1,"method":"get_camera_list"}')
                error = json.loads(await other.get_message()).get("error", {})
            expect(error.get("code") == -32001, f"answered {error}")
            return "HTTP 401, JSON-RPC -32001"

        async def metrics() -> str:
            text = (await fetch(box.ports["local"], "/metrics")).decode()
            counted = [
                line
                for line in text.splitlines()
                if line.startswith(("edged_auth_failures_total{", "edged_token_uses_total{"))
                and not line.endswith(" 0.0")
            ]
            expect(any('reason="unknown_key"' in line for line in counted), "the wrong key was not counted")
            expect(
                any('method="api_key"' in line and "uses" in line for line in counted), "the key's use was not counted"
            )
            return f"{len(counted)} series have changed"

        await checks.step("it authenticates over WebSocket", authenticate)
        await checks.step("both cameras are listed", list_cameras)
        await checks.step("a snapshot is a real picture", snapshot)
        await checks.step("a camera is unplugged and plugged in again, with notifications", replug)
        await checks.step("the live picture over HTTP changes", watch)
        rtsp = RtspViewer(box.ports["rtsp"], "camera0", key)
        await checks.step("the live picture over RTSP changes", partial(rtsp.start, nursery), unless=missing)
        await checks.step("a wrong key and no key are refused", refuse)
        await checks.step("both are refused over RTSP", partial(refused_over_rtsp, box.ports["rtsp"]), unless=missing)
        await checks.step("the metrics have counted it", metrics)

        async def revoke() -> str:
            began = time.perf_counter()
            await revoke_key(box, facts["key"]["key_id"])
            facts["revoked_at"] = time.perf_counter()
            return f"durable after {1000 * (facts['revoked_at'] - began):.0f} ms"

        if await checks.step("the key is revoked", revoke):
            since = facts["revoked_at"]

            async def session_ends() -> str:
                code = await client.wait_closed()
                expect(code == 4401, f"close code {code}")
                return f"close code {code}, {1000 * max(0.0, client.closed_at - since):.0f} ms after the reply"

            async def picture_ends() -> str:
                await picture.ended.wait()
                return f"{1000 * max(0.0, picture.ended_at - since):.0f} ms after the reply"

            async def stream_ends() -> str:
                await rtsp.ended.wait()
                return f"{1000 * max(0.0, rtsp.ended_at - since):.0f} ms after the reply"

            await checks.step("its session is closed", session_ends)
            await checks.step("its picture over HTTP ends", picture_ends)
            await checks.step("its stream over RTSP ends", stream_ends, unless=missing)
        nursery.cancel_scope.cancel()
    return finish(checks)


def finish(checks: Checks) -> int:
    """The last line, and the exit code."""
    print(f"{checks.passed} passed, {checks.failed} failed, {checks.not_run} not run", flush=True)
    return 1 if checks.failed else 0
