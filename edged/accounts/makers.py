"""What the ledger learns at a start of API keys and service tokens that are revoked: their ids and secrets, and by whom
the makers of what is in force were made."""

from __future__ import annotations

from functools import partial

from edged.access.ledger import Ledger
from edged.access.revoked import Revoked
from edged.credentials.identities import Identity, Kind
from edged.store import api_keys, service_tokens
from edged.store import revoked as rows
from edged.store.database import Reads
from edged.store.revoked import Table


def load_revoked(revoked: Revoked, db: Reads, table: Table) -> None:
    """Those of one kind, with every secret that they had. Raises StoreFailed."""
    revoked.load(db.read_now(partial(rows.load_newest, table=table)))
    for name, secret in db.read_now(partial(rows.load_replaced, table=table)):
        revoked.add(name, [secret])


def load_makers(ledger: Ledger, db: Reads) -> None:
    """Of the makers that are named, and of theirs, those that are revoked on disk (access.makers).

    Raises StoreFailed.
    """
    known = {Identity.of_key(key_id) for key_id in ledger.keys}
    known |= {Identity.of_service_token(token_id) for token_id in ledger.service_tokens}
    while found := ledger.makers.missing(known):
        known |= found
        keys = [each.value for each in found if each.kind is Kind.KEY]
        for key_id, made_by in db.read_now(partial(api_keys.find_makers, key_ids=keys)).items():
            ledger.makers.load(Identity.of_key(key_id), made_by)
        tokens = [each.value for each in found if each.kind is Kind.SERVICE_TOKEN]
        for token_id, made_by in db.read_now(partial(service_tokens.find_makers, token_ids=tokens)).items():
            ledger.makers.load(Identity.of_service_token(token_id), made_by)
