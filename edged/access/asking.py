"""Who asks just now, for the lines of the log: who was refused, and who made, changed or ended something.

What a task does it does for one asker: the endpoint that takes a request sets it in the task's own context, tasks that
are started from there inherit it, and a job of the registrar carries it along.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Protocol, TypeAlias

import structlog

from edged.credentials.callers import Caller, Method, Peer, Transport
from edged.credentials.decision import Reason
from edged.credentials.places import place_of
from edged.repeats import Repeats


class Origin(Protocol):
    """A conversation or a request; `doing` is the method of a call, or the method and path of a request."""

    @property
    def peer(self) -> Peer: ...
    @property
    def caller(self) -> Caller | None: ...
    @property
    def doing(self) -> str: ...


#: None where nobody asks: at the start, and in what edged does by itself.
asking: Final[ContextVar[Origin | None]] = ContextVar("asking", default=None)

Line: TypeAlias = dict[str, object]
_LONGEST: Final = 128
_log = structlog.get_logger("gate")


def asked_by() -> Line:
    """The fields of a log line that say for whom something was done; {} if for nobody."""
    asker = asking.get()
    if asker is None:
        return {}
    caller = asker.caller
    return {
        "by": caller.who if caller is not None else None,
        "by_credential": (caller.credential_id or None) if caller is not None else None,
        "address": asker.peer.address or None,
        "listener": asker.peer.listener,
    }


class RefusalLog:
    """Lines about refusals: by address and reason, the first as they come and the rest counted, a line a minute."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._lines: Repeats[Line] = Repeats(_write)

    def note(
        self, reason: Reason, method: Method, transport: Transport, *, credential: str, capability: str, detail: str
    ) -> None:
        """Somebody was refused; `credential` is the id of theirs, "" if it is nobody's."""
        asker, address = asking.get(), ""
        line: Line = {"reason": str(reason), "method": method, "transport": transport}
        if asker is not None:
            peer = asker.peer
            address = peer.address
            line |= {"address": address or None, "proxy": peer.proxy or None, "listener": peer.listener}
            line["doing"] = asker.doing[:_LONGEST] or None
        line |= {"credential": credential or None, "capability": capability or None, "detail": detail or None}
        self._lines.note((place_of(address) if address else transport, reason), self._now(), line)

    async def run(self) -> None:
        """Write what was counted once a minute, and when cancelled; runs until then."""
        await self._lines.run()


def _write(line: Line, times: int, *, others: bool) -> None:
    if times > 1 or others:
        line = {**line, "times": times}
    if others:
        # Of very many places: what the last of them showed says nothing of the others.
        line |= {"address": "others", "credential": None, "doing": None}
    _log.info("refused", **line)
