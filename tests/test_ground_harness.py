"""The tests' own rules (conftest.py): a hard end, nothing left behind, and what was not run is said."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def copy_rules(folder: Path, root: Path) -> None:
    """This suite's conftest for tests in a folder, and its settings; without keys and secrets of edged, which take most
    of the time to load."""
    for name in ("conftest.py", "module_queue.py", "patience.py"):
        shutil.copy(HERE / name, folder)
    (folder / "key_pool.py").write_text("def install(): pass\n")
    (folder / "planted.py").write_text("def install(): pass\ndef leaks(*texts): return []\n")
    shutil.copy(HERE.parent / "pyproject.toml", root)


def run(
    tmp_path: Path, code: str, *, patience: str = "1", path: str | None = None, part: str = "1/1"
) -> subprocess.CompletedProcess[str]:
    """pytest in a folder of its own, under this suite's conftest and settings."""
    copy_rules(tmp_path, tmp_path)
    (tmp_path / "test_given.py").write_text(f"import socket, threading, time\nimport pytest, trio\n{code}")
    environ = os.environ | {
        "EDGED_TEST_PATIENCE": patience,
        "PATH": path or os.environ["PATH"],
        "EDGED_TEST_PART": part,
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", "test_given.py"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=80,
    )  # fmt: skip


def test_a_test_that_takes_too_long_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    """Blocking or in trio: one test's hanging is not the others'."""
    done = run(
        tmp_path,
        "def test_blocks(): time.sleep(60)\n"
        "async def test_waits(): await trio.sleep_forever()\n"
        "async def test_after(): await trio.sleep(0)\n",
        patience="0.02",
    )
    assert "TookTooLong: test_given.py::test_blocks took longer than 1.8 s" in done.stdout
    assert "took longer than 1.8 s" in done.stdout.split("test_waits", 1)[1]
    assert "2 failed, 1 passed, 1 error" in done.stdout


#: Tests of one run, each of which shows one of the rules.
SEVERAL = """
def test_talks():
    for n in range(9000): print(f'line {n}')
    assert n == 1

from hypothesis import given, strategies as st
@given(st.integers())
def test_property(number):
    print(f'tried {number}')
    assert number < 100

import subprocess, sys
def test_child():
    child = "import signal; print(signal.getsignal(2) is signal.default_int_handler)"
    assert subprocess.check_output([sys.executable, '-c', child]) == b'True\\n'

def test_leaves_a_thread(): threading.Thread(target=time.sleep, args=(4,), name='orphan').start()

async def test_works(): await trio.to_thread.run_sync(time.sleep, 0)

def test_leaves_a_socket():
    one = [socket.socket()]
    one.append(one)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the run of SEVERAL shows of each test that did not pass. A shell starts it like this with an & behind it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = run(tmp_path_factory.mktemp("several"), SEVERAL)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.returncode == 1
    # The garbage of a module is collected behind its last test, which passes before.
    assert "2 failed, 4 passed, 2 errors" in done.stdout, done.stdout
    parts = re.split(r"^_+ (.*) _+$", done.stdout.partition("= short test summary")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_a_failure_shows_the_last_sixty_lines_of_what_was_printed(said: dict[str, str]) -> None:
    """A daemon's log of thousands of lines would hide the reason."""
    shown = said["test_talks"]
    assert "line 8999" in shown
    assert "[8940 lines before these are not shown]" in shown
    assert len(shown.splitlines()) < 120


def test_a_failing_property_shows_how_to_play_it_again_in_a_screenful(said: dict[str, str]) -> None:
    """The smallest example and the line that repeats it, not each one that was tried."""
    shown = said["test_property"]
    assert "number=100" in shown
    assert "@reproduce_failure" in shown
    assert len(shown.splitlines()) < 120


def test_sigint_is_heard_where_the_suite_was_started_with_it_ignored(said: dict[str, str]) -> None:
    """A shell ignores SIGINT for what it starts with &, and so would the daemons that the tests interrupt."""
    assert not [name for name in said if "test_child" in name]


def test_a_thread_left_running_fails_its_test(said: dict[str, str]) -> None:
    """The name says whose it is."""
    assert "threads left running: orphan" in said["ERROR at teardown of test_leaves_a_thread"]


