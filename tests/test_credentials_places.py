"""Who is one neighbour, and whom a trusted proxy speaks for."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.credentials.places import client_of, place_of, read_hop

PROXIES = {"127.0.0.1", "10.0.0.1", "2001:db8::1"}
addresses = st.ip_addresses().filter(lambda each: str(each) not in PROXIES)


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], "127.0.0.1"),
        (["192.0.2.7"], "192.0.2.7"),
        (["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        (["6.6.6.6", "192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7, 10.0.0.1"], "192.0.2.7"),
        (["192.0.2.7:4711, [2001:db8::1]:80"], "192.0.2.7"),
        (["[2001:db8::9]"], "2001:db8::9"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        (["10.0.0.1"], "10.0.0.1"),
        (["192.0.2.7, nonsense"], "127.0.0.1"),
        (["nonsense, 10.0.0.1"], "10.0.0.1"),
        (["fe80::1%eth0"], "127.0.0.1"),
        ([""], "127.0.0.1"),
    ],
)
def test_the_right_most_address_that_is_no_proxy_is_the_client(forwarded: list[str], client: str) -> None:
    """What stands to the left of it the client wrote itself."""
    assert client_of("127.0.0.1", forwarded, PROXIES.__contains__) == client


@given(st.lists(st.text(max_size=20), max_size=5), addresses, st.lists(st.sampled_from(sorted(PROXIES)), max_size=4))
def test_nobody_can_write_another_address_to_the_left(
    lies: list[str], truth: IPv4Address | IPv6Address, hops: list[str]
) -> None:
    """Whatever stands in front of what a trusted proxy has added."""
    said = ", ".join([*lies, str(truth), *hops])
    assert client_of("127.0.0.1", [said], PROXIES.__contains__) == read_hop(str(truth))


@given(st.lists(st.text(max_size=60), max_size=5))
def test_every_header_is_taken(forwarded: list[str]) -> None:
    """Never an error, and a place for whoever it is."""
    assert place_of(client_of("127.0.0.1", forwarded, PROXIES.__contains__))


def test_a_long_chain_is_looked_at_from_its_end_only() -> None:
    """A head of 16 KiB holds some thousand hops."""
    asked: list[str] = []

    def is_trusted(address: str) -> bool:
        asked.append(address)
        return True

    client_of("127.0.0.1", [",".join(["10.0.0.1"] * 2000)], is_trusted)
    assert len(asked) <= 32
