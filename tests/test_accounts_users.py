"""accounts/users.py: what is taken from a user is gone at once, what is given comes after the commit."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from gate_helpers import LOCAL
from identity_helpers import named
from trust_helpers import SECRET, BrokenCommits, TrustStack, busy_writer, open_trust, rows, running_trust, until

from edged.access.authority import EDGED, Authority, Proof
from edged.credentials.callers import ApiKey, Caller, Resource, Streams
from edged.credentials.decision import decide
from edged.credentials.roles import CAPABILITIES
from edged.credentials.tokens import issue_claims, sign
from edged.errors import EdgedError, InvalidParams, InvalidState, NotFound, Refused, StoreFailed

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
OTHER = HASH.replace("c2Fs", "c2Fu")
Denial = Callable[[TrustStack], Coroutine[Any, Any, object]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


async def make(
    trust: TrustStack, name: str = "ann", role: str = "operator", authority: Authority = EDGED, **values: Any
) -> None:
    await trust.users.create(authority, name=name, role=role, password=HASH, **values)


async def key_of(trust: TrustStack, owner: str = "ann", role: str = "operator", **values: Any) -> Caller:
    """A user's key, as the gate knows it."""
    _, secret = await trust.api_keys.create(EDGED, name="k", role=role, owner=owner, **values)
    return trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")


def stored(path: Path, fields: str = "name, role", name: str = "ann") -> tuple[object, ...]:
    return rows(path, f"SELECT {fields} FROM users WHERE name = '{name}'")[0]


# --- making ------------------------------------------------------------------


async def test_a_new_user_is_on_disk_and_survives(path: Path) -> None:
    """With all that was said of them; whoever starts again finds them."""
    async with running_trust(path) as trust:
        assert trust.users.is_empty()
        made = await trust.users.create(
            EDGED, name="ann", role="user", password=HASH, display_name="Änne", permissions=["camera:read"],
            camera_access=["camera0"], streams=Streams(frozenset({"dock"})),
        )  # fmt: skip
        assert (made.role, made.status, made.epoch) == ("operator", "active", 1)
        assert stored(path, "name, role, password, epoch") == ("ann", "operator", HASH, 1)
        assert rows(path, "SELECT value FROM meta WHERE name = 'epoch'") == [(1,)]
    async with open_trust(path) as trust:
        assert trust.users.get("ann") == made
        assert not trust.users.is_empty()


