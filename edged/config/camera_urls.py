"""Addresses of network cameras that cannot work as they are written, and how they are to be written. Pure.

A user name or password with a sign that ends the part of the URL in which it stands (RFC 3986, 3.2: `/`, `?`, `#`), or
with a blank, has to be escaped; otherwise ffmpeg looks for a host that is a piece of the password.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

from edged.urls import MASK, mask_url

#: What may stand in a user name or password as it is; % begins what is escaped already.
_PLAIN: Final = "%!$&'()*+,;=-._~:@"
_NAMES: Final = {" ": "a blank", "\t": "a tab"}
#: A host as people write it, and what may follow.
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?(?=[/?]|\Z)")
_ENDS: Final = re.compile(r"[/?#]")


def find_fault(source: str) -> str:
    """What is wrong with an address of a network camera, and its right spelling with the password masked; "" if it can
    work."""
    scheme, _, rest = source.partition("://")
    userinfo, after = _take_apart(rest)
    bad = [sign for sign in dict.fromkeys(userinfo) if sign in "/?#[] \t"]
    if bad:
        signs = " and ".join(_NAMES.get(sign, sign) for sign in bad)
        escapes = ", ".join(f"{quote(sign, safe='')} for {_NAMES.get(sign, sign)}" for sign in bad)
        user, colon, _ = userinfo.partition(":")
        shown = f"{scheme}://{quote(user, safe=_PLAIN)}{colon}{MASK if colon else ''}@{_mask_rest(after)}"
        return f"its user name or password contains {signs}: write {escapes}, that is {shown}"
    if re.search(r"[\x00-\x20\x7f]", source):
        return "it contains a blank or a control character: write %20 for a blank"
    try:
        if not urlsplit(source).hostname:
            return "it has no host"
        _ = urlsplit(source).port
    except ValueError:
        return f"its host or port is not valid: {mask_url(source)}"
    return ""


def _take_apart(rest: str) -> tuple[str, str]:
    """What follows `://` → the user name and password as they were meant, and what comes after their @."""
    end = _ENDS.search(rest)
    authority = rest[: end.start()] if end else rest
    # No stream has a fragment: a # before an @ is part of a password.
    if "@" in authority and "#" not in rest[len(authority) :].partition("?")[0].rpartition("@")[0]:
        userinfo, _, host = authority.rpartition("@")
        return userinfo, host + rest[len(authority) :]
    for found in re.finditer("@", rest):
        before, after = rest[: found.start()], rest[found.end() :]
        if _HOST.match(after) and _is_meant(authority, before):
            return before, after
    return "", rest


def _is_meant(authority: str, before: str) -> bool:
    """Whether `before` is a user name and password that hold the end of `authority`, and no path or query with an @."""
    if len(before) <= len(authority):
        return False
    sign = before[len(authority)]
    if authority.startswith("["):
        return sign == "#"
    port = authority.rpartition(":")[2] if ":" in authority else ""
    if sign == "#" or (port and not port.isdigit()):
        return True
    # A query may hold anything; a path of a camera has no colon before an @.
    return ":" in before[len(authority) :] and "=" not in before and not (port or "." in authority)


def _mask_rest(after: str) -> str:
    return mask_url(f"rtsp://{after}").removeprefix("rtsp://")
