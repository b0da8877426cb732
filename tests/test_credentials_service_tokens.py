"""credentials/service_tokens.py: 64 hex kept as SHA-256, networks in one spelling, and names that can be acted for."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from identity_helpers import named

from edged.credentials.roles import SERVICE
from edged.credentials.service_tokens import (
    ServiceTokenRecord,
    digest,
    is_user_id,
    is_within,
    mint,
    published_as,
    read_networks,
    service_caller,
)

#: What stands in the guide that everybody reads.
PRINTED = "ee6d52ece4fa6c4c8836820d2eb7feeb" + "6c78cbf2e2661ef76c9f5a805fc16340"
v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)


def test_a_token_is_256_random_bits_known_by_their_sha256() -> None:
    """64 hex digits (contract S3-1), another each time, and an id that tells nothing of it."""
    made = [mint() for _ in range(50)]
    assert all(re.fullmatch(r"[0-9a-f]{64}", each.secret) for each in made)
    assert all(re.fullmatch(r"svc_[0-9a-f]{16}", each.token_id) for each in made)
    assert len({each.secret for each in made}) == len({each.token_id for each in made}) == 50
    assert all(each.digest == hashlib.sha256(each.secret.encode()).digest() == digest(each.secret) for each in made)


def test_the_token_of_the_guide_is_known_by_name() -> None:
    """It is public (contract S3-1); its text stands nowhere in edged, and no other token is one."""
    assert published_as(digest(PRINTED)) == "the upload server guide's sample token"
    assert published_as(digest(mint().secret)) is None
    source = Path(digest.__code__.co_filename).read_text()
    assert PRINTED not in source


def test_the_caller_may_do_files_and_nothing_else() -> None:
    """Contract 7.2, 7.3.5: fixed capabilities, no camera, no stream, no role that anybody could claim."""
    record = ServiceTokenRecord(token_id="svc_1", name="uploads", digest=b"d" * 32, created_at=1.0)
    caller = service_caller(record, b"d" * 32, None)
    assert (caller.capabilities, caller.grants, caller.cameras) == (SERVICE, frozenset(), frozenset())
    assert (caller.subject, caller.role, caller.only_files) == ("service:svc_1", "none", True)
    assert (caller.who, dataclasses.replace(caller, acts_for="ann").who) == ("service:svc_1", "service:svc_1 for ann")
    assert named("service:svc_1") in caller.identities


@pytest.mark.parametrize("name", ["7", "user123", "a@b.example", "test-user", "A_b+c.d", "x" * 128, "."])
def test_a_name_can_be_acted_for(name: str) -> None:
    """Whole numbers too: some frameworks send them (contract S3-18)."""
    assert is_user_id(name)


@pytest.mark.parametrize(
    "name", ["", "..", "a..b", "../x", "a/b", "a b", "a\n", "ä", "x" * 129, "a%2Fb", "a\\b", "a:b", "a\x00", "*"]
)
def test_a_name_that_could_be_more_than_a_name_cannot(name: str) -> None:
    """No separator, no way up a folder, nothing that somebody would have to escape."""
    assert not is_user_id(name)


@given(st.text(max_size=140))
def test_a_name_is_what_the_contract_says(text: str) -> None:
    """`[A-Za-z0-9@._+-]{1,128}` without `..`, whatever is sent."""
    assert is_user_id(text) is (bool(re.fullmatch(r"[A-Za-z0-9@._+-]{1,128}", text)) and ".." not in text)


def test_networks_have_one_spelling() -> None:
    """A lone address is a network of one; IPv4 as IPv6 writes it is IPv4; the same twice is once."""
    assert read_networks(["192.0.2.7", "192.0.2.0/24", "::ffff:192.0.2.0/120", "2001:DB8::/32"]) == (
        "192.0.2.7/32", "192.0.2.0/24", "2001:db8::/32",
    )  # fmt: skip
    assert read_networks(["::ffff:192.0.2.1"]) == ("192.0.2.1/32",)
    assert read_networks(["::/0"]) == ("::/0",)


@pytest.mark.parametrize("text", ["x", "192.0.2.1/24", "300.0.0.1", "192.0.2.0/33", "2001:db8::1/32", "localhost", " "])
def test_what_is_no_network_is_named(text: str) -> None:
    """With bits of a host, too: whoever writes 192.0.2.1/24 means one of two things."""
    with pytest.raises(ValueError, match=re.escape(text)):
        read_networks(["192.0.2.0/24", text])


@pytest.mark.parametrize("address", ["", "unix", "192.0.2", "0x7f.1", "192.0.2.1 ", "@"])
def test_what_is_no_address_lies_nowhere(address: str) -> None:
    """The unix socket has none: a token that is held to networks is refused there."""
    assert not is_within(["0.0.0.0/0", "::/0"], address)


@given(v4, st.integers(0, 32))
def test_an_ipv4_address_is_the_same_however_a_socket_writes_it(address: ipaddress.IPv4Address, bits: int) -> None:
    """A socket for both versions says ::ffff:192.0.2.1; neither spelling is in an IPv6 network of everything."""
    network = str(ipaddress.IPv4Network((int(address), bits), strict=False))
    mapped = f"::ffff:{address}"
    assert is_within([network], str(address))
    assert is_within([network], mapped)
    assert is_within(read_networks([f"::ffff:{network.split('/')[0]}/{bits + 96}"]), str(address))
    assert not is_within(["::/0"], str(address))
    assert not is_within(["::/0"], mapped)


@given(v6, st.integers(0, 128), v6)
def test_an_address_is_within_a_network_if_their_first_bits_are_the_same(
    where: ipaddress.IPv6Address, bits: int, other: ipaddress.IPv6Address
) -> None:
    """Also with the name of an interface behind it, as link-local addresses have."""
    assume(where.ipv4_mapped is None and other.ipv4_mapped is None)
    network = str(ipaddress.IPv6Network((int(where), bits), strict=False))
    same = int(where) >> (128 - bits) == int(other) >> (128 - bits)
    assert is_within(["192.0.2.0/24", network], str(other)) is same
    assert is_within([network], f"{other}%eth0") is same
