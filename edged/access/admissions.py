"""Who is inside now: by which credential, until when, and how to put them out.

An admission is written when the gate lets someone in for longer than one answer: a WebSocket
session, a picture in progress, a MediaMTX session. Ending is synchronous: `on_terminate` is a callable
that returns at once. Deadlines are monotonic.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import ClassVar, Final, Literal, Protocol

import msgspec
import structlog
import trio

from edged.credentials.callers import NOTHING, Caller, Resource, Transport
from edged.credentials.identities import Identity
from edged.feeds import Feed
from edged.structs import Discreet

#: Why a session was terminated; `ended`: by somebody's wish, the credential is as good as before.
Cause = Literal["revoked", "expired", "suspended", "ended"]
#: (cause, by): `by` is the session id whose own call is the reason, "" otherwise.
OnTerminate = Callable[[Cause, str], None]

#: Seconds after which a MediaMTX admission that no list shows is dropped (architecture 6).
UNSEEN_SECONDS = 15.0
#: Seconds for which one that no list has shown yet is taken for a viewer: the lists are looked at sooner (reactions).
FRESH_SECONDS: Final = 3.0
#: Seconds without a byte after which an HLS viewer has left: nobody tells, and MediaMTX lists it for 30 s more.
QUIET_SECONDS: Final = 3.0
#: Deadlines so close before the next one wait for it, seconds: tokens that end in one second must not each wake whoever
#: watches, which costs more than letting their bearers in.
_TOGETHER = 0.01
_log = structlog.get_logger("admissions")


class Admission(Discreet, msgspec.Struct, eq=False):
    """One being-inside. `session` is MediaMTX's session id, "" elsewhere; times are monotonic seconds.

    `id` is its public name. `capability` on `resource` is what it was let in for, "" if each call is judged by itself.
    """

    hidden: ClassVar = frozenset({"misses", "begun"})

    caller: Caller
    transport: Transport
    on_terminate: OnTerminate
    since: float
    deadline: float | None = None
    path: str = ""
    session: str = ""
    id: str = ""
    capability: str = ""
    resource: Resource = NOTHING
    misses: int = 0
    #: When a list of MediaMTX showed it last, and when its bytes grew last.
    listed_at: float | None = None
    moved_at: float = -math.inf
    #: Bytes that went to this viewer, or came from this publisher; None where nobody counts them.
    bytes_moved: int | None = None
    #: A later question of the same RTSP client followed: DESCRIBE and SETUP are asked about under ids of their own.
    is_half: bool = False
    begun: tuple[str, str] | None = None


class Listed(Protocol):
    """A session as MediaMTX lists it; `connections` are ids too, of RTSP only."""

    @property
    def protocol(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def connections(self) -> tuple[str, ...]: ...
    @property
    def bytes_moved(self) -> int: ...


class Ended(msgspec.Struct, frozen=True):
    """The right to be inside ended just now: that of these identities (none: of some sessions); monotonic seconds."""

    identities: frozenset[Identity]
    at: float


class Admissions:
    """All admissions, found by any identity of their caller or by MediaMTX session."""

    def __init__(
        self,
        monotonic: Callable[[], float] = trio.current_time,
        count_end: Callable[[Transport, Cause, float], None] = lambda _transport, _cause, _seconds: None,
    ) -> None:
        """`count_end` is told of each session that is terminated, and in how many seconds; metrics.py in the daemon."""
        self._monotonic = monotonic
        self._count_end = count_end
        #: Told as soon as it is in force, also where nobody was found inside: a session may be on its way in.
        self.endings: Feed[Ended] = Feed()
        self._by_identity: dict[Identity, set[Admission]] = {}
        self._by_session: dict[tuple[str, str], Admission] = {}
        self._by_id: dict[str, Admission] = {}
        self._all: set[Admission] = set()
        # RTSP clients whose first question was answered: (credential, path) → its admission.
        self._begun: dict[tuple[str, str], Admission] = {}
        #: Whether `on_terminate` of a half of an RTSP session is being called: MediaMTX may not know its id.
        self.is_ending_half = False
        # Transport → how many are inside MediaMTX over it; without edged's own children.
        self._watching: dict[str, int] = {}
        self._somebody_watches = trio.Event()
        self._sooner = trio.Event()
        self._next = math.inf

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Admission]:
        return iter(tuple(self._all))

    def add(
        self,
        caller: Caller,
        transport: Transport,
        on_terminate: OnTerminate,
        *,
        seconds_left: float | None,
        path: str = "",
        session: str = "",
        name: str = "",
        capability: str = "",
        resource: Resource = NOTHING,
    ) -> Admission:
        """Note someone who is let in; `seconds_left` until their credential ends, None for no end.

        `name` is the public id of a session that has one, otherwise one is made.
        A MediaMTX session asked about again (an RTSP client's second question) moves to the newer credential.
        """
        now = self._monotonic()
        deadline = None if seconds_left is None else now + seconds_left
        name = name or f"session_{secrets.token_hex(8)}"
        admission = Admission(
            caller, transport, on_terminate, now, deadline, path, session, name, capability, resource
        )  # fmt: skip
        if session:
            if before := self._by_session.get((transport, session)):
                self.remove(before)
            self._by_session[transport, session] = admission
            if caller.method != "internal":
                self._pair(admission)
                self._watching[transport] = self._watching.get(transport, 0) + 1
                self._somebody_watches.set()
        self._all.add(admission)
        self._by_id[admission.id] = admission
        for each in caller.revocation_ids:
            self._by_identity.setdefault(each, set()).add(admission)
        self._note_deadline(deadline)
        return admission

    def remove(self, admission: Admission) -> None:
        """They left by themselves; safe to say twice."""
        self._all.discard(admission)
        if self._by_id.get(admission.id) is admission:
            del self._by_id[admission.id]
        if admission.session and self._by_session.get((admission.transport, admission.session)) is admission:
            del self._by_session[admission.transport, admission.session]
            if admission.caller.method != "internal":
                self._watching[admission.transport] -= 1
        if admission.begun is not None and self._begun.get(admission.begun) is admission:
            del self._begun[admission.begun]
        for name in admission.caller.revocation_ids:
            if group := self._by_identity.get(name):
                group.discard(admission)
                if not group:
                    del self._by_identity[name]

    def end(self, identities: Iterable[Identity], cause: Cause, by: str = "") -> list[Admission]:
        """Terminate every session of these identities; returns those that there were. Never waits."""
        return self.terminate({each for name in identities for each in self.of(name)}, cause, by)

    def terminate(self, found: Iterable[Admission], cause: Cause, by: str = "") -> list[Admission]:
        """Put these out; returns those who were present. Never waits."""
        since, leaving = self._monotonic(), list(found)
        present = [admission for admission in leaving if self.is_present(admission)]
        for admission in leaving:
            self._terminate(admission, cause, by, since)
        return present

    def tell(self, identities: Iterable[Identity] = ()) -> None:
        """Tell who sweeps that a right has ended. Never waits."""
        self.endings.publish(Ended(frozenset(identities), self._monotonic()))

    def of(self, identity: Identity) -> tuple[Admission, ...]:
        """Everyone who answers to this."""
        found = self._by_identity.get(identity)
        return tuple(found) if found else ()

    def has(self, identity: Identity) -> bool:
        """Whether anybody answers to this."""
        return identity in self._by_identity

    def find(self, admission_id: str) -> Admission | None:
        """Who is inside under this id."""
        return self._by_id.get(admission_id)

    def renew(self, admission: Admission, caller: Caller, seconds_left: float | None) -> None:
        """The credential by which someone is inside has changed: other rights, another end (None: no end)."""
        admission.caller = caller
        admission.deadline = None if seconds_left is None else self._monotonic() + seconds_left
        self._note_deadline(admission.deadline)

    def shorten(self, identities: Iterable[Identity], seconds_left: float) -> None:
        """Nobody who answers to one of these stays longer than this (a rotated key's old secret)."""
        deadline = self._monotonic() + seconds_left
        for admission in {each for name in identities for each in self.of(name)}:
            admission.deadline = deadline if admission.deadline is None else min(admission.deadline, deadline)
        self._note_deadline(deadline)

    def move(
        self, admission: Admission, caller: Caller, seconds_left: float | None, *, is_entry: bool = False
    ) -> Admission:
        """Someone is inside by another credential from here on, and for as long as that one is good (None: no end).

        `is_entry`: they showed it themselves, and count as having come in just now.
        """
        held, shown = admission.caller.revocation_ids, caller.revocation_ids
        if shown != held:
            groups = self._by_identity
            for name in held - shown:
                group = groups[name]
                group.discard(admission)
                if not group:
                    del groups[name]
            for name in shown - held:
                groups.setdefault(name, set()).add(admission)
        self.renew(admission, caller, seconds_left)
        if is_entry:
            admission.since = self._monotonic()
        return admission

    def recompute(self, seconds_left: Callable[[Caller], float | None]) -> None:
        """The clock was set right: everybody stays for as long as their credential is good from now on."""
        now = self._monotonic()
        for admission in self._all:
            left = seconds_left(admission.caller)
            admission.deadline = None if left is None else now + left
        self._sooner.set()

    def has_session(self, transport: str, session: str) -> bool:
        """Whether a MediaMTX session is inside by right."""
        return (transport, session) in self._by_session

    def is_present(self, admission: Admission) -> bool:
        """Whether this is a viewer, and here now. Of MediaMTX's sessions: one that is listed, or too new for that."""
        if not admission.session:
            return True
        now = self._monotonic()
        if admission.listed_at is None:
            return not admission.is_half and now - admission.since < FRESH_SECONDS
        return admission.transport != "hls" or now - admission.moved_at < QUIET_SECONDS

    def watched_protocols(self) -> frozenset[str]:
        """The protocols over which somebody is inside MediaMTX; edged's own children are not counted."""
        return frozenset(transport for transport, number in self._watching.items() if number)

    async def wait_watched(self) -> None:
        """Until somebody is let into MediaMTX, from now on."""
        self._somebody_watches = trio.Event()
        await self._somebody_watches.wait()

    def compare(self, listed: Iterable[Listed], protocols: Collection[str], asked_at: float) -> None:
        """Learn from MediaMTX's lists of these protocols, asked for at `asked_at` (monotonic seconds).

        Who was listed and is not any more has left. Who was never listed is dropped when twice unseen and older than
        15 s: an on-demand reader is unlisted while its picture starts. The halves of an RTSP session become one.
        """
        now = self._monotonic()
        for session in listed:
            admission = self._by_session.get((session.protocol, session.id))
            for name in session.connections:
                half = self._by_session.get((session.protocol, name))
                if half is not None and admission is None:
                    admission = half  # before 1.19.3 the hook was told the connection's id only
                elif half is not None and half is not admission:
                    self.remove(half)
            if admission is not None:
                if admission.listed_at is None or session.bytes_moved > (admission.bytes_moved or 0):
                    admission.moved_at = now
                admission.listed_at, admission.bytes_moved = now, session.bytes_moved
        for (protocol, _), admission in list(self._by_session.items()):
            if protocol not in protocols or admission.listed_at == now:
                continue
            if admission.listed_at is not None:
                # An older list may come in later than a newer one.
                if admission.listed_at < asked_at:
                    self.remove(admission)
                continue
            admission.misses += 1
            if admission.misses >= 2 and now - admission.since > UNSEEN_SECONDS:
                self.remove(admission)

    def _pair(self, admission: Admission) -> None:
        """An RTSP client asks twice, with nothing in common but its credential and path: the first is a half of it."""
        if admission.transport != "rtsp" or admission.capability == "stream:publish":
            return
        key = (admission.caller.credential_id, admission.path)
        before = self._begun.pop(key, None)
        if before is not None and before.listed_at is None and admission.since - before.since < UNSEEN_SECONDS:
            before.is_half = True
        else:
            self._begun[key] = admission
            admission.begun = key

    async def run(self) -> None:
        """Terminate each session at its deadline; runs until cancelled."""
        while True:
            self._next = min((a.deadline for a in self._all if a.deadline is not None), default=math.inf)
            self._sooner = trio.Event()
            with trio.move_on_at(self._next):
                await self._sooner.wait()
            now = self._monotonic()
            late = [a for a in self._all if a.deadline is not None and a.deadline <= now]
            if self.terminate(late, "expired"):
                self.tell()

    def _terminate(self, admission: Admission, cause: Cause, by: str, since: float) -> None:
        self.remove(admission)
        _log.info(
            "ended", cause=cause, transport=admission.transport, credential=admission.caller.credential_id,
            path=admission.path or None,
        )  # fmt: skip
        self.is_ending_half = admission.is_half
        try:
            admission.on_terminate(cause, by)
        except Exception:
            # One that fails must not keep the others active, nor stop whoever terminates them.
            _log.exception("on_terminate_failed", transport=admission.transport)
        self._count_end(admission.transport, cause, self._monotonic() - since)

    def _note_deadline(self, deadline: float | None) -> None:
        if deadline is not None and deadline < self._next - _TOGETHER:
            self._sooner.set()
