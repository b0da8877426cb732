"""How the credential of one connection ends, and when its client is told so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from edged.access.admissions import Cause
from edged.credentials.decision import outside_reason

#: Whether the client has yet to be told that its credential has expired: no; yes; behind the answer in progress.
Notice: TypeAlias = Literal["none", "due", "behind_answer"]
#: What the connection must do.
Action: TypeAlias = Literal["nothing", "tell_expiry", "close"]


class Login:
    """A state machine. It sends and closes nothing: its methods return what the connection must do.

    - A good credential was shown: nothing is told about the one before.
    - It expires: the client is told `auth_expired`, at once if it has subscribed to something, else behind the next
      answer that says that the session has no credential.
    - It is revoked, suspended or ended: by a call of this connection, which closes behind the answer to that call; by
      anybody else, and the connection closes at once.

    `lost`: why the session has no credential any more, as `outside_reason` puts it; None if it has one or never had.
    `leaving`: why the connection closes behind an answer. `is_pending`: call `answered` behind the next answer.
    """

    __slots__ = ("_notice", "_task", "is_pending", "leaving", "lost")

    def __init__(self) -> None:
        self.lost: str | None = None
        self.leaving: Cause | None = None
        self.is_pending = False
        self._notice: Notice = "none"
        self._task: object = None

    def enter(self) -> None:
        """A good credential was shown."""
        self.lost = None
        if self._notice == "due":
            self._notice = "none"

    def expire(self, *, tells: bool, at_once: bool) -> Action:
        """The credential has expired. `tells`: this client expects to be told; `at_once`: also unasked."""
        self.lost = _EXPIRED
        is_told = tells and at_once
        if self._notice != "behind_answer":
            self._notice = "due" if tells and not is_told else "none"
        return "tell_expiry" if is_told else "nothing"

    def end(self, cause: Cause, *, task: object) -> Action:
        """The credential was revoked. `task` runs the call of this connection that did it, None if it was another's."""
        self.lost = outside_reason(cause)
        if task is None:
            return "close"
        self.leaving, self._task, self.is_pending = cause, task, True
        return "nothing"

    def try_again(self) -> None:
        """An authenticate has failed: how the credential before it ended does not matter any more."""
        self.lost = None

    def refuse(self) -> None:
        """The answer in progress says that there is no good credential."""
        if self._notice == "due":
            self._notice, self.is_pending = "behind_answer", True

    def answered(self, current_task: Callable[[], object], *, is_last: bool) -> tuple[Action, ...]:
        """An answer was sent; `current_task()` is the task that did, `is_last`: no other call is in flight.

        Returns what must follow, in order.
        """
        actions: list[Action] = []
        if self._notice == "behind_answer":
            self._notice = "none"
            actions.append("tell_expiry")
        # If the task that revoked it sends no answer, the last call in flight closes.
        if self.leaving is not None and (is_last or current_task() is self._task):
            actions.append("close")
        self.is_pending = self.leaving is not None
        return tuple(actions)


_EXPIRED: Final = outside_reason("expired")
