"""References to docs/ lead somewhere: `contract 10.5`, `S0-16`, `C-22`, `architecture 6`, `mediamtx.md 3.1`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import edged

ROOT = Path(__file__).parent.parent
#: The package that is tested may be an installed one.
PACKAGE = Path(edged.__file__).parent
DOCS = ROOT / "docs"
#: Where references are looked for; this file is left out, since it holds some that lead nowhere.
PLACES: Final = (
    "edged",
    "tests",
    "scripts",
    "docs",
    "packaging",
    "etc",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
#: Suffixes of files that hold no text.
NO_TEXT: Final = frozenset({".png", ".pyc", ".so"})

#: `10.5`, `4b`, `7.3.5`.
NUMBER: Final = r"\d+[a-z]?(?:\.\d+)*"
ROW: Final = r"(?:S\d-\d+|C-\d+)"
ITEM: Final = rf"(?:sections? )?(?:{NUMBER}|{ROW})(?![\w-])"
#: A list of places in one document, behind its name.
LIST: Final = rf"{ITEM}(?:(?:,? and|,| to|;) {ITEM})*"

KINDS: Final[Mapping[str, re.Pattern[str]]] = {
    "contract": re.compile(rf"\bcontract(?:\.md)? ({LIST})", re.IGNORECASE),
    "architecture": re.compile(rf"\barchitecture(?:\.md)? ({LIST})", re.IGNORECASE),
    "mediamtx": re.compile(rf"\bmediamtx\.md ({LIST})"),
    "design": re.compile(rf"\bdesign(?:\.md)? ({LIST})", re.IGNORECASE),
    "row": re.compile(rf"(?<![\w-])({ROW})(?![\w-])"),
    "trap": re.compile(r"\btraps? (\d+)\b"),
    "guide": re.compile(r"\bguide (S\d+)\b", re.IGNORECASE),
    "seed": re.compile(r"\bseeds? (\d{3})\b", re.IGNORECASE),
    "page": re.compile(r"(?<![\w./-])([A-Za-z_-]+\.md)\b"),
}


class Reference(NamedTuple):
    """One reference: its kind, the place that it names, and the text around it."""

    kind: str
    place: str
    context: str


def find_references(text: str) -> Iterator[Reference]:
    """Every reference in a text, also one that goes on in the next line of a comment."""
    joined = re.sub(r"[ \t]*\n[ \t]*(?:#:? |\* )?", " ", text)
    for kind, pattern in KINDS.items():
        for found in pattern.finditer(joined):
            context = joined[max(0, found.start() - 40) : found.end() + 40]
            for place in re.findall(rf"{ROW}|{NUMBER}", found[1]) if kind in DOCUMENTS else [found[1]]:
                yield Reference("row" if re.fullmatch(ROW, place) else kind, place, context)


#: Kinds that name a heading of a document.
DOCUMENTS: Final = {"contract": "contract.md", "architecture": "architecture.md", "mediamtx": "mediamtx.md",
                    "design": "design.md"}  # fmt: skip


@cache
def read_places(name: str) -> frozenset[str]:
    """Numbers of the headings of a document, and of the items of numbered lists below them: `10.5`, `4b`, `7.3.5`."""
    page = DOCS / name
    if not page.exists():
        return frozenset()
    found, heading = set(), ""
    for line in page.read_text().splitlines():
        if match := re.match(rf"#+ ({NUMBER})(?:\.)? ", line):
            heading = match[1]
            found.add(heading)
        elif line.startswith("#"):
            heading = ""
        elif heading and (match := re.match(r"(\d+)\. ", line)):
            found.add(f"{heading}.{match[1]}")
    return frozenset(found)


@cache
def read_rows(name: str) -> frozenset[str]:
    """First cells of the tables of a document."""
    return frozenset(re.findall(r"^\| ([^|]+?) \|", (DOCS / name).read_text(), re.MULTILINE))


@cache
def read_pages() -> frozenset[str]:
    """Names of the pages that exist."""
    return frozenset(page.name for page in [*DOCS.glob("*.md"), *ROOT.glob("*.md")])


def resolves(reference: Reference) -> bool:
    """Whether there is what the reference names."""
    if reference.kind in DOCUMENTS:
        return reference.place in read_places(DOCUMENTS[reference.kind])
    known: dict[str, Callable[[], bool]] = {
        "row": lambda: reference.place in read_rows("contract.md"),
        "trap": lambda: reference.place in read_rows("mediamtx.md"),
        "guide": lambda: f"### Guide {reference.place}:" in (DOCS / "contract.md").read_text(),
        "page": lambda: reference.place in read_pages(),
    }
    return reference.kind in known and known[reference.kind]()


def list_files() -> list[Path]:
    """Every file of text in PLACES."""
    below = [
        path for place in PLACES for path in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"))
    ]
    return [
        path
        for path in below
        if path.is_file() and path.suffix not in NO_TEXT and path != Path(__file__) and "__pycache__" not in path.parts
    ]


@pytest.fixture(scope="module")
def references() -> list[tuple[Path, Reference]]:
    return [(path, found) for path in list_files() for found in find_references(path.read_text(errors="replace"))]


def test_every_reference_resolves(references: list[tuple[Path, Reference]]) -> None:
    """To a heading, a numbered item, a row or a page of docs/."""
    lost = [
        f"{path.relative_to(ROOT)}: {found.kind} {found.place} in …{found.context}…"
        for path, found in references
        if not resolves(found)
    ]
    assert not lost, "\n".join(lost)


@pytest.mark.parametrize("kind", ["contract", "architecture", "mediamtx", "row", "trap", "page", "guide"])
def test_references_of_each_kind_are_found(references: list[tuple[Path, Reference]], kind: str) -> None:
    """Nothing would be lost where nothing is found."""
    assert [found for _, found in references if found.kind == kind]


@pytest.mark.parametrize(
    "text",
    [
        "contract 10.99", "Contract 4c", "(contract 3,\n    77.1)", "#: as contract 5.1 and 10.42 say",
        "contract 7.3.99", "contract section 12", "S0-99", "S5-1", "C-77", "contract C-1, 10.77", "S0-25 to S0-99",
        "architecture 99", "design 6", "design.md 15", "mediamtx.md 9.9", "trap 14", "guide S9", "seed 000",
        "field.md 4", "limits.md",
    ],
)  # fmt: skip
def test_an_invented_reference_does_not_resolve(text: str) -> None:
    """One place of several is enough."""
    assert [found for found in find_references(text) if not resolves(found)]


@pytest.mark.parametrize(
    "text",
    [
        "contract 10.5", "Contract 4b", "(contract 3,\n    3b)", "#: contract 5.1,\n#: 10.20", "contract 7.3.5",
        "contract 8.5", "contract S0-24, section 11", "S0-25 to S0-27", "C-22", "architecture 6", "mediamtx.md 3.1",
        "trap 7", "guide S0", "promises.md",
    ],
)  # fmt: skip
def test_a_reference_to_what_exists_resolves(text: str) -> None:
    """However it is written, and across lines."""
    found = list(find_references(text))
    assert found
    assert [each for each in found if not resolves(each)] == []


@pytest.mark.parametrize("text", ["RFC 7009, section 2.1", "a contract with 3 parties", "UTF-8", "[[tool.contracts]]"])
def test_what_is_no_reference_is_not_taken_for_one(text: str) -> None:
    """Specifications of others have sections of their own."""
    assert list(find_references(text)) == []


@pytest.mark.parametrize("name", ["contract.md", "architecture.md", "mediamtx.md"])
def test_no_two_headings_of_a_document_have_one_number(name: str) -> None:
    """A reference would not say which of them it means."""
    numbers = re.findall(rf"^#+ ({NUMBER})\.? ", (DOCS / name).read_text(), re.MULTILINE)
    assert len(numbers) > 5
    assert sorted(set(numbers)) == sorted(numbers)


def test_no_two_rows_of_the_contract_have_one_name() -> None:
    names = re.findall(rf"^\| ({ROW}) \|", (DOCS / "contract.md").read_text(), re.MULTILINE)
    assert len(names) > 50
    assert sorted(set(names)) == sorted(names)


def test_the_layers_of_the_architecture_are_those_that_are_checked() -> None:
    """docs/architecture.md names them from the top down, as import-linter has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = next(each["layers"] for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    table = (DOCS / "architecture.md").read_text().partition("## Layers")[2].partition("\n### ")[0]
    rows = [row.split("|")[2] for row in table.splitlines() if row.startswith("| ")][1:]
    told = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row)]
    assert told == [name.strip().removeprefix("edged.") for layer in layers for name in layer.split("|")]


