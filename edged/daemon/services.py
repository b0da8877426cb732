"""What operations may read, gathered from everything that was built."""

from __future__ import annotations

import socket

from edged.cameras.registry import Registry
from edged.config.addresses import parse_address
from edged.config.model import Config
from edged.daemon.access import Access
from edged.daemon.media import Media
from edged.daemon.recordings import build_clips
from edged.daemon.secrets import Secrets
from edged.library.disks import Disks
from edged.library.event_ring import EventRing
from edged.library.recordings import Recordings
from edged.library.snapshots import Snapshots
from edged.metrics import Metrics
from edged.operations.caller_sessions import Sessions
from edged.operations.listings import Listings
from edged.operations.own_urls import OwnUrls, list_names
from edged.operations.services import Services


def build_services(
    config: Config,
    secrets: Secrets,
    access: Access,
    cameras: Registry,
    media: Media,
    recordings: Recordings,
    events: EventRing,
    snapshots: Snapshots,
    disks: Disks,
    metrics: Metrics,
) -> Services:
    """What operations may read."""
    accounts = access.accounts
    return Services(
        clock=access.clock, counts=metrics, gate=access.gate, ledger=access.ledger, registrar=accounts.registrar,
        revocations=accounts.revocations, refreshes=access.refreshes, api_keys=accounts.api_keys,
        service_tokens=accounts.service_tokens, users=accounts.users, logins=access.logins, usage=access.usage,
        sessions=Sessions(), cameras=cameras, mediamtx=media.mediamtx, paths=media.paths, publishers=media.publishers,
        viewers=media.viewers, frames=media.frames, stills=media.stills, snapshots=snapshots, recordings=recordings,
        clips=build_clips(recordings, access.clock), events=events, listings=Listings(),
        keyring=access.keyring, passwords=access.passwords, limiter=access.limiter, first_admin=access.first_admin,
        disks=disks, restores=accounts.restores, shared_secrets=secrets.shared,
        root_needs_no_key=config.auth.local_keys == "root", reset_clock=access.mark.reset,
        own_urls=build_own_urls(config),
    )  # fmt: skip


def build_own_urls(config: Config) -> OwnUrls:
    """By what name edged is reached, as far as settings and host name say it."""
    return OwnUrls(config.listen.public_url, port_of(config.listen.main), list_names(socket.gethostname()))


def port_of(addresses: tuple[str, ...]) -> int:
    """The port of the first of a listener's addresses; 0 where there is none, or the kernel picks it."""
    return parse_address(addresses[0])[1] if addresses else 0
