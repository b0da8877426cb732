"""By what right something is granted: asked at the question, once more right before its commit, after it, and before
it is told. Time passes between these, and a revocation that came in between counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from edged.credentials.callers import Caller, Transport
from edged.credentials.claims import makers_of
from edged.credentials.decision import Reason
from edged.credentials.identities import Identity
from edged.credentials.roles import SELF

if TYPE_CHECKING:
    from edged.access.gate import Gate


class Authority(Protocol):
    """Every grant names one; reads memory only and never awaits."""

    @property
    def made_by(self) -> frozenset[Identity]:
        """The names of whoever makes what is granted (credentials.claims.makers_of); nothing for edged itself."""

    def check(self) -> None:
        """Raises EdgedError unless it holds now: then nothing is granted."""

    def check_told(self) -> None:
        """Raises EdgedError if whoever asked must not hear the result any more."""


class Asker(msgspec.Struct, frozen=True):
    """A caller who was let in, and what the grant takes; `further` are the rules that depend on the grant itself, as
    that nobody hands on more than they may do: each raises EdgedError."""

    gate: Gate
    caller: Caller | None
    capability: str
    transport: Transport
    further: tuple[Callable[[], None], ...]

    @property
    def made_by(self) -> frozenset[Identity]:
        """The caller's, as they were when they asked."""
        return frozenset() if self.caller is None else makers_of(self.caller)

    def check(self) -> None:
        """Raises Refused, or whatever a further rule raises."""
        self.gate.authorize(self.caller, self.capability, self.transport)
        for rule in self.further:
            rule()

    def check_told(self) -> None:
        """Raises Refused once the credential was revoked or suspended. The grant itself may have made it able to do
        less, or have ended the secret that was shown: that is no reason to withhold the answer."""
        if self.gate.judge(self.caller, SELF).reason in (Reason.REVOKED, Reason.SUSPENDED):
            self.gate.authorize(self.caller, SELF, self.transport)


class Proof(msgspec.Struct, frozen=True):
    """Something else than a caller's rights, as the code of a new device or a token that is to be refreshed; `rule`
    raises EdgedError once it proves nothing any more."""

    rule: Callable[[], object]
    made_by: frozenset[Identity] = frozenset()

    def check(self) -> None:
        """Raises what the rule raises."""
        self.rule()

    def check_told(self) -> None:
        """Whoever showed a proof was judged at the commit, and gets the answer."""


class _Upkeep:
    """What edged does by itself; nobody asked for it."""

    made_by: frozenset[Identity] = frozenset()

    def check(self) -> None:
        """Holds."""

    def check_told(self) -> None:
        """Holds."""


#: For upkeep: never for anything that somebody asks for.
EDGED = _Upkeep()
