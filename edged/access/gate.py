"""The one place that says yes or no, says why, and counts it. It reads memory only and never awaits.

`authenticate` turns what a door was given into a caller, `authorize` asks whether that caller may do
one thing now, `admit` notes someone who stays. Deciding and noting happen without a checkpoint in
between, so a revocation is either before both or after both.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import structlog

from edged.access.admissions import Admission, Admissions, Cause, WayOut
from edged.access.asking import Refusals
from edged.access.ledger import Ledger
from edged.access.tickets import Tickets
from edged.access.token_uses import TokenUses
from edged.clock import Clock
from edged.credentials import service_tokens
from edged.credentials.api_keys import digest, published_as
from edged.credentials.callers import (
    NOTHING,
    ApiKey,
    Caller,
    Credential,
    LocalUser,
    Method,
    NoCredential,
    Resource,
    ServiceToken,
    Ticket,
    Token,
    Transport,
)  # fmt: skip
from edged.credentials.decision import Decision, Reason
from edged.credentials.identities import Identity
from edged.credentials.issuers import OutsideIssuer
from edged.credentials.oddities import KINDS, counted_of
from edged.credentials.roles import ROLES, role_capabilities
from edged.credentials.tickets import renewed
from edged.credentials.tokens import (
    LONGEST_OVER_HTTP,
    FindKey,
    SharedSecret,
    TokenRefused,
    longest_over,
    verify,
)
from edged.errors import Denied, Refused

if TYPE_CHECKING:
    from edged.metrics import Metrics

_log = structlog.get_logger("gate")
_REMEMBERED_TOKENS = 1024
#: Where somebody talks with edged itself, and nothing flows.
_CONVERSATIONS = ("ws", "uds")
#: Credentials of which it is told when they were used last.
_TALLIED = ("api_key", "service_token")
_INTERNAL = Caller(method="internal", subject="edged", roles=frozenset(), capabilities=frozenset())


class Outside(Protocol):
    """Who else is trusted; access/issuers.py in the daemon. Never waits, never fetches."""

    #: Rises when a key is not trusted any more.
    version: int

    def find(self, issuer: str, /) -> OutsideIssuer | None: ...


def _stay(_cause: Cause, _by: str) -> None:
    """A child of edged leaves when edged ends it, never by a revocation."""


class Gate:
    """Says yes or no for every door."""

    def __init__(
        self,
        ledger: Ledger,
        admissions: Admissions,
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
        service token (access.usage), `warned` of what is odd about a token that is good (credentials.oddities)."""
        self._ledger = ledger
        self.admissions = admissions
        self.tickets = Tickets(clock.monotonic)
        self._clock = clock
        self._counts = counts
        self._secrets = tuple(shared_secrets)
        self._find_key = find_key
        self._own = own
        self._issuers = issuers
        self._issuers_seen = self._issuers.version
        self._leeway = leeway
        self._tally = tally
        self._warned = warned
        self.token_uses = TokenUses()
        self.refusals = Refusals(clock.monotonic)
        # Signature checks are the dear part of a question, and players ask twice with one token:
        # what verified once need not be verified again. Time and revocation are judged every time.
        self._verified: OrderedDict[bytes, Caller] = OrderedDict()
        self._latest = 0.0

    def authenticate(self, credential: Credential, transport: Transport, *, at_files: bool = False) -> Caller:
        """Who is this? Raises Refused with the exact reason; counts either way.

        `at_files`: the door is one under /v1/files, where alone files tokens and service tokens are good.
        """
        token_hash = b""
        if isinstance(credential, ApiKey):
            found = self._ledger.find_key(shown := digest(credential.secret))
            if found is None:
                raise self._refused(Reason.UNKNOWN_KEY, "api_key", transport, detail=published_as(shown) or "")
            caller = found
        elif isinstance(credential, Token):
            token_hash = sha256(credential.text.encode("utf-8", "surrogatepass")).digest()
            caller = self._verify(credential.text, token_hash, transport)
        elif isinstance(credential, NoCredential):
            raise self._refused(Reason.MISSING, "none", transport)
        elif isinstance(credential, LocalUser):
            caller = local_caller(credential.uid)
        elif isinstance(credential, Ticket):
            caller = self._find_ticket(credential.text, transport)
        else:
            caller = self._find_service_token(credential, transport)
        reason = self._standing(caller)
        if reason is not None:
            raise self._refused(reason, caller.method, transport, caller)
        if caller.only_files and not at_files:
            raise self._refused(Reason.ROLE_DENIED, caller.method, transport, caller, detail="Invalid role")
        self._counts.credential_used(caller.method, transport, caller.role)
        if caller.method in _TALLIED:
            self._tally(caller.credential_id)
        elif token_hash:
            self.token_uses.count(token_hash)
        return caller

    def refuse(self, reason: Reason, method: Method, transport: Transport, detail: str = "") -> Refused:
        """The refusal of somebody whose proof was looked at elsewhere, as a password is; logged and counted here."""
        return self._refused(reason, method, transport, detail=detail)

    def note_entry(self, method: Method, transport: Transport, role: str) -> None:
        """Count a proof that was looked at elsewhere, and was good."""
        self._counts.credential_used(method, transport, role)

    def authorize(
        self, caller: Caller | None, capability: str, transport: Transport, resource: Resource = NOTHING
    ) -> None:
        """May they do this to that, now? Raises Refused with the exact reason, and counts it."""
        if caller is not None:
            caller = self._ledger.current(caller)
        allowed, reason = self.judge(caller, capability, resource)
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
        way_out: WayOut,
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
        Raises Refused if it has ended since it was looked at: a door may have waited in between, and a
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
            caller, transport, way_out, seconds_left=left, path=path, session=session, name=name,
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
        caller = self._read(text, longest=LONGEST_OVER_HTTP)
        reason = self._standing(caller)
        if reason is not None:
            raise TokenRefused(reason, "exp is past" if reason is Reason.EXPIRED else str(reason), caller.method)
        return caller

    def find_issuer(self, issuer: str) -> str | None:
        """By what the subjects and jtis of this outside issuer's tokens are told from others' (Caller.issuer); None if
        none is trusted by this `iss`."""
        found = self._issuers.find(issuer)
        return None if found is None else found.record.identity

    def is_good(self, credential: ApiKey | ServiceToken | Token, transport: Transport) -> bool:
        """Whether this is somebody's, and good now where it is shown, asked without counting or logging."""
        if isinstance(credential, ApiKey):
            caller = self._ledger.find_key(digest(credential.secret))
            return caller is not None and self._standing(caller) is None
        if isinstance(credential, ServiceToken):
            caller = self._ledger.find_service_token(service_tokens.digest(credential.secret))
            return caller is not None and self._standing(caller) is None
        try:
            caller = self._read(credential.text, longest=longest_over(transport))
        except TokenRefused:
            return False
        return self._standing(caller) is None

    def read_token(self, text: str) -> Caller:
        """The caller of a token that somebody whom edged trusts has signed, revoked or ended as it may be. Raises
        TokenRefused."""
        return self._read(text, math.inf, longest=LONGEST_OVER_HTTP)

    def enter_refresh(self, shown: str | Caller, transport: Transport, past: float) -> Caller:
        """Who shows a token, its text or the caller that it made, to have it refreshed: it must be good, but may have
        ended up to `past` seconds ago. Raises Refused as `authenticate`, and counts that; no use is counted."""
        if isinstance(shown, str):
            try:
                shown = self._read(shown, past, longest=longest_over(transport))
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

    def _verify(self, text: str, key: bytes, transport: Transport) -> Caller:
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
            return caller
        try:
            caller = self._read(text, now=now, longest=longest)
        except TokenRefused as problem:
            raise self._refused(problem.reason, problem.method, transport, detail=problem.detail) from None
        # Nothing is told here of a claim that a token lacks: the guides' own tokens say `user_id` and no `sub`.
        if odd := counted_of(caller.claims, now):
            for warning in odd:
                self._warned(KINDS[warning])
            _log.info("odd", problem="; ".join(odd), credential=caller.credential_id, transport=transport)
        self._verified[key] = caller
        if len(self._verified) > _REMEMBERED_TOKENS:
            self._verified.popitem(last=False)
        return caller

    def _read(self, text: str, past: float = 0.0, *, longest: int, now: float | None = None) -> Caller:
        return verify(
            text, self._secrets, now=self._clock.now() if now is None else now, leeway=self._leeway,
            find_key=self._find_key, find_issuer=self._issuers.find, own=self._own, past=past,
            longest=longest,
        )  # fmt: skip

    def _find_service_token(self, shown: ServiceToken, transport: Transport) -> Caller:
        token_digest = service_tokens.digest(shown.secret)
        caller = self._ledger.find_service_token(token_digest)
        if caller is None:
            printed = service_tokens.published_as(token_digest) or ""
            raise self._refused(Reason.UNKNOWN_KEY, "service_token", transport, detail=printed)
        networks = self._ledger.service_tokens[caller.credential_id].networks
        # What is revoked stays so wherever it is shown from (contract 7.6).
        if networks is not None and not service_tokens.is_within(networks, shown.address):
            reason = self._standing(caller) or Reason.ADDRESS_DENIED
            raise self._refused(reason, "service_token", transport, caller)
        return caller

    def _find_ticket(self, text: str, transport: Transport) -> Caller:
        ticket = self.tickets.find(text)
        if ticket is None:
            raise self._refused(Reason.UNKNOWN_KEY, "ticket", transport)
        if self.tickets.has_ended(ticket):
            raise self._refused(Reason.EXPIRED, "ticket", transport, ticket.caller)
        return self._ledger.current(ticket.caller)

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
