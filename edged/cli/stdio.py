"""Standard input and output of a command: where they are closed, full or in another encoding, a sentence says so."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

import click


def is_terminal() -> bool:
    """Whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_line() -> str:
    """The first line of standard input, without its end and without a byte order mark. Raises UsageError."""
    if sys.stdin is None:
        raise click.UsageError("standard input is closed: there is nothing to read")
    try:
        return sys.stdin.readline().removesuffix("\n").removesuffix("\r").removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        raise click.UsageError(f"standard input is not {problem.encoding.upper()} text") from None
    except OSError as problem:
        raise click.UsageError(f"standard input cannot be read: {problem.strerror}") from None


def prepare_streams() -> None:
    """What a terminal's encoding has no letter for is written as an escape; a closed output says so."""
    if sys.stdout is None:
        sys.stdout = Closed()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


class Closed(io.TextIOBase):
    """A standard output that was closed before the command began: whatever is written there is an error, not lost."""

    def write(self, _text: str) -> int:
        raise OSError(errno.EBADF, "standard output is closed")


def write_out(text: str) -> str:
    """Write a line that must not be lost; "", or why it was not written. What was not written is dropped."""
    try:
        click.echo(text)
        sys.stdout.flush()
    except OSError as problem:
        drop_output()
        return problem.strerror or str(problem)
    return ""


def drop_output() -> None:
    """Nothing more goes to standard output: Python would try again at its end, and fail with a traceback."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
