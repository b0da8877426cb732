"""What makes one of the pytest processes that scripts/test-parts runs side by side: it takes modules from a queue.

A module is imported when its turn has come, by the process that runs it, so its daemon is started once and its import
is paid for once. The queue is a folder. A file in it has a line for each unit, `NUMBER PATH START STEP`: a module, and
which of its tests (those at START, START + STEP, …; long modules are several units). Whoever makes the file
`taken-NUMBER` runs the unit, and makes `ended-NUMBER` when it has run. EDGED_TEST_QUEUE names the file; each process
takes the first unit that is left in its file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest


class Unit(NamedTuple):
    """Tests that one process runs one after the other: `path` as given to pytest."""

    number: int
    path: str
    start: int
    step: int


class LazyModule(pytest.Module):
    """A module that is imported when its turn has come; until then it has no tests."""

    is_due = False

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        return super().collect() if self.is_due else []


class ModuleQueue:
    """A pytest plugin: no module is imported before the first test, and then a unit at a time."""

    def __init__(self, file: Path, note_failure: Callable[[str], None]) -> None:
        """`note_failure` is told the path of a module that cannot be imported, or has no tests."""
        self._file, self._note_failure = file, note_failure
        self._modules: dict[Path, LazyModule] = {}
        self._items: dict[str, list[pytest.Item]] = {}

    @pytest.hookimpl
    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> LazyModule:
        module = LazyModule.from_parent(parent, path=module_path)
        self._modules[module_path] = module
        return module

    @pytest.hookimpl
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        ended = 0
        for unit in self._take():
            items = self._collect(session, unit)
            for item, following in zip_longest(items, items[1:]):
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
            ended += len(items)
            self._mark("ended", unit)
        session.testscollected = ended
        return True

    def _take(self) -> Iterator[Unit]:
        for line in self._file.read_text().splitlines():
            number, path, start, step = line.split(" ")
            unit = Unit(int(number), path, int(start), int(step))
            if self._mark("taken", unit):
                yield unit

    def _mark(self, what: str, unit: Unit) -> bool:
        """Whether nobody has done so before."""
        try:
            (self._file.parent / f"{what}-{unit.number}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _collect(self, session: pytest.Session, unit: Unit) -> list[pytest.Item]:
        # pytest collects a module once.
        if unit.path not in self._items:
            self._items[unit.path] = self._import(session, unit.path)
        items = self._items[unit.path][unit.start :: unit.step]
        session.config.hook.pytest_collection_modifyitems(session=session, config=session.config, items=items)
        return items

    def _import(self, session: pytest.Session, path: str) -> list[pytest.Item]:
        module = self._modules[session.config.invocation_params.dir / path]
        module.is_due = True
        failures = session.testsfailed
        with warnings.catch_warnings():
            # As while pytest collects, by the settings in pyproject.toml.
            warnings.simplefilter("error")
            items = list(session.genitems(module))
        if not items or session.testsfailed > failures:
            self._note_failure(path)
        return items


def take_queue() -> Path | None:
    """The file of this process' queue. Taken out of the environment: a pytest that a test starts is not meant."""
    file = os.environ.pop("EDGED_TEST_QUEUE", "")
    return Path(file) if file else None
