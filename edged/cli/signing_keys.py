"""`edged signing-key`: the key pairs that sign tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged.cli.asking import ask, ask_all, load_config
from edged.cli.options import talks, with_directory, with_json
from edged.cli.output import errors_shown, show_fields, show_json, show_table
from edged.cli.params import kind
from edged.errors import StartFailed

if TYPE_CHECKING:
    from edged.config.model import Config

_COLUMNS = ("kid", "algorithm", "state", "published", "created_at", "promotable_at", "promoted_at", "needed_until")


@click.group("signing-key")
def signing_key() -> None:
    """Key pairs that sign tokens.

    Verifiers fetch the public keys as JWKS. Keys are rotated automatically every auth.signing_key_days. By hand:
    create, wait two hours until verifiers have fetched the JWKS, promote.
    """


@signing_key.command("list")
@talks
def list_all(**where: Any) -> None:
    """List all key pairs, without private keys."""
    found = ask_all("list_signing_keys", "keys", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_table(_COLUMNS, found["keys"])


@signing_key.command()
@click.argument("algorithm", type=kind("create_signing_key", "algorithm"))
@talks
def create(algorithm: str, **where: Any) -> None:
    """Make the next key of ALGORITHM and publish it; it signs once it is promoted."""
    _show(ask("create_signing_key", {"algorithm": algorithm}, **where), as_json=where["as_json"])


@signing_key.command()
@click.argument("kid")
@click.option("--force", is_flag=True, help="Even if verifiers may not have fetched it yet.")
@talks
def promote(kid: str, force: bool, **where: Any) -> None:
    """Sign with the key KID from now on; tokens signed by the previous key stay valid."""
    _show(ask("promote_signing_key", {"kid": kid, "force": force or None}, **where), as_json=where["as_json"])


@signing_key.command()
@click.argument("kid")
@click.option(
    "--distrust",
    is_flag=True,
    help="The private key is known to others: refuse all tokens that it signed, and sign with another key at once.",
)
@talks
def retire(kid: str, distrust: bool, **where: Any) -> None:
    """Retire the key KID before it was used; with --distrust any key."""
    _show(ask("retire_signing_key", {"kid": kid, "distrust": distrust or None}, **where), as_json=where["as_json"])


@signing_key.command()
@with_directory
@with_json
def abandon(directory: Path, as_json: bool) -> None:
    """Delete private keys that can no longer be unwrapped, while edged is stopped.

    Needed when the credential edged.wrapping_key was lost or is replaced. Run it as the user edged. The next start
    makes new keys; tokens signed by the old ones stay valid.
    """
    import trio

    with errors_shown(as_json=as_json):
        given_up = trio.run(partial(_abandon, load_config(directory)))
    if as_json:
        show_json({"given_up": given_up})
    else:
        click.echo(f"{given_up} private keys deleted" if given_up else "no signing key is wrapped: nothing was done")


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
