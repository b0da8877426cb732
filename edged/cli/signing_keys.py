"""`edged signing-key`: the key pairs that sign tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged.cli.options import (
    ask,
    errors_shown,
    load_config,
    show_fields,
    show_json,
    show_table,
    talks,
    with_directory,
    with_json,
)
from edged.errors import StartFailed

if TYPE_CHECKING:
    from edged.config.model import Config

_COLUMNS = ("kid", "algorithm", "state", "published", "created_at", "promotable_at", "promoted_at", "needed_until")


@click.group("signing-key")
def signing_key() -> None:
    """Key pairs of the running daemon that sign tokens for other servers.

    They rotate by themselves every auth.signing_key_days. By hand: create, wait two hours while verifiers fetch the
    JWKS, promote.
    """


@signing_key.command("list")
@talks
def list_all(**where: Any) -> None:
    """Show all key pairs; nothing private."""
    found = ask("list_signing_keys", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_table(_COLUMNS, found["keys"])


@signing_key.command()
@click.argument("algorithm", type=click.Choice(["RS256", "ES256"]))
@talks
def create(algorithm: str, **where: Any) -> None:
    """Make the next key of ALGORITHM and publish it; it signs once it is promoted."""
    _show(ask("create_signing_key", {"algorithm": algorithm}, **where), as_json=where["as_json"])


@signing_key.command()
@click.argument("kid")
@click.option("--force", is_flag=True, help="Although verifiers may not know it yet.")
@talks
def promote(kid: str, force: bool, **where: Any) -> None:
    """Let the next key KID sign from now on; what the one before signed stays good."""
    _show(ask("promote_signing_key", {"kid": kid, "force": force or None}, **where), as_json=where["as_json"])


@signing_key.command()
@click.argument("kid")
@click.option("--distrust", is_flag=True, help="It leaked: refuse all that it signed, and let another take over now.")
@talks
def retire(kid: str, distrust: bool, **where: Any) -> None:
    """Give up the next key KID; or with --distrust any."""
    _show(ask("retire_signing_key", {"kid": kid, "distrust": distrust or None}, **where), as_json=where["as_json"])


@signing_key.command()
@with_directory
@with_json
def abandon(directory: Path, as_json: bool) -> None:
    """Give up the private halves that nobody can unwrap any more, while edged is stopped.

    For a lost credential edged.wrapping_key, or to take another. Run it as the user edged. The next start makes new
    keys; what the old ones signed stays good.
    """
    import trio

    with errors_shown(as_json=as_json):
        given_up = trio.run(partial(_abandon, load_config(directory)))
    if as_json:
        show_json({"given_up": given_up})
    else:
        click.echo(f"{given_up} signing keys given up" if given_up else "no signing key is wrapped: nothing was done")


async def _abandon(config: Config) -> int:
    import time

    from edged.store import signing_keys
    from edged.store.database import Database
    from edged.store.folders import hold_folders
    from edged.store.migrations import TRUST

    path = config.paths.state / "trust.db"
    if not path.exists():
        raise StartFailed(f"there is no database {path}", hint="name the folder of the settings with --directory")
    # Not beside a daemon: it would go on with keys that are given up.
    async with hold_folders(config.paths.state, config.paths.state), Database.open(path, TRUST, name="trust") as db:
        return await db.write(partial(signing_keys.give_up_wrapped, now=time.time()))


def _show(item: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(item)
    else:
        show_fields(item)
