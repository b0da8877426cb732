"""Commands that ask a running daemon: a real `edged serve` on its unix socket, one for this file."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_helpers import SECRET, Shell, running_daemon

from edged.credentials.tokens import SharedSecret, issue_claims, sign
from edged.store.migrating import migrate
from edged.store.migrations import TRUST


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running_daemon(tmp_path_factory.mktemp("box")) as directory:
        yield directory


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path) -> Shell:
    return Shell(monkeypatch, capsys, directory)


def test_a_new_key_stands_alone_on_stdout_with_quiet(shell: Shell) -> None:
    """`KEY=$(edged key create dock --role viewer --quiet)` is a usable script."""
    made = shell.run("key", "create", "dock", "--role", "viewer", "--quiet")
    assert made.code == 0
    assert made.out.startswith("camera_service_sk_")
    assert len(made.out) == 83, "the key and a line end"
    assert made.err == ""


def test_a_new_key_is_shown_with_its_facts(shell: Shell) -> None:
    """For people: names and values, and a word that the secret is not shown again."""
    made = shell.run(
        "key", "create", "Yard; viewer", "--role", "viewer", "--expires-in-days", "1.5", "--camera", "camera0",
        "--force", "--camera", "camera7", "--permission", "camera:read",
    )  # fmt: skip
    assert made.code == 0
    facts = dict(line.split(None, 1) for line in made.out.splitlines())
    assert facts.keys() == {
        "key_id", "api_key", "name", "role", "created_at", "expires_at", "effective_permissions", "without_effect",
        "camera_access",
    }  # fmt: skip
    assert facts["without_effect"] == "camera7"
    assert facts["name"] == "Yard; viewer"
    assert datetime.fromisoformat(facts["expires_at"]) > datetime.now(UTC)
    assert "not shown again" in made.err
    listed = shell.run("key", "list", "--json").json["keys"]
    row = next(row for row in listed if row["key_id"] == facts["key_id"])
    assert (row["camera_access"], row["permissions"]) == (["camera0", "camera7"], ["camera:read"])
    assert facts["api_key"] not in str(listed)


def test_keys_are_listed_in_columns(shell: Shell) -> None:
    """One line a key under a line of names, narrowed by role, status and disuse."""
    made = shell.run("key", "create", "\x1b[31mred\x07", "--role", "monitor", "--json").json
    shown = shell.run("key", "list", "--role", "monitor")
    head, *rows = shown.out.splitlines()
    assert head.split()[:2] == ["KEY", "ID"]
    assert any(row.startswith(made["key_id"]) for row in rows)
    assert "\x1b" not in shown.out, "a name cannot paint the terminal"
    assert "\x07" not in shown.out
    empty = shell.run("key", "list", "--unused-days", "400")
    assert (empty.code, empty.out) == (0, "")
    assert "key create" in empty.err


def test_rotating_gives_a_new_secret_for_the_same_key(shell: Shell) -> None:
    """--grace says how long the old one lives; --quiet prints the new one alone."""
    made = shell.run("key", "create", "dock", "--role", "viewer", "--json").json
    rotated = shell.run("key", "rotate", made["key_id"], "--grace", "0")
    facts = dict(line.split(None, 1) for line in rotated.out.splitlines())
    assert facts["key_id"] == made["key_id"]
    assert facts["api_key"] != made["api_key"]
    assert "new_api_key" not in facts
    assert facts["previous_valid_until"] <= facts["rotated_at"]
    again = shell.run("key", "rotate", made["key_id"], "-q")
    assert again.out.startswith("camera_service_sk_")
    assert shell.run("key", "rotate", made["key_id"], "--json").json.keys() >= {"api_key", "new_api_key"}


def test_revoking_is_said_in_words_or_json(shell: Shell) -> None:
    """Twice is fine; a key that never was is exit code 1 with what to do."""
    made = shell.run("key", "create", "dock", "--role", "viewer", "--json").json
    assert shell.run("key", "revoke", made["key_id"]).out == f"{made['key_id']} is revoked\n"
    assert shell.run("key", "revoke", made["key_id"], "--json").json["message"] == "API key revoked successfully"
    assert shell.run("key", "rotate", made["key_id"]).code == 1
    unknown = shell.run("key", "revoke", "key_0000000000000000")
    assert (unknown.code, unknown.out) == (1, "")
    assert "key_0000000000000000" in unknown.err
    assert "list_keys" in unknown.err
    assert "Traceback" not in unknown.err


def test_an_error_as_json_is_one_document_on_stderr(shell: Shell) -> None:
    """A program reads what went wrong the same way it reads what went well."""
    failed = shell.run("key", "revoke", "key_0000000000000000", "--json")
    assert failed.out == ""
    said = type(failed)(failed.code, failed.err, "").json
    assert said["error"].startswith("Not found")
    assert said["reason"] == "not_found"


@pytest.mark.parametrize(
    "arguments",
    [
        ("key", "create", "x"),
        ("key", "create", "x", "--role", "owner"),
        ("key", "create", "x", "--role", "viewer", "--expires-in-days", "0"),
        ("key", "rotate", "x", "--grace", "-1"),
        ("token", "issue", "ada", "--expires", "5"),
        ("key", "fly"),
        ("fly",),
    ],
)
def test_a_command_written_wrongly_is_2(shell: Shell, arguments: tuple[str, ...]) -> None:
    """Nothing is asked then."""
    ran = shell.run(*arguments)
    assert ran.code == 2
    assert "Usage: edged" in ran.err


@pytest.mark.parametrize("days", ["nan", "inf", "-1", "1e400", "36501"])
@pytest.mark.parametrize("words", [("list", "--unused-days"), ("create", "x", "--role", "viewer", "--expires-in-days")])
def test_days_that_are_no_number_of_days_are_2(shell: Shell, words: tuple[str, ...], days: str) -> None:
    """They are not left out on the way: that would be a key without an end, or a list of all."""
    ran = shell.run("key", *words, days)
    assert ran.code == 2
    assert words[-1] in ran.err


def test_what_the_daemon_does_not_take_is_1(shell: Shell) -> None:
    """Its sentence names the member."""
    ran = shell.run("key", "create", "x" * 101, "--role", "viewer")
    assert ran.code == 1
    assert "name" in ran.err


def test_a_token_is_issued_and_verified(shell: Shell) -> None:
    """From a pipe, from the environment, and as an argument; exit code 0 says that it is good."""
    issued = shell.run("token", "issue", "ada", "--role", "viewer", "--expires", "600", "--quiet")
    text = issued.out.strip()
    assert text.count(".") == 2
    for ran in (
        shell.run("token", "verify", stdin=issued.out),
        shell.run("token", "verify", "-", stdin=issued.out),
        shell.run("token", "verify", text),
    ):
        assert ran.code == 0
        assert ran.out.startswith("valid\n")
        assert "ada" in ran.out
    shell.setenv("CAMERA_SERVICE_JWT_TOKEN", text)
    found = shell.run("token", "verify", "--json")
    assert found.json["valid"]
    assert found.json["payload"]["role"] == "viewer"


def test_what_is_wrong_with_a_token_is_said_in_the_seeds_words(shell: Shell) -> None:
    """S0-9, S0-10, S0-25 to S0-27: errors and warnings on stderr as validate_token says them; 1 for an error only."""
    secret, now = SharedSecret("clients", SECRET), int(time.time())
    claims = {"sub": "ada", "role": "user", "permissions": ["camera:read"], "iat": now, "exp": now + 60, "jti": "x"}
    for changes, options, code, said in (
        ({}, ["--role", "operator", "--permission", "camera:read"], 0, ""),
        ({}, ["--role", "admin", "--permission", "x"], 1,
         "  Required role 'admin' not found\n  Missing permissions: ['x']\n"),
        ({"exp": now - 1}, [], 1, "  Token has expired\n"),
        ({"iat": now + 600}, [], 1, "  Token issued in the future\n"),
        ({"sub": None}, [], 1, "  Missing required claim: sub\n"),
        ({"nbf": now + 600}, [], 1, "  Invalid token: The token is not yet valid (nbf)\n"),
        ({"iat": now - 31 * 86400}, [], 0, "  Token is very old\n"),
        ({"jti": None, "role": "root"}, [], 0, "  Suspicious token patterns detected\n"),
    ):  # fmt: skip
        ran = shell.run("token", "verify", *options, stdin=sign({**claims, **changes}, secret))
        assert (ran.code, ran.err) == (code, said)
        # Of a token that is not valid no claim is shown.
        assert ran.out == "not valid\n" if code else ran.out.startswith("valid\n  sub")


def test_a_token_is_made_as_by_the_clients_own_generator(shell: Shell) -> None:
    """S2-1: `--user` in place of `issue`, in any order, with all that `issue` takes; --help and the rest stay."""
    for words in (
        ("--user", "ada", "--role", "viewer", "--expires", "7200"),
        ("--role", "viewer", "--expires=7200", "--user=ada"),
    ):  # fmt: skip
        made = shell.run("token", *words, "--json")
        assert (made.code, made.json["expires_in"]) == (0, 7200)
        payload = shell.run("token", "verify", "--json", stdin=made.json["token"]).json["payload"]
        assert (payload["sub"], payload["role"], payload["exp"] - payload["iat"]) == ("ada", "viewer", 7200)
    assert shell.run("token", "--user", "ada", "-q").out.count(".") == 2
    wrong: list[tuple[str, ...]] = [("--user",), ("--role", "viewer"), ("--user", "ada", "--nonsense")]
    for given in wrong:
        ran = shell.run("token", *given)
        assert (ran.code, ran.out) == (2, "")
    assert "issue" in shell.run("token", "--help").out


def test_a_token_can_be_narrowed(shell: Shell) -> None:
    """--camera and --permission end up in its claims; the plain form shows every fact."""
    issued = shell.run(
        "token", "issue", "ada", "--role", "viewer", "--camera", "camera0", "--permission", "camera:read", "--json"
    )
    payload = shell.run("token", "verify", "--json", stdin=issued.json["token"]).json["payload"]
    assert (payload["camera_access"], payload["permissions"]) == (["camera0"], ["camera:read"])
    shown = shell.run("token", "issue", "ada", "--role", "viewer")
    assert {line.split()[0] for line in shown.out.splitlines()} == {
        "effective_permissions",
        "token",
        "token_type",
        "expires_at",
        "expires_in",
        "jti",
    }


def test_a_bad_token_is_1_and_says_why(shell: Shell) -> None:
    """Forged, expired, or without what was asked of it."""
    assert shell.run("token", "verify", stdin="a.b.c\n").code == 1
    now = time.time()
    forged = sign(
        issue_claims("eve", role="admin", now=now, expires_in=600),
        SharedSecret("x", "a secret that nobody in here knows"),
    )
    assert shell.run("token", "verify", stdin=forged).code == 1
    old = sign(issue_claims("ada", role="viewer", now=now - 7200, expires_in=60), SharedSecret("clients", SECRET))
    expired = shell.run("token", "verify", stdin=old)
    assert expired.code == 1
    assert expired.out == "not valid\n"
    assert "expired" in expired.err
    good = shell.run("token", "issue", "ada", "--role", "viewer", "-q").out
    assert shell.run("token", "verify", "--role", "admin", stdin=good).code == 1
    assert shell.run("token", "verify", "--permission", "camera:write", stdin=good).code == 1
    assert shell.run("token", "verify", "--role", "viewer", stdin=good).code == 0


def test_without_a_token_it_is_2(shell: Shell) -> None:
    """An empty pipe is no token."""
    for arguments in (("token", "verify"), ("token", "verify", "-"), ("token", "revoke")):
        ran = shell.run(*arguments)
        assert ran.code == 2
        assert "CAMERA_SERVICE_JWT_TOKEN" in ran.err


def test_a_revoked_token_is_not_good_any_more(shell: Shell) -> None:
    """By its text, its jti, or the hash of its text."""
    first = shell.run("token", "issue", "ada", "--role", "viewer", "--json").json
    assert shell.run("token", "revoke", stdin=first["token"]).out == "revoked\n"
    verified = shell.run("token", "verify", stdin=first["token"])
    assert verified.code == 1
    assert "blacklisted" in verified.err
    second = shell.run("token", "issue", "ada", "--role", "viewer", "--json").json
    assert shell.run("token", "revoke", "--jti", second["jti"], "--json").json == {"revoked": True}
    assert shell.run("token", "verify", stdin=second["token"]).code == 1
    assert shell.run("token", "revoke", "--hash", "nonsense").code == 1


def test_the_clock_is_shown_and_root_takes_it_for_right(shell: Shell) -> None:
    """For people and for programs; whoever is not root is told so."""
    assert "high_water" in shell.run("clock", "show").out
    assert shell.run("clock", "show", "--json").json.keys() >= {"time", "trusted", "synchronized", "remedy"}
    for options in ([], ["--json"]):
        done = shell.run("clock", "reset", *options)
        if os.geteuid() == 0:
            assert (done.code, "and is 20" in done.out) == (0, not options)
        else:
            assert done.code == 1
            assert "as root" in done.err


def test_signing_keys_are_listed_made_promoted_and_given_up(shell: Shell) -> None:
    """The rotation by hand: create, promote (by force, as it is young), retire; and a token by one of them."""
    assert [key["kid"] for key in shell.run("signing-key", "list", "--json").json["keys"]][:2] == ["key-1", "key-2"]
    made = shell.run("signing-key", "create", "ES256", "--json").json
    assert (made["algorithm"], made["state"]) == ("ES256", "next")
    early = shell.run("signing-key", "promote", made["kid"])
    assert (early.code, "force" in early.err) == (1, True)
    done = shell.run("signing-key", "promote", made["kid"], "--force")
    assert "current" in done.out
    assert made["kid"] in shell.run("signing-key", "list").out
    assert shell.run("signing-key", "retire", made["kid"]).code == 1
    assert shell.run("signing-key", "retire", made["kid"], "--distrust", "--json").json["distrusted"] is True
    issued = shell.run("token", "issue", "ada", "--read", "dock", "--publish", "in", "--signing-key", "ES256", "-q")
    found = shell.run("token", "verify", stdin=issued.out)
    assert found.code == 0
    assert "mediamtx_permissions" in found.out
    assert shell.run("signing-key", "create", "HS256").code == 2


def test_whoami_shows_the_rights_of_the_socket(shell: Shell) -> None:
    """Whoever may open it is an administrator."""
    shown = shell.run("whoami")
    assert shown.code == 0
    facts = dict(line.split(None, 1) for line in shown.out.splitlines())
    assert "keys:admin" in facts["permissions"]
    assert shell.run("whoami", "--json").json["roles"] == ["admin"]


def test_streams_are_listed_and_found_by_a_camera_s_name(shell: Shell) -> None:
    """Without MediaMTX there is none, and a camera's picture is edged's own."""
    listed = shell.run("stream", "list")
    assert (listed.code, listed.out.split()) == (0, ["NAME", "SOURCE", "READY", "READERS", "BYTES", "SENT"])
    assert shell.run("stream", "list", "--json").json == []
    for name in ("Front dock", "camera0"):
        shown = shell.run("stream", "url", name)
        facts = dict(line.split(None, 1) for line in shown.out.splitlines())
        assert (facts["device"], facts["live_url"]) == ("camera0", "/api/cameras/camera0/live.mjpeg")
    assert shell.run("stream", "url", "camera0", "--json").json["available"] is False
    unknown = shell.run("stream", "url", "camera99")
    assert (unknown.code, unknown.out) == (1, "")


def test_a_ticket_is_a_url_for_a_player(shell: Shell) -> None:
    """Shown once with its end; the live picture's path is there without MediaMTX."""
    made = shell.run("stream", "ticket", "Front dock", "--ttl", "30")
    facts = dict(line.split(None, 1) for line in made.out.splitlines())
    assert facts["live"] == f"/api/cameras/camera0/live.mjpeg?ticket={facts['ticket']}"
    assert "not shown again" in made.err
    assert shell.run("stream", "ticket", "camera0", "--json").json.keys() == {"ticket", "url", "expires_at", "urls"}


