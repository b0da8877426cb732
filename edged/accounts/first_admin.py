"""A new box has no account and no default password: whoever can read a code on it makes the first administrator.

The code stands in a file that root and the daemon alone can read, and on the terminal if edged was started from one.
The package makes another file, which agetty shows above the login prompt of the box's own console: it is written in
place, in a folder of root's, so that whoever took edged over could not have agetty show a file of root's by a link.
edged itself keeps the code's digest only. It is good for fifteen minutes, for five different wrong tries, and for one
administrator. On the unix socket nobody is asked for it.
"""

from __future__ import annotations

import hmac
import math
import os
import stat
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import trio

from edged.credentials.first_admin import digest, mint_code
from edged.errors import InvalidState, StoreFailed

SECONDS: Final = 900.0
TRIES: Final = 5
_REMEMBERED: Final = 1000
#: The code, in the runtime folder; and what agetty shows, made by the package (a backslash there would mean something).
FILE: Final = "claim"
CONSOLE: Final = Path("/run/issue.d/edged-claim.issue")
_ISSUE: Final = """
edged has no administrator yet. Make yourself one: log in and type

    sudo edged claim

or use the code {code} from elsewhere. It is good for {minutes} minutes.

"""
_log = structlog.get_logger("first_admin")


def show_on_terminal(code: str) -> None:
    """Print it on standard error if somebody sits there; the journal is no place for it."""
    if sys.stderr.isatty():
        print(f"\n    To make the first administrator: edged claim, code {code}\n", file=sys.stderr, flush=True)


class FirstAdmin:
    """The code of now, if there is one."""

    def __init__(
        self,
        folder: Path,
        is_needed: Callable[[], bool],
        *,
        console: Path = CONSOLE,
        show: Callable[[str], None] = show_on_terminal,
    ) -> None:
        """`is_needed()`: there is no user yet; `console` is a file of ours, or is not there."""
        self.path = folder / FILE
        self._console = console
        self._is_needed = is_needed
        self._show = show
        self._digest: bytes | None = None
        self._tries = 0
        #: What was wrong so far, also of codes before: the same again counts no more.
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._until = 0.0
        self._offered = trio.Event()

    @property
    def seconds_left(self) -> float:
        """How long the code is good from now on; 0 if there is none."""
        return max(0.0, self._until - trio.current_time()) if self._digest is not None else 0.0

    def offer(self) -> None:
        """Make a code; one that there was is worth nothing any more.

        Raises InvalidState if there is a user, StoreFailed if the file cannot be written: then there is no code.
        """
        self.withdraw()
        if not self._is_needed():
            raise InvalidState("there is an administrator already", hint="edged user list")
        code = mint_code()
        try:
            _write(self.path, f"{code}\n")
        except OSError as problem:
            self.withdraw()
            raise StoreFailed(
                f"the code for the first administrator cannot be written to {self.path}: {problem.strerror}",
                hint="make paths.runtime writable for edged, then: edged claim --new",
            ) from problem
        self._digest, self._tries, self._until = digest(code), 0, trio.current_time() + SECONDS
        self._offered.set()
        _rewrite(self._console, _ISSUE.format(code=code, minutes=int(SECONDS / 60)))
        self._show(code)
        _log.warning(
            "no administrator yet", code_in=str(self.path), minutes=int(SECONDS / 60), remedy="sudo edged claim"
        )

    def takes(self, code: str) -> bool:
        """Whether this is the code. A wrong one is one of five tries, unless it was tried before; a right one stays
        good until `withdraw`."""
        if self._digest is None or not self._is_needed() or self.seconds_left == 0:
            return False
        if self.is_code(code):
            return True
        shown = digest(code)
        if shown in self._wrong:
            return False
        self._wrong[shown] = None
        if len(self._wrong) > _REMEMBERED:
            self._wrong.popitem(last=False)
        self._tries += 1
        if self._tries >= TRIES:
            self.withdraw()
            _log.warning("claim_code_withdrawn", tries=TRIES, remedy="sudo edged claim --new")
        return False

    def is_code(self, code: str) -> bool:
        """Whether this is the code of now; asked without counting a try."""
        return self._digest is not None and hmac.compare_digest(digest(code), self._digest)

    def withdraw(self) -> None:
        """There is no code any more, nor a file."""
        self._digest = None
        with suppress(OSError):
            self.path.unlink()
        _rewrite(self._console, "")

    async def run(self) -> None:
        """Offer a code if there is no user yet, and withdraw it when its time is over, or when cancelled."""
        if self._is_needed():
            try:
                self.offer()
            except StoreFailed as problem:
                _log.error("claim_code_not_written", problem=str(problem))
        else:
            self.withdraw()  # a kill may have left one
        try:
            while True:
                with trio.move_on_after(math.inf if self._digest is None else self.seconds_left):
                    await self._offered.wait()
                self._offered = trio.Event()
                if self._digest is not None and self.seconds_left == 0:
                    self.withdraw()
                    _log.warning("claim_code_expired", remedy="sudo edged claim --new")
        finally:
            self.withdraw()


def _rewrite(path: Path, text: str) -> None:
    """Another text in a file that is there and ours; nothing where it is anything else, or cannot be written."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "w") as file:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
                os.ftruncate(descriptor, 0)
                file.write(text)


def _write(path: Path, text: str) -> None:
    """A new file of mode 0600, whatever lay there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