def test_files_that_the_pages_name_exist() -> None:
    """`edged/package/module.py`, `tests/…` and `etc/…` in any page; in docs/architecture.md `package.module`, and the
    rows of packages."""
    packages = "|".join(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
    dotted = re.findall(rf"(?<![\w./])({packages})\.([a-z_]+)\b", (DOCS / "architecture.md").read_text())
    named = {f"edged/{package}/{module}.py" for package, module in dotted if module not in ("md", "py")}
    tables = (DOCS / "architecture.md").read_text().partition("\n### access")[2].partition("\n## ")[0]
    rows = re.findall(rf"^\| ({packages}) \| (.*) \|$", re.sub(r"\([^)]*\)", "", tables), re.MULTILINE)
    named |= {f"edged/{package}/{module}.py" for package, row in rows for module in re.findall(r"`([a-z_0-9]+)`", row)}
    assert len(named) > 100
    path = re.compile(r"(?<![\w./-])(?:edged|tests|etc/conf\.d|etc|packaging)/[\w./-]*\w\.(?:py|toml|c)\b")
    named |= {name for page in DOCS.glob("*.md") for name in path.findall(page.read_text())}
    assert [
        name
        for name in sorted(named)
        if not ((PACKAGE if name.startswith("edged/") else ROOT) / name.removeprefix("edged/")).exists()
    ] == []
