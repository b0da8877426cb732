"""Rights of API keys that change, suspensions and expiry dates, on a real database."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from gate_helpers import LOCAL
from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import lines_of, named
from msgspec.structs import replace
from trust_helpers import SECRET, BrokenCommits, TrustStack, busy_writer, open_trust, rows, running_trust

from edged.access.admissions import Ended
from edged.access.authority import EDGED
from edged.access.ledger import Ledger
from edged.accounts.api_keys import ForeignKey
from edged.credentials.api_keys import PUBLISHED, KeyRecord, digest, mint, published_as
from edged.credentials.callers import ApiKey, Caller, Resource, Streams, Token
from edged.credentials.claims import read_caller
from edged.credentials.decision import decide
from edged.credentials.identities import ALL, Identity
from edged.credentials.tokens import sign
from edged.errors import InvalidParams, InvalidState, NotFound, Refused, StoreFailed
from edged.store.revocations import CutOff, Revocation

NOW = 2_000_000_000.0
CAMERA0 = Resource.of_camera("camera0", "/dev/video0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


def a_key(**changes: Any) -> KeyRecord:
    key_id, _, key_digest = mint()
    return replace(KeyRecord(key_id=key_id, name="k", role="viewer", digest=key_digest, created_at=1.0), **changes)


def a_token(**claims: object) -> Caller:
    said = {"sub": "ann", "role": "viewer", "exp": NOW + 3600, **claims}
    return read_caller({name: value for name, value in said.items() if value is not None}, "text", issuer="", now=NOW)


def reason_of(trust: TrustStack, secret: str) -> str | None:
    """Why the gate refuses this key; None if it does not."""
    try:
        trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")
    except Refused as problem:
        return problem.reason
    return None


def stays(trust: TrustStack, secret: str, **given: object) -> list[tuple[str, str]]:
    """Someone who is inside by this key; filled when they are ended."""
    out: list[tuple[str, str]] = []
    caller = trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")
    trust.gate.admit(caller, "ws", lambda cause, by: out.append((cause, by)), **given)  # type: ignore[arg-type]
    return out


def accept(_before: KeyRecord, _after: KeyRecord) -> None:
    """Every change is fine."""


# --- what a key may do, changed -----------------------------------------------------------------------------------


def test_a_caller_that_was_looked_at_is_looked_up_anew_once_its_key_has_changed() -> None:
    """Both secrets of a rotated key follow; other keys' callers, and tokens, are the very same objects."""
    ledger, record, other = Ledger(), a_key(), a_key()
    for each in (record, other):
        ledger.put_key(each)
    first, stranger = ledger.find_key(record.digest), ledger.find_key(other.digest)
    assert first is not None
    assert stranger is not None
    assert ledger.current(first) is first
    rotated = replace(record, digest=b"n" * 32, previous_digest=record.digest, previous_valid_until=NOW)
    ledger.put_key(rotated)
    ledger.put_key(replace(rotated, role="admin", camera_access=("camera1",)))
    now = ledger.current(first)
    assert (now.roles, now.cameras, now.identities) == (
        frozenset({"admin"}), frozenset({"camera1"}), first.identities
    )  # fmt: skip
    assert ledger.current(now) is now
    assert ledger.current(stranger) is stranger
    named_like_it = a_token(jti=record.key_id)
    assert ledger.current(named_like_it) is named_like_it


def test_streams_of_a_key_are_exactly_those_that_it_names() -> None:
    """Reading and publishing are asked by name, and the cameras that it may see are no streams any more."""
    ledger = Ledger()
    record = a_key(streams=Streams(read=frozenset({"camera1"}), publish=frozenset({"in"})))
    ledger.put_key(record)
    caller = ledger.find_key(record.digest)
    assert caller is not None
    assert caller.streams == record.streams
    names = {"camera0": False, "camera1": True, "in": False}
    assert {name: decide(caller, "stream:read", Resource.of_camera(name), now=NOW).allowed for name in names} == names
    assert decide(caller, "stream:publish", Resource.of_camera("in"), now=NOW).allowed
    assert decide(caller, "camera:read", CAMERA0, now=NOW).allowed


