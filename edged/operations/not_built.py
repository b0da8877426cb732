"""Methods and paths of the wire contract that this version does not have, and the errors for them.

A client that was written for the whole contract is told so. What is built is found first: a name that still stands
here then has no effect.
"""

from __future__ import annotations

from typing import Final

from edged.errors import EdgedError, NotBuilt, UnknownMethod

#: Contract 3.
METHODS: Final = frozenset(
    {
        "get_camera_capabilities",
        "get_stream_status", "start_streaming", "stop_streaming",
        "get_metrics", "get_status", "get_system_health", "get_server_info",
        "get_subscription_stats", "discover_external_streams", "add_external_stream", "remove_external_stream",
        "get_external_streams", "set_discovery_interval",
    }
)  # fmt: skip
#: Contract 5.3, 5.4 and 10.1: exact paths, or beginnings that end in `/`. MCP is not among them: its clients look for
#: a 404.
PATHS: Final = (
    "/v1/files/",
    "/get/",
    "/storage/",
    "/api/audit",
    "/api/decisions/",
)
#: Where all methods are named; the package installs that file.
WHERE: Final = "docs/methods.md names all methods (installed in /usr/share/doc/edged/docs)"
_LONGEST: Final = 64


def unknown_method(name: str) -> EdgedError:
    """The error for a method that no operation has: not built yet, or not known at all."""
    if name in METHODS:
        return NotBuilt(f"{name} is not built yet", hint=WHERE, method=name)
    return UnknownMethod(f"no method {name[:_LONGEST]!r}", hint=WHERE)


def is_path(path: str) -> bool:
    """Whether a later version has something at this path."""
    return any(path.startswith(known) if known.endswith("/") else path == known for known in PATHS)
