"""What became of the credential of one connection, and what its client has yet to be told of that."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from edged.access.admissions import Cause
from edged.credentials.decision import outside_reason


class Notice(Enum):
    """Whether the client has yet to hear that its credential has expired: no; yes; behind the answer in progress."""

    NONE = "none"
    DUE = "due"
    BEHIND_ANSWER = "behind_answer"


class Action(Enum):
    """What the connection must do."""

    NOTHING = "nothing"
    TELL_EXPIRY = "tell_expiry"
    CLOSE = "close"


class Login:
    """A state machine; it sends and closes nothing, its methods say what is to be done.

    - entered: there is a good credential. Nothing is to be told of the one before.
    - expired: the client has none any more, and is told so: at once if it has subscribed to something, else behind the
      next answer that says that it has no credential.
    - revoked, suspended, ended: by a call of this connection, then the connection closes behind the answer to that
      call; by anybody else, then it closes at once.

    `lost` is why there is no credential any more, in the words of `outside_reason`; None if there was none, or there is
    one. `leaving` is the cause for which the connection closes behind an answer. `is_pending`: `answered` has to be
    called behind the next answer.
    """

    __slots__ = ("_notice", "_task", "is_pending", "leaving", "lost")

    def __init__(self) -> None:
        self.lost: str | None = None
        self.leaving: Cause | None = None
        self.is_pending = False
        self._notice = Notice.NONE
        self._task: object = None

    def enter(self) -> None:
        """A good credential was shown."""
        self.lost = None
        if self._notice is Notice.DUE:
            self._notice = Notice.NONE

    def expire(self, *, tells: bool, at_once: bool) -> Action:
        """The credential has expired. `tells`: this client expects to be told; `at_once`: also unasked."""
        self.lost = _EXPIRED
        is_told = tells and at_once
        if self._notice is not Notice.BEHIND_ANSWER:
            self._notice = Notice.DUE if tells and not is_told else Notice.NONE
        return Action.TELL_EXPIRY if is_told else Action.NOTHING

    def end(self, cause: Cause, *, task: object) -> Action:
        """The credential is good no more. `task` runs the call of this connection that did it; None: somebody else."""
        self.lost = outside_reason(cause)
        if task is None:
            return Action.CLOSE
        self.leaving, self._task, self.is_pending = cause, task, True
        return Action.NOTHING

    def try_again(self) -> None:
        """The client has authenticated without success: why it has no credential is its own doing from here on."""
        self.lost = None

    def refuse(self) -> None:
        """The answer in progress says that there is no good credential."""
        if self._notice is Notice.DUE:
            self._notice, self.is_pending = Notice.BEHIND_ANSWER, True

    def answered(self, current_task: Callable[[], object], *, is_last: bool) -> tuple[Action, ...]:
        """An answer was sent; `current_task()` is the task that did, `is_last`: no other call is in flight.

        Returns what must follow, in order.
        """
        actions: list[Action] = []
        if self._notice is Notice.BEHIND_ANSWER:
            self._notice = Notice.NONE
            actions.append(Action.TELL_EXPIRY)
        # Should another task than the call's own have revoked it, the last call in flight closes.
        if self.leaving is not None and (is_last or current_task() is self._task):
            actions.append(Action.CLOSE)
        self.is_pending = self.leaving is not None
        return tuple(actions)


_EXPIRED: Final = outside_reason("expired")