async def test_an_update_is_in_force_for_the_next_judgement_and_after_a_restart(path: Path) -> None:
    """A caller from before the change is judged by what its key may do now; so is one after a restart."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="operator")
        caller = trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")
        assert trust.gate.judge(caller, "camera:write", CAMERA0).allowed
        changes = {"role": "viewer", "name": "dock", "camera_access": ("camera0",), "expires_at": 4e9}
        changed = await trust.api_keys.update(EDGED, record.key_id, changes, accept)
        assert changed == replace(record, **changes)
        assert not trust.gate.judge(caller, "camera:write", CAMERA0).allowed
        assert trust.gate.judge(caller, "camera:read", CAMERA0).allowed
        with pytest.raises(Refused, match="missing_scope"):
            trust.gate.authorize(caller, "camera:write", "ws", CAMERA0)
        assert trust.gate.current(caller).name == "dock"
    async with running_trust(path) as trust:
        assert trust.ledger.keys[record.key_id] == changed


async def test_whoever_is_inside_for_what_a_key_may_no_more_leaves(path: Path) -> None:
    """The picture of a camera that was taken away ends; a conversation and the other camera's picture go on."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        first = stays(trust, secret, path="camera0", capability="stream:read", resource=CAMERA0)
        other = Resource.of_camera("camera1")
        second = stays(trust, secret, path="camera1", capability="stream:read", resource=other)
        talk = stays(trust, secret)
        with trust.admissions.endings.subscribe() as news:
            await trust.api_keys.update(EDGED, record.key_id, {"camera_access": ("camera1",)}, accept)
            assert cast(Ended, await news.receive()).identities == frozenset()
        assert (first, second, talk) == ([("revoked", "")], [], [])


async def test_a_new_end_moves_the_deadline_of_whoever_is_inside(
    path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Nearer, further away, and none at all."""
    async with running_trust(path, now=lambda: NOW + trio.current_time()) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer", expires_at=NOW + 500)
        stays(trust, secret)
        (admission,) = trust.admissions
        for ends, seconds in ((NOW + 100, 100), (NOW + 900, 900), (None, None)):
            await trust.api_keys.update(EDGED, record.key_id, {"expires_at": ends}, accept)
            assert admission.deadline == (None if seconds is None else pytest.approx(seconds, abs=1))


async def test_an_update_that_is_refused_or_fails_changes_nothing(path: Path) -> None:
    """The check, a failing disk, an end in the past, no such key, a revoked one."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")

        def refuse(before: KeyRecord, after: KeyRecord) -> None:
            assert (before, after.role) == (record, "admin")
            raise Refused("missing_scope")

        with pytest.raises(Refused):
            await trust.api_keys.update(EDGED, record.key_id, {"role": "admin"}, refuse)
        with pytest.raises(InvalidParams):
            await trust.api_keys.update(EDGED, record.key_id, {"expires_at": 5.0}, accept)
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.api_keys.update(EDGED, record.key_id, {"role": "admin"}, accept)
        await broken.mend()
        assert trust.ledger.keys[record.key_id] == record
        with pytest.raises(NotFound):
            await trust.api_keys.update(EDGED, "key_0", {"name": "x"}, accept)
        await trust.api_keys.revoke(record.key_id)
        with pytest.raises(InvalidState):
            await trust.api_keys.update(EDGED, record.key_id, {"name": "x"}, accept)
        assert reason_of(trust, secret) == "revoked"


