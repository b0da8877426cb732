"""The last administrator stays: not removed, and not shut out for good by what is revoked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import planted
import pytest
import trio
import trio.testing
from daemon_helpers import Conversation, RunningDaemon, running_daemon
from gate_helpers import LOCAL
from identity_helpers import named
from patience import fail_after
from trust_helpers import SECRET, TrustStack, busy_writer, open_trust, rows, running_trust, until

from edged.access.authority import EDGED
from edged.clock import iso
from edged.credentials.callers import Token
from edged.credentials.identities import Identity
from edged.credentials.tokens import sign
from edged.errors import InvalidState, NotFound, Refused

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
PASSWORD = planted.plant("correct horse battery", "the administrator's password")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


async def make(trust: TrustStack, name: str, role: str = "admin", **values: Any) -> None:
    await trust.users.create(EDGED, name=name, role=role, password=HASH, **values)


def revoke(trust: TrustStack, subject: str) -> Coroutine[Any, Any, None]:
    return trust.users.revoke(Identity.of_user(subject), "subject")


def able(trust: TrustStack) -> set[str]:
    """Who can administer users, by the gate's own word on a login of theirs that is made now."""
    found = set()
    for user in trust.users.all():
        if user.can_administer:
            claims = {
                **user.login_claims(), "iss": "edged", "epoch": trust.ledger.epoch, "jti": "a login",
                "iat": int(trust.clock.now()), "exp": int(trust.clock.now()) + 3600,
            }  # fmt: skip
            with suppress(Refused):
                trust.gate.authenticate(Token(sign(claims, SECRET)), LOCAL, "ws")
                found.add(user.name)
    return found


# --- subjects ----------------------------------------------------------------


@pytest.mark.parametrize("subject", ["ann", "user_ann"])
async def test_the_last_administrator_is_not_revoked_for_good(path: Path, subject: str) -> None:
    """Neither by name nor by what their logins say as `sub`; whoever cannot get in counts for nothing; nothing is
    changed by what was refused."""
    async with running_trust(path) as trust:
        await make(trust, "ann")
        await make(trust, "bob", "operator")
        await make(trust, "off")
        await trust.users.disable("off")
        await trust.users.create(EDGED, name="mute", role="admin")
        await make(trust, "dead")
        await revoke(trust, "dead")
        with pytest.raises(InvalidState, match=r"nobody but 'ann' .*make another administrator first.*before=now"):
            await revoke(trust, subject)
        assert able(trust) == {"ann"}
        assert trust.counted.revocations == ["subject"]
        await make(trust, "eve")
        await revoke(trust, subject)
        assert able(trust) == {"eve"}
        # Again is fine.
        await revoke(trust, subject)
    assert set(rows(path, "SELECT identity FROM revocations")) == {("user:dead",), (f"user:{subject}",)}


async def test_a_revocation_that_hits_all_administrators_at_once_names_them_all(path: Path) -> None:
    """`user_ann` is what ann's logins say, and may be somebody's name."""
    async with running_trust(path) as trust:
        await make(trust, "ann")
        await make(trust, "user_ann")
        with pytest.raises(InvalidState, match="nobody but 'ann' and 'user_ann' can"):
            await revoke(trust, "user_ann")
        await revoke(trust, "ann")
        assert able(trust) == {"user_ann"}


@pytest.mark.parametrize(
    "remove",
    [
        lambda users, name: users.delete(name),
        lambda users, name: users.disable(name),
        lambda users, name: users.update(EDGED, name, {"role": "operator"}),
        lambda users, name: users.update(EDGED, name, {"permissions": ("camera:read",)}),
        lambda users, name: users.revoke(Identity.of_user(name), "subject"),
    ],
    ids=["delete", "disable", "demote", "narrow", "revoke"],
)
async def test_one_who_is_revoked_cannot_be_the_administrator_who_is_left(
    path: Path, remove: Callable[..., Coroutine[Any, Any, object]]
) -> None:
    """The other one stays, and the revoked one can be removed like everybody else."""
    async with running_trust(path) as trust:
        for name in ("ann", "bob"):
            await make(trust, name)
        await revoke(trust, "ann")
        with pytest.raises(InvalidState):
            await remove(trust.users, "bob")
        assert able(trust) == {"bob"}
        await remove(trust.users, "ann")


