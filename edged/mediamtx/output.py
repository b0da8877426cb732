"""MediaMTX's output: bytes → log lines and a diagnosis.

Once its output pipe is full MediaMTX accepts no new session, while every health answer stays good; so the output must
be read as long as the process runs, however much it is. Lines beyond a limit a second, and one a minute, are
counted, not logged.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
import structlog
import trio

#: Bytes of a line that are kept; MediaMTX's own lines are far shorter.
LINE_BYTES = 4096
#: Lines a second that are logged.
LINES_A_SECOND = 50
#: Lines a minute: MediaMTX writes three for each connection of anybody.
LINES_A_MINUTE = 300
#: Lines that are kept for the diagnosis.
TAIL_LINES = 40

_LEVELS = {"DEB": "debug", "INF": "info", "WAR": "warning", "ERR": "error"}
_log = structlog.get_logger("mediamtx")


class Line(msgspec.Struct, frozen=True):
    """One line: `level` is debug, info, warning or error; `early` says that it came before logging had begun."""

    level: str
    text: str
    early: bool = False


def parse_line(raw: bytes) -> Line:
    """A line of either stream. Structured where it is JSON; hostile text makes it invalid JSON, then it is kept raw."""
    text = raw.decode("utf-8", "replace").strip()
    try:
        values = json.loads(text)
        level, message = _LEVELS.get(values["level"], "info"), str(values["message"])
        return Line("debug" if _NOT_FOUND.fullmatch(message) else level, message)
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    if text.startswith("ERR: "):
        return Line("error", text.removeprefix("ERR: "), early=True)
    return Line("info", text)


class Diagnosis(msgspec.Struct, frozen=True):
    """Why it ended at its start. `port` with port_taken; `unknown_key` with config_refused, "" if that was not it."""

    status: Literal["port_taken", "config_refused"]
    line: str
    port: int = 0
    transport: str = "tcp"
    unknown_key: str = ""


_IN_USE = re.compile(r"listen (tcp|udp)\d? \S*:(\d+): bind: address already in use")
#: About an id that we asked for and that had gone meanwhile.
_NOT_FOUND = re.compile(r"\[API\] (?:session|connection|conn|path) not found")
_UNKNOWN = re.compile(r'json: unknown field "([^"]+)"')


def diagnose(lines: Iterable[Line]) -> Diagnosis | None:
    """The first error that explains an exit before it was ready; None if none does."""
    for line in lines:
        if line.level != "error":
            continue
        if taken := _IN_USE.search(line.text):
            return Diagnosis("port_taken", line.text, int(taken[2]), taken[1])
        if line.early or line.text.startswith("listen "):
            unknown = _UNKNOWN.search(line.text)
            return Diagnosis("config_refused", line.text, unknown_key=unknown[1] if unknown else "")
    return None


class Output:
    """Takes one stream's bytes in pieces; logs its lines and remembers the last ones, raw."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        tail: deque[bytes] | None = None,
        *,
        is_noise: Callable[[str], bool] = lambda _text: False,
        secrets: Iterable[str] = (),
    ) -> None:
        """Lines that `is_noise` says are about ourselves are dropped; `secrets` are masked wherever they stand."""
        self._is_noise = is_noise
        self._secrets = [secret.encode() for secret in secrets if secret]
        # A secret that begins within a line's limit is kept whole until it is masked.
        self._kept_bytes = LINE_BYTES + max(map(len, self._secrets), default=0)
        self.tail: deque[bytes] = deque(maxlen=TAIL_LINES) if tail is None else tail
        self._monotonic = monotonic
        self._rest = b""
        self._second = -1
        self._logged = self._logged_in_minute = 0
        self.suppressed = 0

    def feed(self, data: bytes) -> None:
        """Bytes as they came; a line may come in pieces."""
        *lines, rest = (self._rest + data).split(b"\n")
        # What stands beyond the limit of a line without an end is dropped, so that it cannot fill the memory.
        self._rest = rest[: self._kept_bytes]
        for line in lines:
            self._take(line[: self._kept_bytes])

    def finish(self) -> None:
        """The stream has ended: what is left is a line, and what was left out is told."""
        self._take(self._rest)
        self._rest = b""
        self._tell_suppressed()

    def _take(self, raw: bytes) -> None:
        for secret in self._secrets:
            raw = raw.replace(secret, b"***")
        raw = raw[:LINE_BYTES]
        if not raw.strip():
            return
        second = int(self._monotonic())
        if second != self._second:
            if second // 60 != self._second // 60:
                self._logged_in_minute = 0
            if self._logged_in_minute < LINES_A_MINUTE:
                self._tell_suppressed()
            self._second, self._logged = second, 0
        if self._logged >= LINES_A_SECOND or self._logged_in_minute >= LINES_A_MINUTE:
            self.tail.append(raw)
            self.suppressed += 1
            return
        line = parse_line(raw)
        if line.level == "info" and self._is_noise(line.text):
            return
        self.tail.append(raw)
        self._logged += 1
        self._logged_in_minute += 1
        _log.log(_NUMBERS[line.level], "output", text=line.text)

    def _tell_suppressed(self) -> None:
        if self.suppressed:
            _log.warning(
                "lines_left_out",
                count=self.suppressed,
                why=f"more than {LINES_A_SECOND} a second or {LINES_A_MINUTE} a minute",
            )
            self.suppressed = 0


class Drain:
    """Reads one stream to its end whatever is cancelled around it: it must be read as long as the child lives."""

    def __init__(self, stream: trio.lowlevel.FdStream, output: Output) -> None:
        self._stream = stream
        self._output = output
        self._scope = trio.CancelScope(shield=True)
        #: Set when the stream has ended.
        self.ended = trio.Event()

    async def run(self) -> None:
        """Read until the stream ends, or the time of `finish_within` is over."""
        try:
            with self._scope:
                while data := await self._stream.receive_some(65536):
                    self._output.feed(data)
        except (OSError, trio.BrokenResourceError) as error:
            _log.error("output_lost", why=str(error))
        finally:
            self._output.finish()
            self.ended.set()

    def finish_within(self, seconds: float) -> None:
        """The child has ended: only a process that it left behind can still hold the pipe."""
        self._scope.deadline = trio.current_time() + seconds


_NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
