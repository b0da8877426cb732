"""operations/refreshes.py: which token is refreshed, and whose session goes on by the successor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from gate_helpers import LOCAL
from hypothesis import given
from hypothesis import strategies as st
from operations_helpers import NOW, Bench
from trust_helpers import SECRET

from edged.accounts.refreshes import Refreshed
from edged.clock import iso
from edged.credentials.api_keys import KeyRecord, mint
from edged.credentials.callers import Caller, Streams, Token, Transport
from edged.credentials.tokens import issue_claims, sign
from edged.errors import InvalidState, StoreFailed
from edged.operations.refreshes import _streams_of


class Refreshes:
    """Notes what it was shown, and makes a token of the same claims; `meanwhile` is called while it does."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.shown: list[str | Caller] = []
        self.problem: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    async def refresh(self, shown: str | Caller, _transport: Transport) -> Refreshed:
        await trio.lowlevel.checkpoint()
        self.shown.append(shown)
        self.meanwhile()
        if self.problem is not None:
            raise self.problem
        text = make_token(jti=f"next-{len(self.shown)}")
        return Refreshed(text, self._bench.gate.authenticate(Token(text), LOCAL, "ws"))


def make_token(**more: Any) -> str:
    """Of ada, for an hour; such as edged signs."""
    claims = issue_claims("ada", role="viewer", now=NOW, expires_in=3600, extra={"iss": "edged", "epoch": 0})
    return sign({**claims, **more}, SECRET)


