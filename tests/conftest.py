"""What holds for every test: a hard end, no thread left behind, and a plain word about what was not run.

* A test that takes longer than its limit (90 s, marked `slow` 300 s, both times EDGED_TEST_PATIENCE) fails: what runs
  in trio is cancelled, anything else, or what will not be cancelled for 5 s, interrupted where it stands; and if even
  that does not help, all stacks are printed and the whole run ends 15 s later.
* `mediamtx`, `ffmpeg`, `chromium`, `landlock` and `umockdev` tests are skipped where these are missing, and the end of
  the output says so in one line each.
* No secret that the suite made (planted.py) stands in what a test printed, logged or wrote to standard error.
* EDGED_TEST_PART=2/4 runs every fourth test from the second on: the four parts are the suite. Processes that
  scripts/test-parts runs side by side take modules from a queue (module_queue.py). EDGED_TEST_RESULTS=FILE gets a line
  for each test that ended: `passed`, `failed` or `skipped`, the seconds and CPU seconds that it took, and its name.
* Tests that try random moments, histories or inputs try a tenth of them, and all with EDGED_TEST_FULL=1 (patience.py).
* A thread that a test started and left running fails it; files and sockets left open fail it by ResourceWarning
  (the garbage is collected after each module, so that the blame lands near the cause).
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType

import hypothesis
import key_pool
import module_queue
import patience
import planted
import pytest
import trio

from edged.landlock import Landlock, try_landlock

planted.install()
key_pool.install()

SECONDS = 90.0
SLOW_SECONDS = 300.0
#: Of each kind of output of a failed test: as many lines from its end.
SHOWN_LINES = 60
#: Marker → what is missing, and the remedy.
ABSENT = {
    "mediamtx": "mediamtx not found (scripts/get-mediamtx installs it)",
    "ffmpeg": "ffmpeg not found (apt-get install ffmpeg)",
    "chromium": "chromium not found (apt-get install chromium)",
    "landlock": "setpriv has no Landlock here (util-linux 2.40 and Linux 6.2 bring it: Debian 13)",
    "umockdev": "umockdev not found (apt-get install umockdev python3-gi gir1.2-umockdev-1.0)",
}
# A busy machine is slow, not wrong; and whether a change lands does not hang on which examples were drawn.
hypothesis.settings.register_profile(
    "edged",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    max_examples=patience.times(100, least=25),
)
hypothesis.settings.load_profile("edged")

_STDERR = pytest.StashKey[int]()
_TOO_LONG = pytest.StashKey[float]()
_SKIPPED = pytest.StashKey["Counter[str]"]()
_PART = pytest.StashKey[slice]()
_RESULTS = pytest.StashKey[Path | None]()
_OUTCOMES = pytest.StashKey[set[str]]()


class TookTooLong(BaseException):
    """Raised in the main thread by the alarm; no `except Exception` of the code under test swallows it."""


@functools.cache
def is_here(marker: str) -> bool:
    """Whether this machine has what the marker's tests need."""
    if marker == "landlock":
        return not try_landlock(Landlock([Path("/etc/edged")]), os.environ.get("PATH", os.defpath))
    if marker != "umockdev":
        return shutil.which(marker) is not None
    if shutil.which("umockdev-wrapper") is None:
        return False
    script = "import gi; gi.require_version('UMockdev', '1.0'); from gi.repository import UMockdev"
    tried = subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, check=False)
    return tried.returncode == 0


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started with & by a shell script, which ignores it for its children: the daemons of the tests must hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Output is not captured yet: this is the real one.
    config.stash[_STDERR] = os.dup(2)
    config.stash[_SKIPPED] = Counter()
    # Taken out of the environment: a pytest that a test starts is not meant.
    part, _, parts = os.environ.pop("EDGED_TEST_PART", "1/1").partition("/")
    if not 1 <= int(part) <= int(parts):
        raise pytest.UsageError(f"EDGED_TEST_PART: there is no part {part} of {parts}")
    config.stash[_PART] = slice(int(part) - 1, None, int(parts))
    results = os.environ.pop("EDGED_TEST_RESULTS", "")
    config.stash[_RESULTS] = Path(results) if results else None
    if (queue := module_queue.take_queue()) is not None:
        note_failure = functools.partial(_write_result, config, "failed", 0.0, 0.0)
        config.pluginmanager.register(module_queue.ModuleQueue(queue, note_failure), "module-queue")


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_STDERR])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Next to each other stand those that take equally long: dealt out, no part gets them all.
    chosen = items[config.stash[_PART]]
    if left := set(items) - set(chosen):
        config.hook.pytest_deselected(items=list(left))
        items[:] = chosen
    for item in items:
        for marker, why in ABSENT.items():
            if item.get_closest_marker(marker) and not is_here(marker):
                item.add_marker(pytest.mark.skip(reason=why))
                item.config.stash[_SKIPPED][marker] += 1
                break


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for marker, count in sorted(config.stash[_SKIPPED].items()):
        terminalreporter.write_line(f"not run: {count} {'test' if count == 1 else 'tests'}: {ABSENT[marker]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    seconds = SLOW_SECONDS if item.get_closest_marker("slow") else SECONDS
    seconds *= patience.FACTOR

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if _TOO_LONG not in item.stash and _cancel_trio():
            item.stash[_TOO_LONG] = seconds
            signal.setitimer(signal.ITIMER_REAL, 5)
        else:
            raise TookTooLong(f"{item.nodeid} took longer than {seconds:g} s")

    began, cpu = time.monotonic(), _cpu_seconds()
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + 15, exit=True, file=item.config.stash[_STDERR])
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()
        outcomes = item.stash.get(_OUTCOMES, {"failed"})
        outcome = next(name for name in ("failed", "skipped", "passed") if name in outcomes)
        _write_result(item.config, outcome, time.monotonic() - began, _cpu_seconds() - cpu, item.nodeid)