def test_the_use_of_tokens_is_listed(shell: Shell) -> None:
    """By the SHA-256 of their text, as a table and as JSON."""
    assert shell.run("token", "usage", "--json").json == {}
    shown = shell.run("token", "usage", "--limit", "5")
    assert (shown.code, shown.out.split()) == (0, ["TOKEN", "HASH", "USES"])


def test_a_token_for_an_unknown_user_is_issued_with_a_note(shell: Shell) -> None:
    """The one user is asked for, not all; a known user needs no note."""
    assert "There is no user 'nobody-here'" in shell.run("token", "issue", "nobody-here", "--role", "viewer").err
    assert shell.run("user", "add", "eve", "--no-password").code == 0
    assert "There is no user" not in shell.run("token", "issue", "eve", "--role", "viewer").err
    assert shell.run("user", "remove", "eve").code == 0


def test_a_list_that_is_longer_than_a_page_is_shown_whole(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page it is the same list as in one reply: keys, users, signing keys, service tokens and cameras."""
    from edged.cli import asking

    for number in range(3):
        assert shell.run("key", "create", f"page {number}", "--role", "viewer").code == 0
        assert shell.run("user", "add", f"page{number}", "--no-password").code == 0
        assert shell.run("service-token", "add", f"page {number}").code == 0
    commands = [(word, "list", "--json") for word in ("key", "user", "signing-key", "service-token", "camera")]
    whole = [shell.run(*command).json for command in commands]
    monkeypatch.setattr(asking, "_PAGE", 1)
    assert [shell.run(*command).json for command in commands] == whole
    assert len(whole[0]["keys"]) >= 3
    monkeypatch.setattr(asking, "_PAGE", 2)
    assert shell.run("key", "list").out.count("page ") == 3


def test_a_list_of_more_than_a_mebibyte_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client takes at most 1 MiB in one message: 3000 keys are more."""
    path = tmp_path / "state/trust.db"
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, TRUST)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO api_keys (key_id, name, role, digest, created_at) VALUES (?, ?, 'viewer', ?, ?)",
            [(f"key_{number:016x}", "n" * 100, number.to_bytes(32, "big"), float(number)) for number in range(3000)],
        )
        connection.execute("COMMIT")
    with running_daemon(tmp_path) as directory:
        shown = Shell(monkeypatch, capsys, directory).run("key", "list", "--json")
    assert shown.code == 0, shown.err
    assert len(shown.out) > 1024 * 1024
    assert len({key["key_id"] for key in shown.json["keys"]}) == 3000
