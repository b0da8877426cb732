"""Finders: from what somebody shows to a caller, or to the reason why it is nobody's. One class for each kind of
credential; none asks whether the caller is revoked, and none waits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import ClassVar, Final, NamedTuple, Protocol

import structlog

from edged.access.ledger import Ledger
from edged.access.links import Links
from edged.access.tickets import Tickets
from edged.access.token_uses import TokenUses
from edged.clock import Clock
from edged.credentials import service_tokens
from edged.credentials.api_keys import digest, published_as
from edged.credentials.callers import (
    ApiKey,
    Caller,
    Link,
    LocalUser,
    Method,
    NoCredential,
    ServiceToken,
    Ticket,
    Token,
    Transport,
)
from edged.credentials.decision import Reason
from edged.credentials.issuers import OutsideIssuer
from edged.credentials.roles import ROLES
from edged.credentials.token_warnings import KINDS, counted_of
from edged.credentials.tokens import FindKey, SharedSecret, TokenRefused, longest_over, verify

#: Tokens whose signature is not checked again while they are shown.
_REMEMBERED: Final = 1024
_log = structlog.get_logger("gate")


class Refusal(NamedTuple):
    """Why a credential is refused; `caller` if it is somebody's all the same."""

    reason: Reason
    method: Method
    detail: str = ""
    caller: Caller | None = None


class Found(NamedTuple):
    """Whose a credential is, and under what its use is counted: an id, or the SHA-256 of a token."""

    caller: Caller
    used: str | bytes = ""


class Outside(Protocol):
    """Who else is trusted; signing.issuers in the daemon. Never waits, never fetches."""

    #: Rises when a key is not trusted any more.
    version: int

    def find(self, issuer: str, /) -> OutsideIssuer | None: ...


class KeyFinder:
    """API keys, by their digest."""

    can_be_guessed: ClassVar = True

    def __init__(self, ledger: Ledger, tally: Callable[[str], None]) -> None:
        """`tally(key_id)` is told of each use."""
        self._ledger = ledger
        self.note_use = tally

    def find(self, credential: ApiKey, _transport: Transport) -> Found | Refusal:
        caller = self._ledger.find_key(shown := digest(credential.secret))
        if caller is None:
            return Refusal(Reason.UNKNOWN_KEY, "api_key", published_as(shown) or "")
        return Found(caller, caller.credential_id)

    def text_of(self, credential: ApiKey) -> str:
        return credential.secret


class ServiceTokenFinder:
    """Service tokens, by their digest, from the networks that they may come from."""

    can_be_guessed: ClassVar = True

    def __init__(self, ledger: Ledger, tally: Callable[[str], None]) -> None:
        """`tally(token_id)` is told of each use."""
        self._ledger = ledger
        self.note_use = tally

    def find(self, credential: ServiceToken, _transport: Transport) -> Found | Refusal:
        caller = self._ledger.find_service_token(shown := service_tokens.digest(credential.secret))
        if caller is None:
            return Refusal(Reason.UNKNOWN_KEY, "service_token", service_tokens.published_as(shown) or "")
        record = self._ledger.service_tokens.get(caller.credential_id)
        networks = None if record is None else record.networks
        if networks is not None and not service_tokens.is_within(networks, credential.address):
            return Refusal(Reason.ADDRESS_DENIED, "service_token", caller=caller)
        return Found(caller, caller.credential_id)

    def text_of(self, credential: ServiceToken) -> str:
        return credential.secret


