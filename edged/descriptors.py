"""How many descriptors this process may have open, and what it means when there are no more (getrlimit(2))."""

from __future__ import annotations

import errno
import resource
from typing import Final

#: No descriptor is left: in this process (EMFILE), or on the machine (ENFILE).
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})
#: What the soft limit is raised to, where the hard one allows. Children inherit it: MediaMTX needs one a viewer.
WANTED: Final = 65536
#: Descriptors that connections from the network never take: databases, children and their pipes, MediaMTX's questions,
#: the unix socket, metrics, files that are being sent.
RESERVE: Final = 768


def raise_limit(wanted: int = WANTED) -> int:
    """Raise the soft limit as far as it may; returns what it is then."""
    soft, hard = (_finite(each) for each in resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft >= wanted:
        return soft
    better = min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (better, hard))
    except (OSError, ValueError):  # a sandbox may forbid it
        return soft
    return better


def connections_within(limit: int, wanted: int) -> int:
    """How many of the `wanted` connections a limit of descriptors leaves room for, at least one."""
    return max(1, min(wanted, limit - min(RESERVE, limit // 2)))


def is_exhausted(problem: BaseException | None) -> bool:
    """Whether this is an OSError that says that no descriptor is left."""
    return isinstance(problem, OSError) and problem.errno in EXHAUSTED


def _finite(limit: int) -> int:
    return 2**31 if limit == resource.RLIM_INFINITY else limit
