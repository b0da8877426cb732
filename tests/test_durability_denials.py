"""Whatever can be denied, over the unix socket and HTTP: told after the sync, in force before, kept while it fails.

What test_durability_disk.py shows for one key in depth, in breadth.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import fork_server
import pytest
import trio
from daemon_helpers import SECRET, Conversation
from durability_helpers import Box, Disk, Event, compile_disk, running_box
from patience import fail_after

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc not found: the disk that fails cannot be built (apt-get install gcc)"
)
WAL = "trust.db-wal"
#: Seconds that a sync takes on the slow disk, at least.
SLOW = 2.0
PASSWORD = "seven-green-herons-wade"
Endpoint = Literal["unix", "http"]
ENDPOINTS: tuple[Endpoint, ...] = ("unix", "http")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_disk(tmp_path_factory.mktemp("disk"))


@pytest.fixture
async def daemon(tmp_path: Path, library: Path) -> AsyncIterator[Services]:
    """With a shared secret, so that no token but those of the keys in question hangs on a signing key."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    settings = f'[auth.shared_secrets]\ntest = "{secret}"'
    async with running_box(tmp_path, Disk(tmp_path, library), settings=settings) as box, visiting(box) as daemon:
        daemon.key = (await daemon.admin.call("create_key", name="who asks over HTTP", role="admin"))["api_key"]
        yield daemon


@dataclass
class Services:
    """A box, and an administrator at each of its endpoints."""

    box: Box
    admin: Conversation
    key: str = ""
    made: int = 0

    @property
    def disk(self) -> Disk:
        assert self.box.disk is not None
        return self.box.disk

    async def token(self, **params: object) -> dict[str, str]:
        self.made += 1
        return dict(await self.admin.call("issue_token", **{"user_id": f"subject{self.made}", **params}))

    async def user(self) -> tuple[str, str]:
        """(name, token of a login)"""
        self.made += 1
        name = f"user{self.made}"
        await self.admin.call("create_user", name=name, role="viewer", password=PASSWORD)
        async with self.box.client() as somebody:
            return name, (await somebody.call("login", username=name, password=PASSWORD))["token"]

    async def is_served(self, service_token: str) -> bool:
        """Whether this service token is let in; whatever it then gets."""
        with trio.move_on_after(5):
            path = "/v1/files/generate-token?user_id=anybody"
            return (await self.box.request("POST", path, X_Service_Token=service_token))[0] != 401
        return True


@asynccontextmanager
async def visiting(box: Box) -> AsyncIterator[Services]:
    async with box.admin() as admin:
        yield Services(box, admin)


@dataclass
class Question:
    """One thing to ask at either endpoint, and who is let in until it is answered."""

    method: str
    params: dict[str, object]
    verb: str
    path: str
    is_good: Callable[[], Awaitable[bool]]
    body: object = None
    form: str = ""
    #: False: it gives something, and is done or not done.
    denies: bool = True
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, daemon: Services, endpoint: Endpoint) -> Outcome:
        """Ask it, and hear what came of it."""
        if endpoint == "unix":
            # In a conversation of its own: one that changes its own credential would change who asks.
            async with daemon.box.admin() as admin:
                reply = await admin.ask(self.method, **self.params)
            error = reply.get("error")
            return Outcome("result" in reply, error and error["code"], error["data"] if error else reply["result"])
        headers = self.headers or {"X_API_Key": daemon.key}
        status, told = await daemon.box.request(self.verb, self.path, body=self.body, form=self.form, **headers)
        return Outcome(status in (200, 201), status, told)


@dataclass
class Outcome:
    """Done, or a code (JSON-RPC's, HTTP's) and what was told."""

    done: bool
    code: int | None
    told: Any


async def deny_key(daemon: Services) -> Question:
    made = await daemon.admin.call("create_key", name="k", role="viewer")
    good = partial(daemon.box.lets_in, made["api_key"])
    return Question("revoke_key", {"key_id": made["key_id"]}, "DELETE", f"/api/keys/{made['key_id']}", good)