async def test_a_user_is_not_known_before_they_are_durable(path: Path) -> None:
    """A grant comes after its commit; one that cannot be committed never."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        async with busy_writer(trust.db):
            nursery.start_soon(make, trust)
            await trio.testing.wait_all_tasks_blocked()
            assert trust.users.find("ann") is None
        await until(lambda: trust.users.find("ann") is not None)
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await make(trust, "bob")
        assert trust.users.find("bob") is None
        await broken.mend()
        await make(trust, "bob")


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": "a b"}, {"name": "../etc"}, {"role": "root"}, {"display_name": "x" * 101},
     {"display_name": "a\nb"}],
)  # fmt: skip
async def test_a_user_that_makes_no_sense_is_refused(path: Path, wrong: dict[str, Any]) -> None:
    """Judged before anything is queued."""
    async with open_trust(path) as trust:
        with pytest.raises(InvalidParams):
            await trust.users.create(EDGED, **{"name": "ann", "role": "viewer", **wrong})


@pytest.mark.parametrize("name", ["ann", "Ann", "ANN"])
async def test_a_name_is_given_once(path: Path, name: str) -> None:
    """Also not in another spelling, which nobody could tell apart."""
    async with running_trust(path) as trust:
        await make(trust)
        with pytest.raises(InvalidState, match="there is a user 'ann'"):
            await make(trust, name)


async def test_whoever_asks_for_a_user_is_asked_again_at_the_commit(path: Path) -> None:
    """They may have been narrowed meanwhile."""
    async with running_trust(path) as trust:

        def check() -> None:
            raise Refused("missing_scope")

        with pytest.raises(Refused):
            await make(trust, authority=Proof(check))
        assert trust.users.is_empty()


async def test_tokens_that_were_issued_to_a_name_before_are_not_the_new_users(path: Path) -> None:
    """Whoever had them was somebody else; what is issued afterwards is theirs, and foreign tokens go their own way."""
    async with running_trust(path) as trust:
        before, foreign = trust.token("ann", "admin"), trust.token("ann", iss="camera-service")
        out = trust.inside(before)
        await make(trust)
        assert (trust.standing(before), out) == ("revoked", [("revoked", "")])
        assert trust.standing(trust.token("ann")) == "good"
        assert trust.standing(foreign) == "good"


# --- denials -----------------------------------------------------------------

DENIALS: dict[str, tuple[Denial, str, str]] = {
    # How → what the gate says of their token, and of their key.
    "disable": (lambda trust: trust.users.disable("ann", by="s1"), "suspended", "suspended"),
    "delete": (lambda trust: trust.users.delete("ann", by="s1"), "revoked", "suspended"),
    "password": (lambda trust: trust.users.set_password("ann", OTHER, by="s1"), "revoked", "good"),
    "demote": (lambda trust: trust.users.update(EDGED, "ann", {"role": "viewer"}, by="s1"), "revoked", "good"),
    "narrow": (
        lambda trust: trust.users.update(EDGED, "ann", {"camera_access": ("camera0",)}, by="s1"),
        "revoked",
        "good",
    ),
}


@pytest.mark.parametrize("how", DENIALS)
async def test_a_denial_is_in_force_when_the_call_returns(path: Path, how: str) -> None:
    """Before anything is on disk; whoever is inside by what is gone was ended, and told why; then it is durable."""
    deny, of_token, of_key = DENIALS[how]
    async with running_trust(path) as trust:
        await make(trust)
        token, other, key = trust.token("ann"), trust.token("bob"), await key_of(trust)
        session, stranger = trust.inside(token), trust.inside(other)
        theirs = trust.inside(key, capability="camera:write", resource=Resource.of_camera("camera1"))
        async with busy_writer(trust.db):
            rest = deny(trust)
            assert (trust.standing(token), trust.standing(key)) == (of_token, of_key)
            assert session == [(of_token, "s1")]
            # A key that may do no more what it came in for leaves, also if it is good for other things.
            left = {"disable": "suspended", "delete": "suspended", "demote": "revoked", "narrow": "revoked"}
            assert [cause for cause, _ in theirs] == ([left[how]] if how in left else [])
            assert stored(path, "role, disabled_at, deleted_at, epoch") == ("operator", None, None, 1)
        await rest
        assert stored(path, "role, disabled_at, deleted_at, epoch") != ("operator", None, None, 1)
        assert (trust.standing(other), stranger) == ("good", [])
        found = trust.ledger.users["ann"]
    async with open_trust(path) as trust:
        assert trust.ledger.users["ann"] == found
        assert (trust.standing(token), trust.standing(key)) == (of_token, of_key)


@pytest.mark.parametrize("how", DENIALS)
async def test_what_is_denied_stays_denied_when_the_disk_fails(
    path: Path, how: str, mock_clock: trio.testing.MockClock
) -> None:
    """store_error; it is written as soon as the disk is mended, and no token is made until then."""
    deny, of_token, _ = DENIALS[how]
    async with running_trust(path) as trust:
        await make(trust)
        token = trust.token("ann")
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await deny(trust)
        assert trust.standing(token) == of_token
        if how != "disable":
            with pytest.raises(StoreFailed):
                await trust.registrar.epoch()
        await broken.mend()
        mock_clock.jump(120)
        await until(lambda: stored(path, "role, password, camera_access, disabled_at, deleted_at")
                    != ("operator", HASH, None, None, None))  # fmt: skip
        mock_clock.rate = 100
        await until(lambda: trust.ledger.epoch == trust.registrar._kept_epoch)
    async with open_trust(path) as trust:
        assert trust.standing(token) == of_token


@pytest.mark.parametrize("how", DENIALS)
async def test_whoever_hangs_up_does_not_stop_it(path: Path, how: str) -> None:
    """Cancelled while it is being written: it is in force, and comes to be on disk."""
    async with running_trust(path) as trust:
        await make(trust)
        before = stored(path, "*")
        async with busy_writer(trust.db):
            with trio.move_on_after(0.01) as scope:
                await DENIALS[how][0](trust)
            assert scope.cancelled_caught
        await until(lambda: stored(path, "*") != before)


async def test_a_new_password_leaves_the_keys_as_they_are(path: Path) -> None:
    """Contract 10.18: only disabling and deleting touch them."""
    async with running_trust(path) as trust:
        await make(trust)
        key = await key_of(trust)
        out = trust.inside(key)
        await trust.users.set_password("ann", OTHER)
        assert (trust.standing(key), out) == ("good", [])
        assert stored(path, "password") == (OTHER,)
        assert trust.users.get("ann").password == OTHER


async def test_what_is_given_ends_nothing(path: Path) -> None:
    """A wider role, a nicer name: tokens live, and are what they were."""
    async with running_trust(path) as trust:
        await make(trust, role="viewer", camera_access=("camera0",))
        token = trust.token("ann")
        out = trust.inside(token)
        changed = await trust.users.update(
            EDGED, "ann", {"role": "admin", "camera_access": None, "display_name": "Ann"}
        )
        assert (changed.role, changed.camera_access, changed.display_name) == ("admin", None, "Ann")
        assert (trust.standing(token), out, trust.ledger.epoch) == ("good", [], 1)
        assert stored(path, "role, camera_access, display_name") == ("admin", None, "Ann")


async def test_what_is_given_comes_after_the_commit(path: Path) -> None:
    """And not at all if that fails."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        await make(trust, role="viewer")
        async with busy_writer(trust.db):
            nursery.start_soon(partial(trust.users.update, EDGED, "ann", {"role": "admin"}))
            await trio.testing.wait_all_tasks_blocked()
            assert trust.users.get("ann").role == "viewer"
        await until(lambda: trust.users.get("ann").role == "admin")
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.users.update(EDGED, "ann", {"display_name": "x"})
        await broken.mend()
        assert trust.users.get("ann").display_name == ""


