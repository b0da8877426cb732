"""Outside issuers in memory: their keys, where these come from, and what is done when they cannot be had.

The gate asks here and never waits. What a token says is never a place to look at: keys come from the place in the
settings, each hour, whoever comes with whatever. One kind of token can make that sooner: one of which everything fits
but that its kid is not known, whose key may be new. That raises a flag, by which the task of that issuer fetches from
that same place, at most once a minute however many come. No other token makes anybody fetch anything.

What was fetched last and was good is kept, also over a restart without a network; a bad answer changes nothing. Keys
count from the moment they are read: should the disk fail, a restart only fetches them again.
"""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from edged.clock import Clock, iso
from edged.config.model import IssuerSettings
from edged.credentials.issuers import (
    LARGEST_SET,
    IssuerRecord,
    KeySet,
    KeysRefused,
    find_keys,
    read_key_set,
    read_public_key,
)
from edged.credentials.role_claims import RoleClaim
from edged.credentials.signing_keys import VerifyingKey
from edged.errors import ConfigError, DependencyFailed, EdgedError
from edged.signing import key_servers
from edged.store import issuers
from edged.store.database import Database
from edged.store.issuers import StoredKeys

#: Seconds between two looks at an issuer's keys, and the least of them however often an unknown kid shows up.
EACH_SECONDS: Final = 3600.0
LEAST_SECONDS: Final = 60.0
#: What did not change is written anew once a day, for the time of the last success.
_KEPT_SECONDS: Final = 86400.0
#: Bytes of a key set that is read without a thread: some 3 ms.
_SMALL_SET: Final = 16384
_log = structlog.get_logger("issuers")


class Issuer:
    """The record and the keys of one issuer; what the gate asks."""

    __slots__ = ("asked", "is_pem", "keys", "place", "record", "stored_at", "succeeded_at", "told")

    def __init__(self, name: str, settings: IssuerSettings) -> None:
        self.record = make_record(name, settings)
        #: Where the keys are: an absolute path or a URL of a JWK set, or the path of a PEM file.
        self.place = settings.key or settings.jwks
        self.is_pem = bool(settings.key)
        self.keys: tuple[VerifyingKey, ...] = ()
        #: Set when somebody shows a token that may be of a newer key.
        self.asked = trio.Event()
        #: Unix seconds, 0.0 for never.
        self.succeeded_at = self.stored_at = 0.0
        #: The trouble that the log has told of.
        self.told = ""

    def find(self, kid: str) -> Sequence[VerifyingKey]:
        """The keys that a token with this kid ("": none) may be signed by. Never waits."""
        return find_keys(self.keys, kid)

    def ask(self) -> None:
        """Have the keys fetched as soon as it may be. Never waits."""
        self.asked.set()


