"""accounts/{registrar,api_keys}.py: denials take effect before they are durable, grants after; none is half done."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from gate_helpers import LOCAL
from identity_helpers import named
from trust_helpers import SECRET, BrokenCommits, TrustStack, busy_writer, open_trust, rows, running_trust, until

from edged.access.admissions import Ended
from edged.access.authority import EDGED
from edged.credentials.api_keys import digest, is_well_formed
from edged.credentials.callers import ApiKey, Token
from edged.credentials.tokens import issue_claims, sign
from edged.errors import InvalidParams, InvalidState, NotFound, Overloaded, Refused, StoreFailed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


def stays(trust: TrustStack, secret: str) -> list[tuple[str, str]]:
    """Let someone in by this key; the list tells how they were ended."""
    terminate: list[tuple[str, str]] = []
    caller = trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")
    trust.gate.admit(caller, "ws", lambda cause, by: terminate.append((cause, by)))
    return terminate


async def quiet(trust: TrustStack) -> None:
    """Nothing is being written and every task waits: only the clock can bring anything about."""
    await until(lambda: trust.db._waiting == 0)
    await trio.testing.wait_all_tasks_blocked()


def on_disk(path: Path) -> set[str]:
    return {str(row[0]) for row in rows(path, "SELECT key_id FROM api_keys")}


def denied_on_disk(path: Path) -> set[str]:
    return {str(row[0]) for row in rows(path, "SELECT identity FROM revocations")}


# --- create -----------------------------------------------------------------


async def test_a_new_key_is_on_disk_and_let_in(path: Path) -> None:
    """When create_key answers, the key works and another program finds its digest, not its text."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(
            EDGED, name="front gate", role="viewer", permissions=["camera:read"], camera_access=("camera0",)
        )
        assert is_well_formed(secret)
        assert record.digest == digest(secret)
        assert (record.permissions, record.camera_access) == (("camera:read",), ("camera0",))
        assert trust.lets_in(secret)
        assert rows(path, "SELECT key_id, digest FROM api_keys") == [(record.key_id, digest(secret))]
    assert secret.encode() not in path.read_bytes()


