"""`edged clock`: the time that the daemon goes by."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.options import ask, show_fields, show_json, talks


@click.group()
def clock() -> None:
    """The time that the running daemon goes by, and whether it trusts it."""


@clock.command()
@talks
def show(**where: Any) -> None:
    """Show the time, the system clock, and the mark that the time never falls behind."""
    found = ask("get_clock", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_fields({name: value for name, value in found.items() if value != ""})


@clock.command()
@talks
def reset(**where: Any) -> None:
    """Take the system clock for right: for root, after a time server told a wrong time.

    Tokens that expired by the wrong time only are good again; but all of them end if revocations were deleted by it,
    for nobody knows any more which were revoked. What was revoked up to a time that is yet to come is revoked up to
    now. Keys stay. Look at `date` first.
    """
    done = ask("reset_clock", {}, **where)
    if where["as_json"]:
        show_json(done)
    else:
        click.echo(f"the mark was {done['before']['high_water']} and is {done['after']['high_water']}")
