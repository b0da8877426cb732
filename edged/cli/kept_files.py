"""What `edged recording` and `edged snapshot` have in common: to list, show, delete and link kept files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import click

from edged.cli.asking import ask
from edged.cli.cameras import show_item
from edged.cli.options import paged, talks
from edged.cli.options import quiet as with_quiet
from edged.cli.output import show_json, show_page, show_secret
from edged.cli.params import option


def add_file_commands(
    group: click.Group, kind: Literal["recording", "snapshot"], plural: str, columns: Sequence[str]
) -> None:
    """Add the commands to a group. `plural` is what its help calls them; `columns` of the list."""
    noun = plural.removesuffix("s")

    @group.command("list", help=f"List {plural}, the newest first.")
    @paged(f"list_{kind}s")
    @talks
    def list_all(limit: int | None, offset: int | None, **where: Any) -> None:
        found = ask(f"list_{kind}s", {"limit": limit, "offset": offset}, **where)
        if where["as_json"]:
            show_json(found)
        else:
            show_page(columns, found["files"], found["total"])

    @group.command(help=f"Show one {noun}: its size, its times and whose it is.")
    @click.argument("filename")
    @talks
    def show(filename: str, **where: Any) -> None:
        show_item(ask(f"get_{kind}_info", {"filename": filename}, **where), as_json=where["as_json"])

    @group.command(help=f"Delete a {noun} permanently.")
    @click.argument("filename")
    @talks
    def delete(filename: str, **where: Any) -> None:
        show_item(ask(f"delete_{kind}", {"filename": filename}, **where), as_json=where["as_json"])

    @group.command(
        help=f"Make a URL that opens one {noun}, for a browser or player that takes nothing but a URL.\n\n"
        "Whoever has the URL can use it until it expires."
    )
    @click.argument("filename")
    @option("create_file_link", "ttl", metavar="SECONDS", help="How long it can be opened.")
    @with_quiet
    @talks
    def link(filename: str, ttl: int | None, quiet: bool, **where: Any) -> None:
        made = ask("create_file_link", {"filename": filename, "kind": kind, "ttl": ttl}, **where)
        expires = f"it expires at {made['expires_at']}"
        show_secret(made, "url", quiet=quiet, as_json=where["as_json"], undo=lambda: expires)
