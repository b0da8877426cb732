"""`edged recording verify`: recorded files by their seals, without the daemon.

Exit codes as every command's: 0 all is as it was sealed, 1 something is not (the first is named), 2 the command was
written wrongly.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edged.cli.options import with_json
from edged.cli.output import FAILED, errors_shown, show_json
from edged.errors import InvalidParams

if TYPE_CHECKING:
    from edged.credentials.evidence import Verdict

#: Problems that are shown, besides the number of all.
_SHOWN: Final = 20
_LONGEST_JWKS: Final = 1024 * 1024


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="FILE|FOLDER...", type=click.Path(path_type=Path, exists=True)
)
@click.option(
    "--jwks", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The box's JWKS, as /.well-known/jwks.json of the box shows it: proves whose recordings they are.",
)  # fmt: skip
@click.option("--thumbprint", metavar="RFC7638", help="The same, by the thumbprint of the box's ES256 key.")
@click.option("--from", "begin", metavar="TIME", help="Only what was recorded from then on (ISO 8601).")
@click.option("--to", "end", metavar="TIME", help="Only what was recorded until then.")
@with_json
def verify(
    paths: tuple[Path, ...], jwks: Path | None, thumbprint: str | None, begin: str | None, end: str | None,
    *, as_json: bool,
) -> None:  # fmt: skip
    """Verify recorded files by their seals. Needs no daemon and no network.

    Names the first segment that was changed, exchanged, or is missing. A FOLDER is what `recording download --evidence`
    made, or a folder of recordings; a FILE has its seal beside it, as FILE.seal.

    Exits with 0 if everything is as it was sealed, else with 1. Without --jwks and --thumbprint this is about
    consistency only, and not about which box it was.
    """
    from edged.cli.verification import verify as judge

    with errors_shown(as_json=as_json):
        known = _read_known(jwks, thumbprint)
        verdict = judge(paths, known=known, begin=_read_time(begin), end=_read_time(end))
    if as_json:
        show_json(_as_json(verdict))
    else:
        _show(verdict, is_known=known is not None)
    if verdict.problems or not verdict.files:
        sys.exit(FAILED)


def _read_known(jwks: Path | None, thumbprint: str | None) -> frozenset[str] | None:
    """Thumbprints of the keys that were given, None if none was. Raises InvalidParams."""
    from edged.credentials.seal_signatures import read_thumbprints
    from edged.credentials.seals import BadSeal

    if jwks is None and thumbprint is None:
        return None
    known = frozenset({thumbprint}) if thumbprint is not None else frozenset[str]()
    if jwks is not None:
        try:
            with jwks.open("rb") as file:
                known |= read_thumbprints(file.read(_LONGEST_JWKS))
        except OSError as problem:
            raise InvalidParams(f"{jwks} cannot be read: {problem.strerror}") from problem
        except BadSeal as problem:
            raise InvalidParams(f"{jwks} cannot be used: {problem}") from problem
    return known


def _read_time(text: str | None) -> float | None:
    """Raises InvalidParams."""
    from edged.clock import read_iso

    try:
        return None if text is None else read_iso(text)
    except (ValueError, OverflowError):
        raise InvalidParams(f"{text!r} is no time", hint="as in 2026-11-30T10:00:00Z") from None


def _as_json(verdict: Verdict) -> dict[str, Any]:
    problems = [
        {"kind": each.kind, "where": each.where, "number": each.number, "text": each.text} for each in verdict.problems
    ]
    return {
        "as_sealed": not verdict.problems and verdict.files > 0, "proven": verdict.proven,
        "segments": verdict.segments, "files": verdict.files, "signed_by": verdict.thumbprints,
        "problems": problems, "notes": verdict.notes,
    }  # fmt: skip


def _show(verdict: Verdict, *, is_known: bool) -> None:
    """The first thing that is wrong, then the others."""
    for at, problem in enumerate(verdict.problems[:_SHOWN]):
        click.echo(_plain(f"{'first: ' if at == 0 else ''}{problem.kind}: {problem.where}: {problem.text}"), err=True)
    if (more := len(verdict.problems) - _SHOWN) > 0:
        click.echo(f"and {more} more", err=True)
    for note in verdict.notes:
        click.echo(f"note: {_plain(note)}", err=True)
    signers = ", ".join(verdict.thumbprints)
    whose = "a key that you gave, or that it confirms" if is_known else "not proven whose: see --jwks and --thumbprint"
    if verdict.problems:
        click.echo(f"edged: NOT as sealed: {len(verdict.problems)} problems in {verdict.files} files", err=True)
    elif not verdict.files:
        click.echo("edged: nothing with a seal was found", err=True)
    else:
        click.echo(f"{verdict.files} files with {verdict.segments} segments: as they were sealed")
        click.echo(f"signed by {signers}, {whose}")


def _plain(text: str) -> str:
    """Text for a terminal: names of files may hold anything."""
    return "".join(char if char.isprintable() else "?" for char in text)