async def suspend_key(daemon: Services) -> Question:
    made = await daemon.admin.call("create_key", name="k", role="viewer")
    good = partial(daemon.box.lets_in, made["api_key"])
    return Question("suspend_key", {"key_id": made["key_id"]}, "POST", f"/api/keys/{made['key_id']}/suspend", good)


def revocation(daemon: Services, token: str, **params: object) -> Question:
    good = partial(daemon.box.lets_in, token)
    return Question("revoke", params, "POST", "/api/revocations", good, body=params)


async def deny_jti(daemon: Services) -> Question:
    made = await daemon.token()
    return revocation(daemon, made["token"], jti=made["jti"])


async def deny_hash(daemon: Services) -> Question:
    made = await daemon.token()
    return revocation(daemon, made["token"], token_hash=hashlib.sha256(made["token"].encode()).hexdigest())


async def deny_text(daemon: Services) -> Question:
    made = await daemon.token()
    good = partial(daemon.box.lets_in, made["token"])
    return Question(
        "revoke_token", {"token": made["token"]}, "POST", "/oauth/revoke", good, form=f"token={made['token']}"
    )


async def deny_family(daemon: Services) -> Question:
    """By the token that is refreshed; who has its successor is out."""
    made = await daemon.token()
    successor = await daemon.admin.call("refresh_token", token=made["token"])
    return revocation(daemon, successor["token"], jti=made["jti"])


async def cut_subject_off(daemon: Services) -> Question:
    made = await daemon.token(user_id=(name := f"cut-off{daemon.made}"))
    return revocation(daemon, made["token"], subject=name, before="now")


async def deny_subject(daemon: Services) -> Question:
    made = await daemon.token(user_id=(name := f"denied{daemon.made}"))
    return revocation(daemon, made["token"], subject=name)


async def disable_user(daemon: Services) -> Question:
    name, token = await daemon.user()
    good = partial(daemon.box.lets_in, token)
    params = {"name": name, "disabled": True}
    return Question("update_user", params, "PATCH", f"/api/users/{name}", good, body={"disabled": True})


async def delete_user(daemon: Services) -> Question:
    name, token = await daemon.user()
    good = partial(daemon.box.lets_in, token)
    return Question("delete_user", {"name": name}, "DELETE", f"/api/users/{name}", good)


async def set_password(daemon: Services) -> Question:
    name, token = await daemon.user()
    good, new = partial(daemon.box.lets_in, token), "nine-brown-otters-dive"
    params: dict[str, object] = {"name": name, "password": new}
    return Question("set_password", params, "PUT", f"/api/users/{name}/password", good, body={"password": new})


async def distrust_signing_key(daemon: Services) -> Question:
    """Of the algorithm whose current key nobody has asked about yet."""
    keys = (await daemon.admin.call("list_signing_keys"))["keys"]
    taken = {key["algorithm"] for key in keys if key["distrusted"] or key["state"] == "next"}
    current = next(key for key in keys if key["state"] == "current" and key["algorithm"] not in taken)
    # Its heir is there: who asks then hears of one commit for each of the two things that become of it.
    await daemon.admin.call("create_signing_key", algorithm=current["algorithm"])
    made = await daemon.token(signing_key=current["algorithm"])
    good = partial(daemon.box.lets_in, made["token"])
    path = f"/api/signing-keys/{current['kid']}/retire"
    params = {"kid": current["kid"], "distrust": True}
    return Question("retire_signing_key", params, "POST", path, good, body={"distrust": True})


async def deny_service_token(daemon: Services) -> Question:
    made = await daemon.admin.call("create_service_token", name="s")
    good = partial(daemon.is_served, made["service_token"])
    path = f"/api/service-tokens/{made['token_id']}"
    return Question("revoke_service_token", {"token_id": made["token_id"]}, "DELETE", path, good)


