"""operations/makers.py: what a revoked credential has made ends with it where that is requested, at once."""

from __future__ import annotations

from pathlib import Path

from gate_helpers import LOCAL
from msgspec import UNSET
from services_helpers import key_of, running_services
from trust_helpers import TrustStack, rows

from edged import operations
from edged.access.authority import Asker
from edged.accounts.jobs import wait
from edged.credentials.callers import Caller
from edged.credentials.identities import Identity
from edged.operations.caller_sessions import Session
from edged.operations.catalogue import OperationCall
from edged.operations.makers import deny_made
from edged.operations.services import Services


def make_call(services: Services) -> OperationCall:
    return OperationCall(services, Session(LOCAL, "ws"), operations.gather().find("revoke_key"))


async def make_by(trust: TrustStack, caller: Caller) -> str:
    """The id of a key that this caller makes."""
    authority = Asker(trust.gate, caller, "keys:admin", "ws", ())
    record, _ = await trust.api_keys.create(authority, name="made", role="admin")
    return record.key_id


async def test_what_was_made_ends_at_once_and_what_that_made_too(tmp_path: Path) -> None:
    """In force when the function returns, sorted in the answer, and on disk when it is settled; nobody else's ends."""
    async with running_services(tmp_path) as (trust, services):
        maker, other = await key_of(trust, "admin"), await key_of(trust, "admin")
        first = await make_by(trust, maker)
        of_first = trust.ledger.find_key(trust.ledger.keys[first].digest)
        assert of_first is not None
        second = await make_by(trust, of_first)
        kept = await make_by(trust, other)
        token, _ = await services.service_tokens.create(Asker(trust.gate, maker, "keys:admin", "ws", ()), "uploads")
        ids, due = deny_made(make_call(services), {Identity.of_key(maker.credential_id)}, True)
        assert ids == sorted([first, second, token.token_id])
        assert trust.standing(of_first) == "revoked"
        assert (trust.standing(maker), trust.standing(other)) == ("good", "good")
        assert trust.ledger.keys.get(kept) is not None
        await wait(due)
        saved = {str(row[0]) for row in rows(tmp_path / "trust.db", "SELECT identity FROM revocations")}
        assert {f"key:{first}", f"key:{second}", f"service:{token.token_id}"} <= saved
        assert f"key:{kept}" not in saved


async def test_where_it_is_not_requested_nothing_ends_and_the_answer_has_no_list(tmp_path: Path) -> None:
    """An empty list would say that there was nothing to end."""
    async with running_services(tmp_path) as (trust, services):
        maker = await key_of(trust, "admin")
        made = await make_by(trust, maker)
        identities = {Identity.of_key(maker.credential_id)}
        assert deny_made(make_call(services), identities, False) == (UNSET, None)
        assert trust.ledger.key_status(trust.ledger.keys[made], trust.clock.now()) == "active"
        assert deny_made(make_call(services), {Identity.of_key("key_0")}, True) == ([], None)
