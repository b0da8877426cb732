"""Who may ask what: every operation by every kind of asker, as one table (contract 3, 7.2, 7.6).

The answer is "ok", or the exact reason why not (credentials.decision.Reason), or the slug of another error.
An operation without a row fails; so does a row without an operation.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from fmp4_helpers import make_segment
from gate_helpers import LOCAL
from grant_helpers import nothing
from patience import fail_after
from services_helpers import running_services
from trust_helpers import SECRET, TrustStack
from web_helpers import JPEG, Cameras

from edged import operations
from edged.access.authority import EDGED
from edged.access.grants import Grant
from edged.cameras.model import Camera, Status
from edged.credentials import tokens
from edged.credentials.callers import ApiKey, Caller, Peer
from edged.credentials.claims import read_caller
from edged.errors import EdgedError, Refused
from edged.library.active_recordings import ActiveRecording
from edged.library.clips import Clip
from edged.library.event_ring import Page, Position
from edged.library.fmp4 import read_segment
from edged.library.layouts import write_layout
from edged.library.recording_index import Measured, Summary
from edged.library.spans import Interval
from edged.operations.caller_sessions import Session
from edged.operations.services import Services
from edged.store.recordings import RecordingRecord
from edged.store.segments import LaidOut

# Askers: nobody; four roles; a viewer who may see the other camera only; an administrator's token that has
# expired, and administrators' keys that were revoked and suspended, all in a session that was open before; and another
# user than the one who is asked about, a viewer who has logged in.
ASKERS = ("none", "monitor", "viewer", "operator", "admin", "elsewhere", "expired", "revoked", "suspended", "another")

OPEN = ("ok",) * 10
SELF = ("missing", "ok", "ok", "ok", "ok", "ok", "expired", "revoked", "suspended", "ok")
SEE_ALL = ("missing", "missing_scope", "ok", "ok", "ok", "ok", "expired", "revoked", "suspended", "ok")
SEE_ONE = ("missing", "missing_scope", "ok", "ok", "ok", "camera_not_found", "expired", "revoked", "suspended", "ok")
USE_ONE = (
    "missing",
    *("missing_scope",) * 2,
    "ok",
    "ok",
    "camera_not_found",
    "expired",
    "revoked",
    "suspended",
    "missing_scope",
)
SYSTEM = ("missing", "ok", "ok", "ok", "ok", "ok", "expired", "revoked", "suspended", "ok")
NOBODY = ("missing", *("missing_scope",) * 5, "expired", "revoked", "suspended", "missing_scope")
MANAGE_ONE = (
    "missing", *("missing_scope",) * 3, "ok", "camera_not_found", "expired", "revoked", "suspended", "missing_scope",
)  # fmt: skip
ADMIN = ("missing", *("missing_scope",) * 3, "ok", "missing_scope", "expired", "revoked", "suspended", "missing_scope")

#: Operation → what each asker of ASKERS gets, asking for camera0, for another's key, token and user.
EXPECTED: dict[str, tuple[str, ...]] = {
    "ping": OPEN,
    "authenticate": OPEN,
    # Nobody has shown a token, a key is none, and an hour after its end a token is not refreshed any more.
    "refresh_token": ("missing", *("invalid_state",) * 5, "expired", "revoked", "suspended", "ok"),
    "whoami": SELF,
    "get_camera_list": SEE_ALL,
    "get_camera_status": SEE_ONE,
    "add_camera": ADMIN,
    "update_camera": MANAGE_ONE,
    "remove_camera": MANAGE_ONE,
    "rename_camera": MANAGE_ONE,
    "list_camera_devices": ADMIN,
    "bind_camera": ADMIN,
    "release_camera_device": ADMIN,
    "forget_camera": (*MANAGE_ONE[:4], "invalid_state", *MANAGE_ONE[5:]),
    "take_snapshot": USE_ONE,
    "get_snapshot": USE_ONE,
    "create_clip": USE_ONE,
    "start_recording": USE_ONE,
    "stop_recording": USE_ONE,
    "get_recording_status": SEE_ONE,
    "list_recordings": SEE_ALL,
    # That of camera0: whoever may not see the camera hears that there is none.
    "get_recording_info": (*SEE_ALL[:5], "not_found", *SEE_ALL[6:]),
    "get_recording_evidence": (*SEE_ALL[:5], "not_found", *SEE_ALL[6:]),
    "delete_recording": ADMIN,
    "protect_recording": (*USE_ONE[:5], "missing_scope", *USE_ONE[6:]),
    "unprotect_recording": ADMIN,
    "create_file_link": (*SEE_ALL[:5], "not_found", *SEE_ALL[6:]),
    "list_snapshots": SEE_ALL,
    "get_snapshot_info": (*SEE_ALL[:5], "not_found", *SEE_ALL[6:]),
    "delete_snapshot": ADMIN,
    "get_storage_info": ADMIN,
    "set_retention_policy": ADMIN,
    "cleanup_old_files": ADMIN,
    "get_streams": SEE_ALL,
    "get_stream_url": SEE_ONE,
    "get_system_status": SYSTEM,
    "get_timeline": SEE_ONE,
    "create_playback_link": SEE_ONE,
    "get_events": SEE_ALL,
    "create_event": USE_ONE,
    "subscribe_events": SEE_ALL,
    "unsubscribe_events": SEE_ALL,
    "create_key": ADMIN,
    "list_keys": ADMIN,
    "get_key": ADMIN,
    "update_key": ADMIN,
    "suspend_key": ADMIN,
    "resume_key": ADMIN,
    "import_keys": ADMIN,
    "rotate_key": ADMIN,
    "revoke_key": ADMIN,
    "login": OPEN,
    "create_stream_token": OPEN,
    "list_users": ADMIN,
    "create_user": ADMIN,
    "create_demo_login": NOBODY,
    "get_user": ADMIN,
    "update_user": ADMIN,
    "set_password": ADMIN,
    "delete_user": ADMIN,
    "list_service_tokens": ADMIN,
    "create_service_token": ADMIN,
    "import_service_token": ADMIN,
    "rotate_service_token": ADMIN,
    "revoke_service_token": ADMIN,
    # A service token's alone, and that comes in under /v1/files only.
    "generate_files_token": NOBODY,
    "issue_token": ADMIN,
    "validate_token": ADMIN,
    "introspect_token": ADMIN,
    "get_token_usage": ADMIN,
    # Who holds a token may end it, with no other credential; one that is shown besides must be good.
    "revoke_token": (*("ok",) * 6, "expired", "revoked", "suspended", "ok"),
    "list_signing_keys": ADMIN,
    "create_signing_key": ADMIN,
    "promote_signing_key": ADMIN,
    "retire_signing_key": ADMIN,
    "list_revocations": ADMIN,
    "revoke": ADMIN,
    "list_sessions": SELF,
    "end_session": ADMIN,
    "create_ticket": SEE_ONE,
    "get_clock": SYSTEM,
    # Root's alone, on the unix socket: an administrator over the network gets what others get.
    "reset_clock": NOBODY,
    # On the unix socket only.
    "confirm_restore": NOBODY,
    # By HTTP and on the unix socket only; and there alone a code is made and found.
    "claim": ("unknown_method",) * 10,
    "get_claim_code": NOBODY,
    "create_claim_code": NOBODY,
}

PASSWORD = "a passphrase of the tests"
CAMERAS = tuple(
    Camera(name=f"camera{at}", label=f"test {at}", kind="test", status=Status.CONNECTED, node=f"/dev/video{at}")
    for at in range(2)
)


@dataclasses.dataclass
class Bench:
    """Services with a real gate, registrar and store, and somebody else's key and token to ask about."""

    trust: TrustStack
    services: Services
    victim: str
    spare: str
    token: str
    session: str
    service: str

    def params(self, operation: str) -> dict[str, Any]:
        """Params that are good for whoever may ask."""
        known: dict[str, dict[str, Any]] = {
            "authenticate": {"token": self.spare},
            "get_camera_status": {"device": "camera0"},
            "take_snapshot": {"device": "camera0"},
            "create_event": {"device": "camera0", "kind": "motion"},
            "get_snapshot": {"device": "camera0", "at": 1},
            "create_clip": {"device": "camera0", "start": 1, "end": 2},
            "start_recording": {"device": "camera0"},
            "stop_recording": {"device": "camera0"},
            "get_recording_status": {"device": "camera0"},
            "get_timeline": {"device": "camera0"},
            "create_playback_link": {"device": "camera0", **TIMES},
            "get_snapshot_info": {"filename": "kept"},
            "delete_snapshot": {"filename": "kept"},
            "set_retention_policy": {"policy_type": "age", "enabled": True, "max_age_days": 7},
            "get_recording_info": {"filename": "kept"},
            "get_recording_evidence": {"filename": "kept"},
            "delete_recording": {"filename": "kept"},
            "protect_recording": {"filename": "kept"},
            "unprotect_recording": {"filename": "kept"},
            "create_file_link": {"filename": "kept"},
            "add_camera": {"name": "new", "source": "rtsp://192.0.2.7/"},
            "update_camera": {"device": "camera0", "name": "renamed"},
            "remove_camera": {"device": "camera0"},
            "rename_camera": {"device": "camera0", "name": "renamed"},
            "bind_camera": {"port": "usb-1", "device": "camera0"},
            "forget_camera": {"device": "camera0"},
            "release_camera_device": {"port": "usb-1"},
            "get_stream_url": {"device": "/dev/video0"},
            "subscribe_events": {"topics": ["camera_status_update"]},
            "create_ticket": {"device": "camera0"},
            "claim": {"code": "ABCDEFGHJK", "username": "ada", "password": "a long passphrase"},
            "login": {"username": "ann", "password": PASSWORD},
            "create_stream_token": {"username": "ann", "password": PASSWORD},
            "create_user": {"name": "new", "role": "viewer"},
            "get_user": {"name": "ann"},
            "update_user": {"name": "ann", "role": "viewer"},
            "set_password": {"name": "ann", "password": PASSWORD},
            "delete_user": {"name": "ann"},
            "create_key": {"name": "new", "role": "viewer"},
            "get_key": {"key_id": self.victim},
            "update_key": {"key_id": self.victim, "name": "renamed"},
            "suspend_key": {"key_id": self.victim},
            "resume_key": {"key_id": self.victim},
            "import_keys": {"keys": [{"source_id": "1", "key": "k" * 32, "role": "viewer"}]},
            "revoke": {"jti": "somebody's"},
            "end_session": {"session_id": self.session},
            "rotate_key": {"key_id": self.victim},
            "revoke_key": {"key_id": self.victim},
            "create_service_token": {"name": "uploads", "networks": ["192.0.2.0/24"]},
            "import_service_token": {"service_token": "s" * 32},
            "rotate_service_token": {"token_id": self.service},
            "revoke_service_token": {"token_id": self.service},
            "generate_files_token": {"user_id": "ada"},
            "issue_token": {"user_id": "ada"},
            "create_signing_key": {"algorithm": "RS256"},
            "promote_signing_key": {"kid": "key-3", "force": True},
            "retire_signing_key": {"kid": "key-2", "distrust": True},
            "validate_token": {"token": self.token},
            "introspect_token": {"token": self.token},
            "revoke_token": {"token": self.token},
        }
        return known.get(operation, {})

    async def ask(self, caller: Caller | None, operation: str, **params: Any) -> str:
        """The outcome in one word."""
        session = Session(Peer("main", "192.0.2.7"), "ws")
        session.caller = caller
        try:
            await operations.gather().call(operation, {**self.params(operation), **params}, self.services, session)
        except Refused as problem:
            return problem.reason
        except EdgedError as problem:
            return problem.slug
        return "ok"

    async def key(self, role: str, **values: Any) -> tuple[str, Caller]:
        """A new key: its id, and the caller that it makes."""
        record, secret = await self.trust.api_keys.create(EDGED, name=role, role=role, **values)
        return record.key_id, self.trust.gate.authenticate(ApiKey(secret), LOCAL, "ws")

    async def caller(self, asker: str) -> Caller | None:
        """One of ASKERS."""
        if asker == "none":
            return None
        if asker == "expired":
            then = self.services.clock.now() - 7200
            claims = tokens.issue_claims("ada", role="admin", now=then, expires_in=3600)
            return read_caller(claims, "text", issuer="", now=then)
        if asker == "revoked":
            key_id, caller = await self.key("admin")
            await self.trust.api_keys.revoke(key_id)
            return caller
        if asker == "suspended":
            key_id, caller = await self.key("admin")
            await self.trust.api_keys.suspend(key_id)
            return caller
        if asker == "another":
            return self.trust.token("bob")
        if asker == "elsewhere":
            return (await self.key("viewer", camera_access=("camera1",)))[1]
        return (await self.key(asker))[1]


