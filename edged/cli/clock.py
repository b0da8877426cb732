"""`edged clock`: the time that the daemon uses."""

from __future__ import annotations

from typing import Any

import click

from edged.cli.asking import ask
from edged.cli.options import talks
from edged.cli.output import show_fields, show_json, tell


@click.group()
def clock() -> None:
    """The time that the daemon uses."""


@clock.command()
@talks
def show(**where: Any) -> None:
    """Show the time, the system clock, and the high-water mark: the latest time that was ever trusted."""
    found = ask("get_clock", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_fields({name: value for name, value in found.items() if value != ""})


@clock.command()
@talks
def reset(**where: Any) -> None:
    """Trust the system clock as it is now: for root, after a time server gave a wrong time. Check `date` first.

    Tokens that had expired only by the wrong time are valid again, unless revocations were deleted because of it: then
    all tokens are revoked, since it is not known which of them were. A revocation of all tokens up to a future time
    becomes one up to now. API keys are not affected.
    """
    done = ask("reset_clock", {}, **where)
    tell(done, f"the high-water mark was {done['before']['high_water']} and is {done['after']['high_water']}", where)
