"""What commands that revoke share: whether what was made with it ends, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

and_what_it_made = click.option(
    "--and-what-it-made", "include_made", is_flag=True,
    help="Also the API keys and service tokens that were made with it, and with those.",
)  # fmt: skip


def tell_made(done: Mapping[str, Any], where: Mapping[str, Any]) -> None:
    """Say which keys ended with it, if that was asked for."""
    if "also_revoked" in done and not where["as_json"]:
        click.echo(f"  and what it made: {', '.join(done['also_revoked']) or 'nothing'}")