#: Of a recording that there is.
TIMES = {"start": "1970-01-01T00:00:01Z", "end": "1970-01-01T00:00:02Z"}
LAYOUT = write_layout(read_segment(BytesIO(make_segment())))


class KeptRecordings:
    """One recording, of camera0."""

    def __init__(self) -> None:
        self.record = RecordingRecord(
            recording_id="rec_1", filename="kept.mp4", camera="camera0", format="fmp4", began=1.0, ended=2.0
        )
        self.measured = Measured(self.record, 1, 1.0, ())
        self.summary = Summary(self.record, 1, 1.0, 0, 0, 0.0)
        self.active: dict[str, ActiveRecording] = {}
        self.silent: list[str] = []
        self.obstacle = None
        nothing = SimpleNamespace(read=self.read_nothing)
        sealing = SimpleNamespace(
            wait_sealed=self.read_nothing, usage=nothing, trust=nothing, keys=SimpleNamespace(all=tuple),
            sign=self.sign_nothing, now=1.0,
        )  # fmt: skip
        files = SimpleNamespace(read_joined_seal=lambda _id: b"")
        self.index = SimpleNamespace(
            sums=self.sums, free=self.free, sealing=sealing, files=files, list_begins=self.read_nothing,
            list_spans=self.list_spans, list_layouts=self.list_layouts,
        )  # fmt: skip
        self.sweep = SimpleNamespace(
            is_short=lambda _free, _total: False,
            overdue=None,
            policies=SimpleNamespace(set_policy=self.set_policy),
            clean_up=self.clean_up,
            protect=self.protect,
        )

    async def read_nothing(self, _query: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        return []

    async def list_spans(self, _camera: str, _begin: float, end: float, _most: int) -> tuple[list[Interval], float]:
        await trio.lowlevel.checkpoint()
        return [], end

    async def list_layouts(self, *_: object) -> list[LaidOut]:
        await trio.lowlevel.checkpoint()
        return [LaidOut("kept.mp4", 1.0, 1.0, LAYOUT)]

    async def list_between(self, _camera: str, _begin: float, _end: float) -> list[RecordingRecord]:
        await trio.lowlevel.checkpoint()
        return [self.record]

    async def sign_nothing(self, _statement: object) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    async def free(self) -> tuple[int, int]:
        await trio.lowlevel.checkpoint()
        return 1, 2

    async def set_policy(self, _camera: str, _setting: object, grant: Grant) -> None:
        await grant(nothing)

    async def protect(self, _record: RecordingRecord, _is_protected: bool, grant: Grant) -> None:
        await grant(nothing)

    async def clean_up(self) -> tuple[int, int]:
        await trio.lowlevel.checkpoint()
        return 0, 0

    async def list_cameras(self) -> list[str]:
        await trio.lowlevel.checkpoint()
        return ["camera0"]

    async def sums(self) -> dict[str, tuple[int, int]]:
        await trio.lowlevel.checkpoint()
        return {"camera0": (1, 1)}

    async def start(self, _camera: str, *, grant: Grant, **_: Any) -> RecordingRecord:
        await grant(nothing)
        return self.record

    async def stop(self, _camera: str, grant: Grant) -> Measured:
        await grant(nothing)
        return self.measured

    async def find(self, _name: str) -> RecordingRecord:
        await trio.lowlevel.checkpoint()
        return self.record

    async def summarize(self, _record: RecordingRecord) -> Summary:
        await trio.lowlevel.checkpoint()
        return self.summary

    async def measure(self, _record: RecordingRecord) -> Measured:
        await trio.lowlevel.checkpoint()
        return self.measured

    async def list_page(self, cameras: Collection[str], **_: Any) -> tuple[list[Summary], int]:
        await trio.lowlevel.checkpoint()
        return ([self.summary], 1) if "camera0" in cameras else ([], 0)

    async def delete(self, _record: RecordingRecord, _reason: str, grant: Grant) -> int:
        await grant(nothing)
        return 1


class NoEvents:
    """A ring in which nothing is."""

    async def list_cameras(self) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        return frozenset({"", "camera0"})

    def put(self, *_: object) -> float:
        return 1.0

    async def list_between(self, *_: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        return []

    async def read(self, *_: object) -> Page:
        await trio.lowlevel.checkpoint()
        return Page((), Position("", 0), has_gap=False, has_more=False)


class KeptClips:
    """A clip and a picture of camera0."""

    async def create(self, *_: Any, **__: Any) -> Clip:
        await trio.lowlevel.checkpoint()
        return Clip(KeptRecordings().measured, 1.0, 2.0, ())

    async def find_moment(self, *_: Any) -> SimpleNamespace:
        await trio.lowlevel.checkpoint()
        return SimpleNamespace(key="", skip=0.0, at=1.0)

    def read(self, _moment: object) -> None:
        raise AssertionError("nobody decodes here")


async def picture(*_: Any, **__: Any) -> bytes:
    await trio.lowlevel.checkpoint()
    return JPEG


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Bench]:
    with fail_after(30):
        frames = SimpleNamespace(snapshot=picture)
        async with running_services(
            folder,
            cameras=Cameras(*CAMERAS),
            frames=frames,
            recordings=KeptRecordings(),
            clips=KeptClips(),
            stills=SimpleNamespace(decode=picture),
            events=NoEvents(),
        ) as (
            trust,
            services,
        ):
            await services.keyring.create(services.registrar.granting(EDGED), "ES256")
            await trust.users.create(
                EDGED, name="ann", role="operator", password=await services.passwords.hash(PASSWORD)
            )
            await trust.users.create(EDGED, name="bob", role="viewer")
            await services.snapshots.save("kept", "camera0", JPEG, format="jpg", now=services.clock.now())
            service, _ = await services.service_tokens.create(EDGED, "somebody's")
            victim, _ = await trust.api_keys.create(EDGED, name="victim", role="viewer")
            _, spare = await trust.api_keys.create(EDGED, name="spare", role="viewer")
            claims = tokens.issue_claims("eve", role="viewer", now=trust.clock.now(), expires_in=3600)
            inside = trust.gate.admit(
                trust.gate.authenticate(ApiKey(spare), LOCAL, "ws"), "ws", lambda _cause, _by: None
            )
            yield Bench(trust, services, victim.key_id, spare, tokens.sign(claims, SECRET), inside.id, service.token_id)


def test_every_operation_has_a_row() -> None:
    """Whoever adds an operation says here who may ask it; nothing is left over."""
    assert set(operations.gather().operations) == EXPECTED.keys()
    assert all(len(row) == len(ASKERS) for row in EXPECTED.values())


@pytest.mark.parametrize("asker", ASKERS)
async def test_everybody_gets_what_the_table_says(tmp_path: Path, asker: str) -> None:
    """One column of the table: this asker, all operations; and where it was refused, no key and no user has."""
    async with opened(tmp_path) as bench:
        caller = await bench.caller(asker)
        found, changed = {}, []
        for operation in EXPECTED:
            before = dict(bench.trust.ledger.keys), dict(bench.trust.ledger.users)
            found[operation] = await bench.ask(caller, operation)
            if found[operation] != "ok" and before != (bench.trust.ledger.keys, bench.trust.ledger.users):
                changed.append(operation)
        column = ASKERS.index(asker)
        assert found == {operation: row[column] for operation, row in EXPECTED.items()}
        assert changed == []


@pytest.mark.parametrize("asker", ["monitor", "viewer", "operator", "elsewhere"])
async def test_what_is_ones_own_is_for_everybody(tmp_path: Path, asker: str) -> None:
    """A key may look at itself and take a new secret; it may not end itself, which needs keys:admin (contract 10.1)."""
    async with opened(tmp_path) as bench:
        own = {"camera_access": ("camera1",)} if asker == "elsewhere" else {}
        key_id, caller = await bench.key("viewer" if own else asker, **own)
        outcomes = {name: await bench.ask(caller, name, key_id=key_id) for name in ("get_key", "rotate_key")}
        assert outcomes == {"get_key": "ok", "rotate_key": "ok"}
        assert await bench.ask(caller, "revoke_key", key_id=key_id) == "missing_scope"


async def test_ones_own_token_may_be_looked_at_and_ended(tmp_path: Path) -> None:
    """Contract 3, validate_token and revoke_token: own token; named by its text, its jti or its hash."""
    async with opened(tmp_path) as bench:
        names: list[Callable[[str, Any], dict[str, Any]]] = [
            lambda text, _claims: {"token": text},
            lambda _text, claims: {"token": None, "jti": claims["jti"]},
            lambda text, _claims: {"token": None, "token_hash": hashlib.sha256(text.encode()).hexdigest()},
        ]
        for name in names:
            claims = tokens.issue_claims("eve", role="viewer", now=bench.services.clock.now(), expires_in=3600)
            text = tokens.sign(claims, SECRET)
            caller = bench.trust.gate.verify_token(text)
            assert await bench.ask(caller, "validate_token", token=text) == "ok"
            assert await bench.ask(caller, "revoke_token", **name(text, claims)) == "ok"
            assert await bench.ask(caller, "whoami") == "revoked"


async def test_the_other_camera_is_open_to_whom_it_is_given(tmp_path: Path) -> None:
    """The asker of "elsewhere" is not simply shut out: the same questions about camera1 are answered."""
    async with opened(tmp_path) as bench:
        caller = await bench.caller("elsewhere")
        for operation in ("get_camera_status", "get_stream_url"):
            assert await bench.ask(caller, operation, device="camera1") == "ok"
            assert await bench.ask(caller, operation, device="/dev/video1") == "ok"
        # It may see this one, so that it may not use it is told.
        assert await bench.ask(caller, "take_snapshot", device="camera1") == "missing_scope"
