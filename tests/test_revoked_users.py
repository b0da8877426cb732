"""A user whose subject is revoked for good: with their logins their keys rest, as those of one who was deleted."""

from __future__ import annotations

from pathlib import Path

import planted
import pytest
import trio
import trio.testing
from cellar_helpers import BrokenCommits, Desk, busy_writer, open_desk, running_desk
from daemon_helpers import Conversation, RunningDaemon, ended, make_config, running_daemon
from patience import fail_after

from edged.access.authority import EDGED
from edged.credentials.callers import ApiKey
from edged.credentials.names import issuer_identity, user_identity
from edged.errors import StoreFailed

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"
PASSWORD = planted.plant("battery horse staple", "a revoked user's password")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trust.db"


async def make(desk: Desk, name: str, role: str = "operator") -> str:
    """A user and a key of theirs; its secret."""
    await desk.users.create(EDGED, name=name, role=role, password=HASH)
    return (await desk.api_keys.create(EDGED, name=f"of {name}", role="operator", owner=name))[1]


def status(desk: Desk, name: str) -> str:
    """What the list says of the key."""
    records = {record.name: record for record in desk.ledger.keys.values()}
    return desk.ledger.key_status(records[name], desk.clock.now())


@pytest.mark.parametrize("subject", ["ann", "user_ann"])
@pytest.mark.parametrize("again", [False, True])
async def test_the_keys_rest_before_it_is_on_disk_and_after_a_restart(path: Path, subject: str, again: bool) -> None:
    """By the name and by what their logins say as `sub`; whoever is inside by one is out; everybody else goes on."""
    async with running_desk(path) as desk:
        root, ann, bob = await make(desk, "root", "admin"), await make(desk, "ann"), await make(desk, "bob")
        free = (await desk.api_keys.create(EDGED, name="free", role="viewer"))[1]
        out, stays = (desk.inside(desk.gate.authenticate(ApiKey(key), "ws")) for key in (ann, bob))
        if again:
            await desk.users.revoke(user_identity(subject), "subject")
        async with busy_writer(desk.db):
            due = desk.users.revoke(user_identity(subject), "subject")
            assert (out, stays) == ([("suspended", "")], [])
            assert [desk.lets_in(key) for key in (ann, bob, root, free)] == [False, True, True, True]
            assert [status(desk, name) for name in ("of ann", "of bob", "free")] == ["suspended", "active", "active"]
        await due
    async with open_desk(path) as desk:
        assert [desk.lets_in(key) for key in (ann, bob, root, free)] == [False, True, True, True]
        assert [status(desk, name) for name in ("of ann", "of bob", "free")] == ["suspended", "active", "active"]


async def test_whoever_asks_by_such_a_key_is_answered_first(path: Path) -> None:
    """An administrator's own key ends the administrator: its session hears that it did so itself."""
    async with running_desk(path) as desk:
        await make(desk, "root", "admin")
        ann = await make(desk, "ann", "admin")
        out: list[tuple[str, str]] = []
        admission = desk.gate.admit(
            desk.gate.authenticate(ApiKey(ann), "ws"), "ws", lambda cause, by: out.append((cause, by)), session="mine"
        )
        await desk.users.revoke(user_identity("ann"), "subject", "mine")
        assert out == [("suspended", "mine")]
        assert not desk.admissions.of(f"key:{admission.caller.credential_id}")


@pytest.mark.parametrize("line", [None, 0.0])
async def test_a_mere_cut_off_leaves_the_keys_alone(path: Path, line: float | None) -> None:
    """Nor do the end of another issuer, of somebody else's subject, and of one whose name only begins alike."""
    async with running_desk(path) as desk:
        await make(desk, "root", "admin")
        ann = await make(desk, "ann")
        inside = desk.inside(desk.gate.authenticate(ApiKey(ann), "ws"))
        await desk.revocations.cut_off(user_identity("ann"), line)
        await desk.users.revoke(issuer_identity("elsewhere"), "issuer")
        for subject in ("an", "anna", "user_", "user_user_ann", "Ann", "bob"):
            await desk.users.revoke(user_identity(subject), "subject")
        assert (inside, desk.lets_in(ann), status(desk, "of ann")) == ([], True, "active")
    async with open_desk(path) as desk:
        assert desk.lets_in(ann)