async def test_a_change_that_takes_and_gives_first_takes(path: Path) -> None:
    """From viewer to monitor: in between both rows' common part is in force, then the new one."""
    async with running_trust(path) as trust:
        await make(trust, role="viewer")
        key = await key_of(trust, role="admin")
        token = trust.token("ann")
        async with busy_writer(trust.db):
            rest = trust.users.update(EDGED, "ann", {"role": "monitor"})
            assert trust.standing(token) == "revoked"
            assert trust.gate.judge(key, "metrics:read").reason == "missing_scope"
            assert trust.gate.judge(key, "camera:read").reason == "missing_scope"
            assert trust.gate.judge(key, "system:read").allowed
        changed = await rest
        assert (changed.role, changed.permissions) == ("monitor", None)
        assert trust.gate.judge(key, "metrics:read").allowed
        assert stored(path, "role, permissions") == ("monitor", None)


async def test_a_change_that_takes_and_gives_gives_nothing_when_the_disk_fails(path: Path) -> None:
    """What was taken is gone, what was to be given is not there."""
    async with running_trust(path) as trust:
        await make(trust, role="viewer")
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.users.update(EDGED, "ann", {"role": "monitor"})
        assert trust.users.get("ann").rights.capabilities == {"system:read"}
        await broken.mend()
        assert (await trust.users.update(EDGED, "ann", {"permissions": None})).rights.capabilities > {"system:read"}


async def test_one_who_is_disabled_and_promoted_in_one_breath_is_both(path: Path) -> None:
    """Refused at once; and once they are enabled they may do what they were given."""
    async with running_trust(path) as trust:
        await make(trust, role="viewer")
        token = trust.token("ann")
        async with busy_writer(trust.db):
            rest = trust.users.update(EDGED, "ann", {"disabled_at": 5.0, "role": "operator", "display_name": "Ann"})
            assert trust.standing(token) == "suspended"
            assert trust.users.get("ann").rights.capabilities == {"camera:read", "stream:read", "system:read"}
        await rest
        assert stored(path, "role, permissions, disabled_at, display_name") == ("operator", None, 5.0, "Ann")
        assert "camera:write" in (await trust.users.enable(EDGED, "ann")).rights.capabilities
        assert trust.standing(token) == "good"