async def refresh(daemon: Services) -> Question:
    """Gives a successor; the token itself stays good."""
    made = await daemon.token()
    return Question(
        "refresh_token", {"token": made["token"]}, "POST", "/api/token/refresh",
        partial(daemon.box.lets_in, made["token"]), body={}, denies=False,
        headers={"Authorization": f"Bearer {made['token']}"},
    )  # fmt: skip


DENIALS = (
    deny_key, suspend_key, deny_jti, deny_hash, deny_text, deny_family, cut_subject_off, deny_subject, disable_user,
    delete_user, set_password, distrust_signing_key, deny_service_token,
)  # fmt: skip


def assert_synced_before_told(events: list[Event], is_reply: Callable[[Event], bool], what: str) -> None:
    """In the order of the system calls: the WAL is written, a sync that began after that returns, the reply is sent."""
    written, dirty, began_clean = False, True, False
    for event in events:
        if event.name == WAL and event.kind == "write":
            written, dirty, began_clean = True, True, False
        elif event.name == WAL and event.kind == "sync-begin":
            began_clean = True
        elif event.name == WAL and event.kind == "sync-end":
            dirty = not (event.number == 0 and began_clean)
        elif event.kind == "send" and is_reply(event):
            assert written, f"{what}: a reply without a write"
            assert not dirty, f"{what}: a reply before the sync"
            return
    raise AssertionError(f"{what}: no reply")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_no_byte_of_a_reply_to_a_denial_goes_out_before_the_sync(daemon: Services, endpoint: Endpoint) -> None:
    """Of any kind, and of a refresh."""
    sign = b'"result"' if endpoint == "unix" else b"HTTP/1.1 20"
    for make in (*DENIALS, refresh):
        question = await make(daemon)
        assert await question.is_good(), make.__name__
        before = len(daemon.disk.events())
        outcome = await question.ask(daemon, endpoint)
        assert outcome.done, (make.__name__, outcome)
        events = daemon.disk.events()[before:]
        assert_synced_before_told(events, lambda event: sign in event.data, make.__name__)
        assert await question.is_good() is not question.denies, make.__name__


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_on_a_slow_disk_all_that_is_denied_is_so_at_once_and_told_later(
    daemon: Services, endpoint: Endpoint
) -> None:
    """A sync of 2 s and more: all are out while it lasts, nobody was told, the loop answers others and waits for no
    disk; after the replies a kill brings nothing back."""
    questions = {make.__name__: await make(daemon) for make in DENIALS}
    outcomes: dict[str, Outcome] = {}
    before = len(daemon.disk.events())

    async def ask(name: str) -> None:
        outcomes[name] = await questions[name].ask(daemon, endpoint)

    daemon.disk.behave(hold=True)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name in questions:
            nursery.start_soon(ask, name)
        with fail_after(60):
            for question in questions.values():
                # A password is hashed first, and a request takes its time.
                while await question.is_good():
                    await trio.sleep(0.05)
        assert await daemon.admin.call("ping") == "pong"
        await trio.sleep_until(began + SLOW)
        assert [name for name, question in questions.items() if await question.is_good()] == []
        events = daemon.disk.events()[before:]
        assert "sync-end" not in {event.kind for event in events if event.name == WAL}
        assert outcomes == {}
        assert [event for event in events if event.kind == "loop"] == []
        daemon.disk.behave()
    assert [(name, outcome) for name, outcome in outcomes.items() if not outcome.done] == []
    assert await daemon.box.pending() == 0
    await assert_kept(daemon, questions)


async def assert_kept(daemon: Services, questions: dict[str, Question]) -> None:
    """After a kill and a start on a whole disk everybody is out."""
    daemon.box.kill()
    daemon.box.disk = None
    await daemon.box.start()
    assert [name for name, question in questions.items() if await question.is_good()] == []


