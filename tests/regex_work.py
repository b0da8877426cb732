"""A backtracking matcher over Python's own parse trees of regular expressions, which counts its steps.

The standard library's engine counts nothing, and time on a shared machine proves little. This one takes the same tree
and tries the same alternatives in the same order, one character a step, without the shortcuts of the real one: its
steps bound the real work, and are the same in every run.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import re._constants as c  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Then = Callable[[int], int]
Test = Callable[[int], bool]
#: Steps after which a matcher gives up.
MOST_STEPS = 300_000
_FOREVER = int(c.MAXREPEAT)


class TooManySteps(Exception):
    """The work has no end worth waiting for."""


@functools.cache
def tree_of(pattern: re.Pattern[Any]) -> Any:
    """The parse tree of a pattern, with the flags that it was compiled with."""
    return parser.parse(pattern.pattern, pattern.flags & ~(re.UNICODE if isinstance(pattern.pattern, bytes) else 0))


class Remembered(dict[int, bool]):
    """The answers of a test of single characters, each of which is asked about again and again."""

    def __init__(self, test: Test) -> None:
        self._test = test

    def __missing__(self, char: int) -> bool:
        self[char] = answer = self._test(char)
        return answer


class Node(NamedTuple):
    """An element of a parse tree, whose own parts are lists of nodes; `test` where it is about one character."""

    operator: Any
    value: Any
    test: Test | None


@functools.cache
def nodes_of(pattern: re.Pattern[Any]) -> list[Node]:
    """What a matcher goes through: made once, tried on hundreds of texts."""
    tree = tree_of(pattern)
    return _read(tree, tree.state.flags | pattern.flags)


def _read(tree: Any, flags: int) -> list[Node]:
    return [
        Node(operator, _read_value(operator, value, flags), _test_of(operator, value, flags))
        for operator, value in tree
    ]


def _read_value(operator: Any, value: Any, flags: int) -> Any:
    if operator is c.SUBPATTERN:
        return _read(value[3], flags)
    if operator is c.BRANCH:
        return [_read(each, flags) for each in value[1]]
    if operator in (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT):
        return value[0], value[1], _read(value[2], flags)
    if operator is c.ATOMIC_GROUP:
        return _read(value, flags)
    if operator in (c.ASSERT, c.ASSERT_NOT):
        direction, tree = value
        return 0 if direction > 0 else tree.getwidth()[0], _read(tree, flags)
    return value


def _test_of(operator: Any, value: Any, flags: int) -> Test | None:
    """Whether one character fits; None for what is not about one character."""
    folded = bool(flags & re.IGNORECASE)
    if operator in (c.LITERAL, c.NOT_LITERAL):
        wanted = {value, ord(chr(value).lower()), ord(chr(value).upper())} if folded else {value}
        return wanted.__contains__ if operator is c.LITERAL else (lambda char: char not in wanted)
    if operator is c.ANY:
        return (lambda _char: True) if flags & re.DOTALL else (lambda char: char != 10)
    if operator is c.IN:
        fits = Remembered(lambda char: _is_in(value, char) or (folded and _is_in(value, ord(chr(char).swapcase()[:1]))))
        return fits.__getitem__
    return None


class Matcher:
    """One pattern on one text of character numbers. `steps` is the work so far."""

    def __init__(self, pattern: re.Pattern[Any], text: str | bytes) -> None:
        self._nodes = nodes_of(pattern)
        self._is_multiline = bool((tree_of(pattern).state.flags | pattern.flags) & re.MULTILINE)
        self.text = list(text) if isinstance(text, bytes) else [ord(char) for char in text]
        self.steps = 0

    def match(self, at: int = 0) -> int:
        """The end of a match that begins here, -1 without one."""
        return self._items(self._nodes, 0, at, lambda end: end)

    def search(self) -> None:
        """All matches, one behind the other, as `sub` and `findall` look for them."""
        at = 0
        while at <= len(self.text):
            end = self.match(at)
            at = end if end > at else at + 1

    # --- the tree -------------------------------------------------------------------------------------------------

    def _items(self, items: list[Node], index: int, at: int, then: Then) -> int:
        while index < len(items):
            operator, value, test = items[index]
            if test is not None:
                self.steps += 1
                if at >= len(self.text) or not test(self.text[at]):
                    return -1
                at, index = at + 1, index + 1
                continue
            rest = index + 1
            return self._complex(operator, value, at, lambda end: self._items(items, rest, end, then))  # noqa: B023
        return then(at)

    def _complex(self, operator: Any, value: Any, at: int, then: Then) -> int:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooManySteps
        if operator is c.AT:
            return then(at) if self._is_at(value, at) else -1
        if operator is c.SUBPATTERN:
            return self._items(value, 0, at, then)
        if operator is c.BRANCH:
            return next((end for each in value if (end := self._items(each, 0, at, then)) >= 0), -1)
        if operator is c.MAX_REPEAT:
            return self._repeat(value[0], value[1], value[2], at, then)
        if operator is c.MIN_REPEAT:
            return self._repeat_lazily(value[0], value[1], value[2], at, then)
        if operator is c.POSSESSIVE_REPEAT:
            end = self._repeat(value[0], value[1], value[2], at, lambda end: end)
            return then(end) if end >= 0 else -1
        if operator is c.ATOMIC_GROUP:
            end = self._items(value, 0, at, lambda end: end)
            return then(end) if end >= 0 else -1
        if operator in (c.ASSERT, c.ASSERT_NOT):
            width, items = value
            found = at >= width and self._items(items, 0, at - width, lambda end: end) >= 0
            return then(at) if found == (operator is c.ASSERT) else -1
        raise NotImplementedError(f"{operator} is not counted yet: teach this matcher about it")

    def _repeat(self, least: int, most: int, items: list[Node], at: int, then: Then) -> int:
        most = len(self.text) + 1 if most == _FOREVER else most
        if len(items) == 1 and (test := items[0].test) is not None:
            end = at
            while end < len(self.text) and end - at < most:
                self.steps += 1
                if not test(self.text[end]):
                    break
                end += 1
            for back in range(end, at + least - 1, -1):
                self.steps += 1
                if (found := then(back)) >= 0:
                    return found
            return -1

        def again(start: int, count: int) -> int:
            self.steps += 1
            if count < most:
                found = self._items(items, 0, start, lambda end: again(end, count + 1) if end > start else -1)
                if found >= 0:
                    return found
            return then(start) if count >= least else -1

        return again(at, 0)

    def _repeat_lazily(self, least: int, most: int, items: list[Node], at: int, then: Then) -> int:
        def again(start: int, count: int) -> int:
            self.steps += 1
            if count >= least and (found := then(start)) >= 0:
                return found
            if count >= most:
                return -1
            return self._items(items, 0, start, lambda end: again(end, count + 1) if end > start else -1)

        return again(at, 0)

    def _is_at(self, where: Any, at: int) -> bool:
        if where in (c.AT_BEGINNING, c.AT_BEGINNING_STRING):
            return at == 0 or (where is c.AT_BEGINNING and self._is_multiline and self.text[at - 1] == 10)
        if where in (c.AT_END, c.AT_END_STRING):
            return at == len(self.text) or (where is c.AT_END and self.text[at:] == [10])
        before = at > 0 and _is_word(self.text[at - 1])
        behind = at < len(self.text) and _is_word(self.text[at])
        return (before != behind) == (where is c.AT_BOUNDARY)


def _is_in(members: list[Any], char: int) -> bool:
    found = any(_fits(operator, value, char) for operator, value in members if operator is not c.NEGATE)
    return found != (members[0][0] is c.NEGATE)


def _fits(operator: Any, value: Any, char: int) -> bool:
    if operator is c.LITERAL:
        return bool(char == value)
    if operator is c.RANGE:
        return bool(value[0] <= char <= value[1])
    assert operator is c.CATEGORY, operator
    name = str(value)
    kind = {"DIGIT": str.isdigit, "SPACE": str.isspace, "WORD": lambda text: _is_word(ord(text))}
    found = next(test(chr(char)) for word, test in kind.items() if name.endswith(word))
    return bool(found) != ("_NOT_" in name)


def _is_word(char: int) -> bool:
    return chr(char).isalnum() or char == 95


# --- texts that an attacker would try ---------------------------------------------------------------------------------


def sample(tree: Any) -> Iterator[str]:
    """Texts that parts of a pattern match, the whole among them: what repeats, and what stands before it."""
    whole = ""
    for operator, value in tree:
        if operator in (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT):
            least, _, inner = value
            part = _first(inner)
            yield from sample(inner)
            yield part
            whole += part * max(least, 1)
        elif operator is c.SUBPATTERN:
            yield from sample(value[3])
            whole += _first(value[3])
        elif operator is c.ATOMIC_GROUP:
            yield from sample(value)
            whole += _first(value)
        elif operator is c.BRANCH:
            for each in value[1]:
                yield from sample(each)
            whole += _first(value[1][0])
        elif operator in (c.LITERAL, c.NOT_LITERAL, c.IN, c.ANY):
            whole += _character(operator, value)
        yield whole


def _first(tree: Any) -> str:
    return list(sample(tree))[-1] if len(tree) else ""


def _character(operator: Any, value: Any) -> str:
    if operator is c.LITERAL:
        return chr(value)
    tried = itertools.chain(map(ord, "a0A- \n\"'@."), range(1, 128))
    if operator is c.IN:
        return next(chr(char) for char in tried if _is_in(value, char))
    return next(chr(char) for char in tried if operator is c.ANY or char != value)


def attacks(pattern: re.Pattern[Any], extra: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(beginning, what is repeated, end) of the texts that are tried on a pattern."""
    parts = [part for part in dict.fromkeys(sample(tree_of(pattern))) if part]
    longest = parts[-1:]
    # Of prefixes that grow by a letter the longest says as much as all of them.
    parts = [one for one, other in itertools.zip_longest(parts, parts[1:], fillvalue="") if one != other[:-1]]
    parts = list(dict.fromkeys([*extra, *parts[:12], *longest, " ", "a", '\\"']))
    pairs = [one + other for one, other in itertools.permutations(parts[:5], 2)]
    starts = dict.fromkeys(["", *longest])
    return [(start, part, end) for start in starts for part in [*parts, *pairs] for end in ("", "\x01")]


def steps_of(pattern: re.Pattern[Any], text: str, *, is_search: bool) -> float:
    """The work of this pattern on this text; infinite for more than anybody waits for."""
    matcher = Matcher(pattern, text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text)
    try:
        if is_search:
            matcher.search()
        else:
            matcher.match()
    except TooManySteps:
        return math.inf
    return matcher.steps
