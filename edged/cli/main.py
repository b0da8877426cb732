"""`edged`: the commands."""

from __future__ import annotations

import errno
import platform
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, Final

import click

from edged import __version__
from edged.cli.options import with_json
from edged.cli.output import FAILED, INTERRUPTED, show_json
from edged.cli.stdio import drop_output, prepare_streams

#: Where each command is. It is imported when it is asked for, or when all are listed: the daemon carries `serve` alone.
PLACES: Final[Mapping[str, str]] = {
    "serve": "serve.serve",
    "demo": "serve.demo",
    "status": "cameras.status",
    "whoami": "sessions.whoami",
    # With the commands that this one and events add to it.
    "camera": "timeline.camera",
    "stream": "streams.stream",
    "recording": "recordings.recording",
    "snapshot": "storage.snapshot",
    "storage": "storage.storage",
    "events": "events.events",
    "claim": "first_admin.claim",
    "user": "users.user",
    "key": "keys.key",
    "token": "tokens.token",
    "service-token": "service_tokens.service_token",
    "signing-key": "signing_keys.signing_key",
    "session": "sessions.session",
    "revocation": "revocations.revocation",
    "clock": "clock.clock",
    "trust": "trust.trust",
    "db": "databases.database",
    "config": "config.config",
    "logout": "tokens.logout",
}


class LateCommands(MutableMapping[str, click.Command]):
    """Commands by name, each imported at its first use."""

    def __init__(self, places: Mapping[str, str]) -> None:
        """`places`: name → module of edged.cli, a dot, and the command's name in it."""
        self._found: dict[str, click.Command | str] = dict(places)

    def __getitem__(self, name: str) -> click.Command:
        found = self._found[name]
        if isinstance(found, str):
            module, _, member = found.partition(".")
            found = self._found[name] = getattr(import_module(f"edged.cli.{module}"), member)
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class Commands(click.Group):
    """The commands, with Ctrl-C as a shell expects it."""

    def invoke(self, ctx: click.Context) -> Any:
        prepare_streams()
        try:
            return super().invoke(ctx)
        except click.Abort:
            # At a prompt: Ctrl-C, or the end of standard input.
            click.echo("\nedged: aborted, nothing was done", err=True)
        except KeyboardInterrupt:
            click.echo("edged: interrupted", err=True)
        except OSError as problem:
            if problem.errno == errno.EPIPE or problem.filename is not None:
                raise
            drop_output()
            click.echo(f"edged: it was done, but the output could not be written: {problem.strerror}", err=True)
            sys.exit(FAILED)
        sys.exit(INTERRUPTED)


@click.group(
    cls=Commands,
    commands=LateCommands(PLACES),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="edged %(version)s")
def main() -> None:
    """Cameras, streams and credentials of a camera box.

    `serve` is the daemon. `status`, `whoami`, `camera`, `stream`, `recording`, `snapshot`, `storage`, `events`, `user`,
    `key`, `token`, `service-token`, `signing-key`, `session`, `revocation` and `clock` ask the running daemon over its
    unix socket, which root and members of the group edged-admin may open.
    """


@main.command()
@with_json
def version(as_json: bool) -> None:
    """Print the version of edged."""
    if as_json:
        show_json({"version": __version__, "python": platform.python_version()})
    else:
        click.echo(f"edged {__version__} (Python {platform.python_version()})")