async def test_a_key_is_not_known_before_it_is_durable(path: Path) -> None:
    """While the commit runs the ledger has no such key: a grant comes after."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        async with busy_writer(trust.db):
            nursery.start_soon(lambda: trust.api_keys.create(EDGED, name="k", role="viewer"))
            await trio.testing.wait_all_tasks_blocked()
            assert not trust.ledger.keys
            assert not on_disk(path)
        await until(lambda: bool(trust.ledger.keys))
        assert on_disk(path) == set(trust.ledger.keys)


async def test_a_caller_that_hangs_up_does_not_stop_the_making_of_its_key(path: Path) -> None:
    """Cancelled in the middle: the key is made whole, on disk and in the ledger."""
    async with running_trust(path) as trust:
        async with busy_writer(trust.db):
            with trio.move_on_after(0.02) as scope:
                await trust.api_keys.create(EDGED, name="orphan", role="viewer")
            assert scope.cancelled_caught
        await until(lambda: bool(trust.ledger.keys))
        assert on_disk(path) == set(trust.ledger.keys)


async def test_a_failed_commit_makes_no_key(path: Path) -> None:
    """store_error, and neither memory nor disk knows the key; the next try works."""
    async with running_trust(path) as trust:
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.api_keys.create(EDGED, name="k", role="viewer")
        assert not trust.ledger.keys
        await broken.mend()
        record, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
        assert on_disk(path) == {record.key_id}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": "x" * 101}, {"role": "root"}, {"role": ""}, {"expires_at": 1.0},
        {"expires_at": math.inf}, {"expires_at": math.nan},
    ],
)  # fmt: skip
async def test_a_key_that_makes_no_sense_is_refused(path: Path, wrong: dict[str, object]) -> None:
    """Name, role and end are judged before anything is queued."""
    async with open_trust(path) as trust:
        with pytest.raises(InvalidParams):
            await trust.api_keys.create(EDGED, **{"name": "k", "role": "viewer", **wrong})  # type: ignore[arg-type]


# --- rotate -----------------------------------------------------------------


async def test_both_secrets_work_during_the_grace_and_one_after(path: Path) -> None:
    """The old secret is good until the grace ends, the new one for good."""
    now = 2_000_000_000.0
    async with running_trust(path, now=lambda: now) as trust:
        record, old = await trust.api_keys.create(EDGED, name="k", role="viewer")
        rotated, new = await trust.api_keys.rotate(EDGED, record.key_id, 100)
        assert (rotated.key_id, rotated.previous_valid_until) == (record.key_id, now + 100)
        assert (trust.lets_in(old), trust.lets_in(new)) == (True, True)
        now += 99
        assert (trust.lets_in(old), trust.lets_in(new)) == (True, True)
        now += 1
        assert (trust.lets_in(old), trust.lets_in(new)) == (False, True)


async def test_whoever_is_inside_by_the_old_secret_leaves_when_its_grace_ends(
    path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Admissions of the old secret are shortened to the grace; those of the new one stay."""
    async with running_trust(path, now=lambda: 2e9 + trio.current_time()) as trust, trio.open_nursery() as nursery:
        nursery.start_soon(trust.admissions.run)
        record, old = await trust.api_keys.create(EDGED, name="k", role="viewer")
        early = stays(trust, old)
        caller = trust.gate.authenticate(ApiKey(old), LOCAL, "ws")
        _, new = await trust.api_keys.rotate(EDGED, record.key_id, 100)
        late: list[str] = []
        trust.gate.admit(caller, "ws", lambda cause, by: late.append(cause))
        renewed = stays(trust, new)
        mock_clock.jump(99.9)
        await trio.testing.wait_all_tasks_blocked()
        assert (early, late) == ([], [])
        mock_clock.jump(0.2)
        await trio.testing.wait_all_tasks_blocked()
        assert (early, late, renewed) == ([("expired", "")], ["expired"], [])
        nursery.cancel_scope.cancel()


async def test_no_grace_ends_the_old_secret_at_once(path: Path) -> None:
    """grace_seconds 0 is allowed."""
    async with running_trust(path) as trust:
        record, old = await trust.api_keys.create(EDGED, name="k", role="viewer")
        _, new = await trust.api_keys.rotate(EDGED, record.key_id, 0)
        assert (trust.lets_in(old), trust.lets_in(new)) == (False, True)


@pytest.mark.parametrize("grace", [-1.0, math.inf, math.nan])
async def test_a_grace_that_makes_no_sense_is_refused(path: Path, grace: float) -> None:
    """Nobody keeps an old secret for ever."""
    async with running_trust(path) as trust:
        record, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
        with pytest.raises(InvalidParams):
            await trust.api_keys.rotate(EDGED, record.key_id, grace)


async def test_a_caller_that_hangs_up_does_not_stop_the_rotation(path: Path) -> None:
    """Cancelled in the middle: memory and disk agree on the new secret, and the old one has its grace."""
    async with running_trust(path) as trust:
        record, old = await trust.api_keys.create(EDGED, name="k", role="viewer")
        async with busy_writer(trust.db):
            with trio.move_on_after(0.02) as scope:
                await trust.api_keys.rotate(EDGED, record.key_id)
            assert scope.cancelled_caught
            assert trust.ledger.keys[record.key_id] == record
        await until(lambda: trust.ledger.keys[record.key_id].rotated_at is not None)
        assert rows(path, "SELECT digest FROM api_keys") == [(trust.ledger.keys[record.key_id].digest,)]
        assert trust.lets_in(old)


async def test_a_failed_commit_rotates_nothing(path: Path) -> None:
    """The old secret goes on without an end."""
    async with running_trust(path) as trust:
        record, old = await trust.api_keys.create(EDGED, name="k", role="viewer")
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.api_keys.rotate(EDGED, record.key_id, 0)
        assert trust.ledger.keys[record.key_id] == record
        assert trust.lets_in(old)
        await broken.mend()


