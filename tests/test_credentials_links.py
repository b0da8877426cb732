"""Signed links: only what edged wrote is one."""

from __future__ import annotations

from urllib.parse import parse_qs, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edged.credentials.callers import Caller, Link
from edged.credentials.links import (
    Signed,
    is_signed,
    link_caller,
    maker_of,
    parse,
    query_writer,
    sign,
    target_of,
    write_query,
)

KEY = bytes(range(32))
MAKER = "abcDEF123-_x"
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MEMBERS = st.lists(st.tuples(st.sampled_from(["start", "end"]), NAMES), max_size=2)


def link_of(target: str, expires: int = 1_800_000_000) -> Link:
    query = parse_qs(write_query(Signed(expires, MAKER, sign(KEY, target, expires, MAKER))), strict_parsing=True)
    return Link(target, *(query[name][0] for name in ("exp", "by", "sig")))


def is_good(link: Link) -> bool:
    said = parse(link)
    return said is not None and is_signed(KEY, link.target, said)


@given(NAMES, MEMBERS, st.integers(0, 99_999_999_999))
def test_what_was_signed_is_good(path: str, members: list[tuple[str, str]], expires: int) -> None:
    link = link_of(target_of(path, members), expires)
    said = parse(link)
    assert said is not None
    assert (said.expires, said.maker) == (expires, MAKER)
    assert is_good(link)


@given(st.binary(max_size=64), st.lists(NAMES, max_size=3), st.integers(0, 99_999_999_999))
def test_links_that_are_written_one_behind_the_other_are_those_of_hmac(
    key: bytes, paths: list[str], expires: int
) -> None:
    """Also with a key of another length, and whatever was signed before."""
    write = query_writer(key, expires, MAKER)
    for path in (*paths, "/files/recordings/yard.mp4"):
        target = target_of(path, ())
        assert write(target) == write_query(Signed(expires, MAKER, sign(key, target, expires, MAKER)))
        assert target == f"{quote(path)}?"


@given(NAMES, MEMBERS, NAMES, MEMBERS)
def test_no_two_targets_are_one(
    path: str, members: list[tuple[str, str]], other: str, others: list[tuple[str, str]]
) -> None:
    assert (target_of(path, members) == target_of(other, others)) == ((path, members) == (other, others))


@given(st.data())
def test_one_changed_character_ends_it(data: st.DataObject) -> None:
    link = link_of("/files/recordings/yard.mp4")
    member = data.draw(st.sampled_from(["target", "expires", "maker", "signature"]))
    text = getattr(link, member)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters(codec="utf-8").filter(lambda sign: sign != text[at])) + text[at + 1 :]
    assert not is_good(replace(link, **{member: changed}))


@given(st.text(), st.text(), st.text(), st.text())
def test_no_text_makes_the_parser_stumble(target: str, expires: str, maker: str, signature: str) -> None:
    assert not is_good(Link(target, expires, maker, signature))


@pytest.mark.parametrize("expires", ["", "+5", "1_000", "1e9", " 5", "٣", "9" * 12, "5\n"])
def test_the_end_is_plain_digits(expires: str) -> None:
    assert parse(replace(link_of("/x"), expires=expires)) is None


def test_whoever_comes_with_a_link_reads_and_does_nothing_else() -> None:
    maker = Caller(
        method="api_key", subject="key_1", roles=frozenset({"admin"}),
        capabilities=frozenset({"camera:read", "camera:delete"}), grants=frozenset({"camera:write:camera0"}),
    )  # fmt: skip
    caller = link_caller(maker)
    assert caller.capabilities == {"camera:read"}
    assert not caller.grants
    assert not caller.roles
    assert caller.streams is not None
    assert not caller.streams.read
    assert maker_of(caller) is maker
    assert maker_of(link_caller(caller)) is maker
