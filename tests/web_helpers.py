"""A services with the real gate, ledger, admissions and catalogue, and an ASGI driver of 40 lines to ask it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
from entry_helpers import make_entry
from gate_helpers import make_gate
from grant_helpers import nothing
from msgspec.structs import replace
from patience import fail_after
from services_helpers import Unused, make_services

from edged import operations
from edged.access.admissions import Admissions
from edged.access.authority import Authority
from edged.access.grants import Grant
from edged.access.ledger import Ledger
from edged.accounts.first_admin import FirstAdmin
from edged.cameras.device_facts import DeviceFacts
from edged.cameras.entries import CameraEntry
from edged.cameras.model import Camera, Status
from edged.clock import Clock
from edged.credentials.api_keys import KeyRecord, mint, mint_secret
from edged.credentials.callers import Peer
from edged.credentials.identities import Identity
from edged.credentials.tokens import SharedSecret, issue_claims, sign
from edged.errors import InvalidState, NotFound
from edged.library.disks import Disks
from edged.operations.services import Services
from edged.web.app import make_app
from edged.web.requests import ResponseAborted

SECRET = SharedSecret("clients", "a shared secret of more than 32 bytes for tests")
REMOTE = Peer("main", "192.0.2.7", 40000)
LOCAL = Peer("local", "127.0.0.1", 40001)
UNIX = Peer("unix", uid=1000)
JPEG = bytes.fromhex("ffd8ffe000104a46494600") + b"picture" + bytes.fromhex("ffd9")


def loopback(uid: int | None, listener: str = "main") -> Peer:
    """A TCP peer on this machine whose socket the kernel says belongs to `uid`."""
    return Peer(listener, "127.0.0.1", 40002, find_uid=lambda: uid)


@dataclass
class Counted:
    """Where the gate, the catalogue and the endpoints count."""

    failures: list[tuple[str, str, str]] = field(default_factory=list)
    uses: list[tuple[str, str, str]] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def auth_failed(self, reason: str, method: str, transport: str) -> None:
        self.failures.append((str(reason), method, transport))

    def credential_used(self, method: str, transport: str, role: str) -> None:
        self.uses.append((method, transport, role))

    def rpc_answered(self, method: str, outcome: str) -> None:
        self.calls.append((method, outcome))

    def http_answered(self, status: int) -> None:
        self.statuses.append(status)

    def render(self, accept: str) -> tuple[bytes, str]:
        kind = "application/openmetrics-text" if "openmetrics" in accept else "text/plain"
        return b"edged_build_info 1\n", f"{kind}; charset=utf-8"


class ApiKeys:
    """Writes the real ledger at once; the real one commits to disk first."""

    def __init__(self, ledger: Ledger, admissions: Admissions, clock: Clock) -> None:
        self._ledger, self._admissions, self._clock = ledger, admissions, clock

    async def create(self, authority: Authority, **values: Any) -> tuple[KeyRecord, str]:
        authority.check()
        key_id, secret, digest = mint()
        record = KeyRecord(key_id=key_id, digest=digest, created_at=self._clock.now(), **values)
        self._ledger.put_key(record)
        return record, secret

    async def rotate(
        self, authority: Authority, key_id: str, grace_seconds: float, *, shown: str | None = None
    ) -> tuple[KeyRecord, str]:
        authority.check()
        record = self.find(key_id)
        if record.revoked_at is not None:
            raise InvalidState("this key was revoked")
        secret, digest = mint_secret()
        record = record.rotate(digest, self._clock.now(), grace_seconds)
        self._ledger.put_key(record)
        return record, secret

    async def revoke(self, key_id: str, by: str = "") -> KeyRecord:
        record = replace(self.find(key_id), revoked_at=self._clock.now())
        self._ledger.put_key(record)
        self._admissions.end({Identity.of_key(key_id)}, "revoked", by)
        await trio.lowlevel.checkpoint()
        return record

    async def get(self, key_id: str) -> KeyRecord:
        await trio.lowlevel.checkpoint()
        return self.find(key_id)

    async def load_revoked(self, *_: object) -> list[KeyRecord]:
        await trio.lowlevel.checkpoint()
        return []

    def find(self, key_id: str) -> KeyRecord:
        if key_id not in self._ledger.keys:
            raise NotFound(f"no API key {key_id!r}")
        return self._ledger.keys[key_id]


async def settle(_due: object) -> None:
    """As if everything were on disk already."""
    await trio.lowlevel.checkpoint()


class Cameras:
    """A registry of what a test says there is."""

    discovery_active = True
    discovery = "events"
    waiting = quarantined = 0

    def __init__(self, *cameras: Camera) -> None:
        self.present = cameras

    def all(self) -> tuple[Camera, ...]:
        return self.present

    def find(self, device: str) -> Camera | None:
        found = next((camera for camera in self.present if device in camera.every_name), None)
        return found or next((camera for camera in self.present if device and device == camera.stand_in), None)

    def find_stream(self, path: str) -> Camera | None:
        return next((camera for camera in self.all() if camera.path == path), None)

    @property
    def described(self) -> dict[int, CameraEntry]:
        """As if calls had added every one."""
        return {
            int(camera.name[6:]): make_entry(camera.label, "rtsp://192.0.2.1/", number=int(camera.name[6:]))
            for camera in self.present
        }

    async def describe(self, one: CameraEntry, grant: Grant) -> Camera:
        await grant(nothing)
        return self.present[0]

    async def remove(self, number: int, grant: Grant) -> None:
        await grant(nothing)

    def devices(self) -> list[DeviceFacts]:
        return [self.find_device("usb-1")]

    def find_device(self, port: str) -> DeviceFacts:
        return DeviceFacts(port, "/dev/video7", "Webcam", "", "waiting", None, "it may be camera0", (0,))

    def release_port(self, port: str) -> None:
        """Nothing is left alone here."""

    async def bind(self, port: str, number: int | None, grant: Grant) -> Camera:
        await grant(nothing)
        return self.present[0]

    async def rename(self, number: int, label: str, grant: Grant) -> Camera:
        await grant(nothing)
        return self.present[0]


class Pictures:
    """`next` gives the newest of a source that makes `rate` pictures a second, for ever or `until` a number."""

    def __init__(self, rate: float, delay: float, until: int, ending: Exception | None) -> None:
        self._rate, self._delay, self._until, self._ending = rate, delay, until, ending
        self._start = trio.current_time()
        self.taken: list[int] = []

    async def next(self, after: int) -> tuple[int, bytes]:
        wanted = max(after + 1, self._newest())
        if self._ending is not None and wanted > self._until:
            await trio.sleep(self._delay)
            raise self._ending
        await trio.sleep_until(self._start + self._delay + (wanted - 1) / self._rate)
        self.taken.append(wanted)
        return wanted, JPEG + str(wanted).encode()

    def _newest(self) -> int:
        return int((trio.current_time() - self._start - self._delay) * self._rate + 1e-6) + 1


class Frames:
    """Stands for mediamtx.frames: how many watch what, and how its pictures come."""

    def __init__(self) -> None:
        self.watching: list[str] = []
        self.rate, self.delay, self.until = 15.0, 0.1, 0
        self.ending: Exception | None = None
        self.last: Pictures | None = None

    @asynccontextmanager
    async def watch(self, camera: Camera) -> AsyncIterator[Pictures]:
        self.watching.append(camera.name)
        self.last = Pictures(self.rate, self.delay, self.until, self.ending)
        try:
            async with trio.open_nursery() as nursery:
                yield self.last
                nursery.cancel_scope.cancel()
        finally:
            self.watching.remove(camera.name)


@dataclass
class Reply:
    """An HTTP answer. `complete` is whether its last body message came."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """The web package over a services made for one test."""

    def __init__(self, tmp_path: Path, *, now: Callable[[], float] | None = None, **options: Any) -> None:
        self.counts = Counted()
        self.clock = Clock(system=now) if now else Clock()
        self.ledger = Ledger()
        self.admissions = Admissions()
        self.gate = make_gate(self.ledger, self.admissions, self.clock, self.counts, shared_secrets=[SECRET])
        self.cameras = Cameras(
            Camera(name="camera0", label="dock", kind="test", status=Status.CONNECTED, node="/dev/video0"),
            Camera(name="camera1", label="yard", kind="test", status=Status.CONNECTED),
        )
        self.frames = Frames()
        self.mediamtx = SimpleNamespace(
            state=SimpleNamespace(status="ready", detail="", remedy="", version="1.20.1", answers=True, addresses={})
        )
        self.registrar = SimpleNamespace(
            pending=0, is_late=False, is_saving=True, damage="", reserve_bytes=1048576, has_reserve=True,
            settle=settle,
        )  # fmt: skip
        self.services: Services = make_services(
            clock=self.clock, counts=self.counts, gate=self.gate, ledger=self.ledger, registrar=self.registrar,
            api_keys=ApiKeys(self.ledger, self.admissions, self.clock), usage=Unused(),
            cameras=self.cameras, mediamtx=self.mediamtx, publishers=SimpleNamespace(states={}), frames=self.frames,
            snapshots=options.pop("snapshots", None), first_admin=FirstAdmin(tmp_path, lambda: True),
            disks=Disks({"state": tmp_path}), restores=SimpleNamespace(message="", pending=None),
            shared_secrets=(SECRET,), root_needs_no_key=options.pop("root_needs_no_key", True),
        )  # fmt: skip
        self.catalogue = operations.gather()
        self.app = make_app(self.catalogue, self.services, self.counts, **options)

    def key(self, role: str = "admin", **values: Any) -> tuple[str, str]:
        """A stored key: its id and its secret."""
        key_id, secret, digest = mint()
        now = self.clock.now()
        self.ledger.put_key(KeyRecord(key_id=key_id, name=role, role=role, digest=digest, created_at=now, **values))
        return key_id, secret

    def token(self, role: str = "admin", expires_in: int = 3600, **values: Any) -> str:
        """A signed token."""
        return sign(issue_claims("ada", role=role, now=self.clock.now(), expires_in=expires_in, **values), SECRET)

    async def ask(
        self, method: str, target: str, *, headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"", key: str = "", peer: Peer = REMOTE, json_body: object = None,
        on_part: Callable[[Reply], Any] | None = None,
    ) -> Reply:  # fmt: skip
        """One request; `on_part` is awaited for each part of the body as it is sent."""
        given = list(headers.items() if isinstance(headers, Mapping) else headers)
        if key:
            given.append(("Authorization", f"Bearer {key}"))
        if json_body is not None:
            body = json.dumps(json_body).encode()
            given.append(("Content-Type", "application/json"))
        if body:
            given.append(("Content-Length", str(len(body))))
        if not any(name.lower() == "host" for name, _ in given):
            given.append(("Host", "localhost:8002"))
        path, _, query = target.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given],
            "client": (peer.address, peer.port), "server": ("localhost", 8002), "edged.peer": peer,
        }  # fmt: skip
        reply, asked = Reply(), False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await trio.sleep_forever()
            asked = True
            await trio.lowlevel.checkpoint()
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.start":
                assert not reply.status, "a second head"
                reply.status = message["status"]
                reply.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
                return
            assert reply.status, "a body before the head"
            assert not reply.complete, "a body after the end"
            reply.parts.append(message.get("body", b""))
            reply.complete = not message.get("more_body", False)
            if on_part is not None and message.get("more_body", False):
                await on_part(reply)

        with fail_after(200), suppress(ResponseAborted):
            await self.app(scope, receive, send)
        return reply
