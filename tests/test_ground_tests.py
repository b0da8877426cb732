"""The tests themselves: which module has a file, and what a test without an assertion relies on."""

from __future__ import annotations

import ast
import re
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import pytest

from edged import operations

TESTS: Final = Path(__file__).parent
OPERATIONS: Final = Path(operations.__file__).parent
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
#: The last word of calls that fail a test.
CHECKS: Final = frozenset({"raises", "fail", "warns", "assert_no_checkpoints"})
ASSERTS: Final = re.compile(r"\bassert\b|\bAssertionError\b|\b(?:raises|fail|warns|assert_no_checkpoints)\(")
#: What a test relies on that asserts nothing: no error, an end in time, the exit code of a program, or
#: a fixture that looks at it all at the end.
RELIES: Final = re.compile(
    r"\b(?:nothing\s+is\s+raised|raises|before\s+the\s+deadline|exits?\s+with\s+0|fixture)\b", re.IGNORECASE
)


class Found(NamedTuple):
    """A function of a file: its lines, whether it asserts something itself, and the names and `.attributes` in it."""

    name: str
    lines: tuple[int, int]
    docstring: str
    asserts: bool
    uses: frozenset[str]


@cache
def find_functions(file: Path) -> tuple[Found, ...]:
    """All functions of a file, those within others among them."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return tuple(look_at(node) for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def look_at(function: Function) -> Found:
    asserts, uses = False, set[str]()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            asserts |= isinstance(node.func, ast.Attribute) and node.func.attr in CHECKS
        if isinstance(node, ast.Name):
            uses.add(node.id)
        elif isinstance(node, ast.Attribute):
            uses.add(f".{node.attr}")
        asserts |= isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "AssertionError")
    lines = function.lineno - 1, function.end_lineno or function.lineno
    return Found(function.name, lines, ast.get_docstring(function) or "", asserts, frozenset(uses))


@cache
def find_asserting(file: Path) -> frozenset[str]:
    """The names of functions that assert something, or use one that does, of a file and the helpers it imports; methods
    of the file itself as `.name`."""
    known = {name for helper, names in find_helpers(file) for name in names & find_asserting(helper)}
    functions = find_functions(file)
    while more := {each.name for each in functions if each.name not in known and (each.asserts or each.uses & known)}:
        known |= more | {f".{name}" for name in more}
    return frozenset(known)


def find_helpers(file: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """The modules beside a file that it imports names from."""
    for module, listed, line in re.findall(r"^from (\w+) import (?:\(([^)]*)\)|(.+)$)", file.read_text(), re.MULTILINE):
        if (helper := TESTS / f"{module}.py").is_file() and helper != file:
            yield helper, frozenset(re.findall(r"\w+", listed or line))


def may_be_silent(text: str) -> bool:
    """Whether some test of a file has no word by which it could assert something: only then the file is parsed."""
    parts = re.split(r"^(?:async )?def (?=test_)|^(?=[A-Za-z@])", text, flags=re.MULTILINE)
    return any(part.startswith("test_") and not ASSERTS.search(part) for part in parts if part)


def find_silent(file: Path) -> list[str]:
    """The tests of a file that assert nothing, and say neither in docstring nor in a comment what they rely on."""
    text = file.read_text()
    if not may_be_silent(text):
        return []
    lines, known = text.splitlines(), find_asserting(file)
    silent = []
    for each in find_functions(file):
        said = each.docstring, *(line.partition("#")[2] for line in lines[slice(*each.lines)])
        is_test = each.name.startswith("test_")
        if is_test and not each.asserts and not each.uses & known and not any(map(RELIES.search, said)):
            silent.append(f"{file.name}::{each.name}")
    return silent


def test_every_module_of_operations_has_a_test_file_of_its_own() -> None:
    """Whoever looks for what a module promises finds it under its name; and no file is of a module that is gone."""
    modules = {file.stem for file in OPERATIONS.glob("*.py")} - {"__init__"}
    # Of all operations at once: who may ask them, how they are reached, and over sockets.
    of_all = {"surface", "matrix", "wire"}
    files = {file.stem.removeprefix("test_operations_") for file in TESTS.glob("test_operations_*.py")}
    assert files - of_all == modules


def test_a_test_without_an_assertion_says_what_it_relies_on() -> None:
    silent = [name for file in sorted(TESTS.glob("test_*.py")) for name in find_silent(file)]
    assert silent == [], (
        'assert something, or say "Nothing is raised", "before the deadline", "exits with 0" or name the fixture'
    )


@pytest.mark.parametrize(
    ("code", "is_silent"),
    [
        ("def test_a():\n    look()", True),
        ("async def test_a(\n    x: int\n) -> None:\n    look()", True),
        ("def test_a(\n    x: int\n) -> None:\n    assert look()", False),
        ("def test_a():\n    assert look()", False),
        ("def test_a():\n    def never():\n        raise AssertionError\n    look(never)", False),
        ("def test_a():\n    with pytest.raises(ValueError):\n        look()", False),
        ("def check():\n    assert 1\ndef test_a():\n    check()", False),
        ("def check():\n    assert 1\ndef again():\n    check()\nasync def test_a():\n    await again()", False),
        ("def look():\n    pass\ndef test_a():\n    look()", True),
        ('def test_a():\n    """Nothing is raised."""\n    look()', False),
        ('def test_a():\n    """It is quick."""\n    look()', True),
        ("def test_a():\n    # It ends before the deadline.\n    look()", False),
        ('def test_a():\n    look("nothing is raised")', True),
    ],
)
def test_a_silent_test_is_found(tmp_path: Path, code: str, is_silent: bool) -> None:
    # What was found in a file is remembered by its name, and a folder may be given again.
    file = tmp_path / f"test_{uuid.uuid4().hex}.py"
    file.write_text(code)
    assert bool(find_silent(file)) is is_silent
