"""cli/params.py: the options of commands have the bounds and choices of the operations' structs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edged.cli import params
from edged.cli.main import main

ROOT = Path(__file__).parent.parent


def test_params_json_is_made_from_the_structs() -> None:
    """Whoever changes a bound, a choice or a default runs `python -m edged.cli.params`."""
    assert params.describe_all() == params.PARAMS
    assert Path(params.__file__).with_name("params.json").read_text() == params.render()


def test_choices_keep_their_order_and_defaults_are_told() -> None:
    """Roles from the least to the most, as they are declared."""
    assert params.PARAMS["create_key"]["role"]["choices"] == ["monitor", "viewer", "operator", "user", "admin"]
    assert params.PARAMS["list_sessions"]["limit"] == {"type": "integer", "ge": 1, "le": 1000, "default": 100}
    assert params.PARAMS["import_keys"]["keys"] == {"max_items": 100}
    shown = CliRunner().invoke(main, ["session", "list", "--help"]).output
    assert re.search(r"\[default:\s+\(100\);\s+1<=x<=1000\]", shown), shown


def options(group: click.Group = main, prefix: str = "") -> Iterator[tuple[str, click.Parameter]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from options(command, f"{prefix}{name} ")
        else:
            yield from ((f"{prefix}{name}", each) for each in command.params)


def test_no_command_has_bounds_or_choices_of_its_own() -> None:
    """Those that talk to the daemon take them from the operation; `edged db`, which does not, has its own."""
    for path in (ROOT / "edged/cli").glob("*.py"):
        if path.name not in ("params.py", "databases.py"):
            found = re.findall(r"click\.(?:Choice|IntRange|FloatRange)\(", path.read_text())
            assert not found, path.name


def test_options_of_one_name_are_the_same() -> None:
    """--directory, --json, --quiet, --limit … mean one thing everywhere."""
    seen: dict[str, set[str]] = {}
    for _, each in options():
        if isinstance(each, click.Option):
            for word in each.opts:
                seen.setdefault(word, set()).add(type(each.type).__name__)
    several = {word: kinds for word, kinds in seen.items() if len(kinds) > 1}
    # `edged token verify` takes any role of any issuer; `edged recording verify` judges from one time to another.
    assert several == {"--role": {"Choice", "StringParamType"}, "--to": {"Path", "StringParamType"}}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("key", "create", "x", "--role", "owner"), "'monitor', 'viewer', 'operator', 'user', 'admin'"),
        (("key", "create", "x", "--role", "viewer", "--expires-in-days", "nan"), "not a number"),
        (("key", "create", "x", "--role", "viewer", "--expires-in-days", "0"), "0<x<=36500"),
        (("key", "list", "--status", "lost"), "'active'"),
        (("camera", "add", "x", "rtsp://h/", "--rate", "inf"), "not a number"),
        (("camera", "add", "x", "rtsp://h/", "--rate", "fast"), "not a valid number"),
        (("stream", "ticket", "camera0", "--ttl", "4"), "5<=x<=3600"),
        (("stream", "ticket", "camera0", "--action", "write"), "'read', 'publish'"),
        (("token", "usage", "--limit", "0"), "1<=x<=1000"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_known(arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2, before any daemon is asked."""
    done = CliRunner().invoke(main, [*arguments, "--socket", "/nowhere"])
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
