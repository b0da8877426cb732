"""Keys and service tokens that a revoked credential has created end with it only where that is requested. Tokens
that were issued with it always do (credentials.claims.write_issued_by)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from msgspec import UNSET, UnsetType

from edged.accounts.jobs import Due
from edged.credentials.identities import Identity
from edged.operations.catalogue import OperationCall

#: Ids of keys and service tokens; UNSET where they were not requested.
Ids: TypeAlias = list[str] | UnsetType


def deny_made(call: OperationCall, identities: Iterable[Identity], include_made: bool) -> tuple[Ids, Due]:
    """Revoke what the credentials of these identities have created, and what that has created, if `include_made`. In
    force when this returns; the second value is settled by Registrar.settle."""
    if not include_made:
        return UNSET, None
    made = call.services.ledger.made_by(identities)
    due = call.services.registrar.deny(made, None, call.session.id, "key", "made by what was revoked") if made else None
    return sorted(each.value for each in made), due
