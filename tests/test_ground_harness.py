"""The tests' own rules (conftest.py): a hard end, nothing left behind, and what was not run is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(
    tmp_path: Path, code: str, *, patience: str = "1", path: str | None = None, part: str = "1/1"
) -> subprocess.CompletedProcess[str]:
    """pytest in a folder of its own, under this suite's conftest and settings."""
    for name in ("conftest.py", "key_pool.py", "patience.py", "planted.py"):
        shutil.copy(HERE / name, tmp_path)
    shutil.copy(HERE.parent / "pyproject.toml", tmp_path)
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


def test_a_failure_shows_the_last_sixty_lines_of_what_was_printed(tmp_path: Path) -> None:
    """A daemon's log of thousands of lines would hide the reason."""
    done = run(tmp_path, "def test_talks():\n    for n in range(9000): print(f'line {n}')\n    assert n == 1\n")
    assert "line 8999" in done.stdout
    assert "[8940 lines before these are not shown]" in done.stdout
    assert len(done.stdout.splitlines()) < 120


def test_a_failing_property_shows_how_to_play_it_again_in_a_screenful(tmp_path: Path) -> None:
    """The smallest example and the line that repeats it, not each one that was tried."""
    code = "from hypothesis import given, strategies as st\n"
    code += "@given(st.integers())\n"
    code += "def test_property(number):\n    print(f'tried {number}')\n    assert number < 100\n"
    done = run(tmp_path, code)
    assert "number=100" in done.stdout
    assert "@reproduce_failure" in done.stdout
    assert len(done.stdout.splitlines()) < 120


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


def test_sigint_is_heard_where_the_suite_was_started_with_it_ignored(tmp_path: Path) -> None:
    """A shell ignores SIGINT for what it starts with &, and so would the daemons that the tests interrupt."""
    code = "import subprocess, sys\n"
    code += "def test_child():\n"
    code += '    child = "import signal; print(signal.getsignal(2) is signal.default_int_handler)"\n'
    code += "    assert subprocess.check_output([sys.executable, '-c', child]) == b'True\\n'\n"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = run(tmp_path, code)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "1 passed" in done.stdout


def test_a_thread_left_running_fails_its_test(tmp_path: Path) -> None:
    """The name says whose it is."""
    done = run(tmp_path, "def test_leaves(): threading.Thread(target=time.sleep, args=(4,), name='orphan').start()\n")
    assert "threads left running: orphan" in done.stdout
    assert done.returncode == 1


def test_trio_s_own_workers_are_no_leak(tmp_path: Path) -> None:
    """They idle for ten seconds and end by themselves."""
    done = run(tmp_path, "async def test_works(): await trio.to_thread.run_sync(time.sleep, 0)\n")
    assert "1 passed" in done.stdout


def test_a_socket_left_open_fails(tmp_path: Path) -> None:
    """ResourceWarning is an error as every warning is."""
    done = run(tmp_path, "def test_leaves():\n    one = [socket.socket()]\n    one.append(one)\n")
    assert "ResourceWarning: unclosed <socket" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize("marker", ["mediamtx", "ffmpeg", "umockdev"])
def test_what_is_missing_is_not_run_and_said_so(tmp_path: Path, marker: str) -> None:
    """One plain line with the remedy; never counted as passed."""
    (tmp_path / "bin").mkdir()
    code = f"@pytest.mark.{marker}\ndef test_needs(): raise RuntimeError\n@pytest.mark.{marker}\ndef test_too(): pass\n"
    done = run(tmp_path, code, path=str(tmp_path / "bin"))
    assert f"not run: 2 tests: {marker} not found" in done.stdout
    assert "2 skipped" in done.stdout
    assert done.returncode == 0


def test_every_test_is_in_one_of_the_parts(tmp_path: Path) -> None:
    """Side by side they are the whole suite; a pytest that a test starts runs everything."""
    code = "@pytest.mark.parametrize('number', range(5))\ndef test_given(number):\n    import os\n"
    code += "    assert 'EDGED_TEST_PART' not in os.environ\n    open(f'ran-{number}', 'x').close()\n"
    assert "2 passed, 3 deselected" in run(tmp_path, code, part="2/2").stdout
    assert {file.name for file in tmp_path.glob("ran-*")} == {"ran-1", "ran-3"}
    assert "3 passed, 2 deselected" in run(tmp_path, code, part="1/2").stdout
    assert "no part 3 of 2" in run(tmp_path, code, part="3/2").stderr


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