async def test_a_revoked_key_is_not_rotated(path: Path) -> None:
    """409: there is nothing left to renew."""
    async with running_trust(path) as trust:
        record, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
        await trust.api_keys.revoke(record.key_id)
        with pytest.raises(InvalidState):
            await trust.api_keys.rotate(EDGED, record.key_id)


@pytest.mark.parametrize("queued", [False, True])
async def test_a_key_revoked_while_it_is_being_rotated_is_revoked(path: Path, queued: bool) -> None:
    """Whether the rotation waits in the queue or for its commit: both secrets are dead, and it answers 409."""
    async with running_trust(path) as trust:
        record, old = await trust.api_keys.create(EDGED, name="k", role="viewer")
        inside = stays(trust, old)
        outcome: list[type[Exception]] = []

        async def rotate() -> None:
            try:
                await trust.api_keys.rotate(EDGED, record.key_id)
            except InvalidState as problem:
                outcome.append(type(problem))

        async with trio.open_nursery() as nursery, busy_writer(trust.db):
            if queued:
                nursery.start_soon(lambda: trust.api_keys.create(EDGED, name="first in the queue", role="viewer"))
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(rotate)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(trust.api_keys.revoke, record.key_id)
            assert inside == [("revoked", "")]
        assert outcome == [InvalidState]
        assert not trust.lets_in(old)
        assert (await trust.api_keys.get(record.key_id)).status(0) == "revoked"
        assert rows(path, f"SELECT revoked_at IS NULL FROM api_keys WHERE key_id = '{record.key_id}'") == [(0,)]


# --- revoke -----------------------------------------------------------------


async def test_revoking_takes_effect_before_the_first_await(path: Path) -> None:
    """When the call returns, with nothing awaited yet, the key is refused and its sessions are out."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        _, other = await trust.api_keys.create(EDGED, name="other", role="viewer")
        inside, bystander = stays(trust, secret), stays(trust, other)
        with trust.admissions.endings.subscribe() as news:
            at = trio.current_time()
            pending = trust.api_keys.revoke(record.key_id, by="session_7")
            assert not trust.lets_in(secret)
            assert trust.counted.failed[-1] == ("revoked", "api_key", "ws")
            assert (inside, bystander) == ([("revoked", "session_7")], [])
            assert not denied_on_disk(path)
            assert (await pending).revoked_at is not None
            assert denied_on_disk(path) == {f"key:{record.key_id}"}
            told = await news.receive()
            assert isinstance(told, Ended)
            assert told.identities == {named(f"key:{record.key_id}")}
            assert told.at >= at
        assert trust.lets_in(other)


async def test_both_secrets_of_a_rotated_key_end_with_it(path: Path) -> None:
    """Revoking ends old and new at once, and whoever is inside by either."""
    async with running_trust(path) as trust:
        record, old = await trust.api_keys.create(EDGED, name="k", role="viewer")
        first = stays(trust, old)
        _, new = await trust.api_keys.rotate(EDGED, record.key_id)
        second = stays(trust, new)
        await trust.api_keys.revoke(record.key_id)
        assert (first, second) == ([("revoked", "")], [("revoked", "")])
        assert (trust.lets_in(old), trust.lets_in(new)) == (False, False)


async def test_nobody_is_admitted_once_the_call_returned(path: Path) -> None:
    """Eight clients that come back in a loop: not one admission after revoke_key was called."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        let_in = 0

        async def come_back() -> None:
            nonlocal let_in
            while True:
                await trio.lowlevel.checkpoint()
                try:
                    caller = trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")
                    # An endpoint that waits between looking and admitting must not get through either.
                    await trio.lowlevel.checkpoint()
                    trust.gate.admit(caller, "ws", lambda cause, by: None)
                except Refused:
                    continue
                let_in += 1

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(come_back)
            await until(lambda: let_in > 100)
            pending = trust.api_keys.revoke(record.key_id)
            before = let_in
            assert len(trust.admissions) == 0
            await pending
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            assert let_in == before
            assert len(trust.admissions) == 0
            nursery.cancel_scope.cancel()


