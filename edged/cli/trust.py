"""`edged trust`: the database of keys, users and revocations as a whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged.cli.asking import ask, load_config
from edged.cli.options import talks, with_directory, with_json
from edged.cli.output import errors_shown, show_json, tell
from edged.errors import StartFailed

if TYPE_CHECKING:
    from edged.config.model import Config


@click.group()
def trust() -> None:
    """Restore or replace the trust database.

    It holds keys, users, signing keys and revocations.
    """


@trust.command("confirm-restore")
@talks
def confirm_restore(**where: Any) -> None:
    """Accept a restored database: its keys, tokens and passwords become valid again.

    Revocations made after the backup are not in it. Repeat these first (edged key revoke, edged revocation add).
    """
    done = ask("confirm_restore", {}, **where)
    confirmed = f"confirmed: {done['keys']} keys and {done['service_tokens']} service tokens are valid again"
    tell(done, confirmed if done["confirmed"] else "no restored database needs a confirmation: nothing was done", where)


@trust.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@with_directory
@with_json
def restore(file: Path, directory: Path, as_json: bool) -> None:
    """Replace the trust database by the backup FILE, while edged is stopped.

    The current file is renamed, not deleted. Revocations made after the backup are lost, so at the next start the keys,
    tokens and passwords in it are refused until `edged trust confirm-restore`.
    """
    import trio

    with errors_shown(as_json=as_json):
        aside = trio.run(partial(_restore, load_config(directory), file))
    if as_json:
        show_json({"restored": str(file), "set_aside": None if aside is None else str(aside)})
        return
    click.echo(f"restored from {file}" + ("" if aside is None else f"; the previous file is {aside}"))
    click.echo("next: start edged, repeat revocations made since the backup, then: edged trust confirm-restore")


@trust.command("begin-anew")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_directory
@with_json
def begin_anew(yes: bool, directory: Path, as_json: bool) -> None:
    """Start with an empty trust database, without keys, users and revocations, while edged is stopped.

    The current file is renamed, not deleted. All tokens that were issued so far are refused permanently.
    """
    import trio

    if not yes:
        click.confirm("All keys, users, signing keys and revocations will be lost. Continue?", abort=True, err=True)
    with errors_shown(as_json=as_json):
        aside = trio.run(partial(_begin_anew, load_config(directory)))
    if as_json:
        show_json({"begun_anew": True, "set_aside": None if aside is None else str(aside)})
    else:
        click.echo("the trust database is empty" + ("" if aside is None else f"; the previous file is {aside}"))


async def _restore(config: Config, file: Path) -> Path | None:
    from datetime import UTC, datetime

    from edged.store import replacements
    from edged.store.folders import hold_folders

    state = _find_state(config)
    async with hold_folders(state, state):
        return replacements.restore(file, state / "trust.db", datetime.now(UTC))


async def _begin_anew(config: Config) -> Path | None:
    from datetime import UTC, datetime

    from edged.store import replacements
    from edged.store.folders import hold_folders

    state = _find_state(config)
    async with hold_folders(state, state):
        return replacements.begin_anew(
            state / "trust.db", state / "usage.db", state / "trust.reserve", datetime.now(UTC)
        )  # fmt: skip


def _find_state(config: Config) -> Path:
    """Raises StartFailed where there is none: made here it would belong to the wrong user."""
    state = config.paths.state
    if not state.is_dir():
        raise StartFailed(f"there is no folder {state}", hint="name the folder of the settings with --directory")
    return state
