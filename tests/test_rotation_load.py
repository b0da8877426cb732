"""A signing key and an API key are rotated, and another key is revoked, while everybody is at work.

Ten clients verify tokens by a JWKS that they keep for an hour, five refresh a token of twenty minutes, eight watch a
stream of the real MediaMTX, in http mode. The hours pass by a clock that the test turns; all else is real.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, make_config, running_daemon
from joserfc import jwt
from joserfc.jwk import KeySet
from patience import fail_after
from rtsp_client import RtspReader

pytestmark = [pytest.mark.slow, pytest.mark.mediamtx, pytest.mark.ffmpeg]
VERIFIERS, REFRESHERS, STREAMS = 10, 5, 8
#: How long a verifier keeps the JWKS, and how long a token lives, seconds of the turned clock.
KEPT, LIFE = 3600.0, 1200
STEP = 300.0


@dataclass
class Site:
    """The turned clock, what came in, and whoever was refused that should not have been."""

    daemon: RunningDaemon
    offset: list[float]
    #: Every token that was made, the oldest first, and when it ends.
    tokens: list[tuple[float, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    signed_by: set[str] = field(default_factory=set)
    watching: set[str] = field(default_factory=set)
    #: When which key was promoted.
    promoted: tuple[float, str] = (0.0, "")
    #: How often each of those has come who come again and again.
    rounds: Counter[str] = field(default_factory=Counter)

    def now(self) -> float:
        return time.time() + self.offset[0]

    def note(self, text: str) -> None:
        self.tokens.append((float(read(text, 1)["exp"]), text))
        self.signed_by.add(read(text, 0)["kid"])

    def good(self) -> list[str]:
        """All that have not ended, the oldest first."""
        self.tokens = [(ends, text) for ends, text in self.tokens if ends > self.now()]
        return [text for _, text in self.tokens]

    async def pass_by(self, seconds: float) -> None:
        """So much time, in steps; in each of them everybody comes to do something."""
        while seconds > 0:
            self.offset[0] += STEP
            seconds -= STEP
            marks = dict(self.rounds)
            with fail_after(60):
                # One round may have begun before: the second is of this time.
                while any(self.rounds[name] < mark + 2 for name, mark in marks.items()):
                    await trio.sleep(0.02)

    async def verify(self, number: int) -> None:
        """One who fetches the JWKS once an hour, each at a time of its own, and takes tokens by it: the oldest that is
        good, and any."""
        keys, due = KeySet([]), self.now()
        while True:
            if self.now() >= due:
                reply = await self.daemon.request("GET", "/.well-known/jwks.json")
                keys = KeySet.import_key_set(reply.json)
                due = self.now() + (KEPT if self.rounds[f"verifier {number}"] else KEPT * number / VERIFIERS)
                self.counts["fetched"] += 1
                fetched = self.now()
            good = self.good()
            for text in (good[0], random.choice(good)):
                try:
                    jwt.decode(text, keys, algorithms=["RS256"])
                except Exception as problem:
                    self.refused.append(f"verifier: {read(text, 0)['kid']}: {problem!r}")
                self.counts["verified"] += 1
                if 0 < self.promoted[0] <= fetched and read(text, 0)["kid"] != self.promoted[1]:
                    self.counts["verified by a retired key that was fetched after it"] += 1
            self.rounds[f"verifier {number}"] += 1
            await trio.sleep(0.05)

    async def refresh(self, number: int, task_status: trio.TaskStatus[str]) -> None:
        """One whose session, and stream, live by tokens that end sooner than it leaves."""
        async with self.daemon.local() as admin:
            made = await admin.call(
                "issue_token", user_id=f"user {number}", expires_in=LIFE, signing_key="RS256", role="viewer"
            )
        self.note(made["token"])
        async with self.daemon.websocket() as client:
            await client.call("authenticate", auth_token=made["token"])
            task_status.started(made["token"])
            while True:
                for method in ("refresh_token", "get_camera_list", "refresh_token"):
                    answer = await client.ask(method)
                    if "error" in answer:
                        self.refused.append(f"refresher {number}: {method}: {answer['error']}")
                    elif method == "refresh_token":
                        self.note(answer["result"]["token"])
                        self.counts["refreshed"] += 1
                self.rounds[f"refresher {number}"] += 1
                await trio.sleep(0.2)

    async def watch(self, name: str, secret: str, task_status: trio.TaskStatus[None]) -> None:
        """A viewer: `name` is in `watching` for as long as the picture comes."""
        viewer = RtspReader(self.daemon.rtsp, f"camera{len(self.watching) % 2}", "viewer", secret)
        try:
            await viewer.play()
            await viewer.wait_packet()
            self.watching.add(name)
            task_status.started()
            await viewer.wait_end()
            self.watching.discard(name)
        finally:
            await viewer.aclose()

    async def knock(self, secret: Callable[[], str], expected: Callable[[], bool | None]) -> None:
        """One who comes with this key again and again; `expected` is asked before it is shown (None: it may end)."""
        while True:
            async with self.daemon.websocket() as client:
                good = expected()
                accepted = "result" in await client.ask("authenticate", auth_token=secret())
            if good and not accepted and expected():
                self.refused.append("a good key")
            if good is False and accepted:
                self.counts["accepted after its end"] += 1
            self.counts["good" if accepted else "bad"] += 1
            await trio.sleep(0.05)


def read(text: str, part: int) -> dict[str, Any]:
    """Header (0) or claims (1) of a token."""
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text.split(".")[part] + "=="))
    return found


async def promote(admin: Conversation, kid: str) -> dict[str, Any]:
    answer: dict[str, Any] = await admin.ask("promote_signing_key", kid=kid)
    return answer


async def test_nobody_notices_a_rotation_and_everybody_a_revocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """0 refusals of what is good through both rotations, 0 acceptances of the revoked key after the reply."""
    offset = [0.0]
    monkeypatch.setattr("edged.clock.time", SimpleNamespace(time=lambda: time.time() + offset[0]))
    monkeypatch.setattr("edged.systemd.is_clock_synchronized", lambda: True)
    config = make_config(tmp_path, cameras=2, mediamtx=True)
    with fail_after(400):
        # Made before: how long a key of this very run was published is measured, and not told by a clock.
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            kid = (await admin.call("create_signing_key", algorithm="RS256"))["kid"]
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            await daemon.wait_media()
            site = Site(daemon, offset)
            async with trio.open_nursery() as nursery:
                await tell_the_story(site, admin, nursery, kid)
                nursery.cancel_scope.cancel()
    with capfd.disabled():
        print(f"\nrotation: {dict(site.counts)}, {STREAMS} streams, {offset[0] / 3600:.1f} h")
    assert site.refused == []
    assert site.counts["accepted after its end"] == 0
    assert site.counts["bad"] > 0
    # Each verifier kept its keys for an hour, and asked as seldom as that.
    assert site.counts["fetched"] <= VERIFIERS * (2 + offset[0] / KEPT)
    # A retired key that vanished at once would have been missed.
    assert site.counts["verified by a retired key that was fetched after it"] > 0


async def tell_the_story(site: Site, admin: Conversation, nursery: trio.Nursery, kid: str) -> None:
    daemon = site.daemon
    rotating = await admin.call("create_key", name="rotating", role="viewer")
    revoked = await admin.call("create_key", name="revoked", role="viewer")
    _, stable = await daemon.create_key()
    tokens = [await nursery.start(site.refresh, number) for number in range(REFRESHERS)]
    secrets = [rotating["api_key"], revoked["api_key"], stable, *tokens]
    assert len(secrets) == STREAMS
    for number, secret in enumerate(secrets):
        await nursery.start(site.watch, f"stream {number}", secret)
    for number in range(VERIFIERS):
        nursery.start_soon(site.verify, number)
    # Which secret the key has now; whether its first is good, and the other key.
    shown = [rotating["api_key"]]
    first: list[bool | None] = [True]
    other: list[bool | None] = [True]
    nursery.start_soon(site.knock, lambda: stable, lambda: True)
    nursery.start_soon(site.knock, lambda: rotating["api_key"], lambda: first[0])
    nursery.start_soon(site.knock, lambda: shown[-1], lambda: True)
    nursery.start_soon(site.knock, lambda: revoked["api_key"], lambda: other[0])
    await site.pass_by(3600)
    assert (await promote(admin, kid))["error"]["data"]["detail"], "a verifier may not know it yet"
    # The key: a new secret, and an hour in which both are good; its session shows the new one.
    async with daemon.websocket() as holder:
        await holder.call("authenticate", auth_token=rotating["api_key"])
        shown.append((await admin.call("rotate_key", key_id=rotating["key_id"], grace_seconds=3600))["api_key"])
        await site.pass_by(1800)
        await holder.call("authenticate", auth_token=shown[-1])
        # The other: in the middle of everything, with its stream and whoever comes with it.
        other[0] = None  # it is in force before the reply is here
        await admin.call("revoke_key", key_id=revoked["key_id"])
        other[0] = False
        with fail_after(30):
            while "stream 1" in site.watching:
                await trio.sleep(0.02)
        await site.pass_by(1200)
        first[0] = None
        await site.pass_by(900)
        first[0] = False
        # Published for two hours: nobody has to be forced.
        before = set(site.signed_by)
        assert (await promote(admin, kid))["result"]["state"] == "current"
        site.promoted = (site.now(), kid)
        await site.pass_by(1800)
        assert site.signed_by == before | {kid}
        assert site.watching == {f"stream {number}" for number in range(STREAMS) if number != 1}
        # What the retired key signed last is good to its end, an hour later all is signed by the new one.
        await site.pass_by(3600)
        assert site.watching == {f"stream {number}" for number in range(STREAMS) if number != 1}
        assert (await holder.call("whoami"))["user_id"] == f"key:{rotating['key_id']}"
