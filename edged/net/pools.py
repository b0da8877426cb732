"""Places for connections: pools that cannot fill each other, and shares within them (contract 10.13).

The network has one pool, the unix socket, listen.local and listen.tokens have each their own: whoever fills the
network's keeps nobody from revoking a key on the unix socket, nor Prometheus from its numbers. Within the network's
pool strangers are counted by their place (an IPv4 address, an IPv6 /64), whoever has authenticated by the credential;
on the unix socket by the user.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from edged.credentials.callers import Peer
from edged.credentials.places import is_loopback, place_of
from edged.net.doors import Limits
from edged.net.shares import Share, Turns

NETWORK: Final = "network"
#: Connections of the pools beside the network's.
SIZES: Final = MappingProxyType({"unix": 64, "local": 32, "tokens": 32})
#: Of the unix socket's, one user's: some are left for root whatever another administrator does.
_ONE_USERS: Final = 48
#: How much one credential may have held for it, in longest messages.
_LONGEST_MESSAGES: Final = 4


class Member(Protocol):
    """A connection that has a place."""

    #: Where its client is; of a trusted proxy's connection where the client of the last request was.
    place: str
    #: Whose connections it is counted among, "" before authentication.
    account: str
    #: What the time that it takes is charged to; Pools sets it.
    share: Share
    #: Bytes that are held for it: of a message or body that is not whole, and of answers that it does not read.
    held: int

    @property
    def peer(self) -> Peer: ...
    @property
    def is_authenticated(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Full:
    """Why there is no place: an HTTP status, and a sentence for whoever is turned away."""

    status: int
    detail: str


class Pools:
    """Who has a place."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        #: To be added to the event loop's instruments while connections are served.
        self.turns = Turns()
        self._shares: dict[str, Share] = {}
        self._pools: dict[str, set[Member]] = {}
        self._places: dict[str, set[Member]] = {}
        self._accounts: dict[str, set[Member]] = {}
        self._held: dict[str, int] = {}

    def find_full(self, peer: Peer, place: str) -> Full | None:
        """Why a new connection of this peer gets no place; None if it gets one."""
        pool = pool_of(peer)
        most = SIZES.get(pool, self._limits.connections)
        if len(self._pools.get(pool, ())) >= most:
            return Full(503, f"{most} connections are open, as many as there are places: try again later")
        if pool == "unix":
            if len(self._places.get(place, ())) >= _ONE_USERS:
                return Full(429, f"user {peer.uid} has {_ONE_USERS} connections here: close some")
            return None
        return self._find_crowd(peer.address, place)

    def add(self, member: Member) -> None:
        """It has a place from here on; `find_full` was asked before."""
        self._pools.setdefault(pool_of(member.peer), set()).add(member)
        self._places.setdefault(member.place, set()).add(member)
        self._give_share(member)

    def remove(self, member: Member) -> None:
        """It is gone."""
        _leave(self._pools, pool_of(member.peer), member)
        _leave(self._places, member.place, member)
        _leave(self._accounts, member.account, member)
        self._take_share(member)
        self.hold(member, 0)

    def hold(self, member: Member, size: int) -> bool:
        """So many bytes are held for it from here on; False, and nothing changed, if its credential has too many.

        Strangers have message_bytes_unauthenticated each; whoever is not counted is not held to this either.
        """
        account = member.account
        total = self._held.get(account, 0) + size - member.held
        if account and size > member.held and total > _LONGEST_MESSAGES * self._limits.message_bytes:
            return False
        self._held[account] = total
        if not total:
            del self._held[account]
        member.held = size
        return True

    def move(self, member: Member, address: str) -> Full | None:
        """A trusted proxy speaks for somebody at `address` from here on; why not, if that place is crowded."""
        place = place_of(address)
        if place == member.place:
            return None
        if not member.is_authenticated and (full := self._find_crowd(address, place)):
            return full
        _leave(self._places, member.place, member)
        self._take_share(member)
        member.place = place
        self._places.setdefault(place, set()).add(member)
        self._give_share(member)
        return None

    def identify(self, member: Member, account: str) -> bool:
        """It has shown a good credential of `account`; False if that has connections enough.

        "" is whoever is not counted: the unix socket's users, and root without a credential.
        """
        if account == member.account:
            return True
        if account and len(self._accounts.get(account, ())) >= self._limits.connections_per_credential:
            return False
        held = member.held
        self.hold(member, 0)
        _leave(self._accounts, member.account, member)
        self._take_share(member)
        member.account = account
        self._give_share(member)
        self._held[account] = self._held.get(account, 0) + held
        member.held = held
        if not self._held[account]:
            del self._held[account]
        if account:
            self._accounts.setdefault(account, set()).add(member)
        return True

    def _give_share(self, member: Member) -> None:
        """Its client's: that of its credential, before authentication that of its place."""
        member.share = self._shares.setdefault(_payer(member), Share(self.turns))
        member.share.members += 1

    def _take_share(self, member: Member) -> None:
        member.share.members -= 1
        if not member.share.members:
            del self._shares[_payer(member)]

    def _find_crowd(self, address: str, place: str) -> Full | None:
        most = self._limits.unauthenticated_per_address
        mates = self._places.get(place, ())
        # Counting is left out while it cannot matter: it looks at every connection of the place.
        if len(mates) < most or not address or is_loopback(address):
            return None
        if sum(not each.is_authenticated for each in mates) < most:
            return None
        return Full(
            429,
            f"{place} has {most} connections without a credential, as many as one address may have "
            "(limits.unauthenticated_per_address): authenticate, or close some; loopback is exempt, and the clients of "
            "a proxy are told apart if listen.trusted_proxies names it",
        )


def pool_of(peer: Peer) -> str:
    """The pool that a peer's connection belongs to."""
    return peer.listener if peer.listener in SIZES else NETWORK


def place_of_peer(peer: Peer, family: int) -> str:
    """Where a peer counts: its network, or its user on a unix socket."""
    return f"uid {peer.uid}" if family == socket.AF_UNIX else place_of(peer.address)


def _payer(member: Member) -> str:
    return f"account {member.account}" if member.account else f"place {member.place}"


def _leave(table: dict[str, set[Member]], name: str, member: Member) -> None:
    members = table.get(name)
    if members is not None:
        members.discard(member)
        if not members:
            del table[name]
