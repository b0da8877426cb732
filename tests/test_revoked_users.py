"""A user whose subject is revoked for good: with their logins their keys rest, as those of one who was deleted."""

from __future__ import annotations

from pathlib import Path

import planted
import pytest
import trio
import trio.testing
from daemon_helpers import Conversation, RunningDaemon, ended, make_config, running_daemon
from gate_helpers import LOCAL
from identity_helpers import named
from patience import fail_after
from trust_helpers import BrokenCommits, TrustStack, busy_writer, open_trust, running_trust

from edged.access.authority import EDGED
from edged.credentials.callers import ApiKey
from edged.credentials.identities import Identity
from edged.errors import StoreFailed

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
PASSWORD = planted.plant("battery horse staple", "a revoked user's password")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


async def make(trust: TrustStack, name: str, role: str = "operator") -> str:
    """A user and a key of theirs; its secret."""
    await trust.users.create(EDGED, name=name, role=role, password=HASH)
    return (await trust.api_keys.create(EDGED, name=f"of {name}", role="operator", owner=name))[1]


def status(trust: TrustStack, name: str) -> str:
    """What the list says of the key."""
    records = {record.name: record for record in trust.ledger.keys.values()}
    return trust.ledger.key_status(records[name], trust.clock.now())


@pytest.mark.parametrize("subject", ["ann", "user_ann"])
@pytest.mark.parametrize("again", [False, True])
async def test_the_keys_rest_before_it_is_on_disk_and_after_a_restart(path: Path, subject: str, again: bool) -> None:
    """By the name and by what their logins say as `sub`; whoever is inside by one is out; everybody else goes on."""
    async with running_trust(path) as trust:
        root, ann, bob = await make(trust, "root", "admin"), await make(trust, "ann"), await make(trust, "bob")
        free = (await trust.api_keys.create(EDGED, name="free", role="viewer"))[1]
        out, stays = (trust.inside(trust.gate.authenticate(ApiKey(key), LOCAL, "ws")) for key in (ann, bob))
        if again:
            await trust.users.revoke(Identity.of_user(subject), "subject")
        async with busy_writer(trust.db):
            due = trust.users.revoke(Identity.of_user(subject), "subject")
            assert (out, stays) == ([("suspended", "")], [])
            assert [trust.lets_in(key) for key in (ann, bob, root, free)] == [False, True, True, True]
            assert [status(trust, name) for name in ("of ann", "of bob", "free")] == ["suspended", "active", "active"]
        await due
    async with open_trust(path) as trust:
        assert [trust.lets_in(key) for key in (ann, bob, root, free)] == [False, True, True, True]
        assert [status(trust, name) for name in ("of ann", "of bob", "free")] == ["suspended", "active", "active"]


async def test_whoever_asks_by_such_a_key_is_answered_first(path: Path) -> None:
    """An administrator's own key ends the administrator: its session hears that it did so itself."""
    async with running_trust(path) as trust:
        await make(trust, "root", "admin")
        ann = await make(trust, "ann", "admin")
        out: list[tuple[str, str]] = []
        admission = trust.gate.admit(
            trust.gate.authenticate(ApiKey(ann), LOCAL, "ws"),
            "ws",
            lambda cause, by: out.append((cause, by)),
            session="mine",
        )
        await trust.users.revoke(Identity.of_user("ann"), "subject", "mine")
        assert out == [("suspended", "mine")]
        assert not trust.admissions.of(named(f"key:{admission.caller.credential_id}"))


@pytest.mark.parametrize("line", [None, 0.0])
async def test_a_mere_cut_off_leaves_the_keys_alone(path: Path, line: float | None) -> None:
    """Nor do the end of another issuer, of somebody else's subject, and of one whose name only begins alike."""
    async with running_trust(path) as trust:
        await make(trust, "root", "admin")
        ann = await make(trust, "ann")
        inside = trust.inside(trust.gate.authenticate(ApiKey(ann), LOCAL, "ws"))
        await trust.revocations.cut_off(Identity.of_user("ann"), line)
        await trust.users.revoke(Identity.of_issuer("elsewhere"), "issuer")
        for subject in ("an", "anna", "user_", "user_user_ann", "Ann", "bob"):
            await trust.users.revoke(Identity.of_user(subject), "subject")
        assert (inside, trust.lets_in(ann), status(trust, "of ann")) == ([], True, "active")
    async with open_trust(path) as trust:
        assert trust.lets_in(ann)


