"""Operations on services of a real gate and ledger, without a database and without a daemon.

There are two cameras, and callers come by keys. A part that a test does not give is absent, and says so when it is
used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import trio
from gate_helpers import LOCAL, make_gate
from grant_helpers import nothing
from msgspec.structs import replace
from services_helpers import REMOTE, make_services
from trust_helpers import SECRET
from trust_helpers import Counted as CountedByAccess
from web_helpers import Cameras

from edged import operations
from edged.access.admissions import Admissions
from edged.access.authority import Authority
from edged.access.grants import Commit, Grant
from edged.access.ledger import Ledger
from edged.cameras.model import Camera, Status
from edged.clock import Clock
from edged.credentials.api_keys import KeyRecord, mint
from edged.credentials.callers import ApiKey, Caller, Peer, Transport
from edged.errors import EdgedError, Refused
from edged.library.active_recordings import ActiveRecording
from edged.library.obstacles import Obstacle
from edged.library.recording_index import Measured, Summary
from edged.library.recording_names import no_recording
from edged.operations.caller_sessions import Session
from edged.operations.catalogue import OperationCall
from edged.operations.services import Services
from edged.store.recordings import RecordingRecord

NOW = 1_800_000_000.0
CATALOGUE = operations.gather()
#: camera0 has a device file and a path of its own; camera1 has neither.
GATE = Camera(
    name="camera0", label="Gate", kind="test", status=Status.CONNECTED, node="/dev/video0", path="gate"
)  # fmt: skip
YARD = Camera(name="camera1", label="Yard", kind="test", status=Status.CONNECTED)
T = TypeVar("T")


class Counted(CountedByAccess):
    """What access and the catalogue count: `answered` is (operation, outcome)."""

    def __init__(self) -> None:
        super().__init__()
        self.answered: list[tuple[str, str]] = []

    def rpc_answered(self, method: str, outcome: str) -> None:
        self.answered.append((method, outcome))


class Registrar:
    """Grants at once what the authority allows, which is asked right before the commit; writes nothing."""

    def __init__(self) -> None:
        self.commits = 0

    def granting(self, authority: Authority) -> Grant:
        async def commit(write: Any, *, undo: Any) -> Any:
            await trio.lowlevel.checkpoint()
            authority.check()
            self.commits += 1

        async def grant(work: Callable[[Commit], Awaitable[T]]) -> T:
            return await work(commit)

        return grant


class Bench:
    """Services with the parts that a test gives, and who asks."""

    def __init__(self, *cameras: Camera, **parts: Any) -> None:
        self.time = NOW
        self.clock = Clock(system=lambda: self.time, monotonic=lambda: self.time - NOW)
        self.counts: Any = Counted()
        self.ledger = Ledger()
        self.registrar: Any = Registrar()
        self.cameras: Any = Cameras(*(cameras or (GATE, YARD)))
        self.gate = make_gate(self.ledger, Admissions(), self.clock, self.counts, shared_secrets=[SECRET])
        given: dict[str, Any] = {
            "clock": self.clock, "counts": self.counts, "gate": self.gate, "ledger": self.ledger,
            "registrar": self.registrar, "cameras": self.cameras,
        }  # fmt: skip
        self.services: Services = make_services(**given | parts)

    def caller(self, role: str = "viewer", **values: Any) -> Caller:
        """Whoever comes with a new key: `camera_access`, `permissions` …"""
        made = mint()
        self.ledger.put_key(
            KeyRecord(key_id=made.key_id, digest=made.digest, name=role, role=role, created_at=self.time, **values)
        )
        return self.gate.authenticate(ApiKey(made.secret), LOCAL, "ws")

    def narrow(self, caller: Caller, *cameras: str) -> None:
        """From here on the key of this caller may see these cameras only."""
        self.ledger.put_key(replace(self.ledger.keys[caller.credential_id], camera_access=cameras))

    def revoke(self, caller: Caller) -> None:
        """From here on the credential of this caller is revoked."""
        self.ledger.deny(caller.identities)

    @staticmethod
    def session(caller: Caller | None, peer: Peer = REMOTE, transport: Transport = "ws") -> Session:
        """A connection of this caller."""
        session = Session(peer, transport)
        session.caller = caller
        return session

    def call(self, caller: Caller | None, operation: str) -> OperationCall:
        """A call of an operation that does not name a camera, as the operation's function is given it."""
        return OperationCall(self.services, self.session(caller), CATALOGUE.find(operation))

    async def ask(self, who: Session | Caller | None, operation: str, /, **params: Any) -> Any:
        """The reply to an operation. Raises what it raises."""
        session = who if isinstance(who, Session) else self.session(who)
        return await CATALOGUE.call(operation, params, self.services, session)

    async def outcome(self, who: Session | Caller | None, operation: str, /, **params: Any) -> str:
        """ "ok", or why not: the reason of a refusal, the slug of another error."""
        try:
            await self.ask(who, operation, **params)
        except Refused as problem:
            return str(problem.reason)
        except EdgedError as problem:
            return problem.slug
        return "ok"


