"""`Services` for one test: of given parts (`make_services`), or of real ones over a database (`running_services`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import trio
from gate_helpers import make_gate
from key_pool import make_here
from trust_helpers import SECRET, TrustStack, running_trust

from edged import operations
from edged.access.authority import EDGED
from edged.access.gate import Gate
from edged.access.limiter import Limiter
from edged.accounts.first_admin import FirstAdmin
from edged.accounts.logins import Logins
from edged.accounts.passwords import Passwords
from edged.accounts.refreshes import Refreshes
from edged.accounts.restores import Restores
from edged.accounts.service_tokens import ServiceTokens
from edged.clock import Clock
from edged.credentials.callers import ApiKey, Caller, Peer
from edged.credentials.passwords import Cost
from edged.library.disks import Disks
from edged.library.snapshots import Snapshots
from edged.mediamtx.paths import Paths
from edged.mediamtx.server_state import ServerState
from edged.operations.caller_sessions import Session, Sessions
from edged.operations.listings import Listings
from edged.operations.own_urls import OwnUrls
from edged.operations.services import Services
from edged.signing.keyring import Keyring
from edged.store.usage import Tally

REMOTE = Peer("main", "192.0.2.7", 40000)
#: What a password costs in tests.
CHEAP = Cost(8, 1)

SomeServices = TypeVar("SomeServices", bound=Services)


class Absent:
    """A part that a test did not give: any use of it fails, and says which part it was."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        raise AssertionError(f"{self._name}.{attribute} is used, and make_services() was given no {self._name}")


class Unused:
    """Tallies of credentials that nobody has shown."""

    def find(self, _credential_id: str) -> None:
        return None

    async def find_all(self, _credential_ids: Sequence[str]) -> dict[str, Tally]:
        await trio.lowlevel.checkpoint()
        return {}


class NoCounts:
    """Where calls are counted when no test looks."""

    def rpc_answered(self, method: str, outcome: str) -> None:
        pass


#: What needs no other part, by the names of fields.
SMALL: dict[str, Callable[[], object]] = {
    "own_urls": OwnUrls,
    "clock": Clock,
    "counts": NoCounts,
    "sessions": Sessions,
    "listings": Listings,
    "limiter": Limiter,
    "passwords": lambda: Passwords(cost=CHEAP),
    "paths": Paths,
    "recordings": lambda: SimpleNamespace(active={}, silent=[], obstacle=None, sweep=SimpleNamespace(overdue=None)),
}


def make_services(kind: type[SomeServices] = Services, **parts: Any) -> SomeServices:  # type: ignore[assignment]
    """Services of these parts, by the names of their fields; what is not given is made (SMALL), or Absent."""
    if isinstance(gate := parts.get("gate"), Gate):
        parts.setdefault("limiter", gate.limiter)
    for name in kind.__struct_fields__:
        if name not in parts and name not in defaults_of(kind):
            parts[name] = SMALL[name]() if name in SMALL else Absent(name)
    return kind(**parts)


def defaults_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields that may be left out, and what they are then."""
    found = dict(zip(reversed(kind.__struct_fields__), reversed(kind.__struct_defaults__), strict=False))
    return {name: value for name, value in found.items() if value is not msgspec.NODEFAULT}


@asynccontextmanager
async def running_services(folder: Path, **parts: Any) -> AsyncIterator[tuple[TrustStack, Services]]:
    """Real parts over a database in `folder`: accounts, keys, passwords, disks; a keyring with a key of each algorithm,
    whose tokens the gate verifies. MediaMTX is off, and there is no camera unless `parts` has a registry with some."""
    async with running_trust(folder / "trust.db") as trust:
        keyring = Keyring(
            trust.db, trust.clock, is_denied=trust.ledger.denials.__contains__, make=make_here, was_restored=False
        )
        await keyring.ensure()
        trust.gate = make_gate(
            trust.ledger,
            trust.admissions,
            trust.clock,
            trust.counted,
            shared_secrets=[SECRET],
            find_key=keyring.find,
        )
        passwords, limiter = Passwords(cost=CHEAP), trust.gate.limiter
        made: dict[str, Any] = {
            "clock": trust.clock,
            "gate": trust.gate,
            "ledger": trust.ledger,
            "registrar": trust.registrar,
            "revocations": trust.revocations,
            "refreshes": Refreshes(
                trust.registrar,
                trust.ledger,
                trust.gate,
                keyring,
                trust.db,
                trust.clock,
                trust.counted,
                shared_secrets=[SECRET],
            ),
            "api_keys": trust.api_keys,
            "service_tokens": ServiceTokens(trust.registrar, trust.ledger, trust.admissions, trust.db, trust.clock),
            "users": trust.users,
            "logins": Logins(trust.users, passwords, limiter, trust.gate, trust.registrar, is_demo=True),
            "usage": Unused(),
            "cameras": SimpleNamespace(find=lambda _device: None),
            "mediamtx": SimpleNamespace(state=ServerState("off")),
            "publishers": SimpleNamespace(states={}),
            "snapshots": Snapshots(folder / "snapshots"),
            "keyring": keyring,
            "passwords": passwords,
            "limiter": limiter,
            "first_admin": FirstAdmin(folder, trust.users.is_empty),
            "disks": Disks({"state": folder}),
            "restores": Restores(trust.registrar, trust.ledger, trust.db, trust.db, trust.clock),
            "shared_secrets": (SECRET,),
        }
        yield trust, make_services(**{**made, **parts})


async def ask(services: Services, caller: Caller | None, operation: str, peer: Peer = REMOTE, /, **params: Any) -> Any:
    """The reply to an operation, as JSON has it; by `caller`, or nobody. Raises what the operation raises."""
    session = Session(peer, "ws")
    session.caller = caller
    return msgspec.to_builtins(await operations.gather().call(operation, params, services, session))


async def key_of(trust: TrustStack, role: str, **values: Any) -> Caller:
    """The caller of a new API key."""
    _, secret = await trust.api_keys.create(EDGED, name=role, role=role, **values)
    return trust.gate.authenticate(ApiKey(secret), REMOTE, "ws")
