"""By what name edged is reached: the setting, the address that a connection reached, and never somebody else's name for
what holds a credential."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_helpers import REMOTE, UNIX

from edged.credentials.callers import Peer
from edged.operations.own_urls import OwnUrls, list_names

NAMES = list_names("Gate.example.net")


def peer(**values: Any) -> Peer:
    return Peer("main", "192.0.2.7", 40000, **values)


@pytest.mark.parametrize(
    ("who", "public", "port", "base"),
    [
        (peer(reached="192.0.2.1:8002"), "", 8002, "http://192.0.2.1:8002"),
        (peer(reached="[2001:db8::1]:8002"), "", 8002, "http://[2001:db8::1]:8002"),
        # Host is whatever somebody sent.
        (peer(reached="192.0.2.1:8002", host="evil.example"), "", 8002, "http://192.0.2.1:8002"),
        (peer(reached="192.0.2.1:8002", host="gate.local"), "", 8002, "http://192.0.2.1:8002"),
        (peer(reached="[fe80::1%eth0]:8002"), "", 8002, ""),
        (peer(reached="127.0.0.1:8002", proxy="127.0.0.1"), "", 8002, ""),
        (peer(reached="127.0.0.1:8002", proxy="127.0.0.1"), "https://box.example", 8002, "https://box.example"),
        (UNIX, "", 8002, "http://localhost:8002"),
        (UNIX, "", 0, ""),
        (REMOTE, "https://box.example/edged", 8002, "https://box.example/edged"),
    ],
)
def test_the_base_of_a_link_is_never_what_host_says(who: Peer, public: str, port: int, base: str) -> None:
    assert OwnUrls(public, port, NAMES).base(who) == base


@pytest.mark.parametrize(
    ("who", "public", "host"),
    [
        (peer(host="192.0.2.1", reached="192.0.2.1:8002"), "", "192.0.2.1"),
        # A router or container in between has the address, and hands its ports on.
        (peer(host="203.0.113.9", reached="172.17.0.2:8002"), "", "203.0.113.9"),
        (peer(host="[2001:db8::1]", reached="[2001:db8::1]:8002"), "", "[2001:db8::1]"),
        (peer(host="gate.local", reached="192.0.2.1:8002"), "", "gate.local"),
        (peer(host="GATE", reached="192.0.2.1:8002"), "", "GATE"),
        (peer(host="localhost", reached="127.0.0.1:8002"), "", "localhost"),
        (peer(host="evil.example", reached="192.0.2.1:8002"), "", "192.0.2.1"),
        (peer(host="gate.evil.example", reached="[2001:db8::1]:8002"), "", "[2001:db8::1]"),
        (peer(host="localhost.evil.example", reached="192.0.2.1:8002"), "", "192.0.2.1"),
        (peer(host="cameras.example.org", reached="127.0.0.1:8002"), "", ""),
        (peer(host="cameras.example.org", reached="192.0.2.1:8002", proxy="192.0.2.9"), "", ""),
        (peer(host="evil.example", reached="[fe80::1%eth0]:8002"), "", ""),
        (peer(host="evil.example", reached="192.0.2.1:8002"), "https://box.example:8443/edged", "box.example"),
        (UNIX, "", "localhost"),
    ],
)
def test_a_ticket_goes_to_no_host_but_ours(who: Peer, public: str, host: str) -> None:
    assert OwnUrls(public, 8002, NAMES).ticket_host(who) == host


@given(st.text(st.sampled_from("abgatelocalhost.0127:[]-"), min_size=1, max_size=20))
def test_no_name_that_a_client_says_gets_a_ticket_unless_it_is_the_box_s(host: str) -> None:
    found = OwnUrls("", 8002, NAMES).ticket_host(peer(host=host, reached="192.0.2.1:8002"))
    if found.lower() not in (*NAMES, "localhost"):
        # Whatever else it is, it is an address: this raises for any name.
        ip_address(found.strip("[]"))


@pytest.mark.parametrize(
    ("said", "public", "host"),
    [
        ("edge.lan", "", "edge.lan"),
        ("cameras.example.org", "", "cameras.example.org"),
        ("edge.lan", "https://box.example", "box.example"),
        ("edge.lan", "https://[2001:db8::1]:8443", "[2001:db8::1]"),
    ],
)
def test_an_address_without_a_credential_has_the_name_that_its_reader_used(said: str, public: str, host: str) -> None:
    assert OwnUrls(public, 8002, NAMES).stream_host(said) == host
