"""Free ports, and who sits on one that is not free."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from media_helpers import LOOPBACK

from edged.config.model import MediaMTXSettings
from edged.mediamtx.ports import find_holder, pick_ports
from edged.mediamtx.settings import port_of


def test_ports_that_are_left_open_are_picked_and_differ() -> None:
    """`:0` becomes a free port, all different; the host stays."""
    settings, api_port = pick_ports(LOOPBACK)
    addresses = [settings.rtsp, settings.hls, settings.webrtc]
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    ports = {port_of(address) for address in addresses} | {api_port}
    assert len(ports) == 4
    assert None not in ports
    assert 0 not in ports


def test_other_addresses_stay_as_they_are() -> None:
    """A port that was chosen is not ours to change, and off is off."""
    settings = MediaMTXSettings(rtsp=":8554", hls="off")
    assert pick_ports(settings)[0] == settings


@pytest.mark.parametrize(
    ("family", "kind", "transport", "address"),
    [(socket.AF_INET, socket.SOCK_STREAM, "tcp", "127.0.0.1"), (socket.AF_INET, socket.SOCK_DGRAM, "udp", "127.0.0.1"),
     (socket.AF_INET6, socket.SOCK_STREAM, "tcp", "::1")],
)  # fmt: skip
def test_the_holder_of_a_port_is_named(family: int, kind: int, transport: str, address: str) -> None:
    """By name and process id, for both families."""
    with socket.socket(family, kind) as holder:
        holder.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        found = find_holder(holder.getsockname()[1], transport)
    assert found.endswith(f"(pid {os.getpid()})")


def test_a_free_port_has_no_holder() -> None:
    """Nothing is made up."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        assert find_holder(holder.getsockname()[1], "tcp") == ""


def test_a_holder_of_another_user_is_named_by_its_user_id(tmp_path: Path) -> None:
    """The kernel shows whose it is even where it does not show which process."""
    (tmp_path / "net").mkdir()
    rows = ["head", "0: 00000000:1F90 00000000:0000 0A 0:0 0:0 0 33 0 4711 1", "1: 0:1F91 0:0 01 0:0 0:0 0 0 0 4712 1"]
    (tmp_path / "net" / "tcp").write_text("\n".join(rows))
    (tmp_path / "17").mkdir()
    (tmp_path / "self").mkdir()
    assert find_holder(8080, "tcp", tmp_path) == "a process of user id 33"
    assert find_holder(8081, "tcp", tmp_path) == ""
