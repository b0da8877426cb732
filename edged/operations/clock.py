"""The time that edged goes by, and its reset by root (contract 10.9)."""

from __future__ import annotations

import msgspec
import structlog

from edged.clock import Clock, iso
from edged.credentials.decision import Reason
from edged.errors import Denied
from edged.operations.catalogue import NoParams, OperationCall, operation
from edged.operations.rest import get, post
from edged.operations.services import Services

_log = structlog.get_logger("clock")


def tell_time(services: Services) -> str:
    """What edged goes by now, ISO 8601."""
    return iso(services.clock.now())


class ClockReport(msgspec.Struct, frozen=True):
    """Times ISO 8601: `time` is what edged goes by, `system_time` the system clock, `high_water` the lowest that `time`
    can be. `trusted`: confirmed by a time server or by root. `remedy` is "" if all is well."""

    time: str
    system_time: str
    high_water: str
    synchronized: bool
    trusted: bool
    remedy: str


@operation("system:read", rest=get("/api/clock"), counted_as="clock")
def get_clock(call: OperationCall, params: NoParams) -> ClockReport:
    """The clock as edged sees it."""
    return report(call.services.clock)


class ClockReset(msgspec.Struct, frozen=True):
    """The clock before and after."""

    before: ClockReport
    after: ClockReport


@operation("system:admin", rest=post("/api/clock/reset"), counted_as="clock")
async def reset_clock(call: OperationCall, params: NoParams) -> ClockReset:
    """Take the system clock as right: for root, on the unix socket only.

    Lowers the high-water mark that a time server with a wrong time left behind. Credentials that had expired by that
    mark are good again if they have not expired by the system clock; revocations stay, but a `before` in the future
    becomes now.
    """
    services, peer = call.services, call.session.peer
    if not peer.is_local_socket or peer.uid != 0 or call.session.caller is None:
        raise Denied(
            Reason.MISSING_SCOPE, "only root may reset the clock", hint="as root, on this machine: edged clock reset"
        )
    before = report(services.clock)
    await services.reset_clock()
    after = report(services.clock)
    _log.warning("clock_reset", by=call.session.caller.subject, before=before.high_water, after=after.high_water)
    return ClockReset(before, after)


def report(clock: Clock) -> ClockReport:
    """The clock as replies show it."""
    mark = clock.high_water()
    return ClockReport(
        time=iso(clock.now()),
        system_time=iso(clock.system),
        high_water=iso(mark),
        synchronized=clock.is_synchronized,
        trusted=clock.is_trusted,
        remedy=_remedy(clock),
    )


def _remedy(clock: Clock) -> str:
    if clock.is_behind:
        return "if system_time is right and high_water is not: edged clock reset, as root"
    return "" if clock.is_trusted else "let a time server be reached (timedatectl), or set it: date, edged clock reset"
