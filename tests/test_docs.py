"""README, docs/ and CONTRIBUTING.md lead to what exists."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import msgspec
import pytest

from edged.credentials.roles import ROLES, SERVICE
from edged.operations import gather
from edged.rpc.dialects import FAULTS
from edged.web.faults import STATUSES
from edged.web.routes import list_paths

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    """Relative links only: what lies elsewhere may move without us."""
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_every_page_is_named_in_the_readme() -> None:
    """Nobody finds what nothing leads to."""
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES if page.name not in readme and page.name != "README.md"] == []


def test_commands_of_the_pages_exist() -> None:
    """Every `edged …` in backquotes is a command of the command line."""
    from edged.cli.main import main

    told = {
        match for page in PAGES for match in re.findall(r"`(?:sudo )?edged ([a-z-]+(?: [a-z-]+)?)", page.read_text())
    }
    assert told
    for words in told:
        command: object = main
        for word in words.split():
            commands = getattr(command, "commands", None)
            if commands is None:
                break
            assert word in commands, f"edged {words}"
            command = commands[word]


def test_every_script_that_is_named_exists() -> None:
    """scripts/… in any page."""
    named = {name for page in PAGES for name in re.findall(r"\bscripts/([a-z-]+(?:\.txt)?)", page.read_text())}
    assert [name for name in sorted(named) if not (ROOT / "scripts" / name).exists()] == []


def test_the_contract_has_every_method_with_its_params_and_results() -> None:
    """One row for each operation: params, members of the result, capability (docs/contract.md, section 3)."""
    page = (ROOT / "docs/contract.md").read_text()
    section = page.partition("\n## 3.")[2].partition("\n### 3b.")[0].partition("\nNot built yet:")[0]
    rows = {}
    for line in section.splitlines():
        cells = [cell.replace("\\", "").strip() for cell in re.split(r"(?<!\\)\|", line)]
        if len(cells) == 6:
            rows[cells[1]] = cells[2:5]
    operations = gather().operations
    assert operations.keys() - rows.keys() == set()
    later = page.partition("\nNot built yet:")[2].partition("\n### ")[0]
    planned = {name for row in re.findall(r"^\| ([^|]+) \|", later, re.MULTILINE) for name in row.split(", ")}
    assert operations.keys() & planned == set()
    missing = []
    for name, operation in operations.items():
        params, result, capability = rows[name]
        found = inspect.signature(operation.run, eval_str=True).return_annotation
        fields = found.__struct_fields__ if inspect.isclass(found) and issubclass(found, msgspec.Struct) else ()
        missing += [f"{name}: param {each}" for each in operation.params.__struct_fields__ if not says(params, each)]
        missing += [f"{name}: result {each}" for each in fields if not says(result, each)]
        missing += [f"{name}: capability {operation.capability}"] if operation.capability not in capability else []
    assert not missing, "\n".join(missing)


def says(cell: str, name: str) -> bool:
    """Whether a cell names a member."""
    return re.search(rf"(?<!\w){name}(?!\w)", cell) is not None


def test_the_contract_has_every_route() -> None:
    """Section 5.5: exactly the paths of the route table, and the method and status that each operation declares."""
    table = (ROOT / "docs/contract.md").read_text().partition("\n### 5.5 ")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    assert {path for row in rows for path in re.findall(r"`([^`]+)`", row[1])} == list_paths()
    told = {
        (verb, path, name, int(status or 200))
        for row in rows
        for path in re.findall(r"`([^`]+)`", row[1])
        for verb, name, status in re.findall(r"\b(GET|POST|PUT|PATCH|DELETE) ([a-z_]+)(?: \((\d+)\))?", row[2])
    }
    declared = {
        (item.rest.method, item.rest.path, item.name, item.rest.status)
        for item in gather().operations.values()
        if item.rest is not None
    }
    assert told == declared


def test_the_contract_has_every_error() -> None:
    """Section 4b: code and message in both dialects, and the status over HTTP."""
    table = (ROOT / "docs/contract.md").read_text().partition("\n### 4b. ")[2].partition("\n## ")[0]
    rows = {cells[1].strip(): [cell.strip() for cell in cells[3:6]] for cells in map(split_row, table.splitlines())}
    refusals = {"auth_required": 401, "auth_failed": 401, "expired": 401, "revoked": 401, "origin_denied": 403,
                "permission_denied": 403}  # fmt: skip
    for reason, answers in FAULTS.items():
        told = rows[reason]
        assert told[:2] == [f"{code} **{message}**" for code, message in answers], reason
        status = refusals.get(reason) or STATUSES.get(reason, (0,))[0]
        assert not status or told[2].startswith(str(status)), reason


def split_row(line: str) -> list[str]:
    """The cells of a row of a table, after an empty first one; empty cells for a line that is none."""
    return line.split("|") if line.count("|") == 6 else [""] * 6


def test_the_contract_has_every_role() -> None:
    """Section 7.2: the capabilities of each; "those of" is what another role has."""
    table = (ROOT / "docs/contract.md").read_text().partition("\n### 7.2 ")[2].partition("\n### ")[0]
    told: dict[str, frozenset[str]] = {}
    for line in table.splitlines()[3:]:
        if len(cells := [cell.strip() for cell in line.split("|")]) == 5:
            words = [word.strip() for word in cells[3].split(",")]
            others = [told[word.removeprefix("those of ")] for word in words if word.startswith("those of ")]
            own = frozenset(word for word in words if not word.startswith("those of "))
            told[cells[1]] = own.union(*others)
    assert {role: told.get(role) for role in ROLES} == ROLES
    assert told["service tokens"] == SERVICE
