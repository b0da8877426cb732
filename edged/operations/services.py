"""What operations use of the packages below. Reactions get these objects as arguments instead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from edged.errors import Unsupported

if TYPE_CHECKING:
    from edged.access.gate import Gate
    from edged.access.ledger import Ledger
    from edged.access.limiter import Limiter
    from edged.access.usage import Usage
    from edged.accounts.api_keys import ApiKeys
    from edged.accounts.first_admin import FirstAdmin
    from edged.accounts.logins import Logins
    from edged.accounts.passwords import Passwords
    from edged.accounts.refreshes import Refreshes
    from edged.accounts.registrar import Registrar
    from edged.accounts.restores import Restores
    from edged.accounts.revocations import Revocations
    from edged.accounts.service_tokens import ServiceTokens
    from edged.accounts.users import Users
    from edged.cameras.registry import Registry
    from edged.clock import Clock
    from edged.credentials.tokens import SharedSecret
    from edged.library.clips import Clips
    from edged.library.disks import Disks
    from edged.library.event_ring import EventRing
    from edged.library.recordings import Recordings
    from edged.library.snapshots import Snapshots
    from edged.mediamtx.frames import Frames
    from edged.mediamtx.paths import Paths
    from edged.mediamtx.process import Supervisor
    from edged.mediamtx.publisher import Publishers
    from edged.mediamtx.stills import Stills
    from edged.mediamtx.viewers import Viewers
    from edged.metrics import Metrics
    from edged.operations.caller_sessions import Sessions
    from edged.operations.listings import Listings
    from edged.operations.own_urls import OwnUrls
    from edged.signing.keyring import Keyring


async def _nowhere() -> None:
    raise Unsupported("there is no clock to reset")


class Services(msgspec.Struct, frozen=True):
    """Handed to operations only, as a whole; each uses the one or two members that it is about."""

    clock: Clock
    counts: Metrics
    gate: Gate
    ledger: Ledger
    registrar: Registrar
    revocations: Revocations
    refreshes: Refreshes
    api_keys: ApiKeys
    service_tokens: ServiceTokens
    users: Users
    logins: Logins
    usage: Usage
    sessions: Sessions
    cameras: Registry
    mediamtx: Supervisor
    paths: Paths
    publishers: Publishers
    viewers: Viewers
    frames: Frames
    stills: Stills
    snapshots: Snapshots
    recordings: Recordings
    clips: Clips
    events: EventRing
    listings: Listings
    keyring: Keyring
    passwords: Passwords
    limiter: Limiter
    first_admin: FirstAdmin
    disks: Disks
    restores: Restores
    own_urls: OwnUrls
    shared_secrets: tuple[SharedSecret, ...] = ()
    #: Whether root may administer keys over loopback HTTP without a credential (contract 5.1).
    root_needs_no_key: bool = False
    #: Takes the system clock as right, on disk and then in force (contract 10.9).
    reset_clock: Callable[[], Awaitable[None]] = _nowhere
