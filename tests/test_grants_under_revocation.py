"""The running daemon: an administrator's key is revoked while many clients ask for new credentials by it."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, make_config, running_daemon
from patience import until_seen
from trio_websocket import ConnectionClosed

#: Clients that ask by one key at a time, each by a connection of its own: more than may wait.
CLIENTS = 110
TABLES = {
    "api_keys": "key_id, role, digest, previous_digest, suspended_at IS NULL, permissions",
    "service_tokens": "token_id, digest, previous_digest",
    "users": "name, role, disabled_at IS NULL",
    "signing_keys": "number, state",
    "cameras": "number, identity, label",
    "added_cameras": "number, settings",
    "recordings": "recording_id, ended, deleted_at",
    "meta": "CASE name WHEN 'retention' THEN value END",
}
#: Things to ask for that are not a new administrator's key; in each round most clients ask for one of them.
KINDS = 18


class Client:
    """One kept connection; asks with a credential, and gets status and body."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._left = b""

    async def send(self, method: str, path: str, key: str, body: object) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
        await self._stream.send_all(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)

    async def receive(self) -> tuple[int, Any]:
        while b"\r\n\r\n" not in self._left:
            self._left += await self._read()
        head, _, rest = self._left.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        while len(rest) < length:
            rest += await self._read()
        self._left = rest[length:]
        return int(lines[0].split()[1]), json.loads(rest[:length])

    async def _read(self) -> bytes:
        data = await self._stream.receive_some()
        assert data, "the daemon closed the connection"
        return bytes(data)


@dataclass
class Round:
    """What there is to work on: another's key, a suspended one, a user, cameras, recordings, signing keys."""

    number: int
    rotated: str
    suspended: str
    narrow: str
    user: str
    camera: str
    removed: str
    recording: str
    waiting: str
    told: list[Mapping[str, Any]] = field(default_factory=list)
    #: (kind, "told" or "refused") → how many clients.
    kinds: Counter[tuple[int, str]] = field(default_factory=Counter)

    def kind(self, client: int) -> int:
        """What this client asks for; 0 and what has no number is a new administrator's key."""
        return client if client < 2 * KINDS else 1 + self.number % KINDS

    def question(self, client: int) -> tuple[str, str, object]:
        """One of everything that changes something, several new administrators' keys, and many of one kind."""
        name = f"r{self.number}c{client}"
        return {
            1: ("POST", f"/api/keys/{self.rotated}/rotate", {}),
            2: ("POST", f"/api/keys/{self.suspended}/resume", {}),
            4: ("POST", "/api/service-tokens", {"name": name}),
            5: ("POST", "/api/users", {"name": name, "role": "admin"}),
            6: ("PATCH", f"/api/users/{self.user}", {"role": "admin"}),
            7: ("PATCH", f"/api/keys/{self.narrow}", {"role": "admin"}),
            8: ("POST", "/api/signing-keys", {"algorithm": "RS256"}),
            9: ("POST", "/api/tokens", {"user_id": name, "role": "admin"}),
            10: ("POST", "/api/cameras", {"name": name, "source": f"rtsp://192.0.2.9/{name}"}),
            11: ("PATCH", f"/api/cameras/{self.camera}", {"name": name}),
            12: ("DELETE", f"/api/cameras/{self.removed}", None),
            13: ("POST", "/api/cameras/camera0/recording", {}),
            14: ("DELETE", "/api/cameras/camera1/recording", None),
            15: ("DELETE", f"/api/recordings/{self.recording}", None),
            16: ("PUT", "/api/storage/retention", {"policy_type": "age", "enabled": True, "max_age_days": client + 1}),
            17: ("POST", f"/api/signing-keys/{self.waiting}/promote", {"force": True}),
            18: ("POST", f"/api/signing-keys/{self.waiting}/retire", {}),
        }.get(self.kind(client), ("POST", "/api/keys", {"name": name, "role": "admin"}))


def look(path: Path) -> dict[str, set[tuple[object, ...]]]:
    """Everything that is granted, as another program reads it."""
    connection = sqlite3.connect(path)
    try:
        return {table: set(connection.execute(f"SELECT {columns} FROM {table}")) for table, columns in TABLES.items()}
    finally:
        connection.close()