async def test_a_disabled_user_comes_back_with_their_tokens(path: Path) -> None:
    """Suspended is not revoked; both again are fine; and what is said of nobody changes nothing."""
    async with running_trust(path) as trust:
        await make(trust)
        token, key = trust.token("ann"), await key_of(trust)
        for _ in range(2):
            assert (await trust.users.disable("ann")).status == "disabled"
        assert (trust.standing(token), trust.standing(key)) == ("suspended", "suspended")
        assert trust.ledger.key_status(trust.ledger.keys[key.credential_id], 0.0) == "suspended"
        for _ in range(2):
            assert (await trust.users.enable(EDGED, "ann")).status == "active"
        assert (trust.standing(token), trust.standing(key)) == ("good", "good")
        for ask in (trust.users.disable, partial(trust.users.enable, EDGED), trust.users.delete):
            with pytest.raises(NotFound):
                await ask("nobody")


async def test_a_disabling_that_comes_during_an_enabling_stands(path: Path) -> None:
    """Whoever asked to enable hears of it; nothing of that is on disk."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        await make(trust)
        await trust.users.disable("ann")
        heard: list[EdgedError] = []

        async def enable() -> None:
            try:
                await trust.users.enable(EDGED, "ann")
            except EdgedError as problem:
                heard.append(problem)

        async with busy_writer(trust.db):
            nursery.start_soon(enable)
            await trio.testing.wait_all_tasks_blocked()
            rest = trust.users.disable("ann")
        await rest
        await until(lambda: bool(heard))
        assert "changed meanwhile" in str(heard[0])
        assert trust.users.get("ann").status == "disabled"
        assert stored(path, "disabled_at IS NULL") == (0,)


async def test_a_demotion_that_comes_during_a_promotion_stands(path: Path) -> None:
    """Also where the ledger knows nothing to take away yet: changes are made in the order in which they are asked."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        await make(trust, role="viewer")
        async with busy_writer(trust.db):
            nursery.start_soon(partial(trust.users.update, EDGED, "ann", {"role": "operator"}))
            await trio.testing.wait_all_tasks_blocked()
            rest = trust.users.update(EDGED, "ann", {"role": "viewer"})
        assert (await rest).role == "viewer"
        assert stored(path, "role") == ("viewer",)


async def test_a_change_of_a_user_who_was_deleted_meanwhile_is_refused(path: Path) -> None:
    """The deletion stands, on disk too."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        await make(trust)
        heard: list[EdgedError] = []

        async def promote() -> None:
            try:
                await trust.users.update(EDGED, "ann", {"role": "admin"})
            except EdgedError as problem:
                heard.append(problem)

        async with busy_writer(trust.db):
            nursery.start_soon(promote)
            await trio.testing.wait_all_tasks_blocked()
            rest = trust.users.delete("ann")
        await rest
        await until(lambda: bool(heard))
        assert stored(path, "role, deleted_at IS NULL, password") == ("operator", 0, None)


async def test_a_deleted_name_may_be_given_to_somebody_else(path: Path) -> None:
    """Who has nothing of the former user's: not their tokens, and not their keys, which must go first."""
    async with running_trust(path) as trust:
        await make(trust, role="admin")
        await make(trust, "root", role="admin")
        token, key = trust.token("ann", "admin"), await key_of(trust, role="admin")
        await trust.users.delete("ann")
        with pytest.raises(NotFound):
            trust.users.get("ann")
        with pytest.raises(InvalidState, match="1 keys of the deleted user"):
            await make(trust)
        await trust.api_keys.revoke(key.credential_id)
        await make(trust, role="viewer")
        assert trust.standing(token) == "revoked"
        assert trust.standing(key) == "revoked"
        assert trust.standing(trust.token("ann")) == "good"
    async with open_trust(path) as trust:
        assert trust.users.get("ann").role == "viewer"
        assert trust.standing(token) == "revoked"


async def test_a_pending_deletion_does_not_hit_the_next_user_of_that_name(
    path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """The newer row wins, however late the older one is tried again."""
    async with running_trust(path) as trust:
        await make(trust)
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed):
            await trust.users.delete("ann")
        await broken.mend()
        await make(trust, role="viewer")
        mock_clock.jump(300)
        await trio.testing.wait_all_tasks_blocked()
        assert trust.users.get("ann").role == "viewer"
        assert stored(path, "role, deleted_at") == ("viewer", None)


