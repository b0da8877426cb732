"""Whether recorded files are what a box has sealed: judged from what was found, without asking anybody. Pure.

Each segment is judged by its own seal, then the series as a chain (each seal names the digest of the one before, each
tombstone bridges what was deleted), then the ranges that heads cover; and each key by the archive and by what the
asker knows of it (docs/seals.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from edged.credentials.seal_signatures import Signed, thumbprint_of
from edged.credentials.seals import ArchivedKey, Content, DerivedSeal, Head, KeyArchive, SegmentSeal, Tombstone

#: Times in an archive and in a seal are rounded each on its own, seconds.
_SLACK: Final = 1.0

Kind: TypeAlias = Literal["changed", "missing", "reordered", "foreign", "unsealed", "unreadable"]


class Found(msgspec.Struct, frozen=True):
    """A signed statement, and the file that it was found in."""

    where: str
    signed: Signed


class FoundFile(msgspec.Struct, frozen=True):
    """A file with the seal beside it; `content` None where the file itself is not there; `name` is its path as the seal
    must name it, or the end of that, None where it was given alone and may have another name."""

    where: str
    signed: Signed
    content: Content | None
    name: str | None


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as it was sealed. `place` sorts by camera and time; `number` of the segment, if known."""

    kind: Kind
    where: str
    text: str
    number: int | None = None
    place: str = ""


class Span(NamedTuple):
    """Numbers of a series from `low` to `high`, both included; None: no limit."""

    low: int | None
    high: int | None

    def holds(self, number: int) -> bool:
        """Whether a number lies in it."""
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)

    def cut(self, first: int, last: int) -> tuple[int, int]:
        """What of first to last lies in it; empty where the second is less than the first."""
        return max(first, self.low or first), last if self.high is None else min(last, self.high)


class Verdict(msgspec.Struct):
    """`problems` in the order of the series; `notes` what was not shown; `thumbprints` of the keys that signed;
    `proven`: each of them is one that the asker knows, or is confirmed by such a one; of `files` so many are
    `segments`."""

    problems: list[Problem] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    thumbprints: list[str] = msgspec.field(default_factory=list)
    proven: bool = False
    files: int = 0
    segments: int = 0


class Evidence(msgspec.Struct, frozen=True):
    """All that was found. `known` are thumbprints of keys that the asker knows to be the box's, None if they gave none.
    Files that are not to be judged have left `files`, but their seals are among `seals`: a chain needs them."""

    files: Sequence[FoundFile]
    seals: Sequence[Found]
    others: Sequence[Found]
    known: frozenset[str] | None
    spans: Mapping[str, Span] = msgspec.field(default_factory=dict)


def choose_spans(seals: Iterable[Signed], begin: float | None, end: float | None) -> dict[str, Span]:
    """Series → the numbers of its segments that share some time with [begin, end), Unix seconds."""
    series: dict[str, list[SegmentSeal]] = defaultdict(list)
    for signed in seals:
        if isinstance(signed.statement, SegmentSeal):
            series[signed.statement.series].append(signed.statement)
    spans: dict[str, Span] = {}
    for name, found in series.items():
        before = {each.number for each in found if begin is not None and each.ended <= begin}
        after = {each.number for each in found if end is not None and each.began >= end}
        inside = {each.number for each in found} - before - after
        # The clock may have been set in between: numbers say what comes before.
        first, last = min(inside, default=None), max(inside, default=None)
        low = max((each for each in before if first is None or each < first), default=None)
        high = min((each for each in after if last is None or each > last), default=None)
        spans[name] = Span(None if low is None else low + 1, None if high is None else high - 1)
    return spans


