"""Services for tests of rpc: a real gate, ledger, admissions and catalogue, and connections that only record."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import trio
from gate_helpers import make_gate
from patience import fail_after
from services_helpers import make_services

from edged.access.admissions import Admissions
from edged.access.ledger import Ledger
from edged.cameras.model import Camera, Status
from edged.clock import Clock
from edged.credentials.api_keys import KeyRecord, mint
from edged.credentials.callers import Peer
from edged.credentials.tokens import SharedSecret, issue_claims, sign
from edged.errors import CameraNotFound, EdgedError, InvalidState
from edged.operations import sessions as session_operations
from edged.operations.caller_sessions import Sessions
from edged.operations.catalogue import Catalogue, DeviceParams, NoParams, OperationCall, operation
from edged.operations.services import Services
from edged.rpc.endpoint import RpcEndpoint
from edged.rpc.session import RpcSession
from edged.wire.jsonrpc import LONGEST_BATCH

SECRET = SharedSecret("test", "a shared secret that nobody has ever published")
NOW = 1_800_000_000.0


class Outbox:
    """Records what goes out, and can tell who waits for it."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.accounts: list[str] = []
        self.code: int | None = None
        self._moved = trio.Event()

    @property
    def closed(self) -> bool:
        return self.code is not None

    def identify(self, account: str) -> bool:
        self.accounts.append(account)
        return True

    def send(self, text: bytes) -> None:
        assert not self.closed, "a real outbox drops this silently"
        self.texts.append(text)
        self._moved.set()

    def close(self, code: int, reason: str = "") -> None:
        self.code = self.code or code
        self._moved.set()

    def spend_since(self, began: float) -> None:
        pass

    async def wait_turn(self) -> None:
        await trio.lowlevel.checkpoint()

    def take(self) -> list[Any]:
        """Everything sent so far, decoded."""
        found = [json.loads(text) for text in self.texts]
        self.texts.clear()
        return found

    async def wait(self, number: int = 1) -> list[Any]:
        """`number` texts, decoded; fails if they do not come."""
        with fail_after(5):
            while len(self.texts) < number:
                self._moved = trio.Event()
                await self._moved.wait()
        assert len(self.texts) == number
        return self.take()


class Counts:
    def __init__(self) -> None:
        self.failed: list[str] = []
        self.used: list[str] = []
        self.answered: list[tuple[str, str]] = []

    def auth_failed(self, reason: str, method: str, transport: str) -> None:
        self.failed.append(str(reason))

    def credential_used(self, method: str, transport: str, role: str) -> None:
        self.used.append(method)

    def rpc_answered(self, method: str, outcome: str) -> None:
        self.answered.append((method, outcome))


class Registry:
    """Cameras by hand."""

    def __init__(self, *cameras: Camera) -> None:
        self.known = list(cameras)

    def find(self, device: str) -> Camera | None:
        return next((camera for camera in self.known if device in camera.names), None)


def camera(number: int = 0, *, node: str | None = "/dev/video4", status: Status = Status.CONNECTED) -> Camera:
    return Camera(name=f"camera{number}", label=f"Camera {number}", kind="usb", status=status, node=node)


class Row(msgspec.Struct, frozen=True):
    device: str
    device_path: str
    camera_id: str
    status: str
    name: str
    resolution: str = "640x480"
    fps: int = 15
    streams: dict[str, str] = {}
    stream_url: str = ""
    capabilities: tuple[str, ...] = ("snapshot", "stream")


class Rows(msgspec.Struct, frozen=True):
    cameras: tuple[Row, ...]
    total: int
    connected: int


class Shot(msgspec.Struct, frozen=True):
    success: bool
    device: str


def row(item: Camera, host: str) -> Row:
    url = f"rtsp://{host}:8554/{item.name}"
    return Row(item.name, item.node or "", item.name, item.status.value, item.label, stream_url=url)


class RpcServices(Services, frozen=True, kw_only=True):
    """With what the operations of these tests look at."""

    #: Name → what `wait_for` and `revoke_key` wait for.
    barriers: dict[str, trio.Event]
    rows: Rows


def services_of(call: OperationCall) -> RpcServices:
    assert isinstance(call.services, RpcServices)
    return call.services


@operation("camera:read")
def get_camera_list(call: OperationCall, params: NoParams) -> Rows:
    return services_of(call).rows


@operation("camera:read", on_camera=True)
def get_camera_status(call: OperationCall, params: DeviceParams) -> Row:
    return row(call.camera, "box")


@operation("camera:write", on_camera=True)
async def take_snapshot(call: OperationCall, params: DeviceParams) -> Shot:
    await trio.lowlevel.checkpoint()
    return Shot(success=True, device=call.camera.name)


class GateParams(msgspec.Struct, frozen=True):
    name: str = "a"


@operation("camera:read")
async def wait_for(call: OperationCall, params: GateParams) -> str:
    """Waits until the test opens the barrier of this name."""
    await services_of(call).barriers.setdefault(params.name, trio.Event()).wait()
    return params.name


@operation("none")
def who(call: OperationCall, params: NoParams) -> str | None:
    return call.session.caller.subject if call.session.caller else None


@operation("none")
def break_down(call: OperationCall, params: NoParams) -> str:
    raise RuntimeError("the secret is hunter2")


@operation("none")
async def break_later(call: OperationCall, params: NoParams) -> str:
    await trio.lowlevel.checkpoint()
    raise RuntimeError("the secret is hunter2")


