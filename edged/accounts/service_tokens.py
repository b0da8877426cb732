"""Service tokens: make, import, rotate and revoke them, each durable and in force as the registrar says."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final

import structlog
from msgspec.structs import replace

from edged.access.admissions import Admissions
from edged.access.asking import asked_by
from edged.access.authority import Authority
from edged.access.ledger import Ledger
from edged.accounts.jobs import Commit
from edged.accounts.makers import load_makers, load_revoked
from edged.accounts.registrar import Registrar
from edged.accounts.rotation import GRACE_SECONDS, check_capacity, check_grace, shorten
from edged.clock import Clock
from edged.credentials.identities import Identity
from edged.credentials.service_tokens import (
    ServiceTokenRecord,
    digest,
    mint,
    mint_secret,
    mint_token_id,
    published_as,
    read_networks,
)
from edged.errors import InvalidParams, InvalidState, NotFound
from edged.store import service_tokens
from edged.store.database import Reads

_LONGEST_NAME: Final = 100
_MOST_NETWORKS: Final = 64
_log = structlog.get_logger("service_tokens")


class ServiceTokens:
    """What may become of a service token."""

    def __init__(self, registrar: Registrar, ledger: Ledger, admissions: Admissions, db: Reads, clock: Clock) -> None:
        self._registrar = registrar
        self._ledger = ledger
        self._admissions = admissions
        self._db = db
        self._clock = clock

    def load(self) -> None:
        """Tell the ledger every token, before anybody asks. Raises StoreFailed."""
        tokens = self._db.read_now(service_tokens.load_unrevoked)
        for record in tokens:
            self._ledger.put_service_token(record)
        revoked = self._ledger.revoked_tokens
        load_revoked(revoked, self._db, "service_tokens")
        load_makers(self._ledger, self._db)
        _log.info("loaded", count=len(tokens), revoked=len(revoked))

    async def create(
        self, authority: Authority, name: str, networks: Sequence[str] | None = None
    ) -> tuple[ServiceTokenRecord, str]:
        """A new token and its secret, which nothing else will ever show. `networks`: CIDR, None for everywhere.

        Raises InvalidParams, StoreFailed or Overloaded; then there is no token.
        """
        token_id, secret, token_digest = mint()
        record = self._make(token_id, name, token_digest, networks, authority)
        await self._registrar.grant(authority, partial(self._create, record), withhold=self._withhold).outcome()
        return record, secret

    async def import_one(
        self, authority: Authority, name: str, secret: str, networks: Sequence[str] | None = None
    ) -> tuple[ServiceTokenRecord, bool]:
        """Accept a token that its users hold already, by its SHA-256; with False the one that is known by it, as it is.

        Raises InvalidParams (a sample that everybody has read, too), StoreFailed or Overloaded; then there is none.
        """
        token_digest = digest(secret)
        if printed := published_as(token_digest):
            raise InvalidParams(f"it is {printed}, known to everybody", hint="make one: edged service-token add NAME")
        record = self._make(mint_token_id(), name, token_digest, networks, authority)
        return await self._registrar.grant(authority, partial(self._import, record)).outcome()

    async def rotate(
        self, authority: Authority, token_id: str, grace_seconds: float = GRACE_SECONDS
    ) -> tuple[ServiceTokenRecord, str]:
        """A new secret for a token; the old one is good for `grace_seconds` more.

        Raises NotFound, InvalidState (revoked), InvalidParams, StoreFailed or Overloaded; then nothing changed.
        """
        check_grace(grace_seconds)
        self._find_living(token_id)
        return await self._registrar.grant(authority, partial(self._rotate, token_id, grace_seconds)).outcome()

    def revoke(self, token_id: str, by: str = "") -> Coroutine[Any, Any, ServiceTokenRecord]:
        """End a token, both its secrets, and everything that it opened and made: in force when this *call* returns.

        Await the result for the commit. Again is fine. Raises NotFound; Overloaded or StoreFailed if it is in force
        but not yet on disk.
        """
        if token_id not in self._ledger.revoked_tokens:
            self.find(token_id)
        job = self._registrar.deny(frozenset({Identity.of_service_token(token_id)}), None, by, "service_token", "")

        async def settle() -> ServiceTokenRecord:
            await self._registrar.settle(job)
            return await self.get(token_id)

        return settle()

    async def get(self, token_id: str) -> ServiceTokenRecord:
        """Any token, revoked ones too. Raises NotFound, StoreFailed."""
        record = self._ledger.service_tokens.get(token_id)
        if record is None:
            record = await self._db.read(partial(service_tokens.find, token_id=token_id))
        if record is None:
            raise _not_found(token_id)
        return record

    async def load_revoked(self, after: tuple[float, str], limit: int) -> list[ServiceTokenRecord]:
        """A page of the tokens that are revoked on disk, oldest first: behind `after`, (created_at, token_id). Raises
        StoreFailed."""
        return await self._db.read(partial(service_tokens.load_page, after=after, limit=limit))

    def find(self, token_id: str) -> ServiceTokenRecord:
        """A token that is not revoked, or not yet on disk. Raises NotFound, InvalidState (revoked)."""
        record = self._ledger.service_tokens.get(token_id)
        if record is not None:
            return record
        raise _revoked(token_id) if token_id in self._ledger.revoked_tokens else _not_found(token_id)

    def _find_living(self, token_id: str) -> ServiceTokenRecord:
        record = self.find(token_id)
        if record.revoked_at is not None:
            raise _revoked(token_id)
        return record

    def _make(
        self, token_id: str, name: str, token_digest: bytes, networks: Sequence[str] | None, authority: Authority
    ) -> ServiceTokenRecord:
        """Raises InvalidParams for a token that makes no sense."""
        if not 1 <= len(name) <= _LONGEST_NAME:
            raise InvalidParams(f"name is not 1 to {_LONGEST_NAME} characters long")
        if networks is not None and not 1 <= len(networks) <= _MOST_NETWORKS:
            raise InvalidParams(f"networks are not 1 to {_MOST_NETWORKS}", hint="leave them out for every address")
        try:
            within = None if networks is None else read_networks(networks)
        except ValueError as problem:
            raise InvalidParams(
                f"{str(problem)[:64]!r} is no network", hint="for example 192.0.2.0/24, 2001:db8::/32 or an address"
            ) from None
        return ServiceTokenRecord(
            token_id=token_id,
            name=name,
            digest=token_digest,
            created_at=self._clock.now(),
            networks=within,
            made_by=authority.made_by,
        )

    async def _create(
        self, record: ServiceTokenRecord, commit: Commit, *, imported: bool = False
    ) -> ServiceTokenRecord:
        await commit(
            partial(service_tokens.insert, record=record, imported=imported),
            undo=partial(service_tokens.delete, token_id=record.token_id),
        )
        self._ledger.put_service_token(record)
        _log.info("created", id=record.token_id, name=record.name, networks=record.networks, **asked_by())
        return record

    def _withhold(self, record: ServiceTokenRecord) -> None:
        """Nobody will ever know its secret."""
        name = Identity.of_service_token(record.token_id)
        self._registrar.deny(frozenset({name}), None, "", "service_token", "its maker was denied")

    async def _import(self, record: ServiceTokenRecord, commit: Commit) -> tuple[ServiceTokenRecord, bool]:
        if (known := self._ledger.find_service_token(record.digest)) is not None:
            return await self.get(known.credential_id), False
        await self._create(record, commit, imported=True)
        return record, True

    async def _rotate(self, token_id: str, grace_seconds: float, commit: Commit) -> tuple[ServiceTokenRecord, str]:
        before = self._find_living(token_id)
        now = self._clock.now()
        check_capacity(before, now, grace_seconds)
        secret, token_digest = mint_secret()
        record = before.rotate(token_digest, now, grace_seconds)
        await commit(partial(service_tokens.rotate, record=record), undo=partial(service_tokens.rotate, record=before))
        # What was denied during the commit stands.
        self._ledger.put_service_token(replace(record, revoked_at=self.find(token_id).revoked_at))
        shorten(self._admissions, before, grace_seconds, Identity.of_service_secret)
        # If it was revoked during the commit the new secret is worth nothing.
        self._find_living(token_id)
        _log.info("rotated", id=token_id, grace_seconds=grace_seconds, **asked_by())
        return record, secret


def _not_found(token_id: str) -> NotFound:
    shown = token_id[:64]
    return NotFound(
        f"no service token {shown!r}", hint="list_service_tokens names them", resource="service_token", id=shown
    )


def _revoked(token_id: str) -> InvalidState:
    return InvalidState(
        f"service token {token_id!r} is revoked", hint="create a new one", resource="service_token", id=token_id
    )