def judge(evidence: Evidence) -> Verdict:
    """Everything that is not as it was sealed, the first of each camera first."""
    verdict = Verdict()
    keys = _Keys(evidence)
    seals = [found for found in evidence.seals if isinstance(found.signed.statement, SegmentSeal)]
    verdict.files = len(evidence.files)
    verdict.segments = sum(isinstance(each.signed.statement, SegmentSeal) for each in evidence.files)
    for found in (*seals, *evidence.others):
        if found.signed.thumbprint not in verdict.thumbprints:
            verdict.thumbprints.append(found.signed.thumbprint)
    for each in evidence.files:
        verdict.problems += _judge_file(each)
    good: list[Found] = []
    for found in evidence.others:
        if why := keys.judge(found.signed):
            verdict.problems.append(Problem("foreign", found.where, why, place=_place(found.signed)))
        else:
            good.append(found)
    series: dict[str, _Series] = {}
    for found in (*seals, *good):
        statement = found.signed.statement
        if isinstance(statement, (SegmentSeal, Head, Tombstone)):
            name = statement.series
            if name not in series:
                series[name] = _Series(name, statement.camera, evidence.spans.get(name, Span(None, None)))
            series[name].add(found)
    for each_series in series.values():
        verdict.problems += each_series.judge(keys, verdict.notes)
    verdict.problems += _judge_parts(good, series)
    verdict.proven = evidence.known is not None and not any(each.kind == "foreign" for each in verdict.problems)
    verdict.problems = sorted(set(verdict.problems), key=lambda each: (each.place, each.number or 0, each.kind))
    cameras = [each.camera for each in series.values()]
    verdict.notes += [f"{name} has more than one series" for name in sorted({*cameras}) if cameras.count(name) > 1]
    return verdict


class _Keys:
    """What is known of the keys."""

    def __init__(self, evidence: Evidence) -> None:
        self._known = evidence.known
        archives = [
            found.signed
            for found in evidence.others
            if isinstance(found.signed.statement, KeyArchive) and self._confirms(found.signed)
        ]
        # One that a known key has signed counts before any other; then the newest.
        archive = max(
            archives,
            key=lambda each: (each.thumbprint in (self._known or ()), getattr(each.statement, "sealed", 0.0)),
            default=None,
        )
        self._by_thumbprint: dict[str, ArchivedKey] = {}
        self._archive = archive
        if archive is not None and isinstance(archive.statement, KeyArchive):
            self._by_thumbprint = {thumbprint_of(key.x, key.y): key for key in archive.statement.keys}

    @staticmethod
    def _confirms(signed: Signed) -> bool:
        """Whether an archive names the key that signed it, and as a good one."""
        keys = signed.statement.keys if isinstance(signed.statement, KeyArchive) else ()
        return any(
            thumbprint_of(key.x, key.y) == signed.thumbprint and key.kid == signed.kid and key.distrusted is None
            for key in keys
        )

    def is_distrusted(self, signed: Signed) -> bool:
        key = self._by_thumbprint.get(signed.thumbprint)
        return key is not None and key.distrusted is not None

    def judge(self, signed: Signed) -> str:
        """Why a statement does not count because of its key; "" if it does.

        A seal of a segment by a key that was distrusted later counts so far: `_Series` asks what confirms it.
        """
        key, sealed = self._by_thumbprint.get(signed.thumbprint), signed.statement.sealed
        if self._known is not None and signed.thumbprint not in self._known:
            proven = self._archive is not None and self._archive.thumbprint in self._known
            if key is None or not proven:
                return f"it is signed by {signed.thumbprint}, which none of the keys that you gave confirms"
        if isinstance(signed.statement, KeyArchive) and not self._confirms(signed):
            return "this archive of keys does not name the key that signed it as a good one"
        if self._archive is None:
            return ""
        if key is None or key.kid != signed.kid:
            return f"it is signed by {signed.thumbprint} as {signed.kid}, which is no key of this box's archive"
        if sealed < key.first - _SLACK:
            return f"it is signed by {key.kid}, which did not sign yet at the time that it names"
        if key.last is not None and sealed > key.last + _SLACK:
            return f"it is signed by {key.kid}, which signed no more at the time that it names"
        if key.distrusted is not None and sealed >= key.distrusted:
            return f"it is signed by {key.kid}, which was distrusted by then"
        if key.distrusted is not None and not isinstance(signed.statement, SegmentSeal):
            return f"it is signed by {key.kid}, which is distrusted: edged signs such a statement anew"
        return ""


