"""`edged serve` and `edged demo`: the two commands that run the services; it is imported when they begin."""

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path

import click

from edged.cli.asking import load_config
from edged.cli.options import with_directory
from edged.cli.output import errors_shown
from edged.cli.unused import absent, put_off


@click.command()
@with_directory
def serve(directory: Path) -> None:
    """Run the daemon in the foreground.

    SIGTERM and Ctrl-C end it; SIGHUP reloads the settings. In a terminal SIGHUP ends it, as it does any program there.
    """
    from edged.config.load import find_unread

    with errors_shown(as_json=False):
        settings = load_config(directory)
        for path, why in find_unread(directory).items():
            click.echo(f"edged: {path} is not read: {why}", err=True)
    # What a start makes stays: to look through it for garbage again and again is a tenth of the time it takes.
    # app.main looks for it again once it serves.
    gc.disable()
    put_off()
    with absent("rich"):
        from edged import app

    sys.exit(app.main(settings, partial(load_config, directory)))


@click.command()
@click.option("--once", is_flag=True, help="Run the built-in checks one by one and exit: 0 if all passed.")
def demo(once: bool) -> None:
    """Run a demo with two test cameras.

    It listens on loopback only, and prints a key and commands to try.
    """
    from edged.cli import demo as box

    sys.exit(box.main(once=once))
