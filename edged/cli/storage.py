"""`edged snapshot` and `edged storage`: stored pictures, the disk, and how long recordings are kept."""

from __future__ import annotations

from typing import Any, Final

import click

from edged.cli.asking import ask
from edged.cli.cameras import resolve, show_item
from edged.cli.kept_files import add_file_commands
from edged.cli.options import talks
from edged.cli.output import show_fields, show_json
from edged.cli.params import kind, option

_COLUMNS: Final = ("filename", "device", "created_time", "file_size")


@click.group()
def snapshot() -> None:
    """Manage stored pictures.

    FILENAME is as in the list; its extension may be omitted.
    """


add_file_commands(snapshot, "snapshot", "pictures", _COLUMNS)


@click.group()
def storage() -> None:
    """The disk that holds recordings, and how long they are kept."""


@storage.command("show")
@talks
def show_disk(**where: Any) -> None:
    """Show how full the disk is, and with what; bytes."""
    found = ask("get_storage_info", {}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_fields(found)


@storage.command()
@click.argument("policy_type", type=kind("set_retention_policy", "policy_type"))
@click.option(
    "--enabled/--disabled", default=True, help="Disabled: for lack of space only; of one camera: as all cameras."
)
@option("set_retention_policy", "max_age_days", metavar="DAYS", help="With age: delete older recordings.")
@option("set_retention_policy", "max_size_gb", metavar="GB", help="With size: delete the oldest above this size.")
@click.option("--camera", "device", help="Of this camera only, in place of what holds for all.")
@talks
def retention(
    policy_type: str, enabled: bool, max_age_days: float | None, max_size_gb: float | None, device: str | None,
    **where: Any,
) -> None:  # fmt: skip
    """Limit the age or the size of recordings, instead of the settings; manual limits neither."""
    params = {
        "policy_type": policy_type, "enabled": enabled, "max_age_days": max_age_days, "max_size_gb": max_size_gb,
        **({} if device is None else {"device": resolve(device, where)}),
    }  # fmt: skip
    show_item(ask("set_retention_policy", params, **where), as_json=where["as_json"])


@storage.command()
@talks
def cleanup(**where: Any) -> None:
    """Delete now what the policy does not keep."""
    show_item(ask("cleanup_old_files", {}, **where), as_json=where["as_json"])
