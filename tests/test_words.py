"""The words and the sizes of files that the maintainers agreed on, in edged/, docs/ and tests/ (CONTRIBUTING.md).

Metaphors that a reader had to have explained were replaced by technical terms; they must not come back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SUFFIXES = {".py", ".md", ".toml", ".html", ".js", ".css", ".sql"}
MOST_LINES = 400
MOST_LINES_OF_APP = 200

#: Whole words, also as parts of identifiers (`has_room`, `FrontDoor`), in any case.
WORDS = re.compile(
    r"houses?|rooms?|doors?|cellars?|desks?|walk(?:s|ed|ing|ers?)?|haunt(?:s|ed|ing)?|oddit(?:y|ies)|owed"
    r"|vouch(?:es|ed|ers?|ing)?|dear(?:er|est|ly)?|floors?|floored",
    re.IGNORECASE,
)
#: Words that are ordinary alone; across the end of a line, too.
PHRASES = re.compile(r"(?:ways?|puts?|putting)[\s_#-]+out(?![a-z])", re.IGNORECASE)
PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
#: Ordinary uses: a function of mathematics or of Python's library, a script, an example of a key's name, and what API
#: clients, dashboards and backups know by this name (docs/contract.md).
ALLOWED = re.compile(
    r"\bfloor\(|"
    r"coverage-floor"
    r"|\b(?:os|ast)\.walk\b|Front desk|\b(?:edged_)?denials_owed\b|\bdenial_room_bytes\b|(?:trust|\")\.room\b"
    r"|\b(?:leaves?|makes?|has|have|less|no) room\b"
)


def find_words(text: str) -> list[str]:
    """The retired words in a text, in order."""
    text = ALLOWED.sub(" ", text)
    words = [part for part in PARTS.findall(text) if WORDS.fullmatch(part)]
    return words + [" ".join(re.split(r"[\s_#-]+", phrase)) for phrase in PHRASES.findall(text)]


def files() -> Iterator[str]:
    for folder in ("edged", "docs", "tests"):
        for file in sorted((TOP / folder).rglob("*")):
            # This file names them.
            if file.suffix in SUFFIXES and file != Path(__file__):
                yield file.relative_to(TOP).as_posix()


def too_long(name: str) -> str:
    """ "" or what is wrong with the length of a Python file of edged."""
    if not (name.startswith("edged/") and name.endswith(".py")):
        return ""
    most = MOST_LINES_OF_APP if name == "edged/app.py" else MOST_LINES
    lines = (TOP / name).read_text().count("\n")
    return f"{lines} lines, more than {most}" if lines > most else ""


def test_no_retired_word_is_in_the_code_or_the_documentation() -> None:
    """Names, comments, docstrings, log lines and help texts."""
    found = {name: ", ".join(words) for name in files() if (words := find_words((TOP / name).read_text()))}
    assert found == {}


def test_no_python_file_is_too_long() -> None:
    """400 lines at most, the composition root 200."""
    found = {name: what for name in files() if (what := too_long(name))}
    assert found == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("has_room", ["room"]),
        ("class FrontDoor:", ["Door"]),
        ("DOORS = 1", ["DOORS"]),
        ("# the way\n    # out", ["way out"]),
        ("put_out", ["put out"]),
        ("denials are owed", ["owed"]),
        ("allowed, followed, mushroom, endear, floorplan", []),
        ("math.floor(x), os.walk(path), which leaves room for others", []),
        ("output, wayout", []),
    ],
)
def test_a_retired_word_is_found_in_names_and_in_prose_and_nowhere_else(text: str, words: list[str]) -> None:
    assert find_words(text) == words
