"""Jobs: what the registrar's task does for a caller, who may be gone by the time that it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

import structlog
import trio

from edged.access.asking import asking
from edged.access.authority import Authority
from edged.errors import EdgedError, Overloaded, StoreFailed
from edged.store.jobs import Transaction

if TYPE_CHECKING:
    from edged.accounts.registrar import Registrar

T = TypeVar("T")
_log = structlog.get_logger("registrar")


class Commit:
    """How a grant reaches the disk; handed to its work, and the only way there."""

    def __init__(self, registrar: Registrar, authority: Authority) -> None:
        self._registrar = registrar
        self._authority = authority

    async def __call__(self, write: Transaction[T], *, undo: Transaction[object]) -> T:
        """One transaction, and with it the epoch if it has risen, if the authority holds now and when it is done.

        `undo` takes exactly this back, whatever else was written since by a denial; it is made if the authority ended
        while the commit ran. Raises what the authority raises, or as Database.write does: then nothing was granted.
        """
        self._authority.check()
        # From here to the hand-over there is no checkpoint.
        value = await self._registrar.write(write)
        try:
            self._authority.check()
        except EdgedError:
            self._registrar.take_back(undo)
            raise
        return value


def keep(_connection: object) -> None:
    """The undo of what nobody asked for, or of what is worth nothing by itself once its authority has ended."""


class Job(Generic[T]):
    """Something that the registrar's task does for a caller, who may be gone by then."""

    def __init__(
        self,
        work: Callable[[], Awaitable[T]],
        authority: Authority,
        withhold: Callable[[T], object] | None = None,
    ) -> None:
        """`withhold(value)` ends a credential that was made and that its asker must not be told any more."""
        self._work = work
        self._authority = authority
        self._withhold = withhold
        self._asker = asking.get()
        self._done = trio.Event()
        self._value: T | None = None
        self._error: Exception | None = None

    async def run(self) -> None:
        """Do it and keep the outcome; an unexpected error is logged, as its caller may not be there to hear it."""
        asking.set(self._asker)
        try:
            self._value = await self._work()
        except EdgedError as problem:
            self._error = problem
        except Exception as problem:
            _log.exception("job_failed")
            self._error = problem
        self._done.set()

    async def outcome(self) -> T:
        """Wait for the result; raises what the work raised. Cancelling the wait does not cancel the work.

        Raises Refused if whoever asked was denied after the commit: nobody is told a secret by then.
        """
        await self._done.wait()
        if self._error is not None:
            raise self._error
        value = cast("T", self._value)
        try:
            self._authority.check_told()
        except EdgedError:
            if self._withhold is not None:
                self._withhold(value)
            raise
        return value


#: A denial on its way to the disk: the job that writes it, why there is none (it is pending all the same), None if it
#: is there already.
Due: TypeAlias = Job[None] | Overloaded | StoreFailed | None


def stopping() -> StoreFailed:
    """The error of whoever asks after the registrar has ended."""
    return StoreFailed("edged is stopping: nothing was saved", hint="ask again once it is back", in_force=False)


async def wait(due: Due) -> None:
    """Until a denial is on disk. Raises StoreFailed or Overloaded if it is not there."""
    if isinstance(due, EdgedError):
        raise due
    if due is None:
        await trio.lowlevel.checkpoint()
    else:
        await due.outcome()
