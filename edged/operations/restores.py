"""An administrator confirms a trust database that was restored from a copy (contract 10.10)."""

from __future__ import annotations

import msgspec

from edged.accounts.restores import COMMAND
from edged.clock import iso
from edged.credentials.decision import Reason
from edged.errors import Refused
from edged.operations.catalogue import NoParams, OperationCall, operation
from edged.operations.rest import post


class RestoreConfirmed(msgspec.Struct, frozen=True):
    """`confirmed` is false if there was nothing to confirm. `cause`: copy or behind (store.restores); `at` ISO 8601,
    when the copy was made or the older file was noticed; `keys` and `service_tokens` that are in force again."""

    confirmed: bool
    cause: str
    at: str
    keys: int
    service_tokens: int


@operation("system:admin", rest=post("/api/trust/confirm-restore"), counted_as="clock")
async def confirm_restore(call: OperationCall, params: NoParams) -> RestoreConfirmed:
    """Confirm a restored trust database: its keys, tokens and passwords are good again. On the unix socket only.

    It lacks revocations that were made after the copy: make these again first.
    """
    services, session = call.services, call.session
    if not session.peer.is_local_socket or session.caller is None or session.caller.method != "peercred":
        raise Refused(
            Reason.MISSING_SCOPE, "a restored database is confirmed on the box itself", hint=f"there: sudo {COMMAND}"
        )
    mark = await services.restores.confirm(call.authority("system:admin"), session.caller.subject)
    if mark is None:
        return RestoreConfirmed(False, "", "", 0, 0)
    now = services.clock.now()
    keys = sum(services.ledger.key_status(record, now) == "active" for record in services.ledger.keys.values())
    return RestoreConfirmed(True, mark.cause, iso(mark.at), keys, len(services.ledger.service_tokens))