@operation("none")
def give_nonsense(call: OperationCall, params: NoParams) -> object:
    return object()


@operation("none")
def be_unfit(call: OperationCall, params: NoParams) -> str:
    raise InvalidState("it is revoked", hint="make a new one", resource="key", id="key_1")


@operation("none")
async def lose_camera(call: OperationCall, params: NoParams) -> str:
    await trio.lowlevel.checkpoint()
    raise CameraNotFound("camera9")


@operation("keys:admin")
async def revoke_key(call: OperationCall, params: NoParams) -> str:
    """Revokes the caller's own credential, then waits, as the registrar does."""
    caller, services = call.session.caller, call.services
    assert caller is not None
    services.ledger.deny(caller.identities)
    services.gate.admissions.end(caller.identities, "revoked", call.session.id)
    await services_of(call).barriers.setdefault("commit", trio.Event()).wait()
    return "revoked"


class Problem(EdgedError):
    slug = "nobody_knows_this_one"


@operation("none")
def raise_unknown(call: OperationCall, params: NoParams) -> str:
    raise Problem("odd", hint="do nothing")


OPERATIONS = (
    session_operations.ping, session_operations.authenticate, session_operations.whoami, get_camera_list,
    get_camera_status, take_snapshot, wait_for, who, break_down, break_later, give_nonsense, be_unfit, lose_camera,
    revoke_key, raise_unknown,
)  # fmt: skip


class Box:
    """The services, and clients of it. `spawn` starts tasks in `nursery`; without one, nothing may wait."""

    def __init__(self, nursery: trio.Nursery | None = None, *cameras: Camera, **limits: int) -> None:
        self.nursery = nursery
        self.time = NOW
        self.counts: Any = Counts()
        self.ledger = Ledger()
        self.admissions = Admissions(trio.current_time if nursery else lambda: 0.0)
        monotonic = trio.current_time if nursery else lambda: 0.0
        self.clock = Clock(system=lambda: self.time, monotonic=monotonic)
        self.gate = make_gate(self.ledger, self.admissions, self.clock, self.counts, shared_secrets=[SECRET])
        self.registry: Any = Registry(*(cameras or (camera(0), camera(1, node=None))))
        self.sessions = Sessions()
        self.barriers: dict[str, trio.Event] = {}
        rows = tuple(row(item, "box") for item in self.registry.known)
        self.services = make_services(
            RpcServices, clock=self.clock, counts=self.counts, gate=self.gate, ledger=self.ledger,
            sessions=self.sessions, limiter=self.gate.limiter, cameras=self.registry,
            barriers=self.barriers, rows=Rows(rows, len(rows), len(rows)),
        )  # fmt: skip
        self.catalogue = Catalogue(cast(Any, function).__operation__ for function in OPERATIONS)
        self.rpc = self.make_endpoint(**limits)

    def make_endpoint(self, calls_in_flight: int = 32, longest_batch: int = LONGEST_BATCH) -> RpcEndpoint:
        return RpcEndpoint(
            self.catalogue, self.services, gate=self.gate,
            counts=self.counts, cameras=self.registry, sessions=self.sessions, calls_in_flight=calls_in_flight,
            longest_batch=longest_batch,
        )  # fmt: skip

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        assert self.nursery is not None, "this test expects that nothing waits"
        self.nursery.start_soon(work)

    def open(self, listener: str = "main", **given: Any) -> Client:
        outbox = Outbox()
        peer = Peer(
            listener, given.pop("address", "127.0.0.1"), host=given.pop("host", "box"), uid=given.pop("uid", None)
        )
        headers = given.pop("headers", {})
        session = self.rpc.open(peer, headers, given.pop("subprotocol", None), outbox, given.pop("spawn", self.spawn))
        assert not given
        return Client(session, outbox)

    def open_gate(self, name: str) -> None:
        self.barriers.setdefault(name, trio.Event()).set()

    def make_key(self, role: str = "operator", **given: Any) -> str:
        minted = mint()
        self.ledger.put_key(
            KeyRecord(key_id=minted.key_id, name="k", role=role, digest=minted.digest, created_at=self.time, **given)
        )
        return minted.secret

    def make_token(self, role: str = "operator", expires_in: int = 3600, **extra: Any) -> str:
        claims = issue_claims("alice", role=role, now=self.time, expires_in=expires_in, **extra)
        return sign(claims, SECRET)


class Client:
    """The other end of a conversation."""

    def __init__(self, session: RpcSession, outbox: Outbox) -> None:
        self.rpc = session
        self.outbox = outbox
        self._id = 0

    def send(self, value: object) -> None:
        for _step in self.rpc.receive(value if isinstance(value, bytes) else json.dumps(value).encode()) or ():
            pass

    def call(self, method: str, params: object = None, **given: object) -> int:
        self._id += 1
        given = {"jsonrpc": "2.0", "id": self._id, "method": method} | given
        self.send(given | ({} if params is None else {"params": params}))
        return self._id

    def ask(self, method: str, params: object = None) -> Any:
        """The answer to a call that is answered at once."""
        number = self.call(method, params)
        (answer,) = self.outbox.take()
        assert answer["id"] == number
        assert answer["jsonrpc"] == "2.0"
        return answer

    def enter(self, token: str, member: str = "token") -> Any:
        return self.ask("authenticate", {member: token})["result"]
