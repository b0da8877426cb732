"""operations/restores.py: a restored trust database is confirmed on the box itself, by whoever the kernel names."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace
from operations_helpers import NOW, Bench
from web_helpers import LOCAL, REMOTE, UNIX

from edged.clock import iso
from edged.credentials.callers import LocalUser, Peer
from edged.errors import Refused
from edged.operations.caller_sessions import Session
from edged.store.restores import Restored

ROOT = dataclasses.replace(UNIX, uid=0)


class Restores:
    """Notes who confirmed; `mark` is what waits."""

    def __init__(self) -> None:
        self.mark: Restored | None = Restored("copy", NOW - 86400, 7)
        self.confirmed_by: list[str] = []

    async def confirm(self, authority: Any, by: str) -> Restored | None:
        await trio.lowlevel.checkpoint()
        authority.check()
        self.confirmed_by.append(by)
        mark, self.mark = self.mark, None
        return mark


class Box:
    """A bench with a database that waits for its confirmation."""

    def __init__(self) -> None:
        self.restores = Restores()
        self.bench = Bench(restores=self.restores)

    def session(self, peer: Peer = ROOT) -> Session:
        return self.bench.session(self.bench.gate.authenticate(LocalUser(0), LOCAL, "uds"), peer, "uds")

    async def confirm(self, session: Session) -> Any:
        return msgspec.to_builtins(await self.bench.ask(session, "confirm_restore"))


async def test_root_on_the_box_confirms_and_is_told_what_is_in_force_again() -> None:
    """Keys that have ended are none of these."""
    box = Box()
    box.bench.caller()
    box.bench.caller()
    for member in ("expires_at", "revoked_at", "suspended_at"):
        ended: dict[str, Any] = {member: NOW - 1}
        record = box.bench.ledger.keys[box.bench.caller().credential_id]
        box.bench.ledger.put_key(replace(record, **ended))
    reply = await box.confirm(box.session())
    assert reply == {
        "confirmed": True, "cause": "copy", "at": iso(NOW - 86400), "keys": 2, "service_tokens": 0,
    }  # fmt: skip
    assert len(box.restores.confirmed_by) == 1


async def test_a_second_confirmation_is_no_error_and_says_that_there_was_nothing() -> None:
    box = Box()
    session = box.session()
    await box.confirm(session)
    assert await box.confirm(session) == {
        "confirmed": False, "cause": "", "at": "", "keys": 0, "service_tokens": 0,
    }  # fmt: skip


@pytest.mark.parametrize("peer", [REMOTE, LOCAL])
async def test_nobody_confirms_over_the_network(peer: Peer) -> None:
    """Not even by a credential of root's; and it is told where it is done."""
    box = Box()
    with pytest.raises(Refused, match="there: sudo edged trust confirm-restore") as caught:
        await box.confirm(box.session(peer))
    assert (caught.value.reason, box.restores.confirmed_by) == ("missing_scope", [])


async def test_a_key_confirms_nothing_on_the_unix_socket_either() -> None:
    """It may be one of those that the older database brought back."""
    box = Box()
    admin = box.bench.session(box.bench.caller("admin"), ROOT, "uds")
    assert await box.bench.outcome(admin, "confirm_restore") == "missing_scope"
    assert await box.bench.outcome(box.bench.session(None, ROOT, "uds"), "confirm_restore") == "missing"
    assert box.restores.confirmed_by == []
