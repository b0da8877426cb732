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
from edged.cli.first_admin import claim
from edged.cli.keys import key
from edged.cli.options import FAILED, INTERRUPTED, show_json, with_json
from edged.cli.recordings import recording
from edged.cli.revocations import revocation
from edged.cli.serve import demo, serve
from edged.cli.service_tokens import service_token
from edged.cli.sessions import session
from edged.cli.signing_keys import signing_key
from edged.cli.streams import drop_output, prepare_streams
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
            click.echo("\nedged: nothing was entered, and nothing was done", err=True)
        except KeyboardInterrupt:
            click.echo("edged: interrupted", err=True)
        except OSError as problem:
            if problem.errno == errno.EPIPE or problem.filename is not None:
                raise
            drop_output()
            click.echo(f"edged: what was done could not be written out: {problem.strerror}", err=True)
            sys.exit(FAILED)
        sys.exit(INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="edged %(version)s")
def main() -> None:
    """A camera box that people can trust.

    `serve` is the daemon. `status`, `camera`, `recording`, `user`, `key`, `token`, `service-token`, `signing-key`,
    `session` and `revocation` ask the running daemon over its unix socket, which root and the group edged-admin may
    open.
    """


@main.command()
@with_json
def version(as_json: bool) -> None:
    """Print which edged this is."""
    if as_json:
        show_json({"version": __version__, "python": platform.python_version()})
    else:
        click.echo(f"edged {__version__} (Python {platform.python_version()})")


for command in (
    serve, demo, status, camera, recording, claim, user, key, token, service_token, signing_key, session, revocation,
    clock, trust, database, config, version, logout,
):  # fmt: skip
    main.add_command(command)