@pytest.mark.parametrize(
    ("how", "number"),
    [
        pytest.param("sync", errno.EIO, id="sync fails"),
        pytest.param("sync", errno.ENOSPC, id="sync finds no space"),
        pytest.param("write", errno.ENOSPC, id="full"),
        pytest.param("write", errno.EROFS, id="read-only"),
    ],
)
async def test_while_the_disk_fails_all_that_is_denied_is_so_and_whoever_asked_hears_what_it_is_worth(
    daemon: Services, how: str, number: int
) -> None:
    """At both endpoints: in force, not saved, lost by a restart; what gives something: nothing was done. How many
    are pending is told by health and metrics, that they are saved by the log; nobody need ask again."""
    questions = {
        f"{make.__name__} {endpoint}": (await make(daemon), endpoint) for endpoint in ENDPOINTS for make in DENIALS
    }
    before = len(daemon.disk.events())
    daemon.disk.behave(sync=number if how == "sync" else 0, write=number if how == "write" else 0)
    for name, (question, endpoint) in questions.items():
        outcome = await question.ask(daemon, endpoint)
        code, word = (-32603, "reason") if endpoint == "unix" else (503, "code")
        assert (outcome.code, outcome.told[word], outcome.told["in_force"]) == (code, "store_error", True), name
        assert "in force now, but not saved yet" in outcome.told["detail"], name
        assert "a restart of edged would undo it" in outcome.told["detail"], name
        assert not await question.is_good(), name
    for endpoint in ENDPOINTS:
        grant = Question("create_key", GHOST, "POST", "/api/keys", partial(daemon.box.lets_in, ""), body=GHOST)
        outcome = await grant.ask(daemon, endpoint)
        assert (outcome.done, outcome.told["in_force"]) == (False, False)
        assert "nothing was done" in outcome.told["detail"]
    await assert_owing_is_shown(daemon, len(questions))
    assert [event for event in daemon.disk.events()[before:] if event.kind == "loop"] == []
    daemon.disk.behave()
    with fail_after(180):
        while await daemon.box.pending():
            await trio.sleep(0.05)
    assert (await daemon.box.request("GET", "/health"))[1]["denials_owed"] == 0
    assert daemon.box.log.read_text().count("denials_saved") == 1
    assert [name for name, (question, _) in questions.items() if await question.is_good()] == []
    await assert_kept(daemon, {name: question for name, (question, _) in questions.items()})


GHOST: dict[str, object] = {"name": "ghost", "role": "admin"}


async def assert_owing_is_shown(daemon: Services, at_least: int) -> None:
    """By health, by metrics, and by the command line in words."""
    box = daemon.box
    assert await box.pending() >= at_least
    status, ready = await box.request("GET", "/health/ready")
    assert (status, ready["ready"]) == (503, False)
    assert (await box.request("GET", "/health"))[1]["status"] == "unhealthy"
    _, shown = await box.request("GET", "/metrics", X_API_Key=daemon.key)
    assert f"edged_revocations_pending {ready['denials_owed']}.0\n" in shown
    keys = (await daemon.admin.call("list_keys"))["keys"]
    key_id = next(key["key_id"] for key in keys if key["status"] == "revoked")
    words = ["-m", "edged", "key", "revoke", key_id, "--socket", str(box.folder / "run" / "edged.sock")]
    done = await trio.to_thread.run_sync(fork_server.run, words, os.environ)
    told = done.stderr.decode()
    assert done.returncode == 1, told
    assert told.startswith("edged: in force now, but not saved yet (database trust: "), told
    assert told.count("\n") == 1
    assert "goes on trying" in told


async def test_a_refresh_that_the_disk_refused_takes_nothing_away(daemon: Services) -> None:
    """Nobody has a successor and the token is as good as before; when the disk is mended it is refreshed."""
    for endpoint in ENDPOINTS:
        question = await refresh(daemon)
        daemon.disk.behave(write=errno.ENOSPC)
        outcome = await question.ask(daemon, endpoint)
        assert (outcome.done, outcome.told["in_force"]) == (False, False)
        assert await question.is_good()
        assert await daemon.box.pending() == 0
        daemon.disk.behave()
        outcome = await question.ask(daemon, endpoint)
        assert outcome.done
        assert await daemon.box.lets_in(outcome.told["token"])
