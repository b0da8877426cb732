"""How many connections there may be: pools that cannot fill each other, and limits within them (contract 10.13).

The network has one pool; the unix socket, listen.local and listen.tokens have one each. When the network's is full, a
key can still be revoked on the unix socket, and Prometheus still gets its numbers. Within the network's pool,
connections are counted by place (an IPv4 address, an IPv6 /64) until they have authenticated, then by credential; on
the unix socket by user.
"""

from __future__ import annotations

import socket
from types import MappingProxyType
from typing import Final

import msgspec

from edged.config.model import LimitSettings
from edged.credentials.callers import Peer
from edged.credentials.places import place_of
from edged.net.shares import Share, Turns
from edged.urls import is_loopback
from edged.wire.ports import TextSession

NETWORK: Final = "network"
#: The sizes of the pools beside the network's.
SIZES: Final = MappingProxyType({"unix": 64, "local": 32, "tokens": 32})
#: Of the unix socket's, those of one user: the others stay free for root, whatever another administrator does.
_PER_USER: Final = 48
#: How many connections of one credential that were one too many are kept until their clients close.
_TURNED_AWAY: Final = 8
#: How many of the longest messages may be in memory for one credential.
_LONGEST_MESSAGES: Final = 4


class Member:
    """A connection as Pools counts it.

    `place` is where its client is; on a trusted proxy's connection, where the client of the last request was.
    `account` is the credential that it is counted with, "" before authentication. `share` is what its time is charged
    to. `held`: bytes in memory for it, of a message or body that is not whole and of answers that it does not read.
    `session` is that of its WebSocket, None without one; `is_identified`: a request showed a good credential.
    `turned_away`: the credential that had too many connections when this one showed it, "" if none had;
    `is_hurried`: so many of them are being closed that its client's own close is not waited for.
    """

    __slots__ = ("account", "held", "is_hurried", "is_identified", "peer", "place", "session", "share",
                 "turned_away")  # fmt: skip

    share: Share

    def __init__(self, peer: Peer, place: str) -> None:
        self.peer = peer
        self.place = place
        self.account = ""
        self.held = 0
        self.session: TextSession | None = None
        self.is_identified = False
        self.turned_away = ""
        self.is_hurried = False

    @property
    def is_authenticated(self) -> bool:
        """Whether its client has a good credential: then it does not count against its place."""
        return self.is_identified if self.session is None else self.session.authenticated


class Full(msgspec.Struct, frozen=True):
    """Why a connection is refused: an HTTP status, and a sentence for the client."""

    status: int
    detail: str


class Pools:
    """All connections, by pool, place and credential."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        #: To be added to the event loop's instruments while connections are served.
        self.turns = Turns()
        self._shares: dict[str, Share] = {}
        self._pools: dict[str, set[Member]] = {}
        self._places: dict[str, set[Member]] = {}
        self._accounts: dict[str, set[Member]] = {}
        self._held: dict[str, int] = {}
        self._turned_away: dict[str, set[Member]] = {}

    def find_full(self, peer: Peer, place: str) -> Full | None:
        """Why a new connection of this peer is refused; None if it is not."""
        pool = pool_of(peer)
        most = SIZES.get(pool, self._limits.connections)
        if len(self._pools.get(pool, ())) >= most:
            return Full(503, f"{most} connections are open, as many as there are places: try again later")
        if pool == "unix":
            if len(self._places.get(place, ())) >= _PER_USER:
                return Full(429, f"user {peer.uid} has {_PER_USER} connections here: close some")
            return None
        return self._find_crowd(peer.address, place)

    def add(self, member: Member) -> None:
        """Count it from here on; `find_full` was asked before."""
        self._pools.setdefault(pool_of(member.peer), set()).add(member)
        self._places.setdefault(member.place, set()).add(member)
        self._give_share(member)

    def remove(self, member: Member) -> None:
        """Its connection has ended."""
        _leave(self._pools, pool_of(member.peer), member)
        _leave(self._places, member.place, member)
        _leave(self._accounts, member.account, member)
        self._take_share(member)
        self.hold(member, 0)
        _leave(self._turned_away, member.turned_away, member)

    def hold(self, member: Member, size: int) -> bool:
        """`size` bytes are in memory for it from here on; False, and nothing changed, if its credential has too many.

        Before authentication limits.message_bytes_unauthenticated holds for each connection, elsewhere; connections
        that count for no credential are not limited here.
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
        """Its client is at `address` from here on, as a trusted proxy says; why it is refused, if that place has too
        many connections."""
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
        """Count it with the credential `account`; False if that has too many connections.

        "" counts for none: users of the unix socket, and root without a credential.
        """
        if account == member.account:
            return True
        if account and len(self._accounts.get(account, ())) >= self._limits.connections_per_credential:
            if not member.turned_away:
                member.turned_away = account
                waiting = self._turned_away.setdefault(account, set())
                member.is_hurried = len(waiting) >= _TURNED_AWAY
                waiting.add(member)
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
        """The share of its credential; before authentication, that of its place."""
        member.share = self._shares.setdefault(_payer(member), Share(self.turns))
        member.share.members += 1

    def _take_share(self, member: Member) -> None:
        member.share.members -= 1
        if not member.share.members:
            del self._shares[_payer(member)]

    def _find_crowd(self, address: str, place: str) -> Full | None:
        most = self._limits.unauthenticated_per_address
        mates = self._places.get(place, ())
        # Counted only where it matters: that looks at every connection of the place.
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
    """What a peer is counted by before authentication: its network, or its user on a unix socket."""
    return f"uid {peer.uid}" if family == socket.AF_UNIX else place_of(peer.address)


def _payer(member: Member) -> str:
    return f"account {member.account}" if member.account else f"place {member.place}"


def _leave(table: dict[str, set[Member]], name: str, member: Member) -> None:
    members = table.get(name)
    if members is not None:
        members.discard(member)
        if not members:
            del table[name]
