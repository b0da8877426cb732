"""What params of operations may be, for the options of commands: bounds, choices and defaults of their structs.

To import the operations takes three times as long as all of a command. So their facts are kept in params.json, which
`python -m edged.cli.params` writes anew from the structs; a test compares the two.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import click

_FILE: Final = Path(__file__).with_name("params.json")
#: Operation → member of its params → what is known of it: `type` (integer, number), `choices`, `ge`, `gt`, `le`, `lt`,
#: `max_items`, `default`. What is not restricted has no entry.
PARAMS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = json.loads(_FILE.read_text())


class Number(click.FloatRange):
    """A number between bounds. JSON has neither nan nor infinity: they would go out as nothing at all."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return int(number) if number.is_integer() else number


class AnyNumber(click.ParamType):  # type: ignore[type-arg]
    """A number that the daemon alone has bounds for."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Number().convert(value, param, ctx)


def option(operation: str, member: str, *names: str, help: str, **more: Any) -> Callable[[Any], Any]:  # noqa: A002
    """An option for a member of an operation's params: its type, bounds, choices and default are the operation's.

    Without `names` it is called as the member, with dashes. The command gets it under the member's name.
    """
    facts = PARAMS[operation][member]
    # Told, not sent: what is not given is left to the daemon.
    told = {"show_default": str(facts["default"])} if "default" in facts else {}
    spelled = names or (f"--{member.replace('_', '-')}",)
    return click.option(*spelled, member, type=kind(operation, member), help=help, **{**told, **more})


def kind(operation: str, member: str) -> Any:
    """The click.ParamType of an option or argument for a member of an operation's params."""
    facts = PARAMS[operation][member]
    if "choices" in facts:
        return click.Choice(facts["choices"])
    bounds = {name: facts[name] for name in ("ge", "gt", "le", "lt") if name in facts}
    if not bounds:
        return click.INT if facts["type"] == "integer" else AnyNumber()
    lowest, highest = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    ranges = {"integer": click.IntRange, "number": Number}
    return ranges[facts["type"]](min=lowest, max=highest, min_open="gt" in bounds, max_open="lt" in bounds)


def describe_all() -> dict[str, dict[str, dict[str, Any]]]:
    """PARAMS by the structs themselves."""
    from edged.operations import gather

    found = {}
    for name, operation in sorted(gather().operations.items()):
        if members := _describe_struct(operation.params):
            found[name] = members
    return found


def render() -> str:
    """What params.json holds: a line for each operation."""
    lines = (f"{json.dumps(name)}: {json.dumps(members)}" for name, members in describe_all().items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _describe_struct(struct: type) -> dict[str, dict[str, Any]]:
    from msgspec import inspect

    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType), "params are structs"
    hints, found = get_type_hints(struct, include_extras=True), {}
    for field in info.fields:
        # msgspec sorts the words of a Literal; they are shown as they are declared.
        choices = list(dict.fromkeys(_find_choices(hints[field.name])))
        if facts := {**({"choices": choices} if choices else {}), **_describe_type(field.type)}:
            is_told = isinstance(field.default, (int, float, str)) and not isinstance(field.default, bool)
            found[field.encode_name] = {**facts, **({"default": _shorten(field.default)} if is_told else {})}
    return found


def _find_choices(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    for part in get_args(annotation):
        yield from _find_choices(part)


def _shorten(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _describe_type(info: Any) -> dict[str, Any]:
    from msgspec import inspect

    if isinstance(info, inspect.Metadata):
        return _describe_type(info.type)
    if isinstance(info, inspect.UnionType):
        return _describe_type(next(each for each in info.types if not isinstance(each, inspect.NoneType)))
    if isinstance(info, inspect.ListType):
        facts = _describe_type(info.item_type)
        return facts if info.max_length is None else {**facts, "max_items": info.max_length}
    if isinstance(info, (inspect.IntType, inspect.FloatType)):
        found = ((name, getattr(info, name)) for name in ("ge", "gt", "le", "lt"))
        bounds = {name: _shorten(bound) for name, bound in found if bound is not None}
        return {"type": "integer" if isinstance(info, inspect.IntType) else "number", **bounds}
    return {}


if __name__ == "__main__":
    _FILE.write_text(render())
