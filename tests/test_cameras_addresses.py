"""Where an added camera may be: judged after its name was resolved, and opened at the address that was judged."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio
from entry_helpers import make_entry
from grant_helpers import at_once
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace
from test_cameras_registry import Store

from edged.access.grants import Commit
from edged.accounts.jobs import keep
from edged.cameras.addresses import Addresses, AddressRefused, replace_host, split_host
from edged.cameras.fixed import AddedSlot
from edged.cameras.registry import Registry
from edged.errors import DependencyFailed, InvalidParams


def answers(*addresses: str) -> Any:
    """A name server that knows one answer."""

    async def look_up(_host: str, port: int, **_: object) -> Sequence[tuple[Any, ...]]:
        await trio.lowlevel.checkpoint()
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    return look_up


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "this box itself"),
        ("127.8.8.8", "this box itself"),
        ("0.0.0.0", "this box itself"),
        ("::1", "this box itself"),
        ("::", "this box itself"),
        ("::ffff:127.0.0.1", "this box itself"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
    ],
)
async def test_what_only_this_box_reaches_is_refused(address: str, why: str) -> None:
    """Whatever name leads there."""
    with pytest.raises(AddressRefused, match=why):
        await Addresses(look_up=answers(address)).resolve("rtsp://cam.example.com/stream1")


async def test_the_box_s_own_address_is_refused() -> None:
    """Also one that is no loopback: what it is called is what a socket can be bound to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks the kernel which address it would use
        except OSError:
            pytest.skip("this machine has no route")
        own = probe.getsockname()[0]
    with pytest.raises(AddressRefused, match="this box itself"):
        await Addresses(look_up=answers(own)).resolve("rtsp://cam.example.com/stream1")


async def test_a_setting_allows_networks() -> None:
    addresses = Addresses(["127.0.0.0/8"], look_up=answers("127.0.0.1"))
    assert await addresses.resolve("rtsp://u:p@cam:8554/s?a=1") == "rtsp://u:p@127.0.0.1:8554/s?a=1"
    addresses.allow([])
    with pytest.raises(AddressRefused):
        await addresses.resolve("rtsp://u:p@cam:8554/s?a=1")


async def test_of_several_addresses_one_that_may_be_opened_is_taken() -> None:
    addresses = Addresses(look_up=answers("fe80::1", "192.0.2.7"))
    assert await addresses.resolve("rtsp://cam.local/s") == "rtsp://192.0.2.7/s"
    assert await Addresses(look_up=answers("2001:db8::7")).resolve("rtsps://u@cam:1/") == "rtsps://u@[2001:db8::7]:1/"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "localhost", "127.1"])
async def test_no_spelling_of_loopback_passes(host: str) -> None:
    """As the system's own resolver reads it."""
    with pytest.raises((AddressRefused, InvalidParams)):
        await Addresses().resolve(f"rtsp://{host}/s")


async def test_an_unknown_name_is_reported_without_the_address() -> None:
    with pytest.raises(InvalidParams, match=r"the name 'cam\.example\.com' is not known") as caught:
        await Addresses(look_up=answers()).resolve("rtsp://ann:secret@cam.example.com/s")
    assert "secret" not in str(caught.value)


async def test_a_name_server_that_does_not_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async def silent(*_: object, **__: object) -> Sequence[tuple[Any, ...]]:
        await trio.sleep_forever()

    with pytest.raises(DependencyFailed, match="could not be looked up"):
        await Addresses(look_up=silent).resolve("rtsp://cam/s")


class Names:
    """A name server whose answers change."""

    def __init__(self, **known: str) -> None:
        self.known = known
        self.asked = 0

    async def __call__(self, host: str, port: int, **_: object) -> Sequence[tuple[Any, ...]]:
        self.asked += 1
        return list(await answers(*filter(None, [self.known[host]]))(host, port))


async def test_a_name_is_followed_and_what_is_forbidden_is_not_read(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Every five minutes, and when the settings allow other networks; a name server that is away changes nothing."""
    names = Names(cam="192.0.2.7", other="192.0.2.8")
    addresses, store, kept = Addresses(look_up=names), Store(), {}

    async def save(now: AddedSlot, _before: object, commit: Commit) -> None:
        assert now.one is not None
        await commit(keep, undo=keep)
        kept[now.slot.number] = now.one

    registry = Registry(
        store.load, store.save, state=tmp_path, use_udev=False, addresses=addresses, save_added=save, upkeep=at_once
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(registry.run)

        async def shown(after: float) -> tuple[str | None, str]:
            await trio.sleep(after)
            (camera,) = registry.all()
            return camera.url, camera.status.value

        added = await registry.describe(make_entry("Dock", "rtsp://u:p@cam/s"), at_once)
        assert (added.name, added.url) == ("camera0", "rtsp://u:p@192.0.2.7/s")
        assert added.is_pinned, "its server must not lead elsewhere"
        asked = names.asked
        await registry.describe(
            replace(registry.described[0], settings=structs.replace(registry.described[0].settings, name="Gate")),
            at_once,
        )
        assert names.asked == asked, "another name of the camera looks nothing up"
        names.known["cam"] = "192.0.2.9"
        assert await shown(301) == ("rtsp://u:p@192.0.2.9/s", "CONNECTED")
        names.known["cam"] = ""
        assert await shown(301) == ("rtsp://u:p@192.0.2.9/s", "CONNECTED")
        names.known["cam"] = "127.0.0.1"
        assert await shown(301) == (None, "ERROR")
        assert kept[0].address == ""
        addresses.allow(["127.0.0.0/8"])
        assert await shown(1) == ("rtsp://u:p@127.0.0.1/s", "CONNECTED")
        addresses.allow([])
        assert await shown(1) == (None, "ERROR")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "url",
    ["ftp://cam/", "rtsp://", "rtsp:///s", "rtsp://cam:port/", "rtsp://cam:99999/", "rtsp://c am/", "rtsp://u:a#b@c/",
     "rtsp://[::1/", "RTSP://cam/", "file:///etc/passwd", "rtsp://cam/a\nfile x"],
)  # fmt: skip
def test_what_is_no_camera_s_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidParams, match="no rtsp://, rtsps://, http:// or https:// URL"):
        split_host(url)


WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789%-._~!$&'()*+,;=", max_size=8)


@given(WORDS, WORDS, st.one_of(st.none(), st.integers(1, 65535)), WORDS, st.ip_addresses())
def test_only_the_host_is_replaced(user: str, password: str, port: int | None, path: str, address: Any) -> None:
    """The literal is what is opened, and nothing of user name, password, port and path is another."""
    tail = ("" if port is None else f":{port}") + f"/{path}?{path}"
    found = replace_host(f"rtsp://{user}:{password}@cam.example.com{tail}", address)
    literal = f"[{address}]" if address.version == 6 else str(address)
    assert found.rstrip("?") == f"rtsp://{user}:{password}@{literal}{tail}".rstrip("?")
    host, port_found = split_host(found)
    assert (ip_address(host), port_found) == (address, port or 554)
