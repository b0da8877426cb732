"""`edged token`: issue, verify, refresh and revoke tokens (JWT); `edged logout`: keep none."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from edged.cli import token_file
from edged.cli.made import and_what_it_made, tell_made
from edged.cli.options import FAILED, ask, errors_shown, show_fields, show_json, show_secret, talks, with_json
from edged.cli.rights import ROLES, gives_rights, list_limits
from edged.cli.streams import is_terminal, read_line

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
    """Tokens that the running daemon signs and accepts."""


@token.command()
@click.argument("user")
@click.option("--role", type=ROLES, help="What it may do.")
@click.option("--expires", type=click.IntRange(min=60), metavar="SECONDS", help="How long it lives (86400).")
@click.option("--also", "roles", multiple=True, metavar="ROLE", help="A further role; may be repeated.")
@click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="A claim of one's own, JSON or text.")
@gives_rights
@click.option("--signing-key", metavar="KEY", help="RS256, ES256, HS256, the name of a shared secret, or a kid.")
@click.option("--quiet", "-q", is_flag=True, help="Print the token alone, for scripts to capture.")
@talks
def issue(
    user: str, role: str | None, roles: tuple[str, ...], claims: tuple[str, ...], expires: int | None,
    rights: dict[str, object], signing_key: str | None, quiet: bool, **where: Any,
) -> None:  # fmt: skip
    """Sign a token that speaks for USER."""
    params = {
        "user_id": user,
        "role": role,
        "roles": list(roles) or None,
        "claims": dict(map(_read_claim, claims)) or None,
        "expires_in": expires,
        **rights,
        "signing_key": signing_key,
    }
    # Asked first: whatever fails after the token was made leaves one that nobody has.
    is_known = where["as_json"] or user in {item["name"] for item in ask("list_users", {}, **where)["users"]}
    made = ask("issue_token", params, **where)
    if not is_known:
        click.echo(f"There is no user {user!r} here: this token is good all the same, and ends by itself.", err=True)

    def undo() -> str:
        ask("revoke_token", {"token": made["token"]}, **where)
        return "it is revoked again"

    shown = made if where["as_json"] else {**made, **list_limits(rights)}
    show_secret(shown, "token", quiet=quiet, as_json=where["as_json"], undo=undo)


@token.command()
@_TEXT
@click.option("--role", help="It must have this very role.")
@click.option("--permission", "permissions", multiple=True, help="It must list this; may be repeated.")
@talks
def verify(token: str | None, role: str | None, permissions: tuple[str, ...], **where: Any) -> None:
    """Say whether a token is good: exit code 0 if it is, 1 if not.

    TOKEN stands in the process list, where others may read it; better: standard input, CAMERA_SERVICE_JWT_TOKEN, or the
    file ~/.camera_service_token (mode 0600).
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
@click.option("--save", is_flag=True, help="Keep the new one in ~/.camera_service_token.")
@click.option("--quiet", "-q", is_flag=True, help="Print the token alone, for scripts to capture.")
@talks
def refresh(token: str | None, save: bool, quiet: bool, **where: Any) -> None:
    """Get a new token for one that is good, or ended a few minutes ago. It is read as in `verify`; one that was kept in
    ~/.camera_service_token is replaced there.
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
    """Forget the token in ~/.camera_service_token. It stays good until its end, unless it is revoked."""
    with errors_shown(as_json=as_json):
        removed = token_file.remove()
    left = _VARIABLE in os.environ
    if as_json:
        show_json({"removed": removed, "in_environment": left})
    else:
        click.echo("logged out" if removed else "no token was kept")
        if left:
            click.echo(f"  this shell still has one: unset {_VARIABLE}", err=True)


@token.command()
@_TEXT
@click.option("--jti", help="Name the token by its jti instead.")
@click.option("--hash", "token_hash", metavar="SHA256", help="Name it by the SHA-256 of its text, in hex.")
@and_what_it_made
@talks
def revoke(token: str | None, jti: str | None, token_hash: str | None, include_made: bool, **where: Any) -> None:
    """End a token, everything that it opened and the tokens that were made with it, at once. Without --jti or --hash it
    is read as in `verify`."""
    # All that is named is sent: which of two is meant is not for us to guess.
    text = token if jti or token_hash else _read(token, where["as_json"])[0]
    params = {"token": text, "jti": jti, "token_hash": token_hash, "include_made": include_made}
    done = ask("revoke_token", params, **where)
    if where["as_json"]:
        show_json(done)
    else:
        click.echo("revoked" if done["revoked"] else "nothing to revoke: nobody whom edged trusts has signed this")
        tell_made(done, where)


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