class _Series:
    """The segments, tombstones and heads of one series."""

    def __init__(self, name: str, camera: str, span: Span) -> None:
        self.name, self.camera, self._span = name, camera, span
        self._seals: dict[int, Found] = {}
        self._heads: list[tuple[Head, Found]] = []
        self._tombstones: list[tuple[Tombstone, Found]] = []
        self._problems: list[Problem] = []
        #: Number → the digest of its seal, as a seal or a tombstone says it.
        self._digests: dict[int, str] = {}

    def add(self, found: Found) -> None:
        statement = found.signed.statement
        if isinstance(statement, SegmentSeal):
            before = self._seals.setdefault(statement.number, found)
            if before.signed.digest != found.signed.digest:
                text = f"{before.where} has the number {statement.number}, too"
                self._tell("reordered", found, text, statement.number)
        elif isinstance(statement, Head):
            self._heads.append((statement, found))
        elif isinstance(statement, Tombstone):
            self._tombstones.append((statement, found))

    def judge(self, keys: _Keys, notes: list[str]) -> list[Problem]:
        self._digests = {stone.last: stone.digest for stone, _ in self._tombstones}
        # What somebody else has signed says nothing of its neighbours.
        strange = self._judge_keys(keys)
        for number, found in self._seals.items():
            self._digests.pop(number, None)
            if number not in strange:
                self._digests[number] = found.signed.digest
        for number, found in self._seals.items():
            statement = found.signed.statement
            if isinstance(statement, SegmentSeal) and self._span.holds(number) and number not in strange:
                self._judge_link(number, statement.previous, found)
        for stone, found in self._tombstones:
            if self._span.holds(stone.first):
                self._judge_link(stone.first, stone.previous, found)
        for head, found in self._heads:
            if self._span.holds(head.last) and self._digests.get(head.last, head.digest) != head.digest:
                self._blame(head.last, f"the head in {found.where} names another as number {head.last}")
        self._judge_gaps()
        self._judge_end(notes)
        return self._problems

    def find_digest(self, number: int) -> str | None:
        found = self._seals.get(number)
        return None if found is None else found.signed.digest

    def _judge_keys(self, keys: _Keys) -> set[int]:
        """The numbers whose seals do not count because of their key."""
        strange: set[int] = set()
        heads = [head.last for head, _ in self._heads]
        seals = [number - 1 for number, each in self._seals.items() if not keys.is_distrusted(each.signed)]
        confirmed = max([0, *heads, *seals])
        for number, found in self._seals.items():
            if not self._span.holds(number):
                continue
            why = keys.judge(found.signed)
            if not why and keys.is_distrusted(found.signed) and number > confirmed:
                why = f"it is signed by {found.signed.kid}, which is distrusted, and nothing later confirms it"
            if why:
                strange.add(number)
                self._tell("foreign", found, why, number)
        return strange

    def _judge_link(self, number: int, previous: str, found: Found) -> None:
        """Whether what stands before a number is what was there when this was sealed."""
        before = self._digests.get(number - 1)
        if before is not None and before != previous:
            self._blame(number - 1, f"number {number} ({found.where}) was sealed after another one")

    def _judge_gaps(self) -> None:
        """Numbers between the first and the last, and in the range of a head, that are neither there nor deleted."""
        needed = [(head.first, head.last) for head, _ in self._heads]
        if self._seals:
            needed.append((min(self._seals), max(self._seals)))
        there = [(number, number) for number in self._seals]
        there += [(stone.first, stone.last) for stone, _ in self._tombstones]
        numbers = sorted(self._seals)
        for first, last in _gaps(_merge(needed), _merge(there)):
            low, high = self._span.cut(first, last)
            if low > high:
                continue
            at = bisect_right(numbers, low)
            before = self._seals[numbers[at - 1]] if at else None
            behind = self._seals[numbers[at]] if at < len(numbers) else None
            named = (
                f"number {low} of {self.camera} is" if low == high else f"numbers {low} to {high} of {self.camera} are"
            )
            beside = [f"after {before.where}"] if before else []
            beside += [f"before {behind.where}"] if behind else []
            place = _place(before.signed) + "~" if before else f"{self.camera}/"
            text = f"{named} missing, {' and '.join(beside) or 'which a head names'}"
            self._problems.append(Problem("missing", f"{self.camera} {low}", text, low, place))

    def _judge_end(self, notes: list[str]) -> None:
        covered = max((head.last for head, _ in self._heads), default=0)
        last = max((number for number in self._seals if self._span.holds(number)), default=0)
        if last > covered:
            first = max(covered + 1, min(self._seals))
            notes.append(f"{self.camera}: no head covers numbers {first} to {last}: a cut tail would not show")

    def _blame(self, number: int, text: str) -> None:
        if (found := self._seals.get(number)) is not None:
            self._tell("changed", found, f"it is not the segment that was there: {text}", number)
            return
        for stone, found in self._tombstones:
            if stone.last == number:
                self._tell("changed", found, f"the tombstone does not fit: {text}", number)

    def _tell(self, kind: Kind, found: Found, text: str, number: int) -> None:
        self._problems.append(Problem(kind, found.where, text, number, _place(found.signed)))


