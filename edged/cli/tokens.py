"""`edged token`: issue, verify, refresh and revoke tokens (JWT); `edged logout`: keep none."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from edged.cli import token_file
from edged.cli.asking import ask, find
from edged.cli.options import include_made, quiet, role, talks, with_json
from edged.cli.output import FAILED, errors_shown, show_fields, show_json, show_secret, show_table, tell, tell_made
from edged.cli.params import option
from edged.cli.rights import gives_rights, list_limits
from edged.cli.stdio import is_terminal, read_line

_VARIABLE = "CAMERA_SERVICE_JWT_TOKEN"
_TEXT = click.argument("token", required=False)


class _Tokens(click.Group):
    """`edged token --user NAME …`, as the clients' own generator is called (contract S2-1), is `edged token issue`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for at, word in enumerate(args if args and args[0].startswith("-") else ()):
            name, has_value, user = word.partition("=")
            if name == "--user" and (has_value or args[at + 1 :]):
                rest = args[at + 1 :] if has_value else args[at + 2 :]
                return super().parse_args(ctx, ["issue", *args[:at], *rest, "--", user if has_value else args[at + 1]])
        return super().parse_args(ctx, args)


@click.group(cls=_Tokens)
def token() -> None:
    """Issue, check, refresh and revoke tokens."""


@token.command()
@click.argument("user")
@role("issue_token", help="Role of the token")
@option("issue_token", "expires_in", "--expires", metavar="SECONDS", help="Lifetime.")
@option("issue_token", "roles", "--also", multiple=True, metavar="ROLE", help="Additional role; may be repeated.")
@click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="Additional claim, JSON or text.")
@gives_rights(elsewhere=True)
@click.option(
    "--signing-key", metavar="KEY", help="Key to sign with: RS256, ES256, HS256, a kid, or the name of a shared secret."
)
@quiet
@talks
def issue(
    user: str, role: str | None, roles: tuple[str, ...], claims: tuple[str, ...], expires_in: int | None,
    rights: dict[str, object], signing_key: str | None, quiet: bool, **where: Any,
) -> None:  # fmt: skip
    """Sign a token for the subject USER."""
    params = {
        "user_id": user,
        "role": role,
        "roles": list(roles) or None,
        "claims": dict(map(_read_claim, claims)) or None,
        "expires_in": expires_in,
        **rights,
        "signing_key": signing_key,
    }
    # Asked first: whatever fails after the token was made leaves one that nobody has.
    is_known = where["as_json"] or find("get_user", {"name": user}, **where) is not None
    made = ask("issue_token", params, **where)
    if not is_known:
        click.echo(f"There is no user {user!r}: the token is valid all the same, until it expires.", err=True)

    def undo() -> str:
        ask("revoke_token", {"token": made["token"]}, **where)
        return "it is revoked again"

    shown = made if where["as_json"] else {**made, **list_limits(rights)}
    show_secret(shown, "token", quiet=quiet, as_json=where["as_json"], undo=undo)


@token.command()
@_TEXT
@click.option("--role", help="Required role.")
@click.option("--permission", "permissions", multiple=True, help="Required permission; may be repeated.")
@talks
def verify(token: str | None, role: str | None, permissions: tuple[str, ...], **where: Any) -> None:
    """Check whether a token is valid: exit code 0 if it is, 1 if not.

    An argument TOKEN is visible in the process list. Better: standard input, the environment variable
    CAMERA_SERVICE_JWT_TOKEN, or the file ~/.camera_service_token (mode 0600).
    """
    params = {
        "token": _read(token, where["as_json"])[0],
        "required_role": role,
        "required_permissions": list(permissions) or None,
    }
    found = ask("validate_token", params, **where)
    if where["as_json"]:
        show_json(found)
    else:
        click.echo("valid" if found["valid"] else "not valid")
        for problem in (*found["errors"], *found["warnings"]):
            click.echo(f"  {problem}", err=True)
        show_fields({f"  {name}": value for name, value in (found.get("payload") or {}).items()})
    if not found["valid"]:
        sys.exit(FAILED)


