"""Whether a running MediaMTX works: its RTSP listener answers OPTIONS, and its path manager lists paths.

Neither shows the other: a listener that ran out of descriptors is closed while the API goes on
answering, and a path manager that hangs leaves OPTIONS answered (RFC 2326 10.1; MediaMTX asks no hook about it).
"""

from __future__ import annotations

import errno
import re
from collections import deque
from typing import Final

import trio

from edged.descriptors import EXHAUSTED
from edged.errors import DependencyFailed
from edged.mediamtx.addresses import connect, join_address
from edged.mediamtx.client import ControlApi

#: Bytes of an answer to OPTIONS that are read; MediaMTX's has some 130.
_ANSWER_BYTES: Final = 4096
#: MediaMTX's lines about a connection that said nothing wrong.
_ABOUT_CONNECTION: Final = re.compile(r"\[RTSP\] \[conn \S{1,64}:(\d{1,5})\] (?:opened|closed: EOF)")
#: What edged lacks itself, or the whole machine: no fault of MediaMTX.
_OUR_OWN: Final = EXHAUSTED | {errno.ENOMEM, errno.ENOBUFS}


class Health:
    """Checks one MediaMTX. `rtsp` is where its RTSP listener is reached, None if that is off."""

    def __init__(self, client: ControlApi, rtsp: tuple[str, int] | None) -> None:
        self._client = client
        self._rtsp = rtsp
        # Our own ends' ports: MediaMTX writes two lines about each connection, the first before connect() returns.
        self._ports: deque[int] = deque(maxlen=4)

    async def check(self, listener_within: float, api_within: float) -> None:
        """One check, within so many seconds for each of both questions. Raises DependencyFailed with what fails."""
        if self._rtsp is not None:
            await self._ask_rtsp(*self._rtsp, listener_within)
        await self._client.list_paths(timeout=api_within)

    def is_own_line(self, text: str) -> bool:
        """Whether a log line of MediaMTX is about a connection that was made to check it, and about nothing else."""
        found = _ABOUT_CONNECTION.fullmatch(text)
        return found is not None and int(found[1]) in self._ports

    async def _ask_rtsp(self, host: str, port: int, seconds: float) -> None:
        where = join_address(host, port)
        what = f"MediaMTX's RTSP listener {where}"
        try:
            with trio.fail_after(seconds):
                async with await connect(host, port, self._ports.append) as stream:
                    await stream.send_all(f"OPTIONS rtsp://{where}/ RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
                    answer = await _read_head(stream)
        except trio.TooSlowError as error:
            raise DependencyFailed(f"{what} did not answer within {seconds:g} s", hint="its log may say why") from error
        except (OSError, trio.BrokenResourceError) as error:
            raise DependencyFailed(f"{what} did not answer ({error})", hint="its log may say why") from error
        if not answer.startswith(b"RTSP/1.0 "):
            raise DependencyFailed(f"{what} does not speak RTSP", hint="another program may hold its port")


async def _read_head(stream: trio.SocketStream) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _ANSWER_BYTES:
        piece = await stream.receive_some(_ANSWER_BYTES)
        if not piece:
            break
        answer += piece
    return answer


def is_own_shortage(problem: BaseException | None) -> bool:
    """Whether a check failed for want of our own descriptors or memory, so that it tells nothing about MediaMTX."""
    while problem is not None:
        if isinstance(problem, OSError) and problem.errno in _OUR_OWN:
            return True
        problem = problem.__cause__
    return False
