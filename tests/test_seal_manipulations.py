"""A signed series, manipulated in every way that somebody with the files and some key could: each is found and named.

500 at random; EDGED_TEST_FULL=1 tries 10,000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from evidence_helpers import COUNT, DISTRUSTED, LAST_OF, Box, Folder, Key, key_at, time_of
from msgspec.structs import replace
from patience import IS_FULL

from edged.cli.verification import verify
from edged.credentials.evidence import Problem
from edged.credentials.seal_signatures import read, sign, split
from edged.credentials.seals import ArchivedKey, Head, KeyArchive, Tombstone

#: Of each of ten tests.
ROUNDS: Final = 1_000 if IS_FULL else 50

#: What the first problem must tell of: a number, or the name of a file.
Named = set[int | str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("evidence"), Box()).make()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Another box, which says that it is the same one: its keys and its series have the same names."""
    return Folder(tmp_path_factory.mktemp("other"), Box()).make()


def one_bit_of_a_segment(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice(folder.numbers())
    folder.flip(folder.file(number), random.randrange(10**6))
    return {number}


def one_bit_of_a_seal(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice(folder.numbers())
    folder.flip(folder.seal(number), random.randrange(10**6))
    return {number, folder.seal(number).name}


def one_bit_of_a_head_or_tombstone(folder: Folder, other: Folder, random: Random) -> Named:
    folder.flip(folder.statements, random.randrange(10**6))
    return {folder.statements.name, 5}


def one_bit_of_the_archive(folder: Folder, other: Folder, random: Random) -> Named:
    folder.flip(folder.archive, random.randrange(10**6))
    return {folder.archive.name}


def one_segment_removed(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice(folder.numbers())
    folder.remove(folder.file(number))
    if random.random() < 0.7:
        folder.remove(folder.seal(number))
    return {number}


def one_seal_removed(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice(folder.numbers())
    folder.remove(folder.seal(number))
    return {number, folder.file(number).name}


def the_tail_cut(folder: Folder, other: Folder, random: Random) -> Named:
    first = random.choice(folder.numbers())
    for number in folder.numbers():
        if number >= first:
            folder.remove(folder.file(number))
            folder.remove(folder.seal(number))
    return {first}


def the_tail_cut_and_the_head_forged(folder: Folder, other: Folder, random: Random) -> Named:
    named = the_tail_cut(folder, other, random)
    last = max(number for number in folder.numbers() if number < min(map(int, named)) or number == 1)
    stone, _ = split(folder.statements.read_bytes())
    digest = read(folder.seal(last).read_bytes()).digest if folder.seal(last).exists() else "0" * 64
    key = random.choice([other.box.current, folder.box.keys[DISTRUSTED]])
    folder.write(folder.statements, stone + key.sign(folder.head(digest, last)))
    return {folder.statements.name}


def two_swapped(folder: Folder, other: Folder, random: Random) -> Named:
    one, two = random.sample(folder.numbers(), 2)
    what = random.choice(["files", "seals", "both"])
    for path in (folder.file, folder.seal):
        if what == "both" or what == ("files" if path == folder.file else "seals"):
            first, second = path(one).read_bytes(), path(two).read_bytes()
            folder.write(path(one), second)
            folder.write(path(two), first)
    return {one, two}


def a_segment_of_another_box(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice(folder.numbers())
    folder.write(folder.file(number), other.file(number).read_bytes())
    if random.random() < 0.8:
        folder.write(folder.seal(number), other.seal(number).read_bytes())
    return {number}


def a_time_changed(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice(folder.numbers())
    member = random.choice(["began", "ended", "sealed"])
    text = folder.seal(number).read_bytes()
    before = f"{getattr(folder.seals[number], member):.3f}"
    after = f"{getattr(folder.seals[number], member) + random.choice([-1, 1]) * random.uniform(0.01, 1e6):.3f}"
    folder.write(folder.seal(number), text.replace(f"{member} {before}".encode(), f"{member} {after}".encode()))
    return {number, folder.seal(number).name}


def a_time_changed_and_signed_by_a_stranger(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice(folder.numbers())
    stranger = random.choice([other.box.keys[key_at(number)], Key("key-8")])
    folder.resign(number, stranger, began=folder.seals[number].began - random.uniform(1, 1000))
    return {number}


def a_later_key(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice([each for each in folder.numbers() if each <= LAST_OF["key-4"]])
    changes: dict[str, Any] = {"ended": folder.seals[number].ended + 1.0}
    if random.random() < 0.5:
        # The time of a seal that this key can have made.
        changes["sealed"] = time_of(random.randint(LAST_OF["key-4"] + 2, COUNT)) + 40.0
    folder.resign(number, folder.box.current, **changes)
    return {number}


def an_earlier_key(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice([each for each in folder.numbers() if each > LAST_OF["key-2"]])
    folder.resign(number, folder.box.keys["key-2"], began=folder.seals[number].began + 1.0)
    return {number}


def a_distrusted_key(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice(folder.numbers())
    changes: dict[str, Any] = {"began": folder.seals[number].began + 1.0}
    if random.random() < 0.5:
        changes["sealed"] = time_of(random.randint(LAST_OF["key-2"] + 2, LAST_OF["key-4"])) + 40.0
    folder.resign(number, folder.box.keys[DISTRUSTED], **changes)
    return {number}


def a_tombstone_forged(folder: Folder, other: Folder, random: Random) -> Named:
    number = random.choice([each for each in folder.numbers() if each < COUNT])
    stone = next(each for each in folder.read_statements() if isinstance(each, Tombstone))
    previous = folder.seals[number].previous
    digest = folder.seals[number + 1].previous
    folder.remove(folder.file(number))
    folder.remove(folder.seal(number))
    forged = replace(stone, first=number, last=number, previous=previous, digest=digest)
    how = random.choice(["stranger", "distrusted", "backdated", "edited", "other series"])
    if how == "stranger":
        text = random.choice([other.box.current, Key("key-6")]).sign(forged)
    elif how == "distrusted":
        text = folder.box.keys[DISTRUSTED].sign(forged)
    elif how == "backdated":
        text = folder.box.keys[DISTRUSTED].sign(replace(forged, sealed=time_of(LAST_OF["key-4"])))
    elif how == "edited":
        good = next(iter(split(folder.statements.read_bytes())))
        text = good.replace(b"first 5\nlast 6", f"first {number}\nlast {number}".encode())
    else:
        text = folder.box.current.sign(replace(forged, series="fedcba9876543210"))
    folder.write(folder.root / "more.statements", text)
    return {number, "more.statements"}


def an_archive_without_the_distrust(folder: Folder, other: Folder, random: Random) -> Named:
    """Signed by the key that was distrusted, over a segment that it signed anew."""
    number = random.choice([each for each in folder.numbers() if LAST_OF["key-2"] < each < LAST_OF["key-4"]])
    folder.resign(number, folder.box.keys[DISTRUSTED], began=folder.seals[number].began + 1.0)
    (text,) = split(folder.archive.read_bytes())
    archive = read(text).statement
    assert isinstance(archive, KeyArchive)
    keys = tuple(ArchivedKey(*each[:4], None, None) for each in archive.keys)
    forged = folder.box.keys[DISTRUSTED].sign(replace(archive, keys=keys, sealed=archive.sealed + 1000.0))
    folder.write(folder.archive, random.choice([text, b""]) + forged)
    return {folder.archive.name, number}


MANIPULATIONS: Final[tuple[Callable[[Folder, Folder, Random], Named], ...]] = (
    one_bit_of_a_segment, one_bit_of_a_seal, one_bit_of_a_head_or_tombstone, one_bit_of_the_archive,
    one_segment_removed, one_seal_removed, the_tail_cut, the_tail_cut_and_the_head_forged, two_swapped,
    a_segment_of_another_box, a_time_changed, a_time_changed_and_signed_by_a_stranger, a_later_key, an_earlier_key,
    a_distrusted_key, a_tombstone_forged, an_archive_without_the_distrust,
)  # fmt: skip


def names(problem: Problem, named: Named) -> bool:
    return problem.number in named or Path(problem.where).name in named


def test_an_untouched_series_is_as_it_was_sealed(folder: Folder) -> None:
    for knows in (True, False):
        verdict = folder.verify(knows=knows)
        assert verdict.problems == []
        assert verdict.notes == []
        assert verdict.proven == knows
        assert verdict.segments == COUNT - 2
        assert set(verdict.thumbprints) == {key.thumbprint for key in folder.box.keys.values()}


@pytest.mark.parametrize("part", range(10))
def test_every_manipulation_is_found_and_named(folder: Folder, other: Folder, part: int) -> None:
    """Each by the seed that is its number."""
    missed: list[str] = []
    tried: Counter[str] = Counter()
    for seed in range(part * ROUNDS, (part + 1) * ROUNDS):
        random = Random(seed)
        manipulate = MANIPULATIONS[seed % len(MANIPULATIONS)]
        with folder.changed():
            named = manipulate(folder, other, random)
            found = folder.verify().problems
        tried[manipulate.__name__] += 1
        if not found or not names(found[0], named):
            missed.append(f"{seed} {manipulate.__name__} {sorted(map(str, named))}: {found[:1]}")
    assert missed == []
    assert min(tried.values()) >= ROUNDS // len(MANIPULATIONS)
    assert folder.verify().problems == []


@pytest.mark.parametrize(
    "manipulate",
    [
        one_bit_of_a_segment, one_bit_of_a_seal, one_segment_removed, the_tail_cut, two_swapped, a_time_changed,
        a_segment_of_another_box, a_later_key, a_distrusted_key,
    ],
    ids=lambda item: item.__name__,
)  # fmt: skip
def test_these_are_found_also_by_those_who_know_no_key(
    folder: Folder, other: Folder, manipulate: Callable[[Folder, Folder, Random], Named]
) -> None:
    for seed in range(20):
        with folder.changed():
            named = manipulate(folder, other, Random(seed))
            found = folder.verify(knows=False).problems
        assert found, seed
        assert names(found[0], named), (seed, found[0])


def test_a_key_that_nobody_confirms_is_told(folder: Folder, other: Folder) -> None:
    """Everything by another box: consistent, but not by the box whose key was given."""
    assert other.verify(knows=False).problems == []
    (known,) = {folder.box.current.thumbprint}
    verdict = verify([other.root], known=frozenset({known}))
    assert not verdict.proven
    assert verdict.problems[0].kind == "foreign"
    assert {problem.kind for problem in verdict.problems if problem.where.endswith(".mp4")} == {"foreign"}


def test_a_range_judges_what_lies_in_it(folder: Folder) -> None:
    """--from and --to: a change outside is not looked at, one inside is."""
    span: Any = {"begin": time_of(10), "end": time_of(20)}
    with folder.changed():
        folder.flip(folder.file(3), 5)
        folder.remove(folder.file(22))
        folder.remove(folder.seal(22))
        assert folder.verify(**span).problems == []
        folder.remove(folder.file(15))
        folder.remove(folder.seal(15))
        (problem,) = folder.verify(**span).problems
        assert (problem.kind, problem.number) == ("missing", 15)
    with folder.changed():
        for number in range(10, 20):
            folder.remove(folder.file(number))
            folder.remove(folder.seal(number))
        assert folder.verify(**span).problems[0].number == 10


def test_a_tail_that_no_head_covers_is_told(folder: Folder) -> None:
    with folder.changed():
        stone, _ = split(folder.statements.read_bytes())
        digest = folder.seals[11].previous
        folder.write(folder.statements, stone + folder.box.current.sign(folder.head(digest, 10)))
        verdict = folder.verify()
        assert verdict.problems == []
        assert verdict.notes == ["camera0: no head covers numbers 11 to 24: a cut tail would not show"]


def test_what_a_distrusted_key_sealed_before_counts_only_where_a_later_key_confirms_it(folder: Folder) -> None:
    def without(number: int) -> Iterator[Path]:
        yield from (folder.file(number), folder.seal(number))

    with folder.changed():
        for number in range(LAST_OF["key-4"] + 1, COUNT + 1):
            for path in without(number):
                folder.remove(path)
        stone, _ = split(folder.statements.read_bytes())
        folder.write(folder.statements, stone)
        assert {problem.number for problem in folder.verify().problems} == set(range(9, 15))
        head = folder.head(folder.seals[15].previous, 14)
        folder.write(folder.statements, stone + folder.box.current.sign(head))
        assert folder.verify().problems == []


@pytest.mark.parametrize("name", ["open", "moving", "damaged"])
def test_what_has_no_seal_yet_is_no_problem_in_the_folder_of_a_box_that_records(folder: Folder, name: str) -> None:
    path = folder.root / name / "camera0" / "1796009999-000000.mp4"
    path.parent.mkdir(parents=True)
    with folder.changed():
        folder.write(path, b"being written")
        assert folder.verify().problems == []


def test_a_file_alone_may_have_another_name(folder: Folder, tmp_path: Path) -> None:
    copy = tmp_path / "yard.mp4"
    copy.write_bytes(folder.file(3).read_bytes())
    copy.with_name("yard.mp4.seal").write_bytes(folder.seal(3).read_bytes())
    key = folder.box.keys["key-2"].thumbprint
    assert verify([copy], known=frozenset({key})).problems == []
    assert verify([copy.with_name("yard.mp4.seal")], known=frozenset({key})).segments == 1


def test_a_head_over_very_many_numbers_costs_nothing(folder: Folder) -> None:
    with folder.changed():
        head = Head(
            camera="camera0", series=folder.box.series, first=1, last=2**50, digest="0" * 64, synchronised=True,
            sealed=time_of(COUNT) + 200.0,
        )  # fmt: skip
        folder.write(folder.root / "more.statements", sign(head, folder.box.current.private, folder.box.current.public))
        assert [problem.number for problem in folder.verify().problems] == [COUNT + 1]