async def test_a_caller_that_hangs_up_does_not_stop_its_revocation(path: Path) -> None:
    """Cancelled in the middle: denied at once, on disk soon."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        async with busy_writer(trust.db):
            with trio.move_on_after(0.02) as scope:
                await trust.api_keys.revoke(record.key_id)
            assert scope.cancelled_caught
            assert not trust.lets_in(secret)
        await until(lambda: bool(denied_on_disk(path)))
        assert rows(path, "SELECT revoked_at IS NULL FROM api_keys") == [(0,)]


async def test_a_session_may_end_itself_by_what_it_asks(path: Path) -> None:
    """Its own ending cancels the very call that revokes: the revocation is saved all the same."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="admin")
        with trio.CancelScope() as session:
            trust.gate.admit(
                trust.gate.authenticate(ApiKey(secret), LOCAL, "ws"), "ws", lambda cause, by: session.cancel()
            )
            await trust.api_keys.revoke(record.key_id)
        assert session.cancelled_caught
        await until(lambda: denied_on_disk(path) == {f"key:{record.key_id}"})


async def test_an_on_terminate_that_fails_keeps_no_other_session_active(path: Path) -> None:
    """An ending that raises is logged; the others are ended and the revocation is saved."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        caller = trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")

        def jam(_cause: str, _by: str) -> None:
            raise RuntimeError("jammed")

        for _ in range(4):
            trust.gate.admit(caller, "ws", jam)
        out = [stays(trust, secret) for _ in range(4)]
        await trust.api_keys.revoke(record.key_id)
        assert out == [[("revoked", "")]] * 4
        assert denied_on_disk(path) == {f"key:{record.key_id}"}


async def test_what_is_denied_stays_denied_and_is_saved_with_growing_pauses(
    path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """COMMIT fails: store_error to the caller, no way back in, tries after 1, 2 and 4 s until it is on disk."""
    async with running_trust(path, now=lambda: 2e9) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        inside = stays(trust, secret)
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed, match="in force now, but not saved yet") as told:
            await trust.api_keys.revoke(record.key_id)
        assert "a restart of edged would undo it" in told.value.sentence
        assert told.value.fields == {"in_force": True}
        assert "goes on trying" in told.value.hint
        with pytest.raises(StoreFailed, match="nothing was done: database trust") as told:
            await trust.api_keys.create(EDGED, name="other", role="viewer")
        assert told.value.fields["in_force"] is False
        await quiet(trust)
        assert inside == [("revoked", "")]
        assert not trust.lets_in(secret)
        assert (trust.registrar.pending, trust.registrar.is_late) == (1, True)
        broken.tries = 1
        for tries, pause in enumerate((1, 2, 4), start=1):
            mock_clock.jump(pause - 0.01)
            await trio.testing.wait_all_tasks_blocked()
            assert broken.tries == tries
            mock_clock.jump(0.01)
            await until(lambda tries=tries: broken.tries == tries + 1)  # type: ignore[misc]
            await quiet(trust)
        with pytest.raises(StoreFailed):
            await trust.api_keys.revoke(record.key_id)
        assert denied_on_disk(path) == set()
        await broken.mend()
        mock_clock.jump(8)
        await until(lambda: denied_on_disk(path) == {f"key:{record.key_id}"})
        await quiet(trust)
        assert rows(path, "SELECT revoked_at FROM api_keys") == [(2e9,)]
        assert not trust.lets_in(secret)
        assert trust.counted.revocations == ["key"]
        assert (trust.registrar.pending, trust.registrar.is_late) == (0, False)


async def test_the_pause_grows_to_a_minute_and_no_further(path: Path, mock_clock: trio.testing.MockClock) -> None:
    """A disk that is broken for an hour is tried once a minute; a later fault begins with one second again."""
    async with running_trust(path) as trust:
        first, _ = await trust.api_keys.create(EDGED, name="a", role="viewer")
        second, _ = await trust.api_keys.create(EDGED, name="b", role="viewer")
        for record in (first, second):
            broken = await BrokenCommits(trust.db).begin()
            with pytest.raises(StoreFailed):
                await trust.api_keys.revoke(record.key_id)
            await quiet(trust)
            for pause in (1, 2, 4, 8, 16, 32, 60, 60):
                tries = broken.tries
                mock_clock.jump(pause)
                await until(lambda broken=broken, tries=tries: broken.tries == tries + 1)  # type: ignore[misc]
                await quiet(trust)
            await broken.mend()
            mock_clock.jump(60)
            await until(lambda record=record: f"key:{record.key_id}" in denied_on_disk(path))  # type: ignore[misc]
            await quiet(trust)


async def test_revoking_again_is_fine(path: Path) -> None:
    """The same answer, one commit, one count; sessions are swept again."""
    async with running_trust(path) as trust:
        record, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
        first = await trust.api_keys.revoke(record.key_id)
        broken = await BrokenCommits(trust.db).begin()
        with trust.admissions.endings.subscribe() as news:
            assert await trust.api_keys.revoke(record.key_id) == first
            assert cast(Ended, await news.receive()).identities == {named(f"key:{record.key_id}")}
        assert broken.tries == 0
        await broken.mend()
        assert trust.counted.revocations == ["key"]


async def test_a_key_nobody_knows_is_not_found(path: Path) -> None:
    """404 for rotate and revoke alike; the name is in the fields."""
    async with running_trust(path) as trust:
        with pytest.raises(NotFound, match="key_0"):
            await trust.api_keys.rotate(EDGED, "key_0")
        with pytest.raises(NotFound) as caught:
            await trust.api_keys.revoke("key_0")
        assert caught.value.fields == {"resource": "key", "id": "key_0"}
        assert not trust.ledger.denials.identities


async def test_a_revoked_token_is_refused_and_stays_so(path: Path) -> None:
    """By its jti and its text; what it opened is ended; `until` is kept."""
    async with running_trust(path) as trust:
        claims = issue_claims("ann", role="viewer", now=trust.clock.now(), expires_in=3600)
        text = sign(claims, SECRET)
        caller = trust.gate.authenticate(Token(text), LOCAL, "ws")
        out: list[str] = []
        trust.gate.admit(caller, "ws", lambda cause, by: out.append(cause))
        pending = trust.registrar.revoke_token(caller.identities, claims["exp"] + 60.0)  # type: ignore[operator]
        assert out == ["revoked"]
        with pytest.raises(Refused, match="revoked"):
            trust.gate.authenticate(Token(text), LOCAL, "ws")
        await pending
        assert denied_on_disk(path) == set(map(str, caller.identities))
        assert {row[0] for row in rows(path, "SELECT until FROM revocations")} == {claims["exp"] + 60.0}  # type: ignore[operator]
        assert trust.counted.revocations == ["token"]
    async with running_trust(path) as trust:
        with pytest.raises(Refused, match="revoked"):
            trust.gate.authenticate(Token(text), LOCAL, "ws")


# --- the queue, stopping, starting --------------------------------------------


async def test_a_full_queue_takes_denials_and_nothing_else(path: Path) -> None:
    """Overloaded: no key is made or rotated; a revocation has a lane of its own, ahead of what waits."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        known, old = await trust.api_keys.create(EDGED, name="kept", role="viewer")
    async with open_trust(path, queue_size=1) as trust, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: trust.api_keys.create(EDGED, name="first", role="viewer"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await trust.api_keys.create(EDGED, name="second", role="viewer")
        with pytest.raises(Overloaded):
            await trust.api_keys.rotate(EDGED, known.key_id)
        inside, keys_by_then = stays(trust, secret), []
        due = trust.registrar.deny(frozenset({named(f"key:{record.key_id}")}), None, "", "key", "")
        pending = trust.registrar.settle(due)
        assert inside == [("revoked", "")]
        assert not trust.lets_in(secret)

        async def wait() -> None:
            await pending
            keys_by_then.append(len(trust.ledger.keys))

        nursery.start_soon(wait)
        await nursery.start(trust.registrar.run)
        await until(lambda: bool(keys_by_then) and len(trust.ledger.keys) == 2)
        assert keys_by_then == [1]
        assert trust.lets_in(old)
        assert denied_on_disk(path) == {f"key:{record.key_id}"}
        assert {row[0] for row in rows(path, "SELECT name FROM api_keys")} == {"k", "kept", "first"}
        nursery.cancel_scope.cancel()


async def test_a_full_writer_takes_denials_and_nothing_else(path: Path) -> None:
    """The database's own queue is full: the same."""
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        trust.db._queue_size = 0
        with pytest.raises(Overloaded):
            await trust.api_keys.create(EDGED, name="second", role="viewer")
        await trust.api_keys.revoke(record.key_id)
        assert not trust.lets_in(secret)
        assert denied_on_disk(path) == {f"key:{record.key_id}"}


async def test_stopping_finishes_what_was_accepted(path: Path) -> None:
    """Cancelled with three jobs under way and in the queue: all are done and on disk."""
    async with open_trust(path) as trust:
        async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
            await nursery.start(trust.registrar.run)
            record, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
            async with busy_writer(trust.db):
                for name in ("a", "b"):
                    callers.start_soon(lambda name=name: trust.api_keys.create(EDGED, name=name, role="viewer"))  # type: ignore[misc]
                await trio.testing.wait_all_tasks_blocked()
                callers.start_soon(trust.api_keys.revoke, record.key_id)
                nursery.cancel_scope.cancel()
        assert {row[0] for row in rows(path, "SELECT name FROM api_keys")} == {"k", "a", "b"}
        assert denied_on_disk(path) == {f"key:{record.key_id}"}
        other = next(iter(trust.ledger.keys.keys() - {record.key_id}))
        with pytest.raises(StoreFailed, match="stopping"):
            await trust.api_keys.create(EDGED, name="late", role="viewer")
        with pytest.raises(StoreFailed, match=r"in force now.*stopping") as told:
            await trust.api_keys.revoke(other)
        assert "goes on" not in told.value.hint
        assert named(f"key:{other}") in trust.ledger.denials


async def test_stopping_tries_once_more_to_save_pending_denials(path: Path) -> None:
    """A revocation that could not be saved gets its last try at the end; a disk still broken does not hang it."""
    for mended in (True, False):
        async with open_trust(path) as trust:
            async with trio.open_nursery() as nursery:
                await nursery.start(trust.registrar.run)
                record, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
                broken = await BrokenCommits(trust.db).begin()
                with pytest.raises(StoreFailed):
                    await trust.api_keys.revoke(record.key_id)
                if mended:
                    await broken.mend()
                nursery.cancel_scope.cancel()
            assert (f"key:{record.key_id}" in denied_on_disk(path)) is mended


async def test_a_fault_of_ours_reaches_its_caller_and_stops_nothing(path: Path) -> None:
    """An unexpected error in one job is its caller's; the next job is done."""
    async with running_trust(path) as trust:
        with pytest.raises(TypeError):
            await trust.api_keys.create(EDGED, name="k", role="viewer", permissions=[object()])  # type: ignore[list-item]
        await trust.api_keys.create(EDGED, name="k", role="viewer")
        assert len(trust.ledger.keys) == 1


async def test_everything_comes_back_from_disk(path: Path) -> None:
    """After a restart: keys, both secrets of a rotated one, its grace, what is revoked, and nothing else."""
    now = 2_000_000_000.0
    async with running_trust(path, now=lambda: now) as trust:
        _, plain_secret = await trust.api_keys.create(EDGED, name="plain", role="operator", expires_at=now + 500)
        turned, old = await trust.api_keys.create(EDGED, name="turned", role="viewer", camera_access=["camera1"])
        _, new = await trust.api_keys.rotate(EDGED, turned.key_id, 100)
        gone, gone_secret = await trust.api_keys.create(EDGED, name="gone", role="admin", permissions=[])
        await trust.api_keys.revoke(gone.key_id)
        await trust.registrar.revoke_token(frozenset({named("jti:j1"), named("token:" + "0" * 64)}), now + 5)
        keys, denied = dict(trust.ledger.keys), set(trust.ledger.denials.identities)
    async with running_trust(path, now=lambda: now) as trust:
        assert trust.ledger.keys == keys
        assert trust.ledger.denials.identities == denied == {named("jti:j1"), named("token:" + "0" * 64)}
        assert trust.ledger.is_named(named(f"key:{gone.key_id}"))
        assert [trust.lets_in(s) for s in (plain_secret, old, new, gone_secret)] == [True, True, True, False]
        assert trust.counted.failed == [("revoked", "api_key", "ws")]
        now += 100
        assert [trust.lets_in(s) for s in (plain_secret, old, new)] == [True, False, True]
        now += 400
        assert [trust.lets_in(s) for s in (plain_secret, new)] == [False, True]


@pytest.mark.parametrize("seed", range(4))
async def test_memory_and_disk_never_disagree_for_long(path: Path, seed: int) -> None:
    """Sixty changes at once, some hung up on, some on a failing disk: a restart finds what the ledger says."""
    choose = random.Random(seed)
    async with running_trust(path) as trust:
        known = [(await trust.api_keys.create(EDGED, name=f"k{n}", role="viewer"))[0].key_id for n in range(5)]

        async def change() -> None:
            await trio.sleep(choose.random() / 50)
            with trio.move_on_after(choose.choice([0.001, 0.01, 60])):
                try:
                    match choose.randrange(3):
                        case 0:
                            known.append((await trust.api_keys.create(EDGED, name="new", role="viewer"))[0].key_id)
                        case 1:
                            await trust.api_keys.rotate(EDGED, choose.choice(known), choose.choice([0, 60]))
                        case 2:
                            await trust.api_keys.revoke(choose.choice(known))
                except (InvalidState, StoreFailed, Overloaded):
                    pass

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(change)
            await trio.sleep(0.005)
            broken = await BrokenCommits(trust.db).begin()
            await trio.sleep(0.005)
            await broken.mend()
    good = {key_id: record for key_id, record in trust.ledger.keys.items() if record.revoked_at is None}
    async with open_trust(path) as again:
        assert again.ledger.keys == good
        for each in rows(path, "SELECT key_id, digest FROM api_keys"):
            key_id, key_digest = str(each[0]), bytes(each[1])  # type: ignore[call-overload]
            for ledger in (trust.ledger, again.ledger):
                assert ledger.is_named(named(f"key:{key_id}")) is (key_id not in good)
                assert ledger.find_key(key_digest) is not None


# --- other processes ------------------------------------------------------------

_WRITER = """
import sys, pathlib, trio
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from trust_helpers import running_trust
from edged.access.authority import EDGED

async def main():
    async with running_trust(pathlib.Path(sys.argv[1])) as trust:
        while True:
            record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
            print("made", record.key_id, secret, flush=True)
            other, _ = await trust.api_keys.create(EDGED, name="k", role="viewer")
            await trust.api_keys.revoke(other.key_id)
            print("revoked", other.key_id, flush=True)
            await trust.api_keys.rotate(EDGED, record.key_id, 0)
            print("rotated", record.key_id, flush=True)

trio.run(main)
"""


def _paths() -> list[str]:
    import edged

    return [str(Path(edged.__file__).parents[1]), str(Path(__file__).parent)]


def run_and_kill(path: Path, lines: int) -> list[list[str]]:
    """What a writer had acknowledged when it was killed after so many lines: words of its lines."""
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), *_paths()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    facts: list[list[str]] = []

    def take(line: bytes) -> None:
        # The log goes to the same pipe, and the last line may be cut off.
        words = line.decode().split()
        if line.endswith(b"\n") and words[0] in ("made", "revoked", "rotated"):
            facts.append(words)

    try:
        while len(facts) < lines:
            line = child.stdout.readline()
            assert line, "the writer ended by itself"
            take(line)
        child.send_signal(signal.SIGKILL)
        for line in child.stdout:
            take(line)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    return facts