@contextmanager
def refused(*reasons: str) -> Iterator[None]:
    """The block must raise Refused, for one of these reasons."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.reason in reasons


class KeptRecordings:
    """Recordings in memory, newest first. `meanwhile` is called whenever something was read: that takes its time."""

    def __init__(self, *records: RecordingRecord) -> None:
        self.records = list(records)
        self.meanwhile: Callable[[], None] = lambda: None
        self.active: dict[str, ActiveRecording] = {}
        self.silent: list[str] = []
        self.obstacle: Obstacle | None = None
        self.index: Any = SimpleNamespace()
        self.sweep: Any = SimpleNamespace(overdue=None, is_short=lambda _free, _total: False, protect=self.protect)
        #: What was begun, ended, deleted and protected.
        self.done: list[tuple[Any, ...]] = []

    async def read(self) -> None:
        await trio.lowlevel.checkpoint()
        self.meanwhile()

    async def find(self, name: str) -> RecordingRecord:
        await self.read()
        found = next((each for each in self.records if name in (each.filename, each.filename.rpartition(".")[0])), None)
        if found is None:
            raise no_recording(name)
        return found

    async def list_cameras(self) -> list[str]:
        await self.read()
        return sorted({each.camera for each in self.records})

    async def list_page(
        self, cameras: Collection[str], *, limit: int, offset: int, after: tuple[float, str] | None
    ) -> tuple[list[Summary], int]:
        found = [each for each in self.records if each.camera in cameras]
        behind = [each for each in found if after is None or (each.began, each.recording_id) < after]
        await self.read()
        return [self.sum_up(each) for each in behind[offset : offset + limit]], len(found)

    @staticmethod
    def sum_up(record: RecordingRecord) -> Summary:
        return Summary(record, 1000, 59.5, 2, 1, record.began + 60)

    async def summarize(self, record: RecordingRecord) -> Summary:
        await self.read()
        return self.sum_up(record)

    async def measure(self, record: RecordingRecord) -> Measured:
        await self.read()
        return Measured(record, 1000, 59.5, ())

    async def start(self, camera: str, *, grant: Grant, **values: Any) -> RecordingRecord:
        await grant(nothing)
        self.done.append(("start", camera, values))
        return self.records[0]

    async def cover(self, camera: str, seconds: float, *, grant: Grant, **_: Any) -> tuple[RecordingRecord, bool]:
        await grant(nothing)
        self.done.append(("cover", camera, seconds))
        return self.records[0], True

    async def stop(self, camera: str, grant: Grant) -> Measured:
        await grant(nothing)
        self.done.append(("stop", camera))
        return Measured(replace(self.records[0], ended=NOW), 1000, 59.5, ())

    async def delete(self, record: RecordingRecord, reason: str, grant: Grant) -> int:
        await grant(nothing)
        self.done.append(("delete", record.filename, reason))
        return 1000

    async def protect(self, record: RecordingRecord, is_protected: bool, grant: Grant) -> None:
        await grant(nothing)
        self.done.append(("protect", record.filename, is_protected))


def make_recording(number: int = 0, camera: str = "camera0", **values: Any) -> RecordingRecord:
    """`gate-NUMBER.mp4` of a minute, begun so many minutes before NOW."""
    given: dict[str, Any] = {
        "recording_id": f"rec_{number}", "filename": f"gate-{number}.mp4", "camera": camera, "format": "fmp4",
        "began": NOW - 60.0 * (number + 1), "ended": NOW - 60.0 * number,
    }  # fmt: skip
    return RecordingRecord(**given | values)