def _judge_file(file: FoundFile) -> Iterator[Problem]:
    statement = file.signed.statement
    if not isinstance(statement, (SegmentSeal, DerivedSeal)):
        yield Problem("unreadable", file.where, "what stands beside it is no seal of a file", place=_place(file.signed))
        return
    number = statement.number if isinstance(statement, SegmentSeal) else None
    place = _place(file.signed)
    if file.content is None:
        yield Problem("missing", file.where, "its seal is there, and the file is not", number, place)
    elif file.content != (statement.sha256, statement.size):
        yield Problem("changed", file.where, "its bytes are not those that were sealed", number, place)
    if isinstance(statement, SegmentSeal) and file.name and not f"/{statement.file}".endswith(f"/{file.name}"):
        yield Problem("reordered", file.where, f"it was sealed as {statement.file}", number, place)


def _judge_parts(good: Iterable[Found], series: Mapping[str, _Series]) -> Iterator[Problem]:
    """Files that were made of segments, where these are there, too."""
    for found in good:
        statement = found.signed.statement
        if isinstance(statement, DerivedSeal) and statement.series in series:
            for part in statement.parts:
                there = series[statement.series].find_digest(part.number)
                if there is not None and there != part.digest:
                    text = f"it was made of another segment {part.number} than the one that is here"
                    yield Problem("changed", found.where, text, part.number, _place(found.signed))
                    break


def _place(signed: Signed) -> str:
    """Where it stands in the order of problems."""
    statement = signed.statement
    if isinstance(statement, SegmentSeal):
        return statement.file
    return "" if isinstance(statement, KeyArchive) else f"{statement.camera}/"


def _merge(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in as few spans as possible, in order."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _gaps(needed: Sequence[tuple[int, int]], there: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of `needed` is not in `there`; both merged."""
    begins = [first for first, _ in there]
    for begin, last in needed:
        first = begin
        at = max(0, bisect_right(begins, first) - 1)
        while first <= last:
            while at < len(there) and there[at][1] < first:
                at += 1
            if at == len(there) or there[at][0] > last:
                yield first, last
                break
            if there[at][0] > first:
                yield first, there[at][0] - 1
            first = there[at][1] + 1
