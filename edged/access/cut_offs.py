"""Cut-offs: which tokens are denied by when they were issued (contract 10.8).

A cut-off denies the tokens of a scope (all, a subject, an issuer) up to a moment. Tokens of others are compared by
their `iat`. edged's own are compared by the epoch at which they were made, which no clock moves, and by `iat` only with
a time that somebody named. A cut-off that was drawn while the clock was not trusted is provisional: it is a second of
this boot, and what that is in Unix seconds is asked each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec.structs import replace

from edged.credentials.callers import TokenFacts
from edged.credentials.identities import Identity


class Line(msgspec.Struct):
    """What is cut off of one scope; everything combines by maximum. `before` and `own_before`: Unix seconds, None for
    none; `second`: of this boot, of a provisional one."""

    before: float | None = None
    own_before: float | None = None
    epoch: int = 0
    second: float | None = None


class CutOffs:
    """The lines by scope. Written by accounts.revocations only; never waits."""

    def __init__(self) -> None:
        self._lines: dict[Identity, Line] = {}
        #: Whether no line was ever drawn; an attribute, since each call of a token's holder asks.
        self.is_empty = True
        #: A second of this boot → Unix seconds as the clock tells it now; until somebody says, everything lies before.
        self.place: Callable[[float], float] = lambda _second: math.inf

    def draw(self, scope: Identity, before: float, own_before: float | None = None, epoch: int = 0) -> None:
        """From here on no token of this scope gets in that was issued at `before` (Unix seconds) or earlier; of edged's
        own none that is older than `epoch`, or was issued at `own_before` or earlier."""
        line = self._line_of(scope)
        line.before = _later(line.before, before)
        line.epoch = max(line.epoch, epoch)
        if own_before is not None:
            line.own_before = _later(line.own_before, own_before)

    def draw_provisionally(self, scope: Identity, second: float, epoch: int) -> None:
        """The same up to a second of this boot."""
        line = self._line_of(scope)
        line.second = _later(line.second, second)
        line.epoch = max(line.epoch, epoch)

    def _line_of(self, scope: Identity) -> Line:
        self.is_empty = False
        return self._lines.setdefault(scope, Line())

    def settle(self, scope: Identity) -> float:
        """A scope's provisional line is none any more: its time, Unix seconds, as the clock tells it now."""
        line = self._lines[scope]
        assert line.second is not None, "only a provisional line settles"
        second, line.second = line.second, None
        return self.place(second)

    def find(self, scope: Identity) -> Line:
        """What is cut off of this scope, as it is now."""
        return replace(self._lines.get(scope, Line()))

    def all(self) -> Mapping[Identity, Line]:
        """Every scope's line, as it is now."""
        return {scope: replace(line) for scope, line in self._lines.items()}

    def raise_epoch(self, scopes: Iterable[Identity], epoch: int) -> None:
        """Of these scopes none of edged's own tokens is good that is older than this."""
        for scope in scopes:
            self._lines[scope].epoch = epoch

    def lower(self, scope: Identity, now: float) -> None:
        """No line of this scope was drawn later than `now`, Unix seconds."""
        line = self._lines.get(scope)
        if line is not None:
            line.before = None if line.before is None else min(now, line.before)
            line.own_before = None if line.own_before is None else min(now, line.own_before)

    def hits(self, token: TokenFacts) -> bool:
        """Whether a token of one of its scopes was issued by then."""
        lines = [self._lines[scope] for scope in token.scopes if scope in self._lines]
        if not lines:
            return False
        if (epoch := token.epoch) is not None:
            if any(epoch < line.epoch for line in lines):
                return True
            drawn = [line.own_before for line in lines if line.own_before is not None]
        else:
            drawn = [line.before for line in lines if line.before is not None]
            drawn += [self.place(line.second) for line in lines if line.second is not None]
        if not drawn:
            return False
        issued = token.claims.get("iat")
        # Nobody knows when a token without `iat` was issued, so that no line can be shown to lie before it.
        return not isinstance(issued, (int, float)) or issued <= max(drawn)


def _later(one: float | None, other: float) -> float:
    return other if one is None else max(one, other)