@token.command()
@_TEXT
@click.option("--save", is_flag=True, help="Save the new token in ~/.camera_service_token.")
@quiet
@talks
def refresh(token: str | None, save: bool, quiet: bool, **where: Any) -> None:
    """Get a new token for one that is valid or expired a few minutes ago. It is read as in `verify`; a token that was
    saved in ~/.camera_service_token is replaced there.
    """
    text, was_kept = _read(token, where["as_json"])
    made = ask("refresh_token", {"token": text}, **where)
    if save or was_kept:
        with errors_shown(as_json=where["as_json"]):
            token_file.write(made["token"])
    if quiet:
        click.echo(made["token"])
    elif where["as_json"]:
        show_json(made)
    else:
        show_fields({name: value for name, value in made.items() if name != "permissions"})


@click.command()
@with_json
def logout(as_json: bool) -> None:
    """Delete the saved token, ~/.camera_service_token.

    It stays valid until it expires or is revoked.
    """
    with errors_shown(as_json=as_json):
        removed = token_file.remove()
    left = _VARIABLE in os.environ
    if as_json:
        show_json({"removed": removed, "in_environment": left})
    else:
        click.echo("logged out" if removed else "no token was saved")
        if left:
            click.echo(f"  this shell still has a token: unset {_VARIABLE}", err=True)


@token.command()
@_TEXT
@click.option("--jti", help="The token with this jti.")
@click.option("--hash", "token_hash", metavar="SHA256", help="The token whose text has this SHA-256, in hex.")
@include_made
@talks
def revoke(token: str | None, jti: str | None, token_hash: str | None, include_made: bool, **where: Any) -> None:
    """Revoke a token and the tokens that were made with it, and end what it opened, at once. Without --jti or --hash it
    is read as in `verify`."""
    # All that is named is sent: which of two is meant is not for us to guess.
    text = token if jti or token_hash else _read(token, where["as_json"])[0]
    params = {"token": text, "jti": jti, "token_hash": token_hash, "include_made": include_made}
    done = ask("revoke_token", params, **where)
    tell(
        done,
        "revoked" if done["revoked"] else "nothing to revoke: it is not signed by an issuer that is trusted",
        where,
    )
    tell_made(done, where)


@token.command()
@option("get_token_usage", "limit", help="How many to show.")
@talks
def usage(limit: int | None, **where: Any) -> None:
    """Show how often tokens were used since the start, the most used first; each by the SHA-256 of its text."""
    found = ask("get_token_usage", {"limit": limit}, **where)
    if where["as_json"]:
        show_json(found)
    else:
        show_table(("token_hash", "uses"), [{"token_hash": name, "uses": count} for name, count in found.items()])


def _read_claim(text: str) -> tuple[str, Any]:
    """NAME=VALUE; a value that is no JSON is text. Raises UsageError."""
    name, found, value = text.partition("=")
    if not (name and found):
        raise click.UsageError(f"--claim {text[:40]!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _read(given: str | None, as_json: bool) -> tuple[str, bool]:
    """A token's text: the argument (`-` is standard input), the environment, a pipe, or what is kept in the file; and
    whether it was that. Raises UsageError; a file that others may read ends the command."""
    if given and given != "-":
        return given.strip(), False
    text = os.environ.get(_VARIABLE, "") if not given else ""
    if not text and (given == "-" or not is_terminal()):
        text = read_line()
    if text.strip() or given == "-":
        kept = False
    else:
        with errors_shown(as_json=as_json):
            text, kept = token_file.read(), True
    if not text.strip():
        raise click.UsageError(
            f"no token: give it on standard input, in {_VARIABLE}, in ~/{token_file.NAME}, or as argument"
        )
    return text.strip(), kept