async def test_a_grant_that_fails_still_owes_the_denial_before_it(
    path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """Disabled, not on disk, and enabled without success: still disabled, and still on its way to the disk."""
    async with running_trust(path) as trust:
        await make(trust)
        broken = await BrokenCommits(trust.db).begin()
        for ask in (trust.users.disable, partial(trust.users.enable, EDGED)):
            with pytest.raises(StoreFailed):
                await ask("ann")
        await broken.mend()
        mock_clock.jump(300)
        await until(lambda: stored(path, "disabled_at IS NULL") == (0,))
        assert trust.users.get("ann").status == "disabled"


async def test_a_better_hash_of_the_same_password_ends_nothing(path: Path) -> None:
    """It is written when it can be, unless the password is another one by now."""
    async with running_trust(path) as trust:
        await make(trust)
        token = trust.token("ann")
        trust.users.rehash("ann", HASH, OTHER)
        await until(lambda: stored(path, "password") == (OTHER,))
        assert trust.standing(token) == "good"
        trust.users.rehash("ann", HASH, "stale")
        trust.users.rehash("nobody", HASH, "stale")
        await trust.users.update(EDGED, "ann", {"display_name": "after"})
        assert stored(path, "password") == (OTHER,)
    trust.users.rehash("ann", OTHER, "too late")


# --- the last administrator --------------------------------------------------


@pytest.mark.parametrize(
    "remove",
    [
        lambda users, name: users.delete(name),
        lambda users, name: users.disable(name),
        lambda users, name: users.update(EDGED, name, {"role": "operator"}),
        lambda users, name: users.update(EDGED, name, {"permissions": ("camera:read",)}),
    ],
    ids=["delete", "disable", "demote", "narrow"],
)
async def test_the_last_administrator_stays(path: Path, remove: Callable[..., Coroutine[Any, Any, object]]) -> None:
    """Somebody must be able to log in and administer users; whoever cannot counts for nothing."""
    async with running_trust(path) as trust:
        await make(trust, "ann", "admin")
        await make(trust, "off", "admin")
        await trust.users.disable("off")
        await trust.users.create(EDGED, name="mute", role="admin")
        before = trust.users.get("ann")
        with pytest.raises(InvalidState, match="make another one first: edged user add"):
            await remove(trust.users, "ann")
        assert trust.users.get("ann") is before
        await make(trust, "bob", "admin")
        await remove(trust.users, "ann")
        with pytest.raises(InvalidState):
            await remove(trust.users, "bob")


async def test_two_administrators_who_remove_each_other_leave_one(path: Path) -> None:
    """Asked in one breath, before any of it is on disk: the second is refused."""
    async with running_trust(path) as trust:
        for name in ("ann", "bob"):
            await make(trust, name, "admin")
        async with busy_writer(trust.db):
            first = trust.users.delete("ann")
            with pytest.raises(InvalidState):
                await trust.users.disable("bob")
        await first


async def test_who_is_promoted_and_demoted_in_one_breath_cannot_be_the_one_who_is_left(path: Path) -> None:
    """While the demotion waits for the promotion before it, the other administrator goes, or does not."""
    async with running_trust(path) as trust:
        await make(trust, "bob", "admin")
        await make(trust, "ann", "viewer")

        async def demote() -> None:
            with suppress(InvalidState):
                await trust.users.update(EDGED, "ann", {"role": "viewer"})

        async with trio.open_nursery() as askers:
            async with busy_writer(trust.db):
                askers.start_soon(partial(trust.users.update, EDGED, "ann", {"role": "admin"}))
                await trio.testing.wait_all_tasks_blocked()
                askers.start_soon(demote)
                await trio.testing.wait_all_tasks_blocked()
            for _ in range(200):
                with suppress(InvalidState, NotFound):
                    await trust.users.delete("bob")
                await trio.sleep(0.0005)
        assert any(user.can_administer for user in trust.users.all())


async def test_an_administrator_to_be_does_not_count_before_the_commit(path: Path) -> None:
    """What is not on disk cannot stand in for the last one."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        await make(trust, "ann", "admin")
        async with busy_writer(trust.db):
            nursery.start_soon(make, trust, "bob", "admin")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(InvalidState):
                await trust.users.delete("ann")
        await until(lambda: trust.users.find("bob") is not None)
        await trust.users.delete("ann")


# --- owners ------------------------------------------------------------------


async def test_a_key_can_do_what_its_owner_can_now(path: Path) -> None:
    """An administrator's key in a viewer's hand is a viewer's, and an operator's as soon as they are one."""
    async with running_trust(path) as trust:
        await make(trust, role="viewer", camera_access=("camera0",))
        key = await key_of(trust, role="admin")
        camera0, camera1 = Resource.of_camera("camera0"), Resource.of_camera("camera1")
        assert trust.gate.judge(key, "camera:read", camera0).allowed
        assert not trust.gate.judge(key, "camera:read", camera1).allowed
        assert not trust.gate.judge(key, "keys:admin").allowed
        await trust.users.update(EDGED, "ann", {"role": "operator", "camera_access": None})
        assert trust.gate.judge(key, "camera:write", camera1).allowed
        await trust.users.update(EDGED, "ann", {"permissions": ()})
        assert not trust.gate.judge(key, "camera:read", camera0).allowed
    async with open_trust(path) as trust:
        found = trust.ledger.find_key(trust.ledger.keys[key.credential_id].digest)
        assert not trust.gate.judge(found, "camera:read", camera0).allowed


async def test_a_key_has_an_owner_who_exists(path: Path) -> None:
    """Not somebody unknown, nor somebody deleted; and it may be given to somebody else, or to nobody."""
    async with running_trust(path) as trust:
        await make(trust, role="viewer")
        await make(trust, "gone")
        key = await key_of(trust)
        await trust.users.delete("gone")
        for name in ("nobody", "gone"):
            with pytest.raises(NotFound, match="no user"):
                await key_of(trust, name)
            with pytest.raises(NotFound, match="no user"):
                await trust.api_keys.update(EDGED, key.credential_id, {"owner": name}, lambda _before, _after: None)
        assert not trust.gate.judge(key, "camera:write").allowed
        record = await trust.api_keys.update(EDGED, key.credential_id, {"owner": None}, lambda _before, _after: None)
        assert (record.owner, trust.ledger.keys_of("ann")) == (None, frozenset())
        assert trust.gate.judge(key, "camera:write").allowed


async def test_a_key_that_is_given_to_somebody_who_is_disabled_rests_at_once(path: Path) -> None:
    """Whoever is inside by it is ended; and comes back in once it is somebody else's."""
    async with running_trust(path) as trust:
        await make(trust, "off")
        await make(trust, "bob")
        record, secret = await trust.api_keys.create(EDGED, name="k", role="viewer")
        await trust.users.disable("off")
        out = trust.inside(trust.gate.authenticate(ApiKey(secret), LOCAL, "ws"))
        await trust.api_keys.update(EDGED, record.key_id, {"owner": "off"}, lambda _before, _after: None)
        assert out == [("suspended", "")]
        assert not trust.lets_in(secret)
        await trust.api_keys.update(EDGED, record.key_id, {"owner": "bob"}, lambda _before, _after: None)
        assert trust.lets_in(secret)
        assert trust.ledger.keys_of("off") == frozenset()


async def test_a_key_that_was_suspended_itself_does_not_come_back_with_its_owner(path: Path) -> None:
    """Both must let it in; and a revoked one never comes back."""
    async with running_trust(path) as trust:
        await make(trust)
        resting, revoked = await key_of(trust), await key_of(trust)
        await trust.api_keys.suspend(resting.credential_id)
        await trust.api_keys.revoke(revoked.credential_id)
        await trust.users.disable("ann")
        await trust.users.enable(EDGED, "ann")
        assert (trust.standing(resting), trust.standing(revoked)) == ("suspended", "revoked")
        await trust.api_keys.resume(EDGED, resting.credential_id)
        assert trust.standing(resting) == "good"


async def test_a_rotation_leaves_both_secrets_with_the_owner(path: Path) -> None:
    """The old one, too, can do no more than they may, and rests with them."""
    async with running_trust(path) as trust:
        await make(trust, role="viewer")
        record, old = await trust.api_keys.create(EDGED, name="k", role="admin", owner="ann")
        _, new = await trust.api_keys.rotate(EDGED, record.key_id)
        for secret in (old, new):
            caller = trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")
            assert caller.capabilities == {"camera:read", "stream:read", "system:read"}
        await trust.users.disable("ann")
        assert not trust.lets_in(old)
        assert not trust.lets_in(new)


async def test_a_ticket_of_an_owned_key_ends_with_its_owner(path: Path) -> None:
    """Whatever was derived: also what a ticket of an own token opened."""
    async with running_trust(path) as trust:
        await make(trust)
        key, token = await key_of(trust), trust.token("ann")
        tickets = [trust.gate.tickets.make(caller, "read", "camera0", 60, "s") for caller in (key, token)]
        from edged.credentials.callers import Ticket

        viewers = [trust.gate.authenticate(Ticket(text), LOCAL, "rtsp") for text in tickets]
        out = [trust.inside(viewer) for viewer in viewers]
        await trust.users.disable("ann")
        assert out == [[("suspended", "")], [("suspended", "")]]
        for text in tickets:
            with pytest.raises(Refused, match="suspended"):
                trust.gate.authenticate(Ticket(text), LOCAL, "rtsp")


@pytest.mark.parametrize("seed", range(8))
async def test_a_key_never_can_do_more_than_its_owner(path: Path, seed: int) -> None:
    """At every moment of any story; whoever is inside for something may still do it; a restart changes nothing."""
    dice = random.Random(seed)
    roles = ("viewer", "operator", "admin", "monitor")
    cameras = (None, (), ("camera0",), ("camera0", "camera1"), ("*",))
    permissions = (None, None, (), ("camera:read",), ("admin",), ("camera:read:camera1",), ("users:admin",))
    streams = (None, None, Streams(frozenset({"camera1"})), Streams(frozenset({"*"}), frozenset({"camera0"})))
    resources = [Resource.of_camera("camera0"), Resource.of_camera("camera1")]

    def rights() -> dict[str, Any]:
        return {
            "role": dice.choice(roles), "camera_access": dice.choice(cameras),
            "permissions": dice.choice(permissions), "streams": dice.choice(streams),
        }  # fmt: skip

    async with running_trust(path) as trust:
        names = ("ann", "bob")
        for name in names:
            await make(trust, name, **rights())
        made = [await trust.api_keys.create(EDGED, name="k", owner=dice.choice(names), **rights()) for _ in range(6)]
        for _ in range(40):
            caller = trust.gate.current(trust.gate._ledger.find_key(dice.choice(made)[0].digest))  # type: ignore[arg-type]
            causes: list[str] = []
            for capability in ("camera:read", "camera:write", "stream:read"):
                if trust.gate.judge(caller, capability, resources[0]).allowed:
                    trust.gate.admit(
                        caller, "http", lambda cause, _by, causes=causes: causes.append(cause),  # type: ignore[misc]
                        capability=capability, resource=resources[0],
                    )  # fmt: skip
            name, changes = dice.choice(names), dict(dice.sample(sorted(rights().items()), 2))
            ask = dice.randrange(8)
            try:
                if ask == 0:
                    await trust.users.disable(name)
                elif ask == 1:
                    await trust.users.enable(EDGED, name)
                elif ask == 2:
                    key = dice.choice(made)[0].key_id
                    changes |= {"owner": dice.choice(names)}
                    await trust.api_keys.update(EDGED, key, changes, lambda _before, _after: None)
                else:
                    await trust.users.update(EDGED, name, changes)
            except InvalidState:
                continue  # the last administrator
            for record, _ in made:
                record = trust.ledger.keys[record.key_id]
                found, owner = trust.ledger.find_key(record.digest), trust.users.get(record.owner or "")
                assert found is not None
                caller = found
                for capability in CAPABILITIES:
                    for resource in resources:
                        if trust.gate.judge(caller, capability, resource).allowed:
                            assert owner.status == "active"
                            assert decide(owner.rights, capability, resource, now=0.0).allowed
            for each in trust.admissions:
                assert trust.gate.judge(each.caller, each.capability, each.resource).allowed
        users, keys = dict(trust.ledger.users), dict(trust.ledger.keys)
    async with open_trust(path) as trust:
        assert (trust.ledger.users, trust.ledger.keys) == (users, keys)


# --- everything at once ------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
async def test_disk_and_memory_agree_whatever_comes_in_between(path: Path, seed: int) -> None:
    """Askers beside each other, commits that fail for a while, callers that leave: once the disk is mended and written
    to, it says what memory says."""
    dice, names = random.Random(seed), ("ann", "bob", "eve")
    async with running_trust(path, queue_size=8) as trust:
        for name in names:
            await make(trust, name, "viewer")
        key = await key_of(trust, "ann", "admin")

        async def ask(dice: random.Random) -> None:
            for _ in range(12):
                name = dice.choice(names)
                asks: list[Callable[[], Awaitable[object]]] = [
                    partial(trust.users.disable, name),
                    partial(trust.users.enable, EDGED, name),
                    partial(trust.users.set_password, name, dice.choice((HASH, OTHER))),
                    partial(trust.users.update, EDGED, name, {"role": dice.choice(("viewer", "operator", "monitor"))}),
                    partial(trust.users.update, EDGED, name, {"camera_access": dice.choice((None, ("camera0",)))}),
                    partial(trust.users.delete, name),
                    partial(make, trust, name, "operator"),
                ]
                with trio.move_on_after(0.002 if dice.random() < 0.2 else 5), suppress(EdgedError):
                    await dice.choice(asks)()

        async def spoil(dice: random.Random) -> None:
            for _ in range(4):
                with suppress(EdgedError):
                    broken = await BrokenCommits(trust.db).begin()
                    await trio.sleep(dice.random() * 0.01)
                    await broken.mend()

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, random.Random(dice.random()))
            nursery.start_soon(spoil, random.Random(dice.random()))
        await trust.registrar.revoke_token(frozenset({named("jti:last")}), None)
        users = dict(trust.ledger.users)
        owner = users["ann"]
        standing = "good" if owner.status == "active" else "suspended"
        assert trust.standing(key) == standing
    async with open_trust(path) as trust:
        assert trust.ledger.users == users
        assert trust.ledger.epoch >= max(user.epoch for user in users.values())