def test_trio_s_own_workers_are_no_leak(said: dict[str, str]) -> None:
    """They idle for ten seconds and end by themselves."""
    assert not [name for name in said if "test_works" in name]


def test_a_socket_left_open_fails(said: dict[str, str]) -> None:
    """ResourceWarning is an error as every warning is."""
    assert "ResourceWarning: unclosed <socket" in said["ERROR at teardown of test_leaves_a_socket"]


def test_each_tool_that_judges_is_pinned() -> None:
    """A fresh clone is judged as this one is, whatever has been released since."""
    tools = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    pinned = {
        line.partition("==")[0]
        for line in (HERE.parent / "scripts/constraints-tools.txt").read_text().splitlines()
        if "==" in line
    }
    assert set(tools) - {"edged[demo]"} <= pinned
    assert "constraints-tools.txt" in (HERE.parent / "scripts/environment").read_text()
    assert ". scripts/environment dev" in (HERE.parent / "scripts/check").read_text()


def test_what_is_missing_is_not_run_and_said_so(tmp_path: Path) -> None:
    """One plain line with the remedy; never counted as passed."""
    (tmp_path / "bin").mkdir()
    markers = ("mediamtx", "ffmpeg", "umockdev")
    needs = "@pytest.mark.{0}\ndef test_needs_{0}(): raise RuntimeError\n@pytest.mark.{0}\ndef test_too_{0}(): pass\n"
    done = run(tmp_path, "".join(needs.format(marker) for marker in markers), path=str(tmp_path / "bin"))
    for marker in markers:
        assert f"not run: 2 tests: {marker} not found" in done.stdout
    assert "6 skipped" in done.stdout
    assert done.returncode == 0


def test_every_test_is_in_one_of_the_parts(tmp_path: Path) -> None:
    """Side by side they are the whole suite; a pytest that a test starts runs everything."""
    code = "@pytest.mark.parametrize('number', range(5))\ndef test_given(number):\n    import os\n"
    code += "    assert 'EDGED_TEST_PART' not in os.environ\n    open(f'ran-{number}', 'x').close()\n"
    assert "2 passed, 3 deselected" in run(tmp_path, code, part="2/2").stdout
    assert {file.name for file in tmp_path.glob("ran-*")} == {"ran-1", "ran-3"}
    assert "3 passed, 2 deselected" in run(tmp_path, code, part="1/2").stdout
    assert "no part 3 of 2" in run(tmp_path, code, part="3/2").stderr


def run_side_by_side(
    tmp_path: Path, modules: dict[str, str], *, jobs: int = 2, durations: str = "", part: str = ""
) -> subprocess.CompletedProcess[str]:
    """scripts/test-parts in a folder of its own."""
    tests = tmp_path / "tests"
    tests.mkdir(exist_ok=True)
    copy_rules(tests, tmp_path)
    for name, code in modules.items():
        (tests / f"test_{name}.py").write_text(code)
    (tests / "durations.txt").write_text(durations)
    environ = {name: value for name, value in os.environ.items() if name != "EDGED_TEST_PART"}
    return subprocess.run(
        [sys.executable, HERE.parent / "scripts/test-parts", "--jobs", str(jobs)],
        cwd=tmp_path, env=environ | ({"EDGED_TEST_PART": part} if part else {}), capture_output=True, text=True,
        check=False, timeout=80,
    )  # fmt: skip


#: Makes a file, and a second one if the test is run twice.
COUNTS = """
import pathlib
import pytest

@pytest.mark.parametrize("number", range(5))
def test_given(number):
    with open(f"ran-{pathlib.Path(__file__).stem}-{number}", "a") as file:
        file.write("once ")
"""


def list_runs(tmp_path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in tmp_path.glob("ran-*")}


