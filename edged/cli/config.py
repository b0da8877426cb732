"""`edged config`: look at the settings without starting anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edged.cli.asking import load_config
from edged.cli.options import with_directory, with_json
from edged.cli.output import errors_shown, show_json

if TYPE_CHECKING:
    from edged.config.model import Config
    from edged.credentials.issuers import IssuerRecord


@click.group()
def config() -> None:
    """Check and show the settings.

    They are read from /etc/edged/conf.d/*.toml, then EDGED_<SECTION>_<KEY> in the environment, then systemd
    credentials.
    """


@config.command()
@with_directory
@with_json
def check(directory: Path, as_json: bool) -> None:
    """Check all settings and secrets. Exit code 78 if one is wrong; the error names file, key and remedy."""
    from edged.config.load import find_unread
    from edged.config.secrets import load_shared_secrets, load_wrapping_key
    from edged.credentials.tokens import SharedSecret
    from edged.credentials.wrapping import WrappingKey
    from edged.daemon.listeners import read_policies
    from edged.signing.issuers import make_record, read_pem
    from edged.systemd import credentials_directory

    with errors_shown(as_json=as_json):
        found = load_config(directory)
        unread = {str(path): why for path, why in find_unread(directory).items()}
        for name, text in load_shared_secrets(found, credentials_directory()).items():
            SharedSecret(name, text)
        if (text_of_key := load_wrapping_key(credentials_directory())) is not None:
            WrappingKey(text_of_key)
        check_cameras(found)
        records = [make_record(name, given) for name, given in found.auth.issuers.items()]
        for record in records:
            if key := found.auth.issuers[record.name].key:
                read_pem(record, key)
    policies = {name: getattr(found.listen.policy, name) for name in read_policies(found.listen)}
    warnings = [warning for record in records for warning in warn_of_ceiling(record)]
    warnings += [*warn_of_folders(found), *warn_of_medium(found)]
    warnings += [warning for name, policy in policies.items() for warning in warn_of_neighbours(name, policy.paths)]
    if as_json:
        shown = {name: {"paths": policy.paths, "networks": policy.networks} for name, policy in policies.items()}
        secrets = sorted(found.auth.shared_secrets)
        show_json(
            {
                "ok": True,
                "cameras": len(found.camera),
                "shared_secrets": secrets,
                "policies": shown,
                "warnings": warnings,
                "not_read": unread,
            }
        )
    else:
        if not directory.is_dir():
            click.echo(f"{directory} does not exist: the defaults are in force", err=True)
        for path, why in unread.items():
            click.echo(f"not read: {path}: {why}", err=True)
        for name, policy in policies.items():
            click.echo(f"listen.{name} serves {', '.join(policy.paths)} to {', '.join(policy.networks)}")
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo("the settings are valid")


def check_cameras(found: Config) -> None:
    """Raises ConfigError for every camera whose address cannot work; `serve` runs all the others."""
    from edged.config.camera_urls import find_fault
    from edged.errors import ConfigError

    places = found.camera_places or ("",) * len(found.camera)
    faults = [
        f"{place}: camera {camera.name!r}: {fault}"
        for camera, place in zip(found.camera, places, strict=True)
        if camera.is_network and (fault := find_fault(camera.source))
    ]
    if faults:
        raise ConfigError("; ".join(faults), key="camera.source")


def warn_of_ceiling(record: IssuerRecord) -> list[str]:
    """Role names of an issuer that are mapped to a role above its ceiling."""
    from edged.credentials.roles import ROLES, canonical_role

    above = sorted(
        word for word, role in record.roles.words.items() if not ROLES[canonical_role(role)] <= ROLES[record.ceiling]
    )
    at = f"auth.issuers.{record.name}"
    return [f"{at}.roles: {word!r} is limited to {record.ceiling} by {at}.ceiling" for word in above]


def warn_of_folders(found: Config) -> list[str]:
    """Folders that are not below paths.state, where the unit of the package lets edged write."""
    folders = {"recording.folder": found.recording.folder, "snapshots.folder": found.snapshots.folder}
    warnings = []
    for name, folder in folders.items():
        if folder.is_relative_to(found.paths.state):
            continue
        lines = f"ReadWritePaths=-{folder}"
        if any(folder.is_relative_to(hidden) for hidden in ("/home", "/root", "/run/user")):
            lines += " and ProtectHome=no (a folder elsewhere, such as one below /srv, needs only the former)"
        elif any(folder.is_relative_to(hidden) for hidden in ("/tmp", "/var/tmp")):  # noqa: S108
            lines += " and PrivateTmp=no (a folder elsewhere, such as one below /srv, needs only the former)"
        warnings.append(
            f"{name}: {folder} is outside of {found.paths.state}: under systemd edged may write there with"
            f" {lines} in [Service], by: systemctl edit edged"
        )
    return warnings


def warn_of_medium(found: Config) -> list[str]:
    """A medium for recordings that is not there now, or has no marker."""
    from edged.library.medium import MARKER, Medium

    medium = Medium(found.recording.folder, is_removable=found.recording.removable)
    medium.look()
    if medium.is_there:
        return []
    folder = found.recording.folder
    return [
        f"recording.folder: there is no medium at {folder} now: mount it; a new one needs its marker once: touch"
        f" {folder / MARKER}"
    ]


def warn_of_neighbours(listener: str, paths: Sequence[str]) -> list[str]:
    """Paths that a listener serves only because they begin like one that is listed."""
    from edged.credentials.policies import find_neighbours
    from edged.web.routes import list_paths

    return [
        f"listen.policy.{listener}.paths: {entry!r} also allows {', '.join(others)}; "
        f"{entry[:-1]!r} and {entry[:-1] + '/*'!r} do not"
        for entry, others in find_neighbours(paths, list_paths()).items()
    ]


@config.command()
@with_directory
@with_json
def show(directory: Path, as_json: bool) -> None:
    """Print the settings in force as TOML, without secrets; passwords in URLs are masked."""
    import tomllib

    from edged.config.render import render

    with errors_shown(as_json=as_json):
        text = render(load_config(directory))
    if as_json:
        show_json(tomllib.loads(text))
    else:
        click.echo(text, nl=False)