class TokenFinder:
    """Tokens, by whoever signed them. Signature checks are expensive, and players ask twice with one token: what
    verified once need not be verified again. Time and revocation are judged every time, by the gate."""

    can_be_guessed: ClassVar = True

    def __init__(
        self,
        clock: Clock,
        uses: TokenUses,
        warned: Callable[[str], None],
        *,
        shared_secrets: Sequence[SharedSecret],
        find_key: FindKey,
        issuers: Outside,
        own: str,
        leeway: float,
    ) -> None:
        """As Gate."""
        self._clock = clock
        self.note_use = uses.count
        self._warned = warned
        self._secrets = tuple(shared_secrets)
        self._find_key = find_key
        self._issuers = issuers
        self._issuers_seen = issuers.version
        self._own = own
        self._leeway = leeway
        self._verified: OrderedDict[bytes, Caller] = OrderedDict()
        self._latest = 0.0

    def find(self, credential: Token, transport: Transport) -> Found | Refusal:
        text = credential.text
        key = sha256(text.encode("utf-8", "surrogatepass")).digest()
        if self._issuers.version != self._issuers_seen:
            self._verified.clear()
            self._issuers_seen = self._issuers.version
        now = self._clock.now()
        if now < self._latest - 1.0:
            # It was set back: what was valid then may be not yet valid now.
            self._verified.clear()
        self._latest = now
        caller, longest = self._verified.get(key), longest_over(transport)
        # One that is remembered from where it may be longer is looked at again, so that it is refused for that.
        if caller is not None and len(text) <= longest:
            return Found(caller, key)
        try:
            caller = self.read(text, now=now, longest=longest)
        except TokenRefused as problem:
            return Refusal(problem.reason, problem.method, problem.detail)
        # Nothing is told here of a claim that a token lacks: the guides' own tokens say `user_id` and no `sub`.
        if odd := counted_of(caller.claims, now):
            for warning in odd:
                self._warned(KINDS[warning])
            _log.info("token_warned", problem="; ".join(odd), credential=caller.credential_id, transport=transport)
        self._verified[key] = caller
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return Found(caller, key)

    def read(self, text: str, past: float = 0.0, *, longest: int, now: float | None = None) -> Caller:
        """credentials.tokens.verify with what is trusted here. Raises TokenRefused."""
        return verify(
            text, self._secrets, now=self._clock.now() if now is None else now, leeway=self._leeway,
            find_key=self._find_key, find_issuer=self._issuers.find, own=self._own, past=past,
            longest=longest,
        )  # fmt: skip

    def text_of(self, credential: Token) -> str:
        return credential.text


class TicketFinder:
    """Stream tickets, which end with every restart and of which a page of pictures holds many: never a guess."""

    can_be_guessed: ClassVar = False

    def __init__(self, tickets: Tickets, ledger: Ledger) -> None:
        self._tickets = tickets
        self._ledger = ledger

    def find(self, credential: Ticket, _transport: Transport) -> Found | Refusal:
        ticket = self._tickets.find(credential.text)
        if ticket is None:
            return Refusal(Reason.UNKNOWN_KEY, "ticket")
        if self._tickets.has_ended(ticket):
            return Refusal(Reason.EXPIRED, "ticket", caller=ticket.caller)
        return Found(self._ledger.current(ticket.caller))

    def note_use(self, _used: str) -> None:
        """A ticket is used by players, many times."""

    def text_of(self, credential: Ticket) -> str:
        return credential.text


class LinkFinder:
    """Signed links, counted as tickets; their signature is too long to be guessed."""

    can_be_guessed: ClassVar = False

    def __init__(self, links: Links, ledger: Ledger) -> None:
        self._links = links
        self._ledger = ledger

    def find(self, credential: Link, _transport: Transport) -> Found | Refusal:
        link = self._links.find(credential)
        if link is None:
            return Refusal(Reason.UNKNOWN_KEY, "ticket")
        if self._links.has_ended(link):
            return Refusal(Reason.EXPIRED, "ticket", caller=link.caller)
        return Found(self._ledger.current(link.caller))

    def note_use(self, _used: str) -> None:
        """A link is used by players, many times."""

    def text_of(self, credential: Link) -> str:
        return credential.signature


class LocalUserFinder:
    """Whoever the kernel names."""

    can_be_guessed: ClassVar = False

    def find(self, credential: LocalUser, _transport: Transport) -> Found | Refusal:
        return Found(local_caller(credential.uid))

    def note_use(self, _used: str) -> None:
        """Nothing is listed by its use."""

    def text_of(self, _credential: LocalUser) -> str:
        return ""


class NoFinder:
    """Whoever shows nothing."""

    can_be_guessed: ClassVar = False

    def find(self, _credential: NoCredential, _transport: Transport) -> Found | Refusal:
        return Refusal(Reason.MISSING, "none")

    def note_use(self, _used: str) -> None:
        """Nothing was used."""

    def text_of(self, _credential: NoCredential) -> str:
        return ""


def local_caller(uid: int) -> Caller:
    """Whoever may open the unix socket is an administrator (contract 10.2)."""
    return Caller(
        method="peercred",
        subject=f"local:{uid}",
        name=f"local:{uid}",
        roles=frozenset({"admin"}),
        capabilities=ROLES["admin"],
        credential_id=f"local:{uid}",
    )
