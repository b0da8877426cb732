"""What scripts/soak judges with: pictures of a stream, and what of them is lost; what it and scripts/bench say without
MediaMTX. They themselves take minutes."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "scripts" / "benchmarks"


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("record_soak", FOLDER / "record_soak.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["record_soak"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
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


@pytest.mark.parametrize(
    ("worst", "lost", "problems", "word", "by_facts"),
    [
        (4.9, 1.0, [], "ok", "ok"),
        (60.0, 1.0, [], "NOT OK", "over a limit of seconds"),
        (4.9, 2.0, [], "NOT OK", "over a limit of seconds"),
        (4.9, 9.0, [], "NOT OK", "NOT OK"),
        (4.9, 0.0, ["lost: 1796038270-430243.mp4"], "NOT OK", "NOT OK"),
        (60.0, 0.0, ["zombie 7"], "NOT OK", "NOT OK"),
    ],
)
def test_by_facts_nothing_is_judged_by_how_long_it_took(
    soak: ModuleType, worst: float, lost: float, problems: list[str], word: str, by_facts: str
) -> None:
    assert soak.judge("kill-edged", worst, lost, problems, facts=False) == word
    assert soak.judge("kill-edged", worst, lost, problems, facts=True) == by_facts


def test_the_help_says_how_long_a_whole_run_takes() -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / "record_soak.py", "--help"], capture_output=True, text=True, check=True
    )
    assert re.search(r"20 rounds of every kind take about \d+ minutes", " ".join(done.stdout.split()))


@pytest.mark.parametrize("words", [("record_soak.py",), ("run.py", "media"), ("run.py", "media", "kill")])
def test_without_mediamtx_nothing_is_tried_and_the_output_says_so(words: tuple[str, ...], tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, FOLDER / words[0], *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)})
    assert done.returncode == 77
    assert "not run: " in done.stdout
    assert "mediamtx" in done.stdout
