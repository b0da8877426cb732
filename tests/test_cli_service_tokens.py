"""`edged service-token`: against a real daemon; a secret goes in by environment or a pipe, never as argument."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import planted
import pytest
from cli_helpers import Shell, running_daemon


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running_daemon(tmp_path_factory.mktemp("box")) as directory:
        yield directory


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path) -> Shell:
    monkeypatch.delenv("AUTH_SERVICE_TOKEN", raising=False)
    return Shell(monkeypatch, capsys, directory)


def test_a_token_is_made_rotated_and_revoked(shell: Shell) -> None:
    """Its secret is printed once, alone with -q; the list shows where it is good and never the secret."""
    assert "no service tokens; make one" in shell.run("service-token", "list").err
    made = shell.run(
        "service-token", "add", "uploads", "--network", "192.0.2.7", "--network", "2001:db8::/32", "--json"
    ).json
    token_id = made["token_id"]
    assert made["networks"] == ["192.0.2.7/32", "2001:db8::/32"]
    rotated = shell.run("service-token", "rotate", token_id, "--grace", "60", "-q")
    assert re.fullmatch(r"[0-9a-f]{64}\n", rotated.out)
    shown = shell.run("service-token", "list")
    assert all(part in shown.out for part in (token_id, "uploads", "active", "192.0.2.7/32, 2001:db8::/32"))
    assert made["service_token"] not in shown.out
    assert rotated.out.strip() not in shown.out
    person = shell.run("service-token", "rotate", token_id)
    assert "Keep service_token now" in person.err
    assert shell.run("service-token", "revoke", token_id).out == f"{token_id} is revoked\n"
    assert shell.run("service-token", "revoke", token_id, "--json").json["token_id"] == token_id
    again = shell.run("service-token", "rotate", token_id)
    assert (again.code, "is revoked" in again.err) == (1, True)
    assert shell.run("service-token", "list", "--json").json["service_tokens"][0]["status"] == "revoked"


@pytest.mark.parametrize("network", ["nowhere", "192.0.2.1/24"])
def test_what_is_no_network_is_told(shell: Shell, network: str) -> None:
    """With an example of one."""
    done = shell.run("service-token", "add", "x", "--network", network)
    assert (done.code, repr(network) in done.err, "192.0.2.0/24" in done.err) == (1, True, True)


def test_one_that_is_in_use_is_taken_over(shell: Shell) -> None:
    """From the environment of the other server or a pipe (contract S3-22); once, and it says so the second time."""
    old = planted.plant("an-old-service-token-0123456789", "an imported service token")
    shell.setenv("AUTH_SERVICE_TOKEN", old)
    done = shell.run("service-token", "import")
    token_id = done.out.split()[0]
    assert (done.code, done.out) == (0, f"{token_id} imported\n")
    assert shell.run("service-token", "import", "name").out == f"{token_id} was imported before and is unchanged\n"
    shell.setenv("AUTH_SERVICE_TOKEN", "")
    piped = shell.run("service-token", "import", "--json", stdin=f"{old}\n")
    assert piped.json == {"token_id": token_id, "status": "known"}
    shell.run("service-token", "revoke", token_id)
    gone = shell.run("service-token", "import", stdin=old)
    assert (gone.code, gone.out) == (1, f"{token_id} is revoked\n")


def test_without_a_token_it_says_where_to_put_one(shell: Shell) -> None:
    """Neither environment nor pipe holds one; and the printed sample is refused without being repeated."""
    nothing = shell.run("service-token", "import", stdin="\n")
    assert (nothing.code, "AUTH_SERVICE_TOKEN" in nothing.err) == (2, True)
    printed = "ee6d52ece4fa6c4c8836820d2eb7feeb" + "6c78cbf2e2661ef76c9f5a805fc16340"
    sample = shell.run("service-token", "import", stdin=printed)
    assert (sample.code, "known to everybody" in sample.err, printed in sample.err + sample.out) == (1, True, False)