# --- the queue ---------------------------------------------------------------


async def test_a_denial_does_not_wait_for_the_queue(path: Path) -> None:
    """However many grants wait: it is in force at once, and on the disk before they are looked at."""
    async with running_trust(path, queue_size=1) as trust, trio.open_nursery() as nursery:
        await make(trust)
        token = trust.token("ann")
        async with busy_writer(trust.db):
            for name in ("b", "c"):
                nursery.start_soon(make, trust, name)
                await trio.testing.wait_all_tasks_blocked()
            pending = trust.users.disable("ann")
            assert trust.standing(token) == "suspended"
        await pending
        assert stored(path, "disabled_at IS NULL") == (0,)


def test_the_helpers_tokens_are_our_own() -> None:
    """The secret of these tests signs in our name: else nothing above would be bound to a user."""
    assert SECRET.trust.own == "edged"
    assert sign(issue_claims("a", role=None, now=0, expires_in=1), SECRET)


async def test_of_a_change_that_takes_and_gives_each_half_is_told_as_it_is(path: Path) -> None:
    """The database takes the denial and not the grant: what is taken away is so and saved, of what is given nothing was
    done."""
    refuse = (
        "CREATE TRIGGER refuse_{0} BEFORE {0} ON users WHEN new.camera_access IS NULL"
        " BEGIN SELECT RAISE(ABORT, 'no room'); END"
    )
    async with running_trust(path) as trust:
        await make(trust, camera_access=["camera1"])
        for event in ("INSERT", "UPDATE"):
            await trust.db.write(lambda c, event=event: c.execute(refuse.format(event)))  # type: ignore[misc]
        with pytest.raises(
            StoreFailed, match=r"taken away is so, and saved; of what is given nothing was done: database trust"
        ) as told:
            await trust.users.update(EDGED, "ann", {"role": "viewer", "camera_access": None})
        assert told.value.fields == {"in_force": True}
        assert stored(path, "role, camera_access") == ("viewer", '["camera1"]')
        assert (trust.ledger.users["ann"].role, trust.ledger.users["ann"].camera_access) == ("viewer", ("camera1",))
        with pytest.raises(StoreFailed, match="nothing was done") as told:
            await trust.users.update(EDGED, "ann", {"camera_access": None})
        assert told.value.fields["in_force"] is False
        assert trust.registrar.pending == 0
