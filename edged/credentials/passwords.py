"""Passwords: what may be one, its bytes, and what a stored hash says of its own cost (contract 10.19).

Rules after NIST SP 800-63B 5.1.1.2: at least 8 characters, long ones welcome, no rule of what must be mixed, common
and context-specific ones refused, nothing cut off. What is hashed is the UTF-8 of the NFC form (RFC 8265 4.2.2): the
same word typed on a keyboard that composes accents and on one that does not is one password. Not NFKC, which makes
different characters equal.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Final

import msgspec

from edged.errors import InvalidParams

#: Characters (code points of the NFC form), at least, of a password that somebody chooses.
SHORTEST: Final = 8
#: Bytes of UTF-8, at most: longer ones are refused, not cut.
LONGEST_BYTES: Final = 1024
#: More memory than this is not spent on a hash, whatever it says of itself.
_MOST_KIB: Final = 64 * 1024
_PHC: Final = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,6}),t=([1-9][0-9]{0,2}),p=([1-9][0-9]{0,1})"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})\Z"
)
#: What guessers try first, and what the guides of these clients print; compared without case.
_TRIED_FIRST: Final = """
    00000000 11111111 12341234 12344321 12345678 123456789 1234567890 123123123 1q2w3e4r 1q2w3e4r5t 1qaz2wsx
    abcd1234 admin123 admin1234 administrator adminadmin asdfghjkl baseball camera123 changeme changeme1 changeit
    computer demodemo demo1234 demopass edged123 edgedemo football iloveyou internet letmein1 mediamtx
    michael1 mypassword operator operator123 passw0rd password password! password1 password12 password123
    password1234 princess qwerty12 qwerty123 qwertyui qwertyuiop raspberry raspberry1 raspberrypi secret123 sunshine
    superman supersecret testtest trustno1 user1234 viewer123 welcome1 welcome123 your-password your-secret
    your-secret-key your-secret-key-here yourpassword zaq12wsx
"""
_COMMON: Final = frozenset(_TRIED_FIRST.split())


class Cost(msgspec.Struct, frozen=True):
    """What one argon2id hash costs: memory in KiB, passes over it, lanes."""

    memory_kib: int
    passes: int
    lanes: int = 1

    def covers(self, other: Cost) -> bool:
        """Whether a guess at this cost is at least as expensive as at the other, in each respect."""
        return self.memory_kib >= other.memory_kib and self.passes >= other.passes and self.lanes >= other.lanes


#: Never less, on any box (contract 10.19): 19 MiB, two passes, one lane.
MINIMUM_COST: Final = Cost(memory_kib=19 * 1024, passes=2)
#: However fast the box.
MOST_PASSES: Final = 10


def prepare(text: str) -> bytes | None:
    """What is hashed of a password; None for a text that cannot be one: empty, too long, or not Unicode."""
    # Nobody gets a megabyte normalised: what has more characters than that has more bytes.
    if not text or len(text) > LONGEST_BYTES:
        return None
    try:
        written = unicodedata.normalize("NFC", text).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can name
        return None
    return written if len(written) <= LONGEST_BYTES else None


def check_password(text: str, username: str) -> None:
    """Whether somebody may choose this password. Raises InvalidParams saying what is wrong, never the password."""
    if text and prepare(text) is None:
        raise InvalidParams(f"the password is longer than {LONGEST_BYTES} bytes of UTF-8, or is not Unicode")
    shown = unicodedata.normalize("NFC", text)
    if len(shown) < SHORTEST:
        raise InvalidParams(
            f"the password is shorter than {SHORTEST} characters", hint="some words in a row are easy to remember"
        )
    if any(unicodedata.category(character) == "Cc" for character in shown):
        raise InvalidParams("the password holds a control character, for example a line end", hint="leave it out")
    folded = shown.casefold()
    if folded == unicodedata.normalize("NFC", username).casefold():
        raise InvalidParams("the password is the user name", hint="choose another one")
    if folded in _COMMON or _is_monotonous(folded):
        raise InvalidParams("the password is one of those that are tried first", hint="choose another one")


def read_cost(phc: str) -> Cost | None:
    """What a stored hash cost; None for a text that is no argon2id hash of a cost that would be paid again."""
    found = _PHC.match(phc)
    if found is None:
        return None
    cost = Cost(int(found[1]), int(found[2]), int(found[3]))
    return cost if cost.memory_kib <= _MOST_KIB and cost.passes <= 4 * MOST_PASSES and cost.lanes <= 4 else None


def _is_monotonous(text: str) -> bool:
    """One character again and again, or one after the other as in the alphabet or on the number row."""
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    return steps <= {0} or steps <= {1} or steps <= {-1}