def test_side_by_side_each_test_runs_once_under_the_same_rules(tmp_path: Path) -> None:
    """A long module is dealt out. A test that leaves a thread fails twice, as a module that cannot be imported, or is
    empty."""
    durations = "# a comment\n100 1 tests/test_long.py\n90 90 tests/test_gone.py\n"
    leaves = "import threading, time\n"
    leaves += "def test_leaves(): threading.Thread(target=time.sleep, args=(4,), name='orphan').start()\n"
    warns = "import warnings\nwarnings.warn('old')\ndef test_never(): pass\n"
    modules = {"long": COUNTS, "short": COUNTS, "leaves": leaves, "warns": warns, "empty": ""}
    done = run_side_by_side(tmp_path, modules, durations=durations)
    assert list_runs(tmp_path) == {
        f"ran-test_{name}-{number}": "once " for name in ("long", "short") for number in range(5)
    }
    assert "== once more, alone: tests/test_empty.py tests/test_leaves.py tests/test_warns.py" in done.stdout
    assert "threads left running: orphan" in done.stdout
    assert "UserWarning: old" in done.stdout
    assert "failed: tests/test_leaves.py::test_leaves\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("== FAILED (")
    assert done.returncode == 1
    # What took long now is first in the next run.
    assert (tmp_path / "build/test-durations.txt").read_text().startswith("# Seconds and CPU seconds")


def test_side_by_side_a_part_is_every_nth_test_of_each_module(tmp_path: Path) -> None:
    """From another one on in each: a module with few tests is not always in the first parts."""
    modules = dict.fromkeys(("first", "second"), COUNTS)
    done = run_side_by_side(tmp_path, modules, jobs=1, part="2/4")
    assert done.stdout.startswith("part 2/4 of 2 modules in 1 processes\n")
    assert done.returncode == 0
    assert set(list_runs(tmp_path)) == {"ran-test_first-1", "ran-test_second-2"}
    assert "no part 5 of 4" in run_side_by_side(tmp_path, modules, jobs=1, part="5/4").stderr


@pytest.mark.parametrize("parts", [1, 3, 10])
def test_each_test_is_in_one_unit_of_one_part(tmp_path: Path, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the modules' durations are; a process that begins at the other end of the queue has the same units."""
    make_queue = runpy.run_path(str(HERE.parent / "scripts/test-parts"))["Queue"].make
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/durations.txt").write_text("200 10 tests/test_waits.py\n70 70 tests/test_computes.py\n")
    modules = [f"tests/test_{name}.py" for name in ("computes", "short", "waits")]
    dealt: Counter[tuple[str, int]] = Counter()
    for part in range(1, parts + 1):
        folder = tmp_path / f"{part}"
        make_queue(folder, modules, f"{part}/{parts}")
        lines = (folder / "waiting-first").read_text().splitlines()
        assert lines[::-1] == (folder / "computing-first").read_text().splitlines()
        assert "waits" in lines[0]
        assert "computes" in lines[-1]
        waiting = (folder / "waiting-only").read_text().splitlines()
        assert waiting == [line for line in lines if "waits" in line]
        assert len(waiting) == (1 if parts > 1 else 75)
        for line in lines:
            _, path, start, step = line.split(" ")
            dealt.update((path, number) for number in range(100)[int(start) :: int(step)])
    assert dealt == Counter({(path, number): 1 for path in modules for number in range(100)})


def test_a_process_that_dies_is_a_failure_and_what_it_left_is_named(tmp_path: Path) -> None:
    """Whatever failed besides: a test that was not run has not passed."""
    modules = {"dies": "import os\ndef test_dies(): os._exit(1)\ndef test_never(): pass\n", "goes": COUNTS}
    done = run_side_by_side(tmp_path, modules)
    assert "not run to its end: tests/test_dies.py 0 1" in done.stdout
    assert "tests/test_goes.py" not in done.stdout
    assert len(list_runs(tmp_path)) == 5
    assert done.returncode == 1


def test_modules_below_the_minimum_are_listed(tmp_path: Path) -> None:
    """The table names them, worst first; it is fatal only when a minimum is asked for."""
    script = HERE.parent / "scripts/coverage-floor"
    entries = {
        name: {"summary": {"percent_covered": percent, "missing_branches": 2, "missing_lines": 3}}
        for name, percent in (("edged/a.py", 95.0), ("edged/b.py", 80.0), ("edged/c.py", 10.0))
    }
    report = tmp_path / "coverage.json"
    report.write_text(json.dumps({"files": entries, "totals": {"percent_covered": 61.7}}))

    def run_table(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(report), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    shown = run_table()
    assert shown.returncode == 0
    assert "61.7 % of lines and branches, 3 modules, 2 below 90 %" in shown.stdout
    assert shown.stdout.index("edged/c.py") < shown.stdout.index("edged/b.py")
    assert "edged/a.py" not in shown.stdout
    assert run_table("--fail-under", "90").returncode == 2
    assert run_table("--fail-under", "5").returncode == 0