async def test_what_is_denied_during_an_update_stays_denied(path: Path) -> None:
    """A key that is suspended, or revoked, while its new rights are on their way to the disk."""
    async with running_trust(path) as trust:
        for denial, told in ((trust.api_keys.suspend, "suspended"), (trust.api_keys.revoke, "revoked")):
            record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
            outcome: list[str] = []

            async def update(key_id: str = record.key_id, outcome: list[str] = outcome) -> None:
                try:
                    await trust.api_keys.update(EDGED, key_id, {"role": "admin"}, accept)
                    outcome.append("ok")
                except InvalidState:
                    outcome.append("invalid_state")

            async with trio.open_nursery() as nursery, busy_writer(trust.db):
                nursery.start_soon(update)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(denial, record.key_id)
            assert reason_of(trust, secret) == told
            assert outcome == ["ok" if told == "suspended" else "invalid_state"]


# --- suspended and resumed ----------------------------------------------------------------------------------------


async def test_a_suspension_is_in_force_before_the_first_await_and_durable_after_it(path: Path) -> None:
    """Refused with its own reason, everyone inside ended, both secrets; and still so after a restart."""
    async with running_trust(path) as trust:
        record, old = await trust.api_keys.create(EDGED, name="k", role="viewer")
        _, new = await trust.api_keys.rotate(EDGED, record.key_id)
        out = stays(trust, old)
        pending = trust.api_keys.suspend(record.key_id, by="session_1")
        assert (reason_of(trust, old), reason_of(trust, new), out) == (
            "suspended", "suspended", [("suspended", "session_1")]
        )  # fmt: skip
        assert (await pending).status(0) == "suspended"
        assert rows(path, "SELECT suspended_at IS NULL FROM api_keys") == [(0,)]
        again = await trust.api_keys.suspend(record.key_id)
        assert again.suspended_at == trust.ledger.keys[record.key_id].suspended_at
    async with running_trust(path) as trust:
        assert (reason_of(trust, old), reason_of(trust, new)) == ("suspended", "suspended")
        for _ in range(2):
            assert (await trust.api_keys.resume(EDGED, record.key_id)).status(0) == "active"
        assert (reason_of(trust, old), reason_of(trust, new)) == (None, None)
    async with running_trust(path) as trust:
        assert reason_of(trust, new) is None


async def test_revoked_comes_before_suspended_and_that_before_expired(path: Path) -> None:
    """One reason, the weightiest (contract 7.6); a revoked key is neither suspended nor resumed."""
    now = NOW
    async with running_trust(path, now=lambda: now) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer", expires_at=NOW + 10)
        await trust.api_keys.suspend(record.key_id)
        now += 20
        assert reason_of(trust, secret) == "suspended"
        assert trust.ledger.keys[record.key_id].status(now) == "suspended"
        await trust.api_keys.revoke(record.key_id)
        assert reason_of(trust, secret) == "revoked"
        for change in (trust.api_keys.suspend, partial(trust.api_keys.resume, EDGED)):
            with pytest.raises(InvalidState):
                await change(record.key_id)
            with pytest.raises(NotFound):
                await change("key_0")


