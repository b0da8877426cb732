"""Memory that a burst took and nobody needs any more goes back to the system."""

from __future__ import annotations

import ctypes
from functools import cache


def give_back() -> None:
    """Hand the free pages of the C library's heap back (malloc_trim(3)); nothing where there is no such call.

    glibc by itself gives back only what lies at the end of its heap: a small block that lives on keeps all below it.
    """
    trim = _find_trim()
    if trim is not None:
        trim(0)


@cache
def _find_trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