async def test_two_who_are_revoked_in_one_breath_leave_one(path: Path) -> None:
    """Asked before any of it is on disk: the second is refused, and so is every other way to remove them."""
    async with running_trust(path) as trust:
        for name in ("ann", "bob"):
            await make(trust, name)
        async with busy_writer(trust.db):
            first = revoke(trust, "ann")
            with pytest.raises(InvalidState):
                await revoke(trust, "bob")
            with pytest.raises(InvalidState):
                await trust.users.delete("bob")
        await first
        assert able(trust) == {"bob"}


async def test_an_administrator_to_be_does_not_count_for_a_revocation_before_the_commit(path: Path) -> None:
    """What is not on disk cannot stand in for the last one."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        await make(trust, "ann")
        async with busy_writer(trust.db):
            nursery.start_soon(make, trust, "bob")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(InvalidState):
                await revoke(trust, "ann")
        await until(lambda: trust.users.find("bob") is not None)
        await revoke(trust, "ann")


async def test_nobody_else_is_ever_refused(path: Path) -> None:
    """Whoever is no administrator, or none who could get in, and whoever is no user; and all, where nobody can."""
    async with running_trust(path) as trust:
        await revoke(trust, "before-there-was-anybody")
        await make(trust, "ann")
        await make(trust, "bob", "operator")
        await make(trust, "gone")
        await trust.users.delete("gone")
        await trust.users.create(EDGED, name="mute", role="admin")
        for subject in ("bob", "user_bob", "gone", "mute", "Ann", "user_", "somebody elsewhere"):
            await revoke(trust, subject)
        assert able(trust) == {"ann"}


@pytest.mark.parametrize("seed", range(12))
async def test_somebody_can_administer_after_every_story_and_nothing_else_is_refused(path: Path, seed: int) -> None:
    """Judged by the gate itself on logins of theirs; a restart changes nothing."""
    dice = random.Random(seed)
    names = ["ann", "bob", "eve", "user_ann"]
    async with running_trust(path) as trust:
        for name in names:
            await make(trust, name, dice.choice(["admin", "admin", "viewer"]))
        for _ in range(40):
            before, name = able(trust), dice.choice(names)
            what = dice.choice(["revoke", "revoke login", "delete", "disable", "enable", "admin", "viewer", "make"])
            subject = f"user_{name}" if what == "revoke login" else name
            hit = {each for each in before if subject in (each, f"user_{each}")} if "revoke" in what else {name}
            try:
                if "revoke" in what:
                    await revoke(trust, subject)
                elif what in ("admin", "viewer"):
                    await trust.users.update(EDGED, name, {"role": what})
                elif what == "make":
                    await make(trust, name, "viewer")
                elif what == "enable":
                    await trust.users.enable(EDGED, name)
                else:
                    await getattr(trust.users, what)(name)
            except NotFound:
                pass  # deleted
            except InvalidState:
                assert what == "make" or set() != before <= hit, (what, name, before)
            assert able(trust) or not before, (what, name, before)
        left = able(trust)
    async with open_trust(path) as trust:
        assert able(trust) == left


# --- issuers -----------------------------------------------------------------


async def test_our_own_issuer_is_not_revoked_for_good(path: Path) -> None:
    """It would end every login of everybody, also of those who are made later; others' end as ever."""
    async with running_trust(path) as trust:
        for _ in range(2):
            with pytest.raises(InvalidState, match=r"own issuer.*before=now"):
                await trust.users.revoke(Identity.of_issuer("edged"), "issuer")
            await make(trust, "ann" if trust.users.is_empty() else "bob")
        await trust.users.revoke(Identity.of_issuer("somebody-else"), "issuer")
        assert able(trust) == {"ann", "bob"}


async def test_the_tokens_of_so_far_end_whoever_they_are_of(path: Path) -> None:
    """A line up to now is drawn for the last administrator and for our own issuer: they log in again."""
    async with running_trust(path) as trust:
        await make(trust, "ann")
        for scope in (Identity.of_user("ann"), Identity.of_issuer("edged")):
            inside = trust.inside(trust.token("ann"))
            await trust.revocations.cut_off(scope, None)
            assert inside == [("revoked", "")]
            assert able(trust) == {"ann"}