@pytest.mark.parametrize("lines", [1, 40])
async def test_kill_9_loses_nothing_that_was_acknowledged(path: Path, lines: int) -> None:
    """A writer killed between or in its commits: whatever it had said is there after the restart, and still true."""
    facts = run_and_kill(path, lines)
    assert facts
    async with running_trust(path) as trust:
        for kind, key_id, *secret in facts:
            record = await trust.api_keys.get(key_id)
            if kind == "revoked":
                assert record.revoked_at is not None
            elif kind == "rotated":
                assert record.previous_digest is not None
            elif record.previous_digest is None:
                assert trust.lets_in(secret[0])
            else:
                # Rotated, said or not: the old secret is known, and over.
                assert record.previous_digest == digest(secret[0])
                assert not trust.lets_in(secret[0])
        # The file takes new keys at once.
        await trust.api_keys.create(EDGED, name="after", role="viewer")


_FULL_DISK = """
import os, resource, sys, pathlib, trio
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from trust_helpers import running_trust
from edged.access.authority import EDGED
from edged.errors import StoreFailed

async def main():
    path = pathlib.Path(sys.argv[1])
    async with running_trust(path) as trust:
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        limit = os.path.getsize(str(path) + "-wal")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            await trust.api_keys.revoke(record.key_id)
        except StoreFailed:
            told = "store_error"
        else:
            told = "ok"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print("answer", told, trust.lets_in(secret), record.key_id, flush=True)
        with trio.fail_after(60):
            while trust.registrar._pending:
                await trio.sleep(0.05)
        print("saved", flush=True)
        os.kill(os.getpid(), 9)

trio.run(main)
"""


