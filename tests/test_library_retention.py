"""library/retention.py: the oldest go first, for a reason, no more than necessary; what is protected never goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import patience
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.library.retention import CameraPolicy, Page, Policy, Removal, list_unprotected, plan
from edged.store.segments import Place, SegmentRow

NOW = 1_000_000.0
FILES = st.lists(
    st.builds(
        lambda camera, age, size, seconds: (f"camera{camera}", age, size, seconds),
        st.integers(0, 2),
        st.integers(0, 1000),
        st.integers(1, 100),
        st.integers(0, 60),
    ),
    max_size=30,
).map(
    lambda drawn: [
        SegmentRow(f"{camera}/{number:02}", camera, NOW - age, float(seconds), size)
        for number, (camera, age, size, seconds) in enumerate(sorted(drawn, key=lambda item: -item[1]))
    ]
)
LIMITS = st.builds(
    lambda age, size: CameraPolicy(max_age=age, max_bytes=size),
    st.none() | st.integers(1, 1000), st.none() | st.integers(0, 500),
)  # fmt: skip
POLICIES = st.builds(
    lambda age, size, cameras, free: Policy(max_age=age, max_bytes=size, cameras=cameras, keep_free_bytes=free),
    st.none() | st.integers(1, 1000),
    st.none() | st.integers(0, 2000),
    st.dictionaries(st.sampled_from(["camera0", "camera1"]), LIMITS),
    st.integers(0, 2000),
)
SPANS = st.dictionaries(
    st.sampled_from(["camera0", "camera1", "camera2"]),
    st.lists(st.integers(0, 1100), max_size=6, unique=True).map(
        lambda ages: [
            (NOW - begin, NOW - end)
            for begin, end in zip(sorted(ages, reverse=True)[::2], sorted(ages, reverse=True)[1::2], strict=False)
        ]
    ),
)


def sums_of(files: Sequence[SegmentRow]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for file in files:
        sums[file.camera] += file.size
    return sums


def pages_of(files: Sequence[SegmentRow], camera: str, length: int = 3) -> Page:
    """As the index gives them."""
    mine = sorted((row for row in files if row.camera == camera), key=lambda row: (row.began, row.file))

    def page(after: Place) -> Sequence[SegmentRow]:
        return [row for row in mine if (row.began, row.file) > after][:length]

    return page


def planned(
    files: Sequence[SegmentRow], policy: Policy, free: int, spans: dict[str, list[tuple[float, float]]],
    now: float | None = NOW, most: int = 100,
) -> list[Removal]:  # fmt: skip
    loose: dict[str, Iterator[SegmentRow]] = {
        camera: list_unprotected(pages_of(files, camera), spans.get(camera, [])) for camera in sums_of(files)
    }
    return plan(loose, sums_of(files), policy, free_bytes=free, now=now, most=most)


def is_protected(row: SegmentRow, spans: dict[str, list[tuple[float, float]]]) -> bool:
    return any(begin < row.ended and end > row.began for begin, end in spans.get(row.camera, []))


@given(FILES, SPANS)
def test_exactly_the_files_that_share_no_time_with_a_protected_recording_are_loose(
    files: list[SegmentRow], spans: dict[str, list[tuple[float, float]]]
) -> None:
    for camera in ("camera0", "camera1"):
        loose = list(list_unprotected(pages_of(files, camera), spans.get(camera, [])))
        mine = sorted((row for row in files if row.camera == camera), key=lambda row: (row.began, row.file))
        begins_inside = [
            row for row in mine if any(begin <= row.began < end for begin, end in spans.get(camera, []))
        ]  # fmt: skip
        assert loose == [row for row in mine if not is_protected(row, spans) and row not in begins_inside]


@settings(max_examples=patience.times(1000, least=100))
@given(FILES, POLICIES, SPANS, st.integers(0, 2000))
def test_a_protected_file_never_goes_and_none_goes_twice(
    files: list[SegmentRow], policy: Policy, spans: dict[str, list[tuple[float, float]]], free: int
) -> None:
    named = [removal.row.file for removal in planned(files, policy, free, spans)]
    assert len(set(named)) == len(named)
    assert not {row.file for row in files if is_protected(row, spans)} & set(named)
    assert set(named) <= {row.file for row in files}, "of the index, so neither open nor somebody else's"


@given(FILES, POLICIES, SPANS, st.integers(0, 2000))
def test_what_remains_fits_the_policy_or_is_protected(
    files: list[SegmentRow], policy: Policy, spans: dict[str, list[tuple[float, float]]], free: int
) -> None:
    gone = {removal.row.file for removal in planned(files, policy, free, spans)}
    left = [row for row in files if row.file not in gone]
    free += sum(row.size for row in files if row.file in gone)
    sums = sums_of(left)
    for camera in sums:
        oldest = next(list_unprotected(pages_of(left, camera), spans.get(camera, [])), None)
        if oldest is None:
            continue
        age, size = policy.age_of(camera), policy.bytes_of(camera)
        assert age is None or NOW - oldest.ended <= age
        assert policy.max_bytes is None or sum(sums.values()) <= policy.max_bytes
        assert size is None or sums[camera] <= size
        assert free >= policy.keep_free_bytes


@given(FILES, POLICIES, SPANS, st.integers(0, 2000))
def test_the_oldest_of_a_camera_go_first_and_no_more_than_necessary(
    files: list[SegmentRow], policy: Policy, spans: dict[str, list[tuple[float, float]]], free: int
) -> None:
    removals = planned(files, policy, free, spans)
    places = [(removal.row.began, removal.row.file) for removal in removals]
    assert places == sorted(places)
    for camera in sums_of(files):
        mine = [removal.row for removal in removals if removal.row.camera == camera]
        loose = list(list_unprotected(pages_of(files, camera), spans.get(camera, [])))
        assert mine == loose[: len(mine)]
    for removal in removals:
        # What else went, before it or for another reason.
        others = [
            each
            for each in removals
            if each.reason in ("age", "camera_size")
            or (each.row.began, each.row.file) < (removal.row.began, removal.row.file)
        ]
        if removal.reason == "disk_full":
            assert free + sum(each.row.size for each in others) < policy.keep_free_bytes
        if removal.reason == "size":
            total = sum(sums_of(files).values()) - sum(each.row.size for each in others)
            assert policy.max_bytes is not None
            assert total > policy.max_bytes


@given(FILES, st.integers(1, 1000))
def test_nothing_goes_for_its_age_while_the_clock_is_not_trusted(files: list[SegmentRow], age: int) -> None:
    assert planned(files, Policy(max_age=age), 0, {}, now=None) == []


@given(FILES, POLICIES, st.integers(0, 5))
def test_a_plan_has_at_most_so_many(files: list[SegmentRow], policy: Policy, most: int) -> None:
    assert len(planned(files, policy, 0, {}, most=most)) <= most


def test_a_camera_with_an_age_of_its_own_is_not_judged_by_the_general_one() -> None:
    files = [SegmentRow(f"camera{number}/a", f"camera{number}", NOW - 100, 1.0, 5) for number in range(3)]
    policy = Policy(max_age=50, cameras={"camera0": CameraPolicy(max_age=200), "camera1": CameraPolicy()})
    assert [(each.row.camera, each.reason) for each in planned(files, policy, 0, {})] == [("camera2", "age")]


def test_a_camera_above_its_own_size_gives_its_own_files_although_those_of_others_are_older() -> None:
    files = [SegmentRow(f"camera{n % 2}/{n}", f"camera{n % 2}", NOW - 100 + n, 1.0, 5) for n in range(8)]
    policy = Policy(cameras={"camera1": CameraPolicy(max_bytes=10)})
    removals = planned(files, policy, 0, {})
    assert [(each.row.file, each.reason) for each in removals] == [
        ("camera1/1", "camera_size"), ("camera1/3", "camera_size"),
    ]  # fmt: skip
