"""How a camera's web server is shown a user name and password: Basic (RFC 7617) and Digest (RFC 7616). Pure.

Nothing is shown before the server has asked. A server that offers both gets the digest, which holds no password.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

#: One parameter of a challenge: a word or a quoted text, none of them long.
_PARAMETER: Final = re.compile(r'([A-Za-z-]{1,32})\s{0,4}=\s{0,4}(?:"([^"]{0,512})"|([^\s",]{1,512}))')
_LONGEST: Final = 4096
#: For texts of the server that are shown to it again, and hashed: as UTF-8, and where they are none to the byte.
AS_SENT: Final = "surrogateescape"
_HASHES: Final = {"MD5": "md5", "SHA-256": "sha256"}


def answer(challenges: Iterable[str], user: str, password: str, target: str) -> str | None:
    """The Authorization header for a GET of `target`; None if the server asks for nothing that we can show.

    `challenges`: the values of WWW-Authenticate, one scheme each, as cameras send them.
    """
    basic = None
    for challenge in challenges:
        scheme, _, rest = challenge[:_LONGEST].strip().partition(" ")
        if scheme.lower() == "digest":
            parameters = {name.lower(): quoted or word for name, quoted, word in _PARAMETER.findall(rest)}
            if (shown := _digest(parameters, user, password, target)) is not None:
                return shown
        elif scheme.lower() == "basic":
            basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return basic


def _digest(asked: Mapping[str, str], user: str, password: str, target: str, cnonce: str = "") -> str | None:
    algorithm, nonce, realm = asked.get("algorithm", "MD5"), asked.get("nonce", ""), asked.get("realm", "")
    name = _HASHES.get(algorithm.upper())
    ways = [way.strip() for way in asked.get("qop", "").split(",")]
    if name is None or not nonce or (ways != [""] and "auth" not in ways):
        return None

    def digest(text: str) -> str:
        return hashlib.new(name, text.encode(errors=AS_SENT), usedforsecurity=False).hexdigest()

    own, what = digest(f"{user}:{realm}:{password}"), digest(f"GET:{target}")
    shown = {"username": user, "realm": realm, "nonce": nonce, "uri": target}
    plain = {"algorithm": algorithm} if "algorithm" in asked else {}
    if ways == [""]:
        shown["response"] = digest(f"{own}:{nonce}:{what}")
    else:
        cnonce = cnonce or secrets.token_hex(8)
        shown |= {"cnonce": cnonce, "response": digest(f"{own}:{nonce}:00000001:{cnonce}:auth:{what}")}
        plain |= {"qop": "auth", "nc": "00000001"}
    if "opaque" in asked:
        shown["opaque"] = asked["opaque"]
    quoted = [f'{key}="{_escape(value)}"' for key, value in shown.items()]
    return "Digest " + ", ".join([*quoted, *(f"{key}={value}" for key, value in plain.items())])


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