class Issuers:
    """All outside issuers by their `iss`; `run` keeps their keys up to date."""

    def __init__(
        self,
        settings: Mapping[str, IssuerSettings],
        db: Database,
        clock: Clock,
        *,
        fetch: Callable[[str], Awaitable[bytes]] = key_servers.fetch,
    ) -> None:
        """`settings` by name, as in [auth.issuers.NAME]; `fetch(url)` raises DependencyFailed."""
        self._db = db
        self._clock = clock
        self._fetch = fetch
        self._issuers = {given.issuer: Issuer(name, given) for name, given in settings.items()}
        #: Rises when a key is not trusted any more: what it verified must be verified anew.
        self.version = 0

    def load(self) -> None:
        """Take up PEM files and the keys that were good last, before anybody asks. Raises ConfigError, StoreFailed."""
        stored = {(item.name, item.source): item for item in self._db.read_now(issuers.load)}
        for issuer in self._issuers.values():
            if issuer.is_pem:
                issuer.keys = read_pem(issuer.record, issuer.place).keys
                issuer.succeeded_at = self._clock.now()
            elif item := stored.get((issuer.record.name, issuer.place)):
                try:
                    issuer.keys = read_key_set(item.keys.encode(), issuer.record).keys
                    issuer.succeeded_at = issuer.stored_at = item.fetched_at
                except KeysRefused as problem:
                    # The settings allow other algorithms now.
                    _log.warning("kept_keys_refused", issuer=issuer.record.name, problem=str(problem))

    def find(self, issuer: str) -> Issuer | None:
        """Who is trusted by this `iss`, "" for tokens without one. Never waits."""
        return self._issuers.get(issuer)

    def last_success(self) -> Mapping[str, float]:
        """Name → when its keys were read last, Unix seconds; 0.0 for never."""
        return {issuer.record.name: issuer.succeeded_at for issuer in self._issuers.values()}

    async def run(self) -> None:
        """Fetch when it is time; runs for ever."""
        async with trio.open_nursery() as nursery:
            for issuer in self._issuers.values():
                if not issuer.is_pem:
                    nursery.start_soon(self._keep, issuer)
            await trio.sleep_forever()

    async def _keep(self, issuer: Issuer) -> None:
        age = self._clock.now() - issuer.succeeded_at
        # Keys of the future are of unknown age.
        if issuer.keys and 0 <= age < EACH_SECONDS:
            await _pause(issuer, EACH_SECONDS - age)
        failures = 0
        while True:
            failures = 0 if await self.refresh(issuer) else failures + 1
            await _pause(issuer, min(EACH_SECONDS, LEAST_SECONDS * 2.0 ** (failures - 1)) if failures else EACH_SECONDS)

    async def refresh(self, issuer: Issuer) -> bool:
        """Read the keys of one issuer now; whether they could be had. What cannot be changes nothing, and is logged."""
        # A token that shows up from here on asks again.
        issuer.asked = trio.Event()
        try:
            data = await self._read(issuer.place)
            if len(data) <= _SMALL_SET:
                found = read_key_set(data, issuer.record)
            else:
                # Up to 40 ms, in which the loop answers others.
                found = await trio.to_thread.run_sync(read_key_set, data, issuer.record)
        except (EdgedError, KeysRefused) as problem:
            self._say_trouble(issuer, problem)
            return False
        await self._take(issuer, found, data.decode())
        return True

    async def _read(self, place: str) -> bytes:
        if place.startswith("/"):
            return await trio.to_thread.run_sync(_read_file, place)
        return await self._fetch(place)

    async def _take(self, issuer: Issuer, found: KeySet, text: str) -> None:
        before, now = set(map(_identify, issuer.keys)), set(map(_identify, found.keys))
        changed = before != now
        issuer.keys, issuer.succeeded_at = found.keys, self._clock.now()
        if before - now:
            self.version += 1
        if changed or issuer.told:
            _log.info(
                "keys_taken", issuer=issuer.record.name, keys=[key.kid or "(no kid)" for key in found.keys],
                refused=list(found.refused) or None,
            )  # fmt: skip
        issuer.told = ""
        if changed or not 0 <= issuer.succeeded_at - issuer.stored_at < _KEPT_SECONDS:
            await self._store(issuer, text)

    async def _store(self, issuer: Issuer, text: str) -> None:
        item = StoredKeys(issuer.record.name, issuer.place, text, issuer.succeeded_at)
        try:
            await self._db.write(partial(issuers.save, item=item))
            issuer.stored_at = issuer.succeeded_at
        except EdgedError as problem:
            issuer.stored_at = 0.0
            _log.warning("keys_not_kept", issuer=issuer.record.name, problem=str(problem))

    def _say_trouble(self, issuer: Issuer, problem: Exception) -> None:
        if str(problem) == issuer.told:
            return
        issuer.told = str(problem)
        since = f"those of {iso(issuer.succeeded_at)}" if issuer.keys else "none: every token of it is refused"
        sentence, hint = (problem.sentence, problem.hint) if isinstance(problem, EdgedError) else (str(problem), "")
        _log.warning(
            "keys_not_renewed", issuer=issuer.record.name, problem=sentence, in_force=since,
            remedy=hint or f"look at what stands at auth.issuers.{issuer.record.name}.jwks",
        )  # fmt: skip


async def _pause(issuer: Issuer, seconds: float) -> None:
    """So long, or until an unknown kid asks; a minute at least."""
    with trio.move_on_after(seconds):
        await trio.sleep(LEAST_SECONDS)
        await issuer.asked.wait()


def _identify(key: VerifyingKey) -> tuple[str, str, str]:
    """What makes it this key and no other."""
    assert key.key is not None, "an outside issuer's keys are read when they are taken"
    return key.kid, key.algorithm, key.key.thumbprint()


def make_record(name: str, settings: IssuerSettings) -> IssuerRecord:
    """[auth.issuers.NAME] as tokens are judged by it."""
    return IssuerRecord(
        name,
        settings.issuer,
        settings.algorithms,
        frozenset(settings.audience),
        settings.ceiling,
        RoleClaim(settings.roles_claim, settings.roles),
    )


def read_pem(record: IssuerRecord, place: str) -> KeySet:
    """The one key of an issuer that has a file of it. Raises ConfigError."""
    name = f"auth.issuers.{record.name}.key"
    try:
        return read_public_key(_read_file(place), record)
    except DependencyFailed as problem:
        raise ConfigError(f"{name}: {problem.sentence}", hint=problem.hint, key=name) from None
    except KeysRefused as problem:
        raise ConfigError(f"{name}: {place}: {problem}", hint="it must hold one public key in PEM", key=name) from None


def _read_file(place: str) -> bytes:
    """At most one byte more than is taken. Raises DependencyFailed."""
    path = Path(place)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DependencyFailed(f"{path} is not a file", hint="name the file that holds the keys")
        with path.open("rb") as file:
            return file.read(LARGEST_SET + 1)
    except OSError as problem:
        raise DependencyFailed(
            f"{path} cannot be read: {problem.strerror}", hint="make it, readable for the user that edged runs as"
        ) from None