class Box:
    """A bench whose refreshes note what they are shown, and a session by a token."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.refreshes = Refreshes(self.bench)
        msgspec.structs.force_setattr(self.bench.services, "refreshes", self.refreshes)
        self.text = make_token(jti="own")
        self.session = self.bench.session(self.bench.gate.authenticate(Token(self.text), LOCAL, "ws"))

    async def refresh(self, session: Any = None, **params: Any) -> Any:
        return msgspec.to_builtins(await self.bench.ask(session or self.session, "refresh_token", **params))

    @property
    def jti(self) -> object:
        """Of the token by which the session goes on."""
        return None if self.session.caller is None else self.session.caller.claims["jti"]


async def test_without_a_token_that_of_the_session_is_refreshed_and_the_session_goes_on_by_the_next() -> None:
    box = Box()
    before = box.session.caller
    reply = await box.refresh()
    assert box.refreshes.shown == [before]
    assert (box.jti, reply["jti"], reply["token_type"]) == ("next-1", "next-1", "Bearer")
    assert (reply["expires_in"], reply["expires_at"]) == (3600, iso(NOW + 3600))
    assert box.session.admission is not None


@pytest.mark.parametrize("member", ["token", "auth_token"])
async def test_its_own_token_given_by_name_is_the_session_s(member: str) -> None:
    box = Box()
    await box.refresh(**{member: box.text})
    assert (box.refreshes.shown, box.jti) == ([box.text], "next-1")


async def test_of_two_members_the_token_is_meant() -> None:
    box = Box()
    other = make_token(jti="other")
    await box.refresh(token=other, auth_token=box.text)
    assert (box.refreshes.shown, box.jti) == ([other], "own")


async def test_another_s_token_is_refreshed_and_the_session_stays_whose_it_was() -> None:
    """Whoever holds a token may have it refreshed; it makes them nobody else."""
    box = Box()
    other = make_token(jti="other")
    assert (await box.refresh(token=other))["jti"] == "next-1"
    assert box.jti == "own"
    stranger = box.bench.session(None)
    await box.refresh(stranger, token=other)
    assert (stranger.caller, stranger.admission) == (None, None)


async def test_a_session_whose_token_has_expired_goes_on_by_its_successor() -> None:
    box = Box()
    box.session.caller, box.session.expired = None, box.session.caller
    await box.refresh()
    assert (box.jti, box.session.expired) == ("next-1", None)


async def test_a_connection_that_is_gone_is_not_let_in_again() -> None:
    """Nobody would ever note that it has left."""
    box = Box()

    def close() -> None:
        box.session.is_closed = True

    box.refreshes.meanwhile = close
    await box.refresh()
    assert (box.jti, box.session.admission, len(list(box.bench.gate.admissions))) == ("own", None, 0)


async def test_a_successor_that_was_revoked_meanwhile_opens_no_session() -> None:
    """The refresh was answered: what it gives is worth nothing by now, and the session has what it had."""
    box = Box()
    original = box.refreshes.refresh

    async def refresh(*given: Any) -> Refreshed:
        made = await original(*given)
        box.bench.ledger.deny(made.caller.identities)
        return made

    box.refreshes.refresh = refresh  # type: ignore[method-assign, assignment]
    await box.refresh()
    assert (box.jti, box.session.admission) == ("own", None)


async def test_a_refresh_that_fails_leaves_the_session_as_it_was() -> None:
    box = Box()
    box.refreshes.problem = StoreFailed("the disk is full")
    with pytest.raises(StoreFailed):
        await box.refresh()
    assert box.jti == "own"


async def test_without_any_credential_the_gate_refuses_and_counts_it() -> None:
    box = Box()
    for params in ({}, {"token": ""}, {"auth_token": ""}):
        assert await box.bench.outcome(None, "refresh_token", **params) == "missing"
    assert [each[0] for each in box.bench.counts.failed] == ["missing"] * 3
    assert box.refreshes.shown == []


async def test_a_key_is_looked_at_as_a_key_and_is_none_to_be_refreshed() -> None:
    """A wrong one is refused first: nobody learns by this which keys there are."""
    box = Box()
    box.refreshes.problem = InvalidState("there is no token", hint="rotate_key gives a key a new secret")
    made = mint()
    box.bench.ledger.put_key(
        KeyRecord(key_id=made.key_id, digest=made.digest, name="k", role="viewer", created_at=NOW)
    )  # fmt: skip
    assert await box.bench.outcome(None, "refresh_token", token=made.secret) == "invalid_state"
    (shown,) = box.refreshes.shown
    assert isinstance(shown, Caller)
    assert shown.credential_id == made.key_id
    assert await box.bench.outcome(None, "refresh_token", token=mint().secret) == "unknown_key"
    assert len(box.refreshes.shown) == 1


STREAMS = ("stream:read", "stream:publish")


@given(
    whole=st.frozensets(st.sampled_from(STREAMS)),
    single=st.frozensets(st.tuples(st.sampled_from(STREAMS), st.sampled_from(["camera0", "camera1", "camera2"]))),
    cameras=st.none() | st.frozensets(st.sampled_from(["camera0", "camera1"])),
)
def test_the_streams_of_a_reply_are_those_that_the_token_reaches(
    whole: frozenset[str], single: frozenset[tuple[str, str]], cameras: frozenset[str] | None
) -> None:
    """No camera beyond camera_access, and `*` only for all (contract 7.5)."""
    grants = frozenset(f"{capability}:{name}" for capability, name in single)
    caller = Caller("jwt_local", "ada", frozenset(), whole, grants, cameras)
    shown = _streams_of(caller)
    for capability, names in zip(STREAMS, (shown.read, shown.publish), strict=True):
        if capability in whole:
            assert names == (["*"] if cameras is None else sorted(cameras))
        else:
            mine = {name for asked, name in single if asked == capability}
            assert names == sorted(mine if cameras is None else mine & cameras)


def test_a_token_that_names_its_streams_itself_shows_these() -> None:
    streams = Streams(frozenset({"cam*", "a"}), frozenset())
    caller = Caller("jwt_local", "ada", frozenset(), frozenset(STREAMS), streams=streams)
    assert _streams_of(caller) == type(_streams_of(caller))(["a", "cam*"], [])