def test_a_write_that_the_kernel_refuses_denies_first_and_is_saved_later(path: Path) -> None:
    """The file may not grow any more (EFBIG from the kernel inside COMMIT): told, denied, and durable once it may."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(path), *_paths()], capture_output=True, text=True, timeout=80
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith(("answer", "saved"))]
    assert [line[0] for line in lines] == ["answer", "saved"], done.stderr[-2000:]
    assert lines[0][1:3] == ["store_error", "False"]
    assert denied_on_disk(path) == {f"key:{lines[0][3]}"}


# --- the epoch -----------------------------------------------------------------


async def test_a_token_is_made_at_an_epoch_that_is_on_disk(path: Path) -> None:
    """Raised in memory first, it is written before a token says it: none that a restart makes says less."""
    async with running_trust(path) as trust:
        assert await trust.registrar.epoch() == 0
        assert [trust.ledger.next_epoch(), trust.ledger.next_epoch()] == [1, 2]
        assert await trust.registrar.epoch() == 2
        assert rows(path, "SELECT value FROM meta WHERE name = 'epoch'") == [(2,)]
        assert await trust.registrar.epoch() == 2
    async with open_trust(path) as trust:
        assert trust.ledger.epoch == 2


async def test_no_token_is_made_while_the_epoch_cannot_be_written(path: Path) -> None:
    """store_error; and the next try, once the disk is mended, tells the one that was meant."""
    async with running_trust(path) as trust:
        broken = await BrokenCommits(trust.db).begin()
        trust.ledger.next_epoch()
        with pytest.raises(StoreFailed):
            await trust.registrar.epoch()
        await broken.mend()
        assert await trust.registrar.epoch() == 1


async def test_the_epoch_goes_to_disk_with_a_denial(path: Path) -> None:
    """One transaction: after a power cut there is neither or both."""
    async with running_trust(path) as trust:
        trust.ledger.next_epoch()
        await trust.registrar.revoke_token(frozenset({named("jti:a")}), None)
        assert rows(path, "SELECT value FROM meta WHERE name = 'epoch'") == [(1,)]