async def test_a_suspension_that_cannot_be_saved_is_in_force_and_saved_later(
    path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """The caller is told; the key stays out; the disk gets it when it can."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.api_keys.suspend(record.key_id)
        assert reason_of(trust, secret) == "suspended"
        await broken.mend()
        mock_clock.autojump_threshold = 0.05
        await until_saved(path)
        assert reason_of(trust, secret) == "suspended"


async def until_saved(path: Path) -> None:
    for _ in range(100):
        if rows(path, "SELECT suspended_at IS NULL FROM api_keys") == [(0,)]:
            return
        await trio.sleep(1)
    raise AssertionError("never saved")


async def test_a_failed_resumption_leaves_it_suspended_here_and_on_the_disk(
    path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Grants after: nothing is good before its commit, and what a failed commit may have left is written over."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        await trust.api_keys.suspend(record.key_id)
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.api_keys.resume(EDGED, record.key_id)
        assert reason_of(trust, secret) == "suspended"
        await broken.mend()
        await trust.db.write(lambda connection: connection.execute("UPDATE api_keys SET suspended_at = NULL"))
        mock_clock.autojump_threshold = 0.05
        await until_saved(path)
        await trust.api_keys.resume(EDGED, record.key_id)
        assert reason_of(trust, secret) is None


@pytest.mark.parametrize("queued", [False, True])
async def test_a_suspension_during_a_resumption_wins(path: Path, queued: bool) -> None:
    """Whether the resumption waits in the queue or for its commit: suspended in memory and on the disk."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        await trust.api_keys.suspend(record.key_id)
        outcome: list[str] = []

        async def resume() -> None:
            try:
                await trust.api_keys.resume(EDGED, record.key_id)
                outcome.append("resumed")
            except InvalidState:
                outcome.append("overtaken")

        async with trio.open_nursery() as nursery, busy_writer(trust.db):
            if queued:
                nursery.start_soon(lambda: trust.api_keys.create(EDGED, name="first", role="viewer"))
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(resume)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(trust.api_keys.suspend, record.key_id)
            await trio.testing.wait_all_tasks_blocked()
        stored = rows(path, f"SELECT suspended_at IS NULL FROM api_keys WHERE key_id = '{record.key_id}'")
        assert reason_of(trust, secret) == "suspended"
        assert stored == [(0,)]
        assert outcome == ["overtaken"]


# --- denied by whom and by when -----------------------------------------------------------------------------------

SCOPES = st.sampled_from(
    [ALL, Identity.of_user("ann"), Identity.of_user("bob"), Identity.of_issuer("a"), Identity.of_issuer("b")]
)
LINES = st.lists(st.tuples(SCOPES, st.integers(0, 50)), max_size=5)


@given(
    LINES, st.sampled_from(["ann", "bob"]), st.none() | st.sampled_from(["a", "b"]), st.none() | st.integers(0, 50)
)  # fmt: skip
def test_cut_offs_combine_by_maximum_in_every_order(
    lines: list[tuple[Identity, int]], subject: str, issuer: str | None, issued: int | None
) -> None:
    """A token is denied if it was issued by the latest line that it is within, whatever order they were drawn in."""
    token = a_token(sub=subject, iss=issuer, iat=issued)
    scopes = {ALL, Identity.of_user(subject), *([Identity.of_issuer(issuer)] if issuer else [])}
    drawn = [before for scope, before in lines if scope in scopes]
    expected = bool(drawn) and (issued is None or issued <= max(drawn))
    for order in itertools.permutations(lines):
        ledger = Ledger()
        for scope, before in order:
            ledger.cut_offs.draw(scope, float(before))
        assert ledger.is_denied(token) is expected


def test_lines_and_subjects_hit_tokens_only() -> None:
    """An API key has no time of issue, and its subject is no token's."""
    ledger, record = Ledger(), a_key()
    ledger.put_key(record)
    ledger.cut_offs.draw(ALL, 4e9)
    ledger.deny([Identity.of_user(f"key:{record.key_id}")])
    caller = ledger.find_key(record.digest)
    assert caller is not None
    assert not ledger.is_denied(caller)
    assert ledger.is_denied(a_token(sub=f"key:{record.key_id}", iat=None))


@given(st.text(max_size=8), st.text(max_size=8))
def test_a_denied_subject_is_that_subject_alone(denied: str, subject: str) -> None:
    """No prefix, no other name, and no issuer that is called so."""
    ledger = Ledger()
    ledger.deny([Identity.of_user(denied)])
    if subject and subject.isprintable():
        assert ledger.is_denied(a_token(sub=subject, iss=denied)) is (denied == subject)


async def test_a_line_ends_who_is_inside_and_stays_drawn(path: Path) -> None:
    """Tokens issued by then are refused at once and after a restart, later ones are good; a lower line does nothing."""
    async with running_trust(path, now=lambda: NOW) as trust:
        early, late = (
            sign({"sub": "ann", "role": "viewer", "iat": NOW - age, "exp": NOW + 3600, "jti": str(age)}, SECRET)
            for age in (100, 10)
        )
        out: dict[str, list[str]] = {early: [], late: []}
        for text in (early, late):
            caller = trust.gate.authenticate(Token(text), LOCAL, "ws")
            trust.gate.admit(caller, "ws", lambda cause, _by, mine=out[text]: mine.append(cause))  # type: ignore[misc]
        pending = trust.revocations.cut_off(ALL, NOW - 50, reason="leaked")
        assert (out[early], out[late]) == (["revoked"], [])
        with pytest.raises(Refused, match="revoked"):
            trust.gate.authenticate(Token(early), LOCAL, "ws")
        await pending
        await trust.revocations.cut_off(ALL, NOW - 90)
        await trust.revocations.cut_off(Identity.of_user("bob"), NOW)
        assert trust.counted.revocations == ["cut_off", "cut_off"]
    async with running_trust(path, now=lambda: NOW) as trust:
        assert lines_of(trust.ledger) == {ALL: NOW - 50, Identity.of_user("bob"): NOW}
        with pytest.raises(Refused, match="revoked"):
            trust.gate.authenticate(Token(early), LOCAL, "ws")
        trust.gate.authenticate(Token(late), LOCAL, "ws")
        lines, total = await trust.revocations.load_pending_and_lines()
        assert total == 2
        assert [(line.scope, line.reason) for line in lines if isinstance(line, CutOff)] == [
            (ALL, "leaked"),
            (Identity.of_user("bob"), ""),
        ]


async def test_a_line_that_cannot_be_saved_is_in_force_listed_and_saved_later(
    path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Said again, also lower, while the disk fails: told so each time; once it works all is there."""
    async with running_trust(path, now=lambda: NOW) as trust:
        broken = await BrokenCommits(trust.db).begin()
        for before in (NOW - 5, NOW - 9):
            with pytest.raises(StoreFailed):
                await trust.revocations.cut_off(ALL, before)
        with pytest.raises(StoreFailed):
            await trust.registrar.revoke_token(frozenset({named("user:ann")}), None, kind="subject", reason="left")
        assert lines_of(trust.ledger) == {ALL: NOW - 5}
        (denied, line), total = await trust.revocations.load_pending_and_lines()
        assert isinstance(denied, Revocation)
        assert (str(denied.identity), denied.reason, total) == ("user:ann", "left", 2)
        assert isinstance(line, CutOff)
        assert line.before == NOW - 5
        await broken.mend()
        mock_clock.autojump_threshold = 0.05
        await trio.sleep(200)
        assert await trust.revocations.load_pending_and_lines() == ([line], 2)
        assert await trust.revocations.load_page(None, 9) == [denied]
    assert rows(path, "SELECT scope, before FROM cut_offs") == [(str(ALL), NOW - 5)]
    assert rows(path, "SELECT identity, reason FROM revocations") == [("user:ann", "left")]


@pytest.mark.parametrize(("kind", "name"), [("subject", named("user:ann")), ("issuer", named("issuer:a"))])
async def test_denying_a_subject_or_an_issuer_ends_all_its_tokens(path: Path, kind: str, name: str) -> None:
    """Whatever their jti, those of tomorrow too; somebody else's go on."""
    async with running_trust(path, now=lambda: NOW) as trust:
        mine, other = a_token(iss="a", jti="1"), a_token(sub="bob", iss="b")
        out: list[str] = []
        for caller in (mine, other):
            trust.gate.admit(caller, "ws", lambda _cause, _by, who=caller.subject: out.append(who))  # type: ignore[misc]
        await trust.registrar.revoke_token(frozenset({name}), None, kind=kind, reason="")  # type: ignore[arg-type]
        assert out == ["ann"]
        assert trust.ledger.is_denied(a_token(iss="a", jti="2", iat=NOW + 9))
        assert not trust.ledger.is_denied(other)
        assert trust.counted.revocations == [kind]
    async with running_trust(path, now=lambda: NOW) as trust:
        assert trust.ledger.is_denied(mine)


# --- keys of another service --------------------------------------------------------------------------------------


def foreign(secret: str, **given: object) -> ForeignKey:
    return ForeignKey(**{"secret": secret, "name": "old", "role": "viewer", "created_at": 5.0, **given})  # type: ignore[arg-type]


async def test_imported_keys_are_good_whatever_their_form_and_stay_so(path: Path) -> None:
    """By their SHA-256 alone; those known, or named twice, are told and not doubled; no secret is on the disk."""
    texts = ["A" * 32, "csk_" + "b-_" * 14, "camera_service_sk_" + "c" * 64]
    async with running_trust(path) as trust:
        first = await trust.api_keys.import_all(EDGED, [foreign(texts[0], role="admin", expires_at=4e9)])
        outcomes = await trust.api_keys.import_all(EDGED, [foreign(text) for text in [*texts, texts[1]]])
        assert [isinstance(each, KeyRecord) for each in (*first, *outcomes)] == [True, False, True, True, False]
        assert outcomes[0] == outcomes[3] == "it is known already"
        assert [reason_of(trust, text) for text in [*texts, "D" * 32]] == [None, None, None, "unknown_key"]
    stored = path.read_bytes() + b"".join(each.read_bytes() for each in path.parent.glob("trust.db-*"))
    assert not [text for text in texts if text.encode() in stored]
    async with open_trust(path) as trust:
        assert [trust.lets_in(text) for text in texts] == [True, True, True]
        record = trust.ledger.keys[first[0].key_id]  # type: ignore[union-attr]
        assert (record.role, record.created_at, record.expires_at) == ("admin", 5.0, 4e9)


async def test_all_keys_of_an_import_are_there_or_none(path: Path) -> None:
    """A bad one, or a failing disk: nothing is taken."""
    async with running_trust(path) as trust:
        for wrong in ({"role": "king"}, {"name": ""}):
            with pytest.raises(InvalidParams):
                await trust.api_keys.import_all(EDGED, [foreign("A" * 32), foreign("B" * 32, **wrong)])
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.api_keys.import_all(EDGED, [foreign("A" * 32)])
        await broken.mend()
        assert trust.ledger.keys == {}
        assert not trust.lets_in("A" * 32)


async def test_a_key_that_is_printed_in_a_guide_is_no_key(path: Path) -> None:
    """Refused by name on import, and the log of a refused login says what was tried."""
    sample = "camera_service_sk_" + "1234567890abcdef" * 4
    assert published_as(digest(sample)) == PUBLISHED[digest(sample).hex()]
    assert published_as(digest(sample + "0")) is None
    async with running_trust(path) as trust:
        (outcome,) = await trust.api_keys.import_all(EDGED, [foreign(sample)])
        assert "known to everybody" in str(outcome)
        assert trust.ledger.keys == {}
        with pytest.raises(Refused, match="guide") as caught:
            trust.gate.authenticate(ApiKey(sample), LOCAL, "ws")
        assert caught.value.reason == "unknown_key"


# --- one session --------------------------------------------------------------------------------------------------


async def test_ending_one_session_leaves_the_credential_and_the_others(path: Path) -> None:
    """Found by its id; the sweeps are told, because MediaMTX may not list it just now."""
    async with running_trust(path) as trust:
        _, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        first, second = stays(trust, secret, name="session_a"), stays(trust, secret)
        found = trust.admissions.find("session_a")
        assert found is not None
        with trust.admissions.endings.subscribe() as news:
            trust.registrar.end_session(found, by="session_b")
            assert cast(Ended, await news.receive()).identities == frozenset()
        assert (first, second) == ([("ended", "session_b")], [])
        assert trust.admissions.find("session_a") is None
        assert reason_of(trust, secret) is None