async def test_where_our_issuer_was_revoked_all_can_be_removed(path: Path) -> None:
    """Of an earlier version's word: nobody can get in, so that nobody is the last who can; and it may be said again."""
    async with running_trust(path) as trust:
        await make(trust, "ann")
        await trust.registrar.revoke_token(frozenset({named("issuer:edged")}), None, kind="issuer")
        assert able(trust) == set()
        await trust.users.revoke(Identity.of_issuer("edged"), "issuer")
        await trust.users.delete("ann")


# --- names -------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["ann", "user_ann"])
@pytest.mark.parametrize("meanwhile", [False, True])
async def test_nobody_is_made_whose_subject_is_revoked(path: Path, subject: str, meanwhile: bool) -> None:
    """They could never log in; asked again in the registrar's own task."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        told: list[str] = []

        async def create() -> None:
            with pytest.raises(InvalidState, match=r"revoked for good: .*choose another name") as caught:
                await make(trust, "ann")
            told.append(str(caught.value))

        if meanwhile:
            async with busy_writer(trust.db):
                nursery.start_soon(make, trust, "bob")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(create)
                await trio.testing.wait_all_tasks_blocked()
                due = revoke(trust, subject)
            await due
        else:
            await revoke(trust, subject)
            await create()
        await until(lambda: len(told) == 1)
        assert trust.users.find("ann") is None


# --- by the endpoints ------------------------------------------------------------


async def told(client: Conversation, method: str, **params: object) -> str:
    reply = await client.ask(method, **params)
    return str(reply["error"]["data"]["reason"]) if "error" in reply else "ok"


async def log_in(daemon: RunningDaemon, name: str) -> str:
    async with daemon.websocket() as client:
        return await told(client, "login", username=name, password=PASSWORD)


async def test_each_endpoint_refuses_to_lock_the_last_administrator_out(tmp_path: Path) -> None:
    """409, with the user's name and what to do; the administrator goes on; a line up to now is drawn."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            await admin.call("create_user", name="ann", role="admin", password=PASSWORD)
            _, key = await daemon.create_key("admin")
            for body, names in (({"subject": "ann"}, "'ann'"), ({"issuer": "edged"}, "own issuer")):
                reply = await daemon.request("POST", "/api/revocations", key=key, body=body)
                assert (reply.status, names in str(reply.json)) == (409, True), reply.body
                assert "before=now" in str(reply.json)
                assert await told(admin, "revoke", **body) == "invalid_state"
                assert await log_in(daemon, "ann") == "ok"
                assert await told(admin, "revoke", **body, before="now") == "ok"
                assert await log_in(daemon, "ann") == "ok"
            assert await told(admin, "delete_user", name="ann") == "invalid_state"
            await admin.call("create_user", name="bob", role="admin", password=PASSWORD)
            assert await told(admin, "revoke", subject="ann") == "ok"
            assert [await log_in(daemon, name) for name in ("ann", "bob")] == ["revoked", "ok"]
            assert await told(admin, "delete_user", name="bob") == "invalid_state"


async def test_no_token_is_made_for_a_revoked_subject(tmp_path: Path) -> None:
    """Nobody would take it: 409, for a user and for whoever is none; nor is a user of that name made."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            _, key = await daemon.create_key("admin")
            for subject in ("kiosk", "user_cat"):
                assert await told(admin, "issue_token", user_id=subject) == "ok"
                assert await told(admin, "revoke", subject=subject) == "ok"
                reply = await daemon.request("POST", "/api/tokens", key=key, body={"user_id": subject})
                assert (reply.status, "revoked for good" in str(reply.json)) == (409, True), reply.body
            for name in ("kiosk", "cat"):
                body = {"name": name, "role": "viewer", "password": PASSWORD}
                reply = await daemon.request("POST", "/api/users", key=key, body=body)
                assert (reply.status, "choose another name" in str(reply.json)) == (409, True), reply.body


async def test_no_token_is_made_behind_a_line_that_is_drawn_already(tmp_path: Path) -> None:
    """A line may lie as far ahead as clocks may differ: what is issued until then would be worth nothing."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            await admin.call("revoke", subject="kiosk", before=iso(time.time() + 45))
            assert await told(admin, "issue_token", user_id="kiosk") == "invalid_state"
            assert await told(admin, "issue_token", user_id="other") == "ok"
