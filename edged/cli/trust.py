"""`edged trust`: the database of keys, users and revocations as a whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged.cli.options import ask, errors_shown, load_config, show_json, talks, with_directory, with_json
from edged.errors import StartFailed

if TYPE_CHECKING:
    from edged.config.model import Config


@click.group()
def trust() -> None:
    """The database of keys, users, signing keys and revocations: when it was restored from a copy."""


@trust.command("confirm-restore")
@talks
def confirm_restore(**where: Any) -> None:
    """Take the restored database for right as it is: its keys, tokens and passwords are good again.

    What was revoked after the copy was made is not revoked in it: revoke that first (edged key revoke, edged
    revocation add).
    """
    done = ask("confirm_restore", {}, **where)
    if where["as_json"]:
        show_json(done)
    elif not done["confirmed"]:
        click.echo("nothing waits for a confirmation: nothing was done")
    else:
        click.echo(f"confirmed: {done['keys']} keys and {done['service_tokens']} service tokens are good again")


@trust.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@with_directory
@with_json
def restore(file: Path, directory: Path, as_json: bool) -> None:
    """Put the backup FILE in the place of the trust database, while edged is stopped.

    What stands there now is set aside, not deleted. Nobody knows what was revoked after the backup was made: at the
    next start its keys, tokens and passwords wait until `edged trust confirm-restore`.
    """
    import trio

    with errors_shown(as_json=as_json):
        aside = trio.run(partial(_restore, load_config(directory), file))
    if as_json:
        show_json({"restored": str(file), "set_aside": None if aside is None else str(aside)})
        return
    click.echo(f"restored from {file}" + ("" if aside is None else f"; what stood there is {aside}"))
    click.echo("start edged, revoke what was revoked since then, and: edged trust confirm-restore")


@trust.command("begin-anew")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_directory
@with_json
def begin_anew(yes: bool, directory: Path, as_json: bool) -> None:
    """Begin without keys, users and revocations, while edged is stopped.

    The trust database that there is, is set aside, not deleted. Tokens that were issued until now are refused for good.
    """
    import trio

    if not yes:
        click.confirm("All keys, users, signing keys and revocations are given up. Go on?", abort=True, err=True)
    with errors_shown(as_json=as_json):
        aside = trio.run(partial(_begin_anew, load_config(directory)))
    if as_json:
        show_json({"begun_anew": True, "set_aside": None if aside is None else str(aside)})
    else:
        click.echo("begun anew" + ("" if aside is None else f"; what stood there is {aside}"))


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
