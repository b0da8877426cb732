"""Who asks, with what, from where, about what: the values that every endpoint hands to the gate."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import ClassVar, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from edged.credentials import stream_names
from edged.credentials.identities import Identity
from edged.credentials.scopes import scopes_of
from edged.structs import Discreet

#: Where a question came in: label of metrics and log lines.
Transport: TypeAlias = Literal["ws", "http", "uds", "rtsp", "rtmp", "srt", "hls", "webrtc"]
TRANSPORTS: tuple[Transport, ...] = ("ws", "http", "uds", "rtsp", "rtmp", "srt", "hls", "webrtc")

#: How a caller proved who it is: label of metrics and log lines.
Method: TypeAlias = Literal[
    "api_key", "jwt_local", "jwt_federated", "service_token", "password", "claim_code", "ticket", "peercred",
    "internal", "none",
]  # fmt: skip
METHODS: tuple[Method, ...] = get_args(Method)


class NoCredential(msgspec.Struct, frozen=True):
    """Nothing was presented."""


class ApiKey(Discreet, msgspec.Struct, frozen=True):
    """Text presented as an API key."""

    hidden: ClassVar = frozenset({"secret"})

    secret: str


class Token(Discreet, msgspec.Struct, frozen=True):
    """Text presented as a JWT (compact JWS)."""

    hidden: ClassVar = frozenset({"text"})

    text: str


class Ticket(Discreet, msgspec.Struct, frozen=True):
    """Text presented as a stream ticket, at one of the two endpoints that take them (contract 10.6, 10.24)."""

    hidden: ClassVar = frozenset({"text"})

    text: str


class Link(Discreet, msgspec.Struct, frozen=True):
    """What the query of a signed link says, and the target that it was sent to (credentials.links)."""

    hidden: ClassVar = frozenset({"signature"})

    target: str
    expires: str
    maker: str
    signature: str


class ServiceToken(Discreet, msgspec.Struct, frozen=True):
    """Text presented as a service token under /v1/files, and the address that it came from ("": none)."""

    hidden: ClassVar = frozenset({"secret"})

    secret: str
    address: str


class LocalUser(msgspec.Struct, frozen=True):
    """A peer whose user id the kernel states: the unix socket, or root on loopback (contract 5.1, 10.2)."""

    uid: int


#: What a client may say that its credential is (contract S1-25).
CREDENTIAL_KINDS: tuple[str, ...] = ("jwt", "api_key", "auto")

Credential: TypeAlias = NoCredential | ApiKey | Token | Ticket | Link | ServiceToken | LocalUser

API_KEY_PREFIX = "camera_service_sk_"


def parse_credential(text: str, kind: str = "auto") -> Credential:
    """Text that a client presented → a credential. `kind`: jwt, api_key or auto (contract S1-25).

    With `auto` the prefix decides first, then the two dots of a compact JWS; anything else is looked up as a key.
    """
    if not text:
        return NoCredential()
    if kind == "api_key":
        return ApiKey(text)
    if kind == "jwt":
        return Token(text)
    return Token(text) if text.count(".") == 2 and not text.startswith(API_KEY_PREFIX) else ApiKey(text)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    `listener` is main, compat, local or unix; `address` an IP address or ""; `uid` what the kernel says
    of a unix peer; `find_uid` looks a loopback TCP peer's uid up right now, None if it cannot be known;
    `host` is the address that the peer reached us at, for URLs that we hand out; `reached` our own address and port of
    its connection, by the kernel, as a URL spells them ("" on the unix socket); `proxy` the address of the trusted
    proxy that says that its client is at `address`, "" for everybody else; `is_http10` that it speaks HTTP/1.0, as
    simple relays do.
    """

    listener: str
    address: str = ""
    port: int = 0
    uid: int | None = None
    host: str = "localhost"
    reached: str = ""
    proxy: str = ""
    is_http10: bool = False
    find_uid: Callable[[], int | None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def is_local_socket(self) -> bool:
        """True on the unix socket, where the file mode has decided already."""
        return self.listener == "unix"


class Streams(msgspec.Struct, frozen=True):
    """Stream rights that a token or key names itself: MediaMTX path names, `cam*` for those that begin so, `*` for all
    (contract 7.5, C-32)."""

    read: frozenset[str] = frozenset()
    publish: frozenset[str] = frozenset()

    def of(self, capability: str) -> frozenset[str]:
        """The names for stream:read, or those for stream:publish."""
        return self.read if capability == "stream:read" else self.publish


class Signer(NamedTuple):
    """What signed a token: an algorithm, and the name of a shared secret or the kid of a key pair."""

    algorithm: str
    name: str


@dataclass(frozen=True)
class TokenFacts:
    """What is known of a caller only because a token made it.

    `issuer` gave it its jti and subject: "" is edged with its shared secrets, else an outside issuer's `iss`. `epoch`
    is the counter of cut-offs at which a token was made that edged issued itself; None for all others. `signed_by` is
    what signed a token that edged can sign the like of, None for all others. `issued_by` are whose rights the issuing
    of a token rested on, and the tokens that were shown for it: it is good while they are (credentials.claims).
    `shared` are the identities that other issuers' tokens may have, too; `subject` as in Caller.
    """

    claims: dict[str, object] = field(compare=False)
    subject: str = ""
    issuer: str = ""
    epoch: int | None = None
    signed_by: Signer | None = None
    issued_by: frozenset[Identity] = frozenset()
    shared: frozenset[Identity] = frozenset()

    @cached_property
    def scopes(self) -> tuple[Identity, ...]:
        """What it is within, found once, and only if something is revoked by that."""
        return scopes_of(self.subject, self.issuer, self.claims, self.issued_by)


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone whose credential was good when it was looked at.

    `capabilities` holds whole grants (`camera:read`), `grants` those for one thing (`camera:read:camera0`);
    `cameras` None means every camera, an empty set none; `expires` is Unix seconds or None;
    `identities` are those by which a revocation may hit this caller and nobody else's credential
    (credentials.identities). `token` is what a token says besides; None for whoever came by something else, the
    parent's for a ticket. `parent` is whoever asked for the ticket that this caller came with: neither may do more than
    the other.
    `only_files`: good under /v1/files and nowhere else. `acts_for` is whose files a service token asks about just now.
    """

    method: Method
    subject: str
    roles: frozenset[str]
    capabilities: frozenset[str]
    grants: frozenset[str] = frozenset()
    cameras: frozenset[str] | None = None
    streams: Streams | None = None
    expires: float | None = None
    identities: frozenset[Identity] = frozenset()
    credential_id: str = ""
    name: str = ""
    permissions: tuple[str, ...] = ()
    token: TokenFacts | None = None
    only_files: bool = False
    acts_for: str = ""
    parent: Caller | None = field(default=None, compare=False, repr=False)

    @property
    def claims(self) -> dict[str, object]:
        """What the token says; nothing if there is none."""
        return {} if self.token is None else self.token.claims

    @property
    def issuer(self) -> str:
        """`TokenFacts.issuer`."""
        return "" if self.token is None else self.token.issuer

    @property
    def epoch(self) -> int | None:
        """`TokenFacts.epoch`."""
        return None if self.token is None else self.token.epoch

    @property
    def issued_by(self) -> frozenset[Identity]:
        """`TokenFacts.issued_by`."""
        return frozenset() if self.token is None else self.token.issued_by

    @property
    def role(self) -> str:
        """The strongest known role, or "none"."""
        return _strongest(self.roles)

    @property
    def account(self) -> str:
        """Whose connections are counted together: a key's or a service token's, those of one subject's tokens; "" for
        nobody's, on this very machine."""
        if self.parent is not None:
            return self.parent.account
        if self.method == "peercred":
            return ""
        if self.method in ("api_key", "service_token"):
            return f"{self.method}:{self.credential_id}"
        return f"{self.method}:{self.issuer or self.claims.get('iss', '')}:{self.subject}"

    @property
    def revocation_ids(self) -> frozenset[Identity]:
        """Every identity whose revocation ends this caller: its own, shared ones, and those that it was issued by."""
        token = self.token
        return self.identities if token is None else self.identities | token.shared | token.issued_by

    def is_named_in(self, names: AbstractSet[Identity]) -> bool:
        """Whether one of `revocation_ids` is among these; cheaper than to gather them."""
        if not names:
            return False
        if not self.identities.isdisjoint(names):
            return True
        token = self.token
        if token is None:
            return False
        return not token.shared.isdisjoint(names) or (bool(token.issued_by) and not token.issued_by.isdisjoint(names))

    @property
    def who(self) -> str:
        """For records of what was done: the subject, or `service:<id> for <user_id>` (contract 7.3.5)."""
        return f"{self.subject} for {self.acts_for}" if self.acts_for else self.subject

    @property
    def names_paths(self) -> bool:
        """Whether its rights are an outside token's, whose issuer knows cameras by their paths of now. Whatever edged
        stores or signs names cameras by id, since the path was resolved when the right was given (contract 10.23)."""
        return self.method in ("jwt_local", "jwt_federated") and self.epoch is None

    def covers(self, other: Caller) -> bool:
        """Whether `other` may do nothing that this one may not: so much may be handed on."""
        whole = other.capabilities <= self.capabilities
        single = all(grant in self.grants or grant.rpartition(":")[0] in self.capabilities for grant in other.grants)
        cameras = self.cameras is None or (other.cameras is not None and other.cameras <= self.cameras)
        return whole and single and cameras and self._covers_streams(other)

    def _covers_streams(self, other: Caller) -> bool:
        if other.streams is None:
            # Whoever is held to certain streams holds others to the same at least.
            return self.streams is None
        return all(self._reaches("stream:read", path) for path in other.streams.read) and all(
            self._reaches("stream:publish", path) for path in other.streams.publish
        )

    def _reaches(self, capability: str, path: str) -> bool:
        """Whether a stream, or all that begin so, or all (`cam*`, `*`), are within these rights (contract 7.5)."""
        if self.streams is not None:
            return stream_names.covers(self.streams.of(capability), path)
        if stream_names.beginning_of(path):
            return self.cameras is None and capability in self.capabilities
        if self.cameras is not None and path not in self.cameras:
            return False
        return capability in self.capabilities or f"{capability}:{path}" in self.grants

    def sees(self, names: frozenset[str]) -> bool:
        """Whether a camera that answers to any of `names` is within `cameras`."""
        return self.cameras is None or not self.cameras.isdisjoint(names)


@lru_cache(maxsize=64)
def _strongest(roles: frozenset[str]) -> str:
    return next((role for role in ("admin", "operator", "viewer", "monitor") if role in roles), "none")


class Resource(msgspec.Struct, frozen=True):
    """What a question is about: a camera by the names of stored rights (`camera0`, `/dev/video0`), or a bare stream
    path. `path` is the camera's MediaMTX path where that is another name, "" else: only tokens from outside name it."""

    camera: str = ""
    names: frozenset[str] = frozenset()
    path: str = ""

    def names_for(self, caller: Caller) -> frozenset[str]:
        """The names by which this caller's rights may reach it."""
        return self.names | {self.path} if self.path and caller.names_paths else self.names

    @classmethod
    def of_camera(cls, name: str, *aliases: str | None) -> Resource:
        return cls(name, frozenset({name, *(alias for alias in aliases if alias)}))


NOTHING = Resource()
