"""`edged`: the commands."""

from __future__ import annotations

import errno
import platform
import sys
from typing import Any

import click

from edged import __version__
from edged.cli.cameras import camera, status
from edged.cli.clock import clock
from edged.cli.config import config
from edged.cli.databases import database
from edged.cli.events import events
from edged.cli.first_admin import claim
from edged.cli.keys import key
from edged.cli.options import with_json
from edged.cli.output import FAILED, INTERRUPTED, show_json
from edged.cli.recordings import recording
from edged.cli.revocations import revocation
from edged.cli.serve import demo, serve
from edged.cli.service_tokens import service_token
from edged.cli.sessions import session, whoami
from edged.cli.signing_keys import signing_key
from edged.cli.stdio import drop_output, prepare_streams
from edged.cli.storage import snapshot, storage
from edged.cli.streams import stream
from edged.cli.tokens import logout, token
from edged.cli.trust import trust
from edged.cli.users import user


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


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


for command in (
    serve, demo, status, whoami, camera, stream, recording, snapshot, storage, events, claim, user, key, token,
    service_token, signing_key, session, revocation, clock, trust, database, config, version, logout,
):  # fmt: skip
    main.add_command(command)
