"""library/retention.py: the oldest go first, for a reason; what is protected never goes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edged.library.retention import KeptFile, Policy, plan

NOW = 1_000_000.0
FILES = st.lists(
    st.builds(
        lambda camera, age, size, protected: (f"camera{camera}", age, size, protected),
        st.integers(0, 2),
        st.integers(0, 1000),
        st.integers(1, 100),
        st.booleans(),
    ),
    max_size=30,
).map(
    lambda drawn: [
        KeptFile(f"{camera}/{number}", camera, NOW - age, size, protected)
        for number, (camera, age, size, protected) in enumerate(sorted(drawn, key=lambda item: -item[1]))
    ]
)
POLICIES = st.builds(
    lambda age, size, camera, free: Policy(
        max_age=age,
        max_bytes=size,
        camera_bytes={} if camera is None else {"camera1": camera},
        keep_free_bytes=free,
    ),
    st.none() | st.integers(1, 1000),
    st.none() | st.integers(0, 2000),
    st.none() | st.integers(0, 500),
    st.integers(0, 2000),
)


def sums_of(files: list[KeptFile]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for file in files:
        sums[file.camera] += file.size
    return sums


@given(FILES, POLICIES, st.integers(0, 2000))
def test_a_protected_file_never_goes_and_none_goes_twice(files: list[KeptFile], policy: Policy, free: int) -> None:
    removals = plan(files, sums_of(files), policy, free_bytes=free, now=NOW)
    named = [removal.file for removal in removals]
    assert len(set(named)) == len(named)
    assert not {file.file for file in files if file.is_protected} & set(named)


@given(FILES, POLICIES, st.integers(0, 2000))
def test_what_remains_fits_the_policy_or_is_protected(files: list[KeptFile], policy: Policy, free: int) -> None:
    gone = {removal.file for removal in plan(files, sums_of(files), policy, free_bytes=free, now=NOW)}
    left = [file for file in files if file.file not in gone]
    loose = [file for file in left if not file.is_protected]
    free += sum(file.size for file in files if file.file in gone)
    sums = sums_of(left)
    for file in loose:
        assert policy.max_age is None or NOW - file.ended <= policy.max_age
        assert policy.max_bytes is None or sum(sums.values()) <= policy.max_bytes
        assert sums[file.camera] <= policy.camera_bytes.get(file.camera, sums[file.camera])
        assert free >= policy.keep_free_bytes


@given(FILES, POLICIES, st.integers(0, 2000))
def test_the_oldest_go_first_and_no_more_than_necessary(files: list[KeptFile], policy: Policy, free: int) -> None:
    removals = plan(files, sums_of(files), policy, free_bytes=free, now=NOW)
    order = [file.file for file in files]
    assert [removal.file for removal in removals] == sorted((r.file for r in removals), key=order.index)
    for removal in removals:
        if removal.reason == "disk_full":
            # Without it the disk would have been too full still.
            before = removals[: removals.index(removal)]
            sizes = {file.file: file.size for file in files}
            assert free + sum(sizes[each.file] for each in before) < policy.keep_free_bytes


@given(FILES, st.integers(1, 1000))
def test_nothing_goes_for_its_age_while_the_clock_is_not_trusted(files: list[KeptFile], age: int) -> None:
    assert plan(files, sums_of(files), Policy(max_age=age), free_bytes=0, now=None) == []