async def prepare(admin: Conversation, number: int) -> tuple[Round, str, str]:
    """A round, and the id and secret of the key that is to be revoked in it."""
    made = [await admin.call("create_key", name=f"{number} {what}", role="viewer") for what in ("a", "b", "c")]
    await admin.call("suspend_key", key_id=made[1]["key_id"])
    user = await admin.call("create_user", name=f"user{number}", role="viewer")
    key = await admin.call("create_key", name=f"{number} root", role="admin")
    cameras = [
        (await admin.call("add_camera", name=f"r{number} {what}", source=f"rtsp://192.0.2.9/{number}/{what}"))["device"]
        for what in ("a", "b")
    ]
    await admin.call("start_recording", device="camera1")
    recording = await admin.call("stop_recording", device="camera1")
    await admin.call("start_recording", device="camera1")
    a, b, c = (each["key_id"] for each in made)
    this = Round(
        number, a, b, c, user["name"], cameras[0], cameras[1], recording["filename"],
        (await admin.call("create_signing_key", algorithm="ES256"))["kid"],
    )  # fmt: skip
    return this, key["key_id"], key["api_key"]


async def play(daemon: RunningDaemon, admin: Conversation, clients: list[Client], number: int, delay: float) -> Round:
    """One round; nothing is granted once the revocation is answered."""
    this, key_id, secret = await prepare(admin, number)
    database = daemon.config.paths.state / "trust.db"

    async def ask(client: int) -> None:
        await clients[client].send(*this.question(client)[:2], secret, this.question(client)[2])
        status, body = await clients[client].receive()
        if status < 300:
            this.told.append(body)
        else:
            assert status in (400, 401, 403, 404, 409, 503), (status, body)
        this.kinds[min(this.kind(client), KINDS + 1), "told" if status < 300 else "refused"] += 1

    async def bring_in(conversation: Conversation) -> None:
        with suppress(ConnectionClosed):
            brought = {"source_id": "a", "key": f"{number}-{'x' * 32}", "role": "admin"}
            reply = await conversation.ask("import_keys", keys=[brought])
            this.told.extend(reply["result"]["keys"] if "result" in reply else ())

    async with daemon.websocket() as conversation, trio.open_nursery() as nursery:
        await conversation.call("authenticate", auth_token=secret)
        nursery.start_soon(bring_in, conversation)
        for client in range(len(clients)):
            nursery.start_soon(ask, client)
        await trio.sleep(delay)
        reply = await admin.ask("revoke_key", key_id=key_id)
        at_reply = look(database)
        listed = {item["key_id"] for item in (await admin.call("list_keys"))["keys"]}
    assert look(database) == at_reply
    assert {item["key_id"] for item in (await admin.call("list_keys"))["keys"]} == listed
    assert "result" in reply, reply
    for body in this.told:
        if "key_id" in body:
            assert body["key_id"] in listed
        if "token" in body:
            assert await admin.call("introspect_token", token=body["token"]) == {"active": False}
    await check_memory_and_clean_up(admin, database)
    return this


async def check_memory_and_clean_up(admin: Conversation, database: Path) -> None:
    """What is shown is what is stored; the next round begins with one key of each algorithm and no added camera."""
    kept = look(database)
    shown = await admin.call("list_signing_keys")
    assert {(int(item["kid"][4:]), item["state"]) for item in shown["keys"]} == kept["signing_keys"]
    for item in shown["keys"]:
        if item["state"] == "next":
            await admin.call("retire_signing_key", kid=item["kid"])
    names = {camera["device"] for camera in (await admin.call("get_camera_list"))["cameras"]}
    added = {f"camera{number}" for number, _ in kept["added_cameras"]}
    assert names == {"camera0", "camera1"} | added
    for name in added:
        await admin.call("remove_camera", device=name)
    running = {each for each, ended, deleted in kept["recordings"] if ended is None and deleted is None}
    stopped = []
    for name in ("camera0", "camera1"):
        reply = await admin.ask("stop_recording", device=name)
        stopped += [reply["result"]["recording_id"]] if "result" in reply else []
    assert set(stopped) == running


@pytest.mark.slow
async def test_nothing_is_granted_after_the_answer_to_a_revocation(tmp_path: Path) -> None:
    """Many rounds: of everything that one key asks for when it is revoked a part is granted before the answer,
    and nothing after it."""
    dice = random.Random(5)
    # Its clients open their connections long before they ask, and longer where the machine is busy.
    config = make_config(tmp_path, cameras=2)
    config = msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, head_seconds=300.0))
    async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
        clients = [Client(await trio.open_tcp_stream("127.0.0.1", daemon.port)) for _ in range(CLIENTS)]
        outcomes: Counter[str] = Counter()
        for number in until_seen(100, outcomes, "told", "refused"):
            this = await play(daemon, admin, clients, number, dice.choice((0, 0.05, 0.2, 0.5)) * dice.random())
            for (_, outcome), times in this.kinds.items():
                outcomes[outcome] += times
        # How many of each is the machine's affair; both have to come about.
        assert min(outcomes["told"], outcomes["refused"]) > 2
        for client in clients:
            await client._stream.aclose()
