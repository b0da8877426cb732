"""URLs of cameras and key sets as they may be shown, without what opens them; and which hosts are this machine."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"
#: What IPv6 puts before an IPv4 address, and IPv4 addresses of this machine.
_MAPPED: Final = "::ffff:"
_OWN: Final = re.compile(r"127(?:\.(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}")
#: Query parameters whose value opens something, as cameras have them: parts of names, and whole names.
_PARTS: Final = ("pass", "pwd", "secret", "token", "key", "auth", "credential", "sig", "jwt", "ticket")
_NAMES: Final = frozenset({"pw", "usr", "user", "username", "login", "account"})


def is_loopback(host: str) -> bool:
    """Whether a host, as the kernel gives it or as it stands in a URL, is this very machine.

    127.0.0.0/8, also as IPv6 writes it, ::1, each with or without brackets, and `localhost`. A name like
    127.0.0.1.example is none.
    """
    host = host.strip("[]").lower().removeprefix(_MAPPED)
    if host in ("::1", "localhost"):
        return True
    return _OWN.fullmatch(host) is not None


def mask_url(text: str) -> str:
    """A URL with *** for its user name and password, and for the values of query parameters that open something.

    A text that is no URL is returned as it is. A password may stand there unescaped, with any sign in it: whatever lies
    between `://` and the last @ is masked, at the cost of a host that is not shown where a path or query has an @.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        return text
    opened, at, rest = rest.rpartition("@")
    shown = f"{scheme}://"
    if at:
        shown += f"{MASK}@"
        # A ? or & may be a sign of the password itself.
        parameters = (text.partition("=") for text in re.split(r"[?&]", opened)[1:])
        if "?" in opened and any(equals and _opens(name) for name, equals, _ in parameters):
            # The last @ stands in a password of the query, whose end comes next.
            _, amp, rest = rest.partition("&")
            return f"{shown}{MASK}{amp}{_mask_query(rest)}"
    before, mark, query = rest.partition("?")
    return f"{shown}{before}{mark}{_mask_query(query)}"


def _mask_query(query: str) -> str:
    return "&".join(map(_mask_parameter, query.split("&")))


def _mask_parameter(text: str) -> str:
    name, equals, value = text.partition("=")
    return f"{name}={MASK}" if equals and value and _opens(name) else text


def _opens(name: str) -> bool:
    name = name.lower()
    return name in _NAMES or any(part in name for part in _PARTS)
