"""What systemd hands to a service, and what it wants to hear; each does nothing where systemd is absent.

sd_notify(3), sd_listen_fds(3), systemd.exec(5) CREDENTIALS; all from the environment, which is passed in.
"""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from edged.errors import StartFailed

_FIRST_FD = 3
_OURS_ALONE = frozenset({"NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"})
#: MediaMTX reads MTX_* and RTSP_* as settings: a stray one would change or stop it.
_OURS_ALONE_PREFIXES = ("WATCHDOG_", "LISTEN_", "MTX_", "RTSP_")
_TIMESYNC = Path("/run/systemd/timesync/synchronized")
#: Seconds: two of timesyncd's longest rounds (PollIntervalMaxSec=), and how far its marker may lie in the future.
_TIMESYNC_ROUNDS = 2 * 2048.0
_TIMESYNC_AHEAD = 5.0
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


def notify(state: str, environ: Mapping[str, str] | None = None) -> bool:
    """Tell systemd, for example `READY=1` or `STATUS=…`; whether it could be told. Never raises, never waits."""
    address = _environ(environ).get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as teller:
            teller.sendto(state.encode(), address)
    except OSError:
        return False
    return True


def notify_reloading(environ: Mapping[str, str] | None = None) -> bool:
    """Say that settings are being read again; READY=1 ends that (sd_notify(3), Type=notify-reload)."""
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", environ)


def watchdog_interval(environ: Mapping[str, str] | None = None) -> float | None:
    """How often to send `WATCHDOG=1`, seconds (half of what systemd allows); None if nobody waits for it."""
    given = _environ(environ)
    allowed, pid = given.get("WATCHDOG_USEC", ""), given.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or int(allowed) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(allowed) / 2_000_000


def listen_fds(environ: Mapping[str, str] | None = None, *, first: int = _FIRST_FD) -> dict[str, socket.socket]:
    """Sockets that systemd opened for us, by FileDescriptorName; {} without any.

    A second one of the same name is `name.2` and so on. Call it once: the sockets own their descriptors.
    Raises StartFailed for a descriptor that is no socket.
    """
    given = _environ(environ)
    count = given.get("LISTEN_FDS", "")
    if given.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return {}
    names = given.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, socket.socket] = {}
    for offset in range(int(count)):
        name = (names[offset] if offset < len(names) else "") or "unknown"
        same = sum(known.partition(".")[0] == name or known == name for known in found)
        try:
            os.set_inheritable(first + offset, False)
            found[f"{name}.{same + 1}" if same else name] = socket.socket(fileno=first + offset)
        except OSError as problem:
            for opened in found.values():
                opened.close()
            raise StartFailed(
                f"descriptor {first + offset} ({name}) from systemd is not a socket: {problem.strerror}",
                hint="look at the socket unit: edged takes stream sockets only",
            ) from None
    return found


def credentials_directory(environ: Mapping[str, str] | None = None) -> Path | None:
    """The folder of this unit's credentials; None without."""
    folder = _environ(environ).get("CREDENTIALS_DIRECTORY", "")
    return Path(folder) if folder else None


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child: without what is meant for us alone, and without stray settings of MediaMTX."""
    return {
        name: value
        for name, value in _environ(environ).items()
        if name not in _OURS_ALONE and not name.startswith(_OURS_ALONE_PREFIXES)
    }


def is_clock_synchronized(marker: Path = _TIMESYNC, *, now: Callable[[], float] = time.time) -> bool:
    """Whether the system clock follows a time server: the kernel's word, or systemd-timesyncd's where that is withheld.

    A sandbox may forbid to ask the kernel (adjtimex, by ProtectClock=). timesyncd touches `marker` each time that it
    has heard from a server, at least every 34 minutes unless told otherwise. One that is older than two such rounds,
    or lies in the future, says nothing of the clock as it is now: somebody has set it, or the server is gone.
    """
    answer = _ask_kernel()
    if answer is not None:
        return answer
    try:
        age = now() - marker.stat().st_mtime
    except OSError:
        return False
    return -_TIMESYNC_AHEAD <= age <= _TIMESYNC_ROUNDS


class _Timex(ctypes.Structure):
    """The head of struct timex (adjtimex(2)); `rest` is more than any architecture needs."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def _ask_kernel() -> bool | None:
    """What adjtimex says; None where it may not be asked, or does not exist."""
    answer = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(answer))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else bool(state < _TIME_ERROR and not answer.status & _STA_UNSYNC)


def _environ(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ
