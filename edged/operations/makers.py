"""What a revoked credential has made: keys and service tokens end with it only where that is asked for. Tokens that
were made with it always do (credentials.claims.write_issued_by).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from msgspec import UNSET, UnsetType

from edged.accounts.registrar import Due
from edged.credentials.identities import Identity
from edged.operations.catalogue import OperationCall

#: Ids of keys and service tokens; UNSET where nobody asked for them.
Ids: TypeAlias = list[str] | UnsetType


def deny_made(call: OperationCall, identities: Iterable[Identity], include_made: bool) -> tuple[Ids, Due]:
    """End what the credentials of these names have made, and what that has made, if it is to be. In force when this
    returns; settle the second (Registrar.settle) for the disk."""
    if not include_made:
        return UNSET, None
    made = call.services.ledger.made_by(identities)
    due = call.services.registrar.deny(made, None, call.session.id, "key", "made by what was revoked") if made else None
    return sorted(each.value for each in made), due