async def test_nothing_that_becomes_of_key_or_owner_wakes_the_key(path: Path) -> None:
    """Neither a resumption, a rotation, an update, nor another role, a new password, rest and waking of the owner;
    somebody else's it is good."""
    async with running_trust(path) as trust:
        await make(trust, "root", "admin")
        secrets = [await make(trust, "ann")]
        await trust.users.revoke(Identity.of_user("ann"), "subject")
        (key_id,) = trust.ledger.keys_of("ann")
        await trust.api_keys.suspend(key_id)
        await trust.api_keys.resume(EDGED, key_id)
        secrets.append((await trust.api_keys.rotate(EDGED, key_id, 60))[1])
        await trust.api_keys.update(EDGED, key_id, {"role": "admin"}, lambda _before, _after: None)
        secrets.append((await trust.api_keys.create(EDGED, name="late", role="viewer", owner="ann"))[1])
        await trust.users.disable("ann")
        await trust.users.enable(EDGED, "ann")
        await trust.users.update(EDGED, "ann", {"role": "admin"})
        await trust.users.set_password("ann", HASH)
        assert not any(map(trust.lets_in, secrets))
        assert {status(trust, name) for name in ("of ann", "late")} == {"suspended"}
        await trust.api_keys.update(EDGED, key_id, {"owner": "root"}, lambda _before, _after: None)
        assert [trust.lets_in(secret) for secret in secrets] == [True, True, False]
        await trust.users.delete("ann")
        assert status(trust, "late") == "suspended"


async def test_a_key_on_its_way_to_the_disk_is_born_resting(path: Path) -> None:
    """Made, and given to the user, while the subject was being revoked: the denial came first."""
    async with running_trust(path) as trust, trio.open_nursery() as nursery:
        await make(trust, "root", "admin")
        await make(trust, "ann")
        given, secret = await trust.api_keys.create(EDGED, name="given", role="viewer")
        inside = trust.inside(trust.gate.authenticate(ApiKey(secret), LOCAL, "ws"))
        made: list[str] = []

        async def create() -> None:
            made.append((await trust.api_keys.create(EDGED, name="new", role="viewer", owner="ann"))[1])

        async def give() -> None:
            await trust.api_keys.update(EDGED, given.key_id, {"owner": "ann"}, lambda _before, _after: None)
            made.append(secret)

        async with busy_writer(trust.db):
            for work in (create, give):
                nursery.start_soon(work)
                await trio.testing.wait_all_tasks_blocked()
            due = trust.users.revoke(Identity.of_user("ann"), "subject")
        await due
        while len(made) < 2:
            await trio.sleep(0.002)
        assert not any(map(trust.lets_in, made))
        assert inside == [("suspended", "")]


async def test_they_rest_on_a_disk_that_fails(path: Path) -> None:
    """In force, and the caller is told that it is not saved; once it is, a restart knows it."""
    async with running_trust(path) as trust:
        await make(trust, "root", "admin")
        ann = await make(trust, "ann")
        broken = await BrokenCommits(trust.db).begin()
        with pytest.raises(StoreFailed, match="in force now, but not saved"):
            await trust.users.revoke(Identity.of_user("ann"), "subject")
        assert not trust.lets_in(ann)
        await broken.mend()
        await trust.users.revoke(Identity.of_user("ann"), "subject")
    async with open_trust(path) as trust:
        assert not trust.lets_in(ann)


async def told(client: Conversation, method: str, **params: object) -> str:
    reply = await client.ask(method, **params)
    return str(reply["error"]["data"]["reason"]) if "error" in reply else "ok"


async def test_a_revoked_users_key_and_its_tokens_are_refused_at_every_endpoint(tmp_path: Path) -> None:
    """WebSocket and HTTP, sessions and tokens that the key issued; the list says suspended; so after a restart."""
    config = make_config(tmp_path, cameras=0)
    with fail_after(90):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await admin.call("create_user", name="root", role="admin", password=PASSWORD)
            await admin.call("create_user", name="ann", role="admin", password=PASSWORD)
            key_id, key = await daemon.create_key("admin", owner="ann")
            async with daemon.websocket() as inside, daemon.websocket() as derived:
                await inside.call("authenticate", auth_token=key)
                token = (await inside.call("issue_token", user_id="guest", role="viewer"))["token"]
                await derived.call("authenticate", auth_token=token)
                await admin.call("revoke", subject="ann", before="now")
                assert await told(inside, "get_camera_list") == "ok"
                await admin.call("revoke", subject="ann")
                assert [await ended(client) for client in (inside, derived)] == [4401, 4401]
            await _assert_resting(daemon, admin, key_id, key, token)
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await _assert_resting(daemon, admin, key_id, key, token)


async def _assert_resting(daemon: RunningDaemon, admin: Conversation, key_id: str, key: str, token: str) -> None:
    async with daemon.websocket() as client:
        assert [await told(client, "authenticate", auth_token=text) for text in (key, token)] == ["auth_failed"] * 2
    assert (await daemon.request("GET", "/api/keys", key=key)).status == 401
    (listed,) = (await admin.call("list_keys", owner="ann"))["keys"]
    assert (listed["key_id"], listed["status"]) == (key_id, "suspended")
