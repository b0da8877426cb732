"""What one listener shows, and to whom (contract S1-38, C-9): settled before any credential is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from edged.credentials.service_tokens import is_within, read_networks

_EVERYWHERE: Final = frozenset({"0.0.0.0/0", "::/0"})


class Policy:
    """The paths that one listener answers at, and the networks whose peers it speaks to.

    `paths` are exact, or a beginning and `*` behind it; `networks` as `read_networks` takes them, and raises
    ValueError for what is none.
    """

    __slots__ = ("_beginnings", "_exact", "_networks")

    def __init__(self, paths: Sequence[str], networks: Sequence[str]) -> None:
        self._exact = frozenset(path for path in paths if not path.endswith("*"))
        self._beginnings = tuple(path[:-1] for path in paths if path.endswith("*"))
        self._networks = read_networks(networks)

    @property
    def shows_everything(self) -> bool:
        """Whether no path is hidden."""
        return "/" in self._beginnings

    @property
    def admits_everybody(self) -> bool:
        """Whether no peer is refused."""
        return set(self._networks) >= _EVERYWHERE

    def shows(self, path: str) -> bool:
        """Whether there is anything at this path, given as the router reads it: %-encoding resolved, and no more."""
        return path in self._exact or path.startswith(self._beginnings)

    def admits(self, address: str) -> bool:
        """Whether this peer may speak; IPv4 as IPv6 writes it is IPv4, and loopback is a network like any other."""
        return is_within(self._networks, address)


def find_neighbours(paths: Sequence[str], routes: Iterable[str]) -> dict[str, list[str]]:
    """Entries that show more than what lies below a path → the routes that only begin alike: `/api/token*` is meant for
    /api/token and what is below it, and shows /api/tokens as well."""
    known, found = sorted(routes), dict[str, list[str]]()
    for entry in paths:
        beginning = entry[:-1]
        if not entry.endswith("*") or beginning.endswith("/"):
            continue
        meant = [route for route in known if route == beginning or route.startswith(f"{beginning}/")]
        others = [route for route in known if route.startswith(beginning) and route not in meant]
        if meant and others:
            found[entry] = others
    return found
