"""The one place that says yes or no, says why, and counts it. It reads memory only and never awaits.

`authenticate` turns what an endpoint was shown into a caller, `authorize` asks whether that caller may do one thing
now, `admit` notes someone who stays. Deciding and noting happen without a checkpoint in between, so a revocation is
either before both or after both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from edged.access.admissions import Admission, Admissions, Cause, OnTerminate
from edged.access.asking import RefusalLog
from edged.access.finders import (
    Found,
    KeyFinder,
    LinkFinder,
    LocalUserFinder,
    NoFinder,
    Outside,
    Refusal,
    ServiceTokenFinder,
    TicketFinder,
    TokenFinder,
)
from edged.access.ledger import Ledger
from edged.access.limiter import GUESSED, Limiter
from edged.access.links import Links
from edged.access.tickets import Tickets
from edged.access.token_uses import TokenUses
from edged.clock import Clock
from edged.credentials.callers import (
    NOTHING,
    ApiKey,
    Caller,
    Credential,
    Link,
    LocalUser,
    Method,
    NoCredential,
    Peer,
    Resource,
    ServiceToken,
    Ticket,
    Token,
    Transport,
)  # fmt: skip
from edged.credentials.decision import Decision, Reason
from edged.credentials.identities import Identity
from edged.credentials.roles import role_capabilities
from edged.credentials.tickets import renewed
from edged.credentials.tokens import LONGEST_OVER_HTTP, FindKey, SharedSecret, TokenRefused, longest_over
from edged.errors import Denied, Refused
from edged.urls import is_loopback

if TYPE_CHECKING:
    from edged.metrics import Metrics

#: Where somebody talks with edged itself, and nothing flows.
_CONVERSATIONS = ("ws", "uds")
_INTERNAL = Caller(method="internal", subject="edged", roles=frozenset(), capabilities=frozenset())


def _stay(_cause: Cause, _by: str) -> None:
    """A child of edged leaves when edged ends it, never by a revocation."""


class Gate:
    """Says yes or no for every endpoint."""

    def __init__(
        self,
        ledger: Ledger,
        admissions: Admissions,
        limiter: Limiter,
        clock: Clock,
        counts: Metrics,
        *,
        shared_secrets: Sequence[SharedSecret],
        find_key: FindKey,
        issuers: Outside,
        own: str,
        leeway: float = 60.0,
        tally: Callable[[str], None] = lambda _key_id: None,
        warned: Callable[[str], None] = lambda _kind: None,
    ) -> None:
        """`find_key(kid)` gives the key pairs that edged signs with (signing.keyring), `issuers` whom else it trusts
        (signing.issuers), `own` is the `iss` of its own tokens, `tally(key_id)` is told of each use of an API key or a
        service token (access.usage), `warned(kind)` of each warning about a good token (credentials.token_warnings)."""
        self._ledger = ledger
        self.admissions = admissions
        self.limiter = limiter
        self.tickets = Tickets(clock.monotonic)
        self.links = Links(clock.now)
        self._clock = clock
        self._counts = counts
        self._issuers = issuers
        self.token_uses = TokenUses()
        self.refusals = RefusalLog(clock.monotonic)
        self._tokens = TokenFinder(
            clock, self.token_uses, warned,
            shared_secrets=shared_secrets, find_key=find_key, issuers=issuers, own=own, leeway=leeway,
        )  # fmt: skip
        # By the class of what is shown; each finder takes its own.
        self._finders: dict[type[Credential], Any] = {
            ApiKey: KeyFinder(ledger, tally),
            Token: self._tokens,
            Ticket: TicketFinder(self.tickets, ledger),
            Link: LinkFinder(self.links, ledger),
            ServiceToken: ServiceTokenFinder(ledger, tally),
            LocalUser: LocalUserFinder(),
            NoCredential: NoFinder(),
        }

    def authenticate(
        self, credential: Credential, peer: Peer, transport: Transport, *, at_files: bool = False
    ) -> Caller:
        """Who is this, at an endpoint where a stranger may try keys and tokens? Counted either way.

        Raises Refused with the exact reason; RateLimited while the peer's address has shown too many wrong ones. A good
        one gets through whatever its neighbours try: nobody guesses 256 bits, and whoever shares an address with
        somebody who tries shall not suffer for it. Not limited are the unix socket and this very machine: its clients
        are ours, or a proxy's many. `at_files`: the endpoint is under /v1/files, where alone files tokens and service
        tokens are good.
        """
        finder = self._finders[type(credential)]
        found = finder.find(credential, transport)
        reason = self._standing(found.caller) if type(found) is Found else found.reason
        if reason is None:
            return self._enter(finder, found, transport, at_files)
        found = self._explain(found, reason)
        address = peer.address
        is_limited = bool(address) and finder.can_be_guessed and not is_loopback(address)
        if is_limited and found.reason is not Reason.ADDRESS_DENIED:
            self.limiter.check(address)
        if is_limited and found.reason in GUESSED:
            self.limiter.failed(address, None, finder.text_of(credential))
        raise self._refused(found.reason, found.method, transport, found.caller, detail=found.detail)

    def authenticate_viewer(self, credential: Credential, transport: Transport) -> Caller:
        """Who is this, whom MediaMTX asks about? As `authenticate`, without the limiter: MediaMTX slows down whoever
        shows wrong ones, and tells the address of a proxy as the viewer's."""
        finder = self._finders[type(credential)]
        found = finder.find(credential, transport)
        reason = self._standing(found.caller) if type(found) is Found else found.reason
        if reason is None:
            return self._enter(finder, found, transport, at_files=False)
        found = self._explain(found, reason)
        raise self._refused(found.reason, found.method, transport, found.caller, detail=found.detail)

    def _explain(self, found: Found | Refusal, reason: Reason) -> Refusal:
        """Why whoever was found is refused."""
        if isinstance(found, Found):
            return Refusal(reason, found.caller.method, caller=found.caller)
        # What is revoked stays so wherever it is shown from (contract 7.6).
        if reason is Reason.ADDRESS_DENIED and found.caller is not None:
            return found._replace(reason=self._standing(found.caller) or reason)
        return found

    def _enter(self, finder: Any, found: Found, transport: Transport, at_files: bool) -> Caller:
        """Whoever shows a good credential is let in, and the use of it counted."""
        caller = found.caller
        if caller.only_files and not at_files:
            raise self._refused(Reason.ROLE_DENIED, caller.method, transport, caller, detail="Invalid role")
        self._counts.credential_used(caller.method, transport, caller.role)
        finder.note_use(found.used)
        return caller

    def refuse(self, reason: Reason, method: Method, transport: Transport, detail: str = "") -> Refused:
        """The refusal of somebody whose proof was looked at elsewhere, as a password is; logged and counted here."""
        return self._refused(reason, method, transport, detail=detail)

    def note_entry(self, method: Method, transport: Transport, role: str) -> None:
        """Count a proof that was looked at elsewhere, and was good."""
        self._counts.credential_used(method, transport, role)

    def authorize(
        self,
        caller: Caller | None,
        capability: str,
        transport: Transport,
        resource: Resource = NOTHING,
        *,
        is_fresh: bool = False,
    ) -> None:
        """May they do this to that, now? Raises Refused with the exact reason, and counts it. `is_fresh`: it was
        authenticated without a checkpoint since."""
        if caller is not None:
            caller = self._ledger.current(caller)
        allowed, reason = (
            self._ledger.decide(caller, capability, resource, now=self._clock.now())
            if is_fresh
            else self.judge(caller, capability, resource)
        )
        if not allowed:
            assert reason is not None
            raise self._refused(reason, caller.method if caller else "none", transport, caller, capability)

    def judge(self, caller: Caller | None, capability: str, resource: Resource = NOTHING) -> Decision:
        """The same question, without counting: for rows of a list and for receivers of a notification."""
        if caller is not None:
            caller = self._ledger.current(caller)
            reason = self._standing(caller)
            if reason is not None:
                return Decision(False, reason)
        return self._ledger.decide(caller, capability, resource, now=self._clock.now())

    def current(self, caller: Caller) -> Caller:
        """The caller as its credential makes it now: whoever holds on to one asks before each use."""
        return self._ledger.current(caller)

    def admit(
        self,
        caller: Caller,
        transport: Transport,
        on_terminate: OnTerminate,
        *,
        path: str = "",
        session: str = "",
        name: str = "",
        capability: str = "",
        resource: Resource = NOTHING,
        before: Admission | None = None,
        is_fresh: bool = False,
    ) -> Admission:
        """Note someone who stays until they leave, their credential ends, or it is revoked.

        `name` is the public id of a session that has one. Whoever is let in for one `capability` on one `resource`
        leaves when the credential loses that. `before`: they are inside already, and now by this credential instead.
        Raises Refused if it has ended since it was looked at: an endpoint may have waited in between, and a
        revocation that is over puts nobody out any more. `is_fresh`: it was authenticated without a checkpoint since.
        """
        caller = self._ledger.current(caller)
        reason = None if is_fresh else self._standing(caller)
        if reason is not None:
            raise self._refused(reason, caller.method, transport, caller)
        left = self.seconds_left(caller)
        if before is not None:
            return self.admissions.move(before, caller, left, is_entry=True)
        return self.admissions.add(
            caller, transport, on_terminate, seconds_left=left, path=path, session=session, name=name,
            capability=capability, resource=resource,
        )  # fmt: skip

    def seconds_left(self, caller: Caller) -> float | None:
        """How long this caller's credential is good from now on; None for one without an end."""
        end = self._ledger.end_of(caller)
        return None if end is None else max(0.0, end - self._clock.now())

    def renew_tickets(self, caller: Caller, session_id: str) -> None:
        """A session shows a newer credential: its tickets, and whoever is inside by one, stay as long as that one is
        good (contract 10.5), if it is the same subject's and may do all that the one before may."""
        name = Identity.of_tickets(session_id)
        if self.tickets:
            self.tickets.renew(caller, name)
        for each in self.admissions.of(name):
            heir = renewed(each.caller, caller)
            self.admissions.move(each, heir, self.seconds_left(heir))

    def renew_streams(self, caller: Caller) -> None:
        """A session shows a newer credential: streams and pictures by a token of the same family, or by the same API
        key, stay as long as that one is good, if that is longer; no other conversation does (contract 10.5)."""
        method = caller.method
        streams = [
            each
            for each in self._kin_of(caller)
            if each.transport not in _CONVERSATIONS and each.caller.method == method
        ]
        if not streams:
            return
        left, now = self.seconds_left(caller), self._clock.monotonic()
        ends = math.inf if left is None else now + left
        for each in streams:
            if each.deadline is not None and each.deadline < ends:
                self.admissions.move(each, caller, left)

    def _kin_of(self, caller: Caller) -> Iterable[Admission]:
        """Who is inside by a token that came of the same one by refreshing, or by whatever a key of that id opened."""
        if caller.method == "api_key":
            return self.admissions.of(Identity.of_key(caller.credential_id))
        families_of = self._ledger.denials.families_of_caller
        families = families_of(caller) if caller.method == "jwt_local" else None
        if not families:
            return ()
        tokens = (each for each in self.admissions if each.caller.method == "jwt_local")
        return [each for each in tokens if not families.isdisjoint(families_of(each.caller))]

    def admit_internal(self, transport: Transport, path: str, session: str) -> None:
        """Note a MediaMTX session of edged's own children, so that no sweep takes it for a stranger's."""
        self.admissions.add(_INTERNAL, transport, _stay, seconds_left=None, path=path, session=session)

    def verify_token(self, text: str) -> Caller:
        """A token's caller without counting a use: for `validate_token` and the like. Raises TokenRefused.

        It may be as long as it may be anywhere: who asks about a token does not show it as theirs.
        """
        caller = self._tokens.read(text, longest=LONGEST_OVER_HTTP)
        reason = self._standing(caller)
        if reason is not None:
            raise TokenRefused(reason, "exp is past" if reason is Reason.EXPIRED else str(reason), caller.method)
        return caller

    def find_issuer(self, issuer: str) -> str | None:
        """By what the subjects and jtis of this outside issuer's tokens are told from others' (Caller.issuer); None if
        none is trusted by this `iss`."""
        found = self._issuers.find(issuer)
        return None if found is None else found.record.identity

    def is_good(self, credential: Credential, transport: Transport) -> bool:
        """Whether this is somebody's, and good now where it is shown; neither counted nor limited."""
        found = self._finders[type(credential)].find(credential, transport)
        return isinstance(found, Found) and self._standing(found.caller) is None

    def read_token(self, text: str) -> Caller:
        """The caller of a token that somebody whom edged trusts has signed, revoked or ended as it may be. Raises
        TokenRefused."""
        return self._tokens.read(text, math.inf, longest=LONGEST_OVER_HTTP)

    def enter_refresh(self, shown: str | Caller, transport: Transport, past: float) -> Caller:
        """Who shows a token, its text or the caller that it made, to have it refreshed: it must be good, but may have
        ended up to `past` seconds ago. Raises Refused as `authenticate`, and counts that; no use is counted."""
        if isinstance(shown, str):
            try:
                shown = self._tokens.read(shown, past, longest=longest_over(transport))
            except TokenRefused as problem:
                raise self._refused(problem.reason, problem.method, transport, detail=problem.detail) from None
        if (reason := self._standing(shown, past)) is not None:
            raise self._refused(reason, shown.method, transport, shown)
        if shown.only_files:
            # A service made it for a while; for longer it makes another.
            raise self._refused(Reason.ROLE_DENIED, shown.method, transport, shown, detail="Invalid role")
        return shown

    def _standing(self, caller: Caller, past: float = 0.0) -> Reason | None:
        """Revoked comes before suspended, that before expired (contract 7.6); it may have ended `past` seconds ago."""
        ledger = self._ledger
        if ledger.is_denied(caller):
            return Reason.REVOKED
        if ledger.is_suspended(caller):
            return Reason.SUSPENDED
        if caller.expires is None and not ledger.has_ends:
            return None  # no need to know the time
        now = self._clock.now()
        if (caller.expires is not None and now >= caller.expires + past) or ledger.has_ended(caller, now):
            return Reason.EXPIRED
        return None

    def _refused(
        self,
        reason: Reason,
        method: Method,
        transport: Transport,
        caller: Caller | None = None,
        capability: str = "",
        detail: str = "",
    ) -> Refused:
        self._counts.auth_failed(reason, method, transport)
        if reason is Reason.SUSPENDED and self._ledger.unconfirmed_epoch is not None:
            detail = detail or "the restored trust database is not confirmed: edged trust confirm-restore"
        self.refusals.note(
            reason, method, transport,
            credential=caller.credential_id if caller else "", capability=capability, detail=detail,
        )  # fmt: skip
        fields: dict[str, object] = (
            {"required": capability, "have": caller.role if caller else None} if capability else {}
        )
        if reason is Reason.MISSING_SCOPE and caller is not None and capability in role_capabilities(caller.roles):
            return Denied(
                str(reason),
                f"the role {caller.role} has {capability}, and this credential has not: its permissions, or those of "
                "whom it came of, leave it out",
                hint=f"use one whose permissions have {capability}", **fields,
            )  # fmt: skip
        return Refused(str(reason), detail, hint="", **fields)
