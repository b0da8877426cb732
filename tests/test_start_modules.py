"""What a daemon carries around: which modules are there after an idle start, and after which call others come.

The figures that stand on it are measured by `scripts/bench start`.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from cli_helpers import SECRET, wait_for_socket, write_config
from daemon_helpers import free_port
from patience import FACTOR

import edged
from edged.cli.client import connect
from edged.credentials.callers import ApiKey, Link, ServiceToken, Ticket, Token
from edged.credentials.tokens import SharedSecret, issue_claims, sign
from edged.store.cameras import Added

ROOT = Path(__file__).parent.parent
#: `edged serve`, which writes the names of its modules into the file argv[1] whenever it gets SIGUSR1.
PROGRAM = """
import os, signal, sys
told = sys.argv.pop(1)
def tell(_number, _frame):
    with open(told + ".new", "w") as file:
        file.write("\\n".join(sys.modules))
    os.rename(told + ".new", told)
signal.signal(signal.SIGUSR1, tell)
from edged.cli.main import main
main()
"""
#: What takes long to import or much memory, and what brings it.
SIGNING = {"joserfc", "cryptography"}
SCRAPING = {"prometheus_client", "http.server", "urllib.request"}
PASSWORDS = {"argon2"}
#: Never: commands, migrations, and what libraries import for others.
NEVER = {
    "sqlite_utils", "rich", "pygments", "asyncio.base_events", "importlib.metadata._meta", "zipfile", "trio_websocket",
    "wsproto", "edged.cli.client", "edged.cli.keys", "edged.cli.databases", "multiprocessing",
    "concurrent.futures.thread", "concurrent.futures.process",
    "edged.cli.demo", "starlette.testclient", "starlette.applications", "starlette.staticfiles", "anyio._backends",
}  # fmt: skip


@dataclass
class Box:
    """A daemon as a process of its own."""

    folder: Path
    local: int
    process: subprocess.Popen[bytes]

    def find_modules(self) -> set[str]:
        """The names in its sys.modules now, each with all packages that it is in."""
        told = self.folder / "modules"
        told.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 30 * FACTOR
        while not told.exists():
            assert time.monotonic() < deadline, "it did not tell its modules"
            time.sleep(0.01)
        return set(told.read_text().splitlines())

    def is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.local)) == 0

    def get(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.local, timeout=30)
        with closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def call(self, method: str, **params: object) -> Any:
        async def ask() -> Any:
            async with connect(self.folder / "run" / "edged.sock") as client:
                return await client.call(method, params)

        return trio.run(ask)


@contextmanager
def running(folder: Path, local: int) -> Iterator[Box]:
    """A daemon over the settings in `folder`, until the block ends."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    program = folder / "program.py"
    program.write_text(PROGRAM)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(program), str(folder / "modules"), "serve", "--directory", str(folder / "conf.d")],
            env=environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_for_socket(folder / "run" / "edged.sock", process, folder / "log")
        # Its socket is there before the other listeners are.
        deadline = time.monotonic() + 30 * FACTOR
        box = Box(folder, local, process)
        while not box.is_listening():
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.01)
        yield box
        process.terminate()
        assert process.wait(60) == 0, (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def settings(tmp_path: Path) -> tuple[Path, int]:
    """A folder with settings and the port of its local listener."""
    local = free_port()
    file = write_config(tmp_path) / "box.toml"
    file.write_text(file.read_text().replace("local = []", f'local = ["127.0.0.1:{local}"]'))
    return tmp_path, local


def test_what_is_not_used_is_not_imported(settings: tuple[Path, int]) -> None:
    """Each library comes with the first call that needs it, and what a key pair takes with the first signature by one:
    a shared secret signs and verifies without, and a key pair is made by a process of its own."""
    with running(*settings) as box:
        assert box.get("/health") == 200
        assert box.call("get_camera_list")["cameras"][0]["device"] == "camera0"
        assert not (SIGNING | SCRAPING | PASSWORDS | NEVER) & box.find_modules(), "after an idle start"
        claims = issue_claims("ann", role="viewer", now=time.time(), expires_in=600)
        shown = sign(claims, SharedSecret("clients", SECRET))
        assert box.call("validate_token", token=shown)["valid"]
        assert {key["state"] for key in box.call("list_signing_keys")["keys"]} == {"current"}
        box.call("create_signing_key", algorithm="ES256")
        assert box.get("/.well-known/jwks.json") == 200
        assert not box.call("validate_token", token=forge(shown))["valid"]
        assert not (SIGNING | SCRAPING | PASSWORDS | NEVER) & box.find_modules(), "after a token of a shared secret"
        assert box.get("/metrics") == 200
        found = box.find_modules()
        assert found >= SCRAPING
        assert not (SIGNING | PASSWORDS | NEVER) & found, "after a scrape"
        box.call("create_user", name="bob", role="viewer", password="a long passphrase of bob")
        found = box.find_modules()
        assert found >= PASSWORDS
        assert not (SIGNING | NEVER) & found, "after a password"
        made = box.call("issue_token", user_id="ann", signing_key="ES256")
        assert box.call("validate_token", token=made["token"])["valid"]
        found = box.find_modules()
        assert found >= SIGNING
        assert not NEVER & found, "after a token of a key pair"
    with running(*settings) as box:
        assert box.find_modules() >= SIGNING, "a key that has signed is read by the next start"
        assert box.call("validate_token", token=made["token"])["valid"]


def test_what_names_a_key_that_has_signed_nothing_is_refused_without_a_library(settings: tuple[Path, int]) -> None:
    """So that no stranger makes the daemon import one, and it is the same answer as to any wrong signature."""
    folder, _ = settings
    claims = issue_claims("ann", role="admin", now=time.time(), expires_in=600)
    with running(*settings) as box:
        with closing(sqlite3.connect(folder / "state" / "trust.db")) as database:
            assert database.execute("SELECT count(*), max(signs_until) FROM signing_keys").fetchone() == (2, 0.0)
        answer = box.call("validate_token", token=forge(sign(claims, SharedSecret("clients", SECRET))))
        assert answer["valid"] is False
        assert answer["errors"] == ["Invalid token: the key that it names did not sign it"]
        assert not SIGNING & box.find_modules()


def forge(text: str) -> str:
    """The claims of this token under a header that names the first key pair."""
    head = json.dumps({"typ": "JWT", "alg": "RS256", "kid": "key-1"}).encode()
    _, body, tail = text.split(".")
    return f"{base64.urlsafe_b64encode(head).rstrip(b'=').decode()}.{body}.{tail}"


def test_records_are_structs_where_nothing_speaks_against_it() -> None:
    """A dataclass is made at every start by text that is compiled: 1 ms, a struct 0.1. A struct compares all fields."""
    found = {
        match
        for path in Path(edged.__file__).parent.rglob("*.py")
        for match in re.findall(r"^@dataclass.*\nclass (\w+)", path.read_text(), re.MULTILINE)
    }
    assert found == {"Peer", "TokenFacts", "Caller", "SegmentRow"}, "each of these has a field that is not compared"


def test_a_discreet_struct_shows_no_hidden_field() -> None:
    """What may be logged says of a secret neither its value nor its length."""
    shown = [
        repr(ApiKey("s3cret")), repr(Token("s3cret")), repr(Ticket("s3cret")),
        repr(ServiceToken("s3cret", "192.0.2.1")), repr(Link("/x", "1", "maker", "s3cret")),
        repr(Added(1, "s3cret", "192.0.2.1")),
    ]  # fmt: skip
    assert shown[0] == "ApiKey()"
    assert shown[3] == "ServiceToken(address='192.0.2.1')"
    assert not [each for each in shown if "s3cret" in each]