async def test_nothing_that_becomes_of_key_or_owner_wakes_the_key(path: Path) -> None:
    """Neither a resumption, a rotation, an update, nor another role, a new password, rest and waking of the owner;
    somebody else's it is good."""
    async with running_desk(path) as desk:
        await make(desk, "root", "admin")
        secrets = [await make(desk, "ann")]
        await desk.users.revoke(user_identity("ann"), "subject")
        (key_id,) = desk.ledger.keys_of("ann")
        await desk.api_keys.suspend(key_id)
        await desk.api_keys.resume(EDGED, key_id)
        secrets.append((await desk.api_keys.rotate(EDGED, key_id, 60))[1])
        await desk.api_keys.update(EDGED, key_id, {"role": "admin"}, lambda _before, _after: None)
        secrets.append((await desk.api_keys.create(EDGED, name="late", role="viewer", owner="ann"))[1])
        await desk.users.disable("ann")
        await desk.users.enable(EDGED, "ann")
        await desk.users.update(EDGED, "ann", {"role": "admin"})
        await desk.users.set_password("ann", HASH)
        assert not any(map(desk.lets_in, secrets))
        assert {status(desk, name) for name in ("of ann", "late")} == {"suspended"}
        await desk.api_keys.update(EDGED, key_id, {"owner": "root"}, lambda _before, _after: None)
        assert [desk.lets_in(secret) for secret in secrets] == [True, True, False]
        await desk.users.delete("ann")
        assert status(desk, "late") == "suspended"


async def test_a_key_on_its_way_to_the_disk_is_born_resting(path: Path) -> None:
    """Made, and given to the user, while the subject was being revoked: the denial came first."""
    async with running_desk(path) as desk, trio.open_nursery() as nursery:
        await make(desk, "root", "admin")
        await make(desk, "ann")
        given, secret = await desk.api_keys.create(EDGED, name="given", role="viewer")
        inside = desk.inside(desk.gate.authenticate(ApiKey(secret), "ws"))
        made: list[str] = []

        async def create() -> None:
            made.append((await desk.api_keys.create(EDGED, name="new", role="viewer", owner="ann"))[1])

        async def give() -> None:
            await desk.api_keys.update(EDGED, given.key_id, {"owner": "ann"}, lambda _before, _after: None)
            made.append(secret)

        async with busy_writer(desk.db):
            for work in (create, give):
                nursery.start_soon(work)
                await trio.testing.wait_all_tasks_blocked()
            due = desk.users.revoke(user_identity("ann"), "subject")
        await due
        while len(made) < 2:
            await trio.sleep(0.002)
        assert not any(map(desk.lets_in, made))
        assert inside == [("suspended", "")]


async def test_they_rest_on_a_disk_that_fails(path: Path) -> None:
    """In force, and the caller is told that it is not saved; once it is, a restart knows it."""
    async with running_desk(path) as desk:
        await make(desk, "root", "admin")
        ann = await make(desk, "ann")
        broken = await BrokenCommits(desk.db).begin()
        with pytest.raises(StoreFailed, match="in force now, but not saved"):
            await desk.users.revoke(user_identity("ann"), "subject")
        assert not desk.lets_in(ann)
        await broken.mend()
        await desk.users.revoke(user_identity("ann"), "subject")
    async with open_desk(path) as desk:
        assert not desk.lets_in(ann)


async def told(client: Conversation, method: str, **params: object) -> str:
    reply = await client.ask(method, **params)
    return str(reply["error"]["data"]["reason"]) if "error" in reply else "ok"


async def test_a_revoked_users_key_and_its_tokens_open_nothing_at_any_door(tmp_path: Path) -> None:
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