def _cpu_seconds() -> float:
    """Of this process and of its children that it has waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _write_result(config: pytest.Config, outcome: str, seconds: float, cpu: float, name: str) -> None:
    if (file := config.stash[_RESULTS]) is not None:
        with file.open("a") as lines:
            lines.write(f"{outcome} {seconds:.3f} {cpu:.3f} {name}\n")


def _cancel_trio() -> bool:
    """Cancel the test's whole run, from a signal handler; False if none is running."""
    if not trio.lowlevel.in_trio_run():
        return False
    root = trio.lowlevel.current_root_task()
    if root is None or not root.child_nurseries:
        return False
    trio.lowlevel.current_trio_token().run_sync_soon(root.child_nurseries[-1].cancel_scope.cancel)
    return True


@pytest.fixture
def disk_path() -> Iterator[Path]:
    """A folder of the test's own that is not below /dev, of which children may read everything; tmp_path may be."""
    with tempfile.TemporaryDirectory(prefix="edged-test-", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def in_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """A cancelled test has not passed."""
    yield
    if _TOO_LONG in request.node.stash:
        pytest.fail(f"took longer than {request.node.stash[_TOO_LONG]:g} s")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After its last step, look at everything that the test said; of a failure show the end of that."""
    report = yield
    if report.failed:
        report.sections = [(name, _last_lines(text)) for name, text in report.sections]
    if report.when == "teardown" and report.passed:
        said = [text for _, text in report.sections]
        if leaked := planted.leaks(*said):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} showed {', '.join(leaked)}"
    item.stash.setdefault(_OUTCOMES, set()).add(report.outcome)
    return report


def _last_lines(text: str) -> str:
    lines = text.splitlines()
    if len(lines) <= SHOWN_LINES:
        return text
    return "\n".join([f"[{len(lines) - SHOWN_LINES} lines before these are not shown]", *lines[-SHOWN_LINES:]])


def _threads() -> set[threading.Thread]:
    """Running threads, but for trio's own cache of workers, which end by themselves when idle."""
    return {thread for thread in threading.enumerate() if not thread.name.lower().startswith("trio")}


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """A thread has an owner who ends it."""
    before = _threads()
    yield
    patience = time.monotonic() + 2
    while (left := _threads() - before) and time.monotonic() < patience:
        time.sleep(0.01)
    if left:
        pytest.fail(f"threads left running: {', '.join(sorted(thread.name for thread in left))}")


@pytest.fixture(autouse=True, scope="module")
def no_garbage_left_behind() -> Iterator[None]:
    """Whatever was left open says so at the end of its own module."""
    yield
    gc.collect()
