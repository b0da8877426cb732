"""At a start the ledger learns by whom the makers of what is in force were made, also those that are revoked."""

from __future__ import annotations

from functools import partial

from edged.access.ledger import Ledger
from edged.credentials.identities import Identity, Kind
from edged.store import api_keys, service_tokens
from edged.store.database import Reads


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
