"""A token that a player cut short is called that; the address with `?jwt=` brings a whole one."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import msgspec
import pytest
import trio
from daemon_helpers import SECRET, RunningDaemon, make_config, port_of, running_daemon
from hypothesis import given
from hypothesis import strategies as st
from log_helpers import kept_log
from patience import fail_after

from edged.credentials import tokens
from edged.credentials.cut_tokens import FFMPEG_BYTES, lacks_parts, may_be_cut
from edged.mediamtx.ffmpeg import find_ffmpeg


def sign(**claims: object) -> str:
    now = int(time.time())
    known = {"user_id": "viewer-1", "role": "viewer", "iat": now, "exp": now + 600}
    return tokens.sign({**known, **claims}, tokens.SharedSecret("test", SECRET))


@given(st.integers(1, 126))
def test_a_token_that_is_cut_before_its_signature_is_recognised(length: int) -> None:
    """By its beginning, and by what it lacks; a whole one, a key and a ticket are none."""
    whole = sign()
    dots = [place for place, sign_ in enumerate(whole) if sign_ == "."]
    assert lacks_parts(whole[:length]) is (3 <= length <= dots[1])
    assert not lacks_parts(whole)
    assert not lacks_parts("camera_service_sk_" + "0" * length)
    assert not lacks_parts("edged_ticket_" + "0" * length)


@given(st.text(max_size=20))
def test_one_that_is_cut_in_its_signature_has_ffmpegs_length(user: str) -> None:
    """user:password are 127 bytes, no more and no less."""
    text = "eyJhbGciOiJIUzI1NiJ9.e30." + "x" * 200
    kept = text[: FFMPEG_BYTES - 1 - len(user.encode("utf-8", "replace"))]
    assert may_be_cut(kept, user, kept)
    assert not may_be_cut(kept[:-1], user, kept[:-1])
    assert not may_be_cut(text, user, text)
    assert not may_be_cut(kept, user, "")


async def read_failures(daemon: RunningDaemon) -> dict[tuple[str, str], int]:
    """(reason, transport) → how often somebody was refused."""
    body = (await daemon.request("GET", "/metrics", port=port_of(daemon.config.listen.local))).body.decode()
    found: dict[tuple[str, str], int] = {}
    for line in body.splitlines():
        if line.startswith("edged_auth_failures_total{"):
            labels = dict(each.replace('"', "").split("=") for each in line.split("{")[1].split("}")[0].split(","))
            if number := int(float(line.split(" ")[1])):
                found[labels["reason"], labels["transport"]] = number
    return found


async def play(address: str) -> bool:
    """Whether ffmpeg gets a picture there."""
    command = [find_ffmpeg(), "-loglevel", "quiet", "-nostdin", "-rtsp_transport", "tcp", "-i", address]
    done = await trio.run_process(
        [*command, "-frames:v", "1", "-f", "null", "-"], check=False, stdout=subprocess.DEVNULL
    )
    return done.returncode == 0


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
async def test_ffmpeg_cuts_a_password_and_takes_the_address_that_edged_gives(tmp_path: Path) -> None:
    """The log and the metric have a word of their own for it, with what to do; a short one is whole, and good."""
    config = make_config(tmp_path, mediamtx=True, cameras=1)
    camera = msgspec.structs.replace(config.camera[0], mode="always")
    config = msgspec.structs.replace(config, camera=(camera,))
    token = sign(name="x" * 80)
    with fail_after(80), kept_log() as log:
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            await daemon.wait_media()
            async with daemon.local() as admin:
                while not all(each["ready"] for each in await admin.call("get_streams")):
                    await trio.sleep(0.1)
            await client.call("authenticate", auth_token=token)
            stream = await client.call("get_stream_url", device="camera0")
            assert not await play(f"rtsp://viewer-1:{token}@127.0.0.1:{daemon.rtsp}/camera0")
            failures = await read_failures(daemon)
            assert failures["token_cut", "media"] == 1
            assert ("unknown_key", "media") not in failures
            assert await play(stream["token_url"].replace("{token}", token).replace("localhost", "127.0.0.1"))
            assert await read_failures(daemon) == failures
    refused = [line for line in log.getvalue().splitlines() if "reason=token_cut" in line]
    assert len(refused) == 1
    assert "?jwt=" in refused[0]
