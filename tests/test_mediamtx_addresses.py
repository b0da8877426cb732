"""An address of `[mediamtx]` is one everywhere it is used: by publishers, pictures, health, and in URLs."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest
import trio
from daemon_helpers import free_port, make_config, running_daemon
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after

from edged.config.addresses import parse_address
from edged.mediamtx.addresses import connect, host_of, join_address, reach

PORTS = st.integers(0, 65535)


@pytest.mark.parametrize(
    ("address", "where"),
    [
        (":8554", "127.0.0.1"),
        ("0.0.0.0:8554", "127.0.0.1"),
        ("[::]:8554", "::1"),
        ("127.0.0.2:8554", "127.0.0.2"),
        ("[::1]:8554", "::1"),
        ("192.0.2.7:8554", "192.0.2.7"),
        ("camera.example:8554", "camera.example"),
    ],
)
def test_a_listener_is_reached_where_it_is_bound(address: str, where: str) -> None:
    assert reach(address) == (where, 8554)


@given(st.ip_addresses().map(str), PORTS)
def test_what_is_joined_is_split_into_the_same(host: str, port: int) -> None:
    assert parse_address(join_address(host, port)) == (host, port)


@given(st.ip_addresses().filter(lambda each: not each.is_unspecified).map(str), PORTS)
def test_a_bound_listener_is_reached_and_named_by_its_own_address(host: str, port: int) -> None:
    address = join_address(host, port)
    assert reach(address) == (host, port)
    assert f"{host_of(address)}:{port}" == address


async def test_the_errno_of_a_refusal_is_kept() -> None:
    with pytest.raises(ConnectionRefusedError):
        await connect("127.0.0.1", free_port())


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.mediamtx
@pytest.mark.ffmpeg
@pytest.mark.parametrize("host", ["127.0.0.2", "[::1]", "[::]", ""])
async def test_pictures_come_from_whichever_address_it_listens_on(tmp_path: Path, host: str) -> None:
    """A viewer gets in at the address that edged names, the camera is published, and all is well."""
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    config = make_config(tmp_path, mediamtx=True)
    camera = msgspec.structs.replace(config.camera[0], mode="always")
    media = msgspec.structs.replace(config.mediamtx, rtsp=f"{host}:{free_port()}")
    config = msgspec.structs.replace(config, mediamtx=media, camera=(camera,))
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as viewer:
            await daemon.wait_media()
            _, key = await daemon.create_key("viewer")
            await viewer.call("authenticate", token=key)
            stream = await viewer.call("get_stream_url", device="camera0")
            shown = host if host in ("127.0.0.2", "[::1]") else "localhost"
            assert stream["stream_url"] == f"rtsp://{shown}:{daemon.rtsp}/camera0"
            while not next(each for each in await viewer.call("get_streams") if each["name"] == "camera0")["ready"]:
                await trio.sleep(0.1)
            seen = await daemon.request("GET", "/healthz")
            assert seen.json["status"] == "healthy"
            async with daemon.local() as admin:
                taken = await admin.call("take_snapshot", device="camera0")
            assert taken["status"] == "SUCCESS"
            found = await trio.to_thread.run_sync(lambda: socket.create_connection(reach(media.rtsp), timeout=5))
            found.close()
