"""Recorded files verified by their seals, without a daemon and without a network (docs/seals.md)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from edged.credentials.evidence import (
    Evidence,
    Found,
    FoundFile,
    Problem,
    Span,
    Verdict,
    choose_spans,
    judge,
)
from edged.credentials.seal_signatures import Signed, read, split
from edged.credentials.seals import BadSeal, Content, DerivedSeal, SegmentSeal, is_camera
from edged.library.seal_files import SUFFIX, measure

#: Files of heads, tombstones, archives of keys and seals of segments that are elsewhere.
STATEMENTS: Final = ".statements"
#: Files that should have a seal, and folders of files that have none yet: MediaMTX's, and copies of pre-rolls.
_RECORDED: Final = frozenset({".mp4", ".mkv"})
_UNSEALED_FOLDERS: Final = frozenset({"open", "moving", "damaged"})
_LONGEST: Final = 64 * 1024 * 1024


class _Read(msgspec.Struct):
    """What was found in files and folders."""

    sealed: list[tuple[Path, Signed, bool]] = msgspec.field(default_factory=list)
    others: list[Found] = msgspec.field(default_factory=list)
    problems: list[Problem] = msgspec.field(default_factory=list)


def verify(
    paths: Sequence[Path], *, known: frozenset[str] | None, begin: float | None = None, end: float | None = None
) -> Verdict:
    """Judge files and folders; `known` are thumbprints of keys of the box, None if nobody gave one; `begin` and `end`
    Unix seconds."""
    found = _Read()
    for path in paths:
        if path.is_dir():
            _read_folder(path, found)
        else:
            _read_file(_without_suffix(path), found, is_alone=True)
    seals = [signed for _, signed, _ in found.sealed]
    seals += [other.signed for other in found.others if isinstance(other.signed.statement, SegmentSeal)]
    spans = {} if begin is None and end is None else choose_spans(seals, begin, end)
    chosen = [each for each in found.sealed if _is_chosen(each[1], spans)]
    contents = _measure_all([path for path, _, _ in chosen], found.problems)
    evidence = Evidence(
        files=[
            FoundFile(str(path), signed, contents.get(path), None if is_alone else _name_of(path))
            for path, signed, is_alone in chosen
            if path in contents
        ],
        seals=[Found(str(path), signed) for path, signed, _ in found.sealed]
        + [other for other in found.others if isinstance(other.signed.statement, SegmentSeal)],
        others=[other for other in found.others if not isinstance(other.signed.statement, SegmentSeal)]
        + [Found(str(path), signed) for path, signed, _ in chosen if isinstance(signed.statement, DerivedSeal)],
        known=known,
        spans=spans,
    )
    verdict = judge(evidence)
    verdict.problems = sorted([*verdict.problems, *found.problems], key=lambda each: (each.place, each.number or 0))
    return verdict


def _is_chosen(signed: Signed, spans: dict[str, Span]) -> bool:
    statement = signed.statement
    if not isinstance(statement, SegmentSeal) or statement.series not in spans:
        return True
    return spans[statement.series].holds(statement.number)


def _read_folder(folder: Path, found: _Read) -> None:
    for path in _list_files(folder, found.problems):
        if path.suffix == STATEMENTS:
            _read_statements(path, found)
        elif path.suffix == SUFFIX and not _without_suffix(path).exists():
            _read_file(_without_suffix(path), found, is_alone=False)
        elif path.suffix in _RECORDED:
            _read_file(path, found, is_alone=False)


def _list_files(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """The regular files in a folder and below, in order; no link is followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as problem:
        problems.append(Problem("unreadable", str(folder), f"it cannot be read: {problem.strerror}"))
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _UNSEALED_FOLDERS:
                yield from _list_files(Path(entry.path), problems)
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def _read_file(path: Path, found: _Read, *, is_alone: bool) -> None:
    """A file by the seal beside it."""
    seal = path.with_name(path.name + SUFFIX)
    try:
        found.sealed.append((path, read(_read_bytes(seal)), is_alone))
    except FileNotFoundError:
        found.problems.append(Problem("unsealed", str(path), f"there is no {seal.name} beside it", place=_place(path)))
    except OSError as problem:
        found.problems.append(
            Problem("unreadable", str(seal), f"it cannot be read: {problem.strerror}", place=_place(path))
        )
    except BadSeal as problem:
        found.problems.append(Problem("changed", str(seal), str(problem), place=_place(path)))


def _read_statements(path: Path, found: _Read) -> None:
    try:
        for text in split(_read_bytes(path)):
            found.others.append(Found(str(path), read(text)))
    except OSError as problem:
        found.problems.append(Problem("unreadable", str(path), f"it cannot be read: {problem.strerror}"))
    except BadSeal as problem:
        found.problems.append(Problem("changed", str(path), f"one of its statements is not good: {problem}"))


def _read_bytes(path: Path) -> bytes:
    """Raises OSError."""
    with path.open("rb") as file:
        return file.read(_LONGEST)


def _measure_all(paths: Iterable[Path], problems: list[Problem]) -> dict[Path, Content | None]:
    """The content of each file, None for one that is not there; one that cannot be read is a problem."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        measured = {path: pool.submit(measure, path) for path in paths}
    contents: dict[Path, Content | None] = {}
    for path, result in measured.items():
        try:
            contents[path] = result.result()
        except FileNotFoundError:
            contents[path] = None
        except OSError as problem:
            problems.append(
                Problem("unreadable", str(path), f"it cannot be read: {problem.strerror}", place=_place(path))
            )
    return contents


def _without_suffix(path: Path) -> Path:
    return path.with_suffix("") if path.suffix == SUFFIX else path


def _name_of(path: Path) -> str:
    """CAMERA/DAY/NAME where it lies in such folders, else its name."""
    parts = path.absolute().parts[-3:]
    return "/".join(parts) if is_camera(parts[0]) else path.name


def _place(path: Path) -> str:
    return _name_of(path)
