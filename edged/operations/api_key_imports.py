"""API keys: accept keys that another service has issued (contract S1-33, C-24)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final, Literal

import msgspec

from edged.accounts.api_keys import ForeignKey
from edged.credentials.api_keys import KeyRecord, digest
from edged.credentials.roles import ROLES, canonical_role
from edged.errors import InvalidParams
from edged.operations.catalogue import OperationCall, operation
from edged.operations.params import read_time
from edged.operations.rest import post
from edged.operations.rights import Grantor

_LONGEST: Final = 128
#: Keys of another service that one call takes.
MOST_IMPORTED: Final = 100
#: A shorter secret could be guessed; no issuer makes longer ones.
_SHORTEST_SECRET: Final = 20
_LONGEST_SECRET: Final = 256


class ImportedKey(msgspec.Struct, frozen=True):
    """A key as another service kept it; `source_id` is its id there, times ISO 8601."""

    source_id: Annotated[str, msgspec.Meta(max_length=_LONGEST)]
    key: str
    role: str
    name: str = ""
    created_at: str | None = None
    expires_at: str | None = None


class ImportKeysParams(msgspec.Struct, frozen=True):
    keys: Annotated[list[ImportedKey], msgspec.Meta(min_length=1, max_length=MOST_IMPORTED)]


class Imported(msgspec.Struct, frozen=True):
    """The result for one key: `imported` under a new `key_id`, `known` already, or `refused`. `reason` says why it was
    refused, or that the imported key has expired."""

    source_id: str
    status: Literal["imported", "known", "refused"]
    key_id: str | None = None
    reason: str = ""


class ImportReport(msgspec.Struct, frozen=True):
    keys: list[Imported]


@operation("keys:admin", rest=post("/api/keys/import", source="body"), counted_as="api_keys")
async def import_keys(call: OperationCall, params: ImportKeysParams) -> ImportReport:
    """Accept keys that another service issued, in whatever form, by their SHA-256 (contract S1-33, C-24).

    Imported keys are durable before this answers; their secrets are not stored. Expired keys are imported as well, so
    that they are known as expired and their secrets can be deleted elsewhere. Idempotent.
    """
    report: dict[int, Imported] = {}
    taken: dict[int, ForeignKey] = {}
    grantor = Grantor(call)
    for at, item in enumerate(params.keys):
        try:
            taken[at] = _read_foreign(item, call.services.clock.now())
            grantor.refuse_widening(item.role, None, None)
        except InvalidParams as problem:
            report[at] = Imported(item.source_id, "refused", reason=problem.sentence)
            taken.pop(at, None)
    rules = [
        partial(grantor.refuse_widening, role, None, None) for role in sorted({key.role for key in taken.values()})
    ]
    outcomes = await call.services.api_keys.import_all(call.authority("keys:admin", *rules), list(taken.values()))
    for at, outcome in zip(taken, outcomes, strict=True):
        source_id = params.keys[at].source_id
        if isinstance(outcome, KeyRecord):
            has_ended = outcome.status(call.services.clock.now()) == "expired"
            report[at] = Imported(source_id, "imported", outcome.key_id, "it has expired" if has_ended else "")
        else:
            known = call.services.ledger.find_key(digest(taken[at].secret))
            report[at] = Imported(
                source_id, "known" if known else "refused", known.credential_id if known else None, outcome
            )
    return ImportReport([report[at] for at in range(len(params.keys))])


def _read_foreign(item: ImportedKey, now: float) -> ForeignKey:
    """Another service's key, checked. Raises InvalidParams saying what is wrong with it."""
    if not _SHORTEST_SECRET <= len(item.key) <= _LONGEST_SECRET or not item.key.isascii() or not item.key.isprintable():
        raise InvalidParams(f"its key is not {_SHORTEST_SECRET} to {_LONGEST_SECRET} printable characters")
    if canonical_role(item.role) not in ROLES:
        raise InvalidParams(f"there is no role {item.role[:_LONGEST]!r}")
    expires_at = None if item.expires_at is None else read_time("expires_at", item.expires_at)
    created_at = now if item.created_at is None else read_time("created_at", item.created_at)
    name = (item.name or item.source_id or "imported")[:100]
    return ForeignKey(item.key, name, canonical_role(item.role), min(created_at, now), expires_at)
