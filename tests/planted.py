"""Every secret that this process makes while it tests, and the search for them where none may stand.

`install` wraps the few functions by which secrets come into being; it must run before anything of edged is imported
by name (conftest does). Whatever else a test knows to be secret it hands to `plant`.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

#: Shorter texts, and such of fewer different characters, stand everywhere by chance.
SHORTEST = 8
FEWEST = 4
#: In texts of at most so many characters each place is looked up among the ends of all secrets, of which one process
#: makes thousands; a longer text is searched for each of them.
_LONGEST = 20_000

_what: dict[str, str] = {}
#: The last SHORTEST characters → texts that end in them and show a secret (it, and as JSON has it) → the secret.
_ends: defaultdict[str, dict[str, str]] = defaultdict(dict)
_children: list[tuple[str, str, str]] = []


def plant(text: str, what: str) -> str:
    """From here on this text may not be shown; returns it."""
    if len(text) >= SHORTEST and len(set(text)) >= FEWEST:
        _what[text] = what
        for spelling in _spell(text):
            _ends[spelling[-SHORTEST:]][spelling] = text
    return text


def leaks(*texts: str) -> list[str]:
    """What stands in these texts and should not, named by what it is; a secret written as JSON counts."""
    shown: set[str] = set()
    for text in texts:
        ends: Iterable[str] = _ends
        if len(text) <= _LONGEST:
            ends = _ends.keys() & {text[place : place + SHORTEST] for place in range(len(text) - SHORTEST + 1)}
        shown |= {secret for end in ends for spelling, secret in _ends[end].items() if spelling in text}
    return [what for secret, what in _what.items() if secret in shown] if shown else []


def _spell(text: str) -> tuple[str, str]:
    return text, json.dumps(text)[1:-1]


def child_secrets(action: str, path: str = "") -> list[str]:
    """The passwords that were made for edged's own children, oldest first: (action, path) as the ledger knows them."""
    return [secret for made_for, on, secret in _children if (made_for, on) == (action, path)]


def forget(text: str) -> None:
    """It is shown on purpose, by whoever tests the search itself."""
    _what.pop(text, None)
    for spelling in _spell(text):
        _ends[spelling[-SHORTEST:]].pop(spelling, None)


def install() -> None:
    """Wrap what makes secrets."""
    from edged.credentials import api_keys

    def take_key(made: Any, *_given: Any) -> None:
        secret = made[0]
        plant(secret, "an API key")
        plant(secret.removeprefix("camera_service_sk_"), "an API key without its prefix")

    api_keys.mint_secret = _after(api_keys.mint_secret, take_key)  # mint() asks it by its name

    from edged.credentials import service_tokens

    service_tokens.mint_secret = _after(service_tokens.mint_secret, lambda made: plant(made[0], "a service token"))

    from edged.credentials import tokens

    def take_token(made: str, *_given: Any) -> None:
        plant(made, "a token")
        plant(made.rpartition(".")[2], "a token's signature")

    tokens.sign = _after(tokens.sign, take_token)
    tokens.SharedSecret.__init__ = _after(  # type: ignore[method-assign]
        tokens.SharedSecret.__init__,
        lambda _made, _self, name, text, *_: plant(text.strip(), f"shared secret {name!r}"),
    )

    from edged.access.child_secrets import ChildSecrets

    def take_child(made: str, _self: ChildSecrets, path: str, action: str, *_uses: object) -> None:
        _children.append((action, path, plant(made, f"a child's password to {action} {path}")))

    ChildSecrets.make = _after(ChildSecrets.make, take_child)  # type: ignore[method-assign]

    from edged.accounts.passwords import Argon2, Passwords

    Argon2.hash = _after(Argon2.hash, lambda made, *_: plant(made, "a password's hash"))  # type: ignore[method-assign]

    Passwords.hash = _after(  # type: ignore[method-assign]
        Passwords.hash, lambda _making, _self, text: plant(text, "a user's password")
    )

    from edged.mediamtx import ffmpeg

    def take_password(made: str, _url: str) -> None:
        plant(made, "a camera's password")

    ffmpeg.password_of = _after(ffmpeg.password_of, take_password)


def _after(function: Callable[..., Any], tell: Callable[..., object]) -> Callable[..., Any]:
    """The same function; `tell(result, *arguments)` hears of each call that succeeded."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        made = function(*arguments, **named)
        tell(made, *arguments, *named.values())
        return made

    return wrapped
