"""What scripts/soak judges with: pictures of a stream, and what of them is lost. The soak itself takes minutes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    folder = ROOT / "scripts" / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("record_soak", folder / "record_soak.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["record_soak"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def stream_of(count: int) -> bytes:
    """Parameter sets, and pictures of which the first is a key frame."""
    pictures = [bytes([0x65 if number % 5 == 0 else 0x41, number + 1, 7]) for number in range(count)]
    return b"".join(b"\0\0\0\1" + unit for unit in (b"\x67\1", b"\x68\2", *pictures))


@given(st.integers(1, 40), st.lists(st.integers(1, 30), max_size=20))
def test_pictures_are_the_same_however_the_stream_is_cut(soak: ModuleType, count: int, cuts: list[int]) -> None:
    data, whole, cut = stream_of(count), soak.Pictures(), soak.Pictures()
    whole.feed(data, is_last=True)
    for size in cuts:
        cut.feed(data[:size])
        data = data[size:]
    cut.feed(data, is_last=True)
    assert len(whole.digests) == count
    assert cut.digests == whole.digests


def test_what_had_arrived_and_is_not_recorded_is_lost(soak: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what came before the recording or after it; what never arrived is missing only."""
    sent = {bytes([number]): number for number in range(40)}
    files = {Path("one"): [*range(5, 12)], Path("two"): [*range(20, 30), 29]}
    monkeypatch.setattr(soak, "pictures_of", lambda file: [bytes([number]) for number in files[file]])
    kept = soak.compare(sent, [bytes([number]) for number in [*range(14), *range(18, 40)]], list(files))
    assert (kept.lost, kept.missing) == ([(12, 13), (18, 19)], [(12, 19)])
    assert (kept.recorded, kept.twice, kept.most_lost) == (17, 1, 2 / soak.RATE)


def test_the_script_says_how_it_is_called() -> None:
    done = subprocess.run([ROOT / "scripts" / "soak"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "scripts/soak record [--rounds N]" in done.stderr
