"""Service tokens: 256 random bits as 64 hex, kept as SHA-256, good from certain networks (contract S3-1, S3-20).

Server to server: who shows one under /v1/files acts for the user whom the request names (contract 7.3.5).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from edged.credentials.callers import Caller
from edged.credentials.identities import Identity
from edged.credentials.roles import SERVICE
from edged.credentials.rotation import Rotating

#: SHA-256 in hex of tokens that everybody has read → where they are printed. Never a token here, whoever brings it.
PUBLISHED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "eabeffaf7c2eb82c51c257027588c2e1740b3d251058806123f8757bd8583453": "the upload server guide's sample token",
    }
)
#: Of a user id that a service token acts for (contract S3-18).
_USER_ID: Final = re.compile(r"[A-Za-z0-9@._+-]{1,128}\Z")
#: IPv4 addresses as IPv6 writes them: what a socket that takes both says of an IPv4 peer.
_MAPPED: Final = ip_network("::ffff:0:0/96")

Network: TypeAlias = IPv4Network | IPv6Network
_parse = lru_cache(maxsize=1024)(ip_network)


class MintedToken(NamedTuple):
    """A new token: `token_id` is public, `secret` is shown once, `digest` is what is stored."""

    token_id: str
    secret: str
    digest: bytes


def mint_token_id() -> str:
    """`svc_` + 16 hex; never reused in practice (64 random bits)."""
    return f"svc_{secrets.token_hex(8)}"


def mint_secret() -> tuple[str, bytes]:
    """A new secret and its digest."""
    secret = secrets.token_hex(32)
    return secret, digest(secret)


def mint() -> MintedToken:
    """A new token with a new id."""
    return MintedToken(mint_token_id(), *mint_secret())


def digest(secret: str) -> bytes:
    """What the store and the ledger know a token by: SHA-256 of its UTF-8 text."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def published_as(token_digest: bytes) -> str | None:
    """Where the token of this digest is printed for everybody to read; None if it is not known to be."""
    return PUBLISHED.get(token_digest.hex())


class ServiceTokenRecord(Rotating, frozen=True, kw_only=True):
    """What is known of one service token; times are Unix seconds. The secret is nowhere.

    `networks` are where it may come from, as `read_networks` writes them; None: from everywhere. `made_by` and
    `revoked_at` as of an API key.
    """

    token_id: str
    name: str
    created_at: float
    networks: tuple[str, ...] | None = None
    made_by: frozenset[Identity] = frozenset()
    revoked_at: float | None = None

    @property
    def status(self) -> Literal["active", "revoked"]:
        """Of the token itself, wherever it is shown."""
        return "active" if self.revoked_at is None else "revoked"


def service_caller(record: ServiceTokenRecord, token_digest: bytes, expires: float | None) -> Caller:
    """The caller that one secret of a service token speaks for until `expires` (Unix seconds, None: no end)."""
    identity = Identity.of_service_token(record.token_id)
    return Caller(
        method="service_token",
        subject=str(identity),
        name=record.name,
        roles=frozenset({"service"}),
        capabilities=SERVICE,
        cameras=frozenset(),
        expires=expires,
        identities=frozenset({identity, Identity.of_service_secret(token_digest)}),
        credential_id=record.token_id,
        only_files=True,
    )


def is_user_id(text: str) -> bool:
    """Whether a service token may act for somebody of this name: no separators, no way up a folder (contract S3-18)."""
    return _USER_ID.match(text) is not None and ".." not in text


def read_networks(texts: Sequence[str]) -> tuple[str, ...]:
    """Networks as people write them (`192.0.2.0/24`, `2001:db8::/32`, a lone address) in one spelling each.

    Raises ValueError naming the first that is none, or that has bits of a host.
    """
    found = []
    for text in texts:
        try:
            network = ip_network(text)
        except ValueError:
            raise ValueError(text) from None
        found.append(str(_unmapped(network)))
    return tuple(dict.fromkeys(found))


def is_within(networks: Sequence[str], address: str) -> bool:
    """Whether an address lies in one of these; IPv4 as IPv6 writes it is IPv4, and no address lies nowhere."""
    try:
        where = ip_address(address)
    except ValueError:
        return False
    mapped = where.ipv4_mapped if isinstance(where, IPv6Address) else None
    seen: IPv4Address | IPv6Address = mapped or where
    # `in` is false between the two versions.
    return any(seen in _parse(network) for network in networks)


def _unmapped(network: Network) -> Network:
    """`::ffff:192.0.2.0/120` → `192.0.2.0/24`; everything else stays."""
    if not isinstance(network, IPv6Network) or not network.subnet_of(_MAPPED):  # type: ignore[arg-type]
        return network
    address = network.network_address.ipv4_mapped
    assert address is not None
    return IPv4Network((address, network.prefixlen - 96))
