"""What a user goes through with the package, step by step, on a booted Debian 13; `run` starts it, as root.

Each step either holds or ends the story with the reason and the journal. Callers: alice is a member of edged-admin,
bob of nothing, carol's number is beyond those that the unit's sandbox maps; the visitor stands outside, behind a
network of its own.

`story.py visit` is the visitor's end: one JSON-RPC conversation, by another implementation than the server's own.
"""

from __future__ import annotations

import contextlib
import grp
import http.client
import json
import os
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from steps import SOCKET, STATE, NotRun, expect, journal, journal_has, processes, run, show, step, tell, until

SETTINGS = Path("/etc/edged/conf.d")
INSIDE, OUTSIDE = "192.0.2.1", "192.0.2.2"
#: systemd-analyze security; lower is better.
MOST_EXPOSED = 2.0
#: Where a MediaMTX of this machine is handed in, if it has one.
MEDIAMTX = Path("/job/mediamtx")

# What the steps are made of ----------------------------------------------------------------------------------------


def console() -> str:
    """What stands above the login prompt of this box: agetty shows it on a terminal only."""
    here, there = os.openpty()
    with subprocess.Popen(("agetty", "--show-issue"), stdin=there, stdout=there, stderr=there):
        os.close(there)
    said = b""
    with contextlib.suppress(OSError):  # nobody holds the other end any more
        while data := os.read(here, 4096):
            said += data
    os.close(here)
    return said.decode()


def refused(text: str) -> bool:
    return "HTTP 401" in text


def edged(*arguments: str, user: str = "alice") -> Any:
    """The command line, as JSON."""
    return json.loads(run("edged", *arguments, "--json", user=user))


def asked(user: str, *, host: str = "127.0.0.1", outside: bool = False, wrap: tuple[str, ...] = ()) -> str:
    """`HTTP 201` or the like: somebody without a credential wants a key, as the documented curl does."""
    command = [*wrap, sys.executable, __file__, "post", host]
    if outside:
        command = ["ip", "netns", "exec", "outside", *command]
    return run(*command, user=user, check=False)


def post(host: str) -> str:
    connection = http.client.HTTPConnection(host, 8002, timeout=20)
    body = json.dumps({"name": "asked for", "role": "viewer"})
    connection.request("POST", "/api/keys", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return f"HTTP {answer.status}"


def visit(*calls: tuple[str, dict[str, Any]], stay: bool = False) -> subprocess.Popen[str]:
    """The visitor opens a WebSocket from outside and makes these calls; `stay`: until it is closed."""
    command = ["ip", "netns", "exec", "outside", "runuser", "-u", "visitor", "--"]
    command += [sys.executable, __file__, "visit", json.dumps(calls), *(["stay"] if stay else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def visited(*calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers of a visit that leaves by itself."""
    output, errors = visit(*calls).communicate(timeout=60)
    expect(output, errors)
    return [json.loads(line) for line in output.splitlines()]


def talk(calls: list[tuple[str, dict[str, Any]]], *, stay: bool) -> None:
    import trio
    from trio_websocket import ConnectionClosed, open_websocket_url

    async def converse() -> None:
        async with open_websocket_url(f"ws://{INSIDE}:8002/ws") as connection:
            for number, (method, params) in enumerate(calls):
                question = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                await connection.send_message(json.dumps(question))
                while (answer := json.loads(await connection.get_message())).get("id") != number:
                    pass
                print(json.dumps(answer), flush=True)
            try:
                while stay:
                    await connection.get_message()
            except ConnectionClosed as closed:
                code = closed.reason.code if closed.reason else None
                print(json.dumps({"closed": code}), flush=True)

    trio.run(converse)


def get(path: str, port: int, key: str = "", host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request("GET", path, headers={"X-API-Key": key} if key else {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def restart() -> None:
    before = show("MainPID")
    run("systemctl", "restart", "edged")
    expect(show("MainPID") not in (before, "0"), "it is the same process")
    expect(show("ActiveState") == "active", show("ActiveState"))


ADMIN: dict[str, Any] = {}
VIEWER: dict[str, Any] = {}


def login(key: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return ("authenticate", {"auth_token": key["api_key"], "auth_type": "api_key"})


# The story ---------------------------------------------------------------------------------------------------------


@step
def runs() -> str:
    """apt started it, and it stays."""
    expect(show("ActiveState") == "active", journal())
    expect(show("UnitFileState") == "enabled", show("UnitFileState"))
    expect(show("NRestarts") == "0", journal())
    user = pwd.getpwnam("edged")
    expect(user.pw_shell.endswith("nologin"), user)
    expect(user.pw_name in grp.getgrnam("video").gr_mem, "edged is not in group video")
    return run("edged", "version")


@step
def files(*, fresh: bool = True) -> None:
    """Its files belong to whom they should."""
    found = SOCKET.stat()
    group = grp.getgrgid(found.st_gid).gr_name
    expect((found.st_uid, group, stat.S_IMODE(found.st_mode)) == (0, "edged-admin", 0o660), (found, group))
    for path, owner, group, mode in (
        (SOCKET.parent, "root", "root", 0o755),
        (STATE, "edged", "edged", 0o700),
        (Path("/run/edged-work"), "edged", "edged", 0o700),
        (SETTINGS, "root", "edged", 0o750),
    ):
        seen = path.stat()
        expect((path.owner(), path.group(), stat.S_IMODE(seen.st_mode)) == (owner, group, mode), f"{path}: {seen}")
    expect(not fresh or not list(SETTINGS.iterdir()), "something that people edit is a file of the package")
    expect(Path("/usr/share/edged/defaults.toml").is_file(), "the defaults are not there")
    expect("edged.sock" not in run("ls", "/run/edged-work"), "there are two sockets")


@step
def exposure() -> str:
    """systemd-analyze security: as little as agreed."""
    last = run("systemd-analyze", "security", "--no-pager", "edged.service").splitlines()[-1]
    found = re.search(r"(\d+\.\d+)", last)
    expect(found and float(found[1]) <= MOST_EXPOSED, last)
    run("systemd-analyze", "verify", "--man=no", "edged.service", "edged.socket")
    return last.lstrip("→ ")


@step
def journal_of_a_start() -> str:
    """The journal says: started, listening, no MediaMTX and what to do."""
    journal_has("edged: starting", "version=")
    journal_has("Started edged.service")
    for listener in ("main", "compat", "local"):
        journal_has("edged: listening", f"listener={listener}")
    journal_has("listener=unix", str(SOCKET))
    line = journal_has("mediamtx: missing", "remedy=")
    program = re.search(r"(/\S+get-mediamtx)", line)
    expect(program and os.access(program[1], os.X_OK), f"the remedy cannot be followed: {line}")
    expect(not [line for line in journal() if "Traceback" in line], "a traceback")
    return line


@step
def confined_children() -> None:
    """The unit's sandbox lets setpriv put children under Landlock, where this machine has it."""
    tried = ("setpriv", "--landlock-access", "fs", "--landlock-rule", "path-beneath::/usr", "--", "/usr/bin/true")
    if subprocess.run(tried, check=False).returncode:
        raise NotRun("this kernel, or this container, has no Landlock")
    expect(not [line for line in journal() if "children_not_confined" in line], "children are not confined")


@step
def users() -> None:
    """There are people, and an outside."""
    run("useradd", "--create-home", "--groups", "edged-admin", "alice")
    run("useradd", "--create-home", "bob")
    run("useradd", "--create-home", "--uid", "70000", "--groups", "edged-admin", "carol")
    run("useradd", "--create-home", "visitor")
    run("ip", "netns", "add", "outside")
    run("ip", "link", "add", "name", "inside", "type", "veth", "peer", "name", "outside", "netns", "outside")
    for prefix, name, address in ((("ip",), "inside", INSIDE), (("ip", "-n", "outside"), "outside", OUTSIDE)):
        run(*prefix, "address", "add", f"{address}/24", "dev", name)
        run(*prefix, "link", "set", name, "up")
    run("ip", "-n", "outside", "link", "set", "lo", "up")


@step
def first_key() -> str:
    """A member of edged-admin makes a key on the local socket; anybody else may not open it."""
    ADMIN.update(edged("key", "create", "the first", "--role", "admin"))
    expect(ADMIN["api_key"].startswith("camera_service_sk_"), "that is no key")
    VIEWER.update(edged("key", "create", "a viewer", "--role", "viewer"))
    line = journal_has("created", ADMIN["key_id"])
    expect(ADMIN["api_key"] not in "\n".join(journal()), "the secret is in the journal")
    said = run("edged", "key", "list", user="bob", check=False)
    expect("may not open" in said and "edged-admin" in said, said)
    return line


@step
def claimed() -> str:
    """Whoever may open the local socket makes the first administrator, bob may not, and the console shows the code that
    others need; from outside they log in."""
    code = Path("/run/edged-work/claim")
    expect((code.owner(), stat.S_IMODE(code.stat().st_mode)) == ("edged", 0o600), code.stat())
    password = "of-the-boss-of-this-story"
    command = f"echo {password} | edged claim --username boss --password-stdin"
    said = run("sh", "-c", command, user="bob", check=False)
    expect("administrator now" not in said, said)
    text = code.read_text().strip()
    shown = console()
    expect(text in shown and "sudo edged claim" in shown, shown)
    said = run("sh", "-c", command)
    expect("boss is an administrator now" in said and not code.exists(), said)
    shown = console()
    expect(text not in shown and "edged" not in shown, shown)
    (answer,) = visited(("login", {"username": "boss", "password": password}))
    expect("token" in answer.get("result", {}), answer)
    (wrong,) = visited(("login", {"username": "boss", "password": password[:-1]}))
    expect("error" in wrong, wrong)
    entered, listed = visited(("authenticate", {"auth_token": answer["result"]["token"]}), ("list_users", {}))
    expect([user["name"] for user in listed.get("result", {}).get("users", [])] == ["boss"], (entered, listed))
    secrets = (text, password, answer["result"]["token"])
    expect(not [line for line in journal() if any(secret in line for secret in secrets)], "a secret is in the journal")
    return journal_has("first_admin_claimed", "user=boss")


@step
def logged_in() -> str:
    """A user made on the box logs in from outside and sees cameras; disabled, their session ends and they stay out."""
    password = "of-ann-in-this-story"
    run("sh", "-c", f"echo {password} | edged user add ann --role viewer --password-stdin", user="alice")
    mine = ("login", {"username": "ann", "password": password})
    (answer,) = visited(mine)
    token = ("authenticate", {"auth_token": answer["result"]["token"], "auth_type": "jwt"})
    staying = visit(token, ("get_camera_list", {}), stay=True)
    assert staying.stdout is not None
    expect(json.loads(staying.stdout.readline())["result"]["authenticated"] is True, "she did not come in")
    expect("cameras" in json.loads(staying.stdout.readline())["result"], "she sees no cameras")
    run("edged", "user", "set", "ann", "--disable", user="alice")
    told, _ = staying.communicate(timeout=20)
    expect(json.loads(told.splitlines()[-1]) == {"closed": 4401}, told)
    refusal, locked = visited(mine, token)
    expect("error" in refusal and locked.get("result", {}).get("authenticated") is not True, (refusal, locked))
    run("edged", "user", "set", "ann", "--enable", user="alice")
    (answer,) = visited(mine)
    expect("token" in answer.get("result", {}), answer)
    return journal_has("gate: refused", "reason=suspended")


@step
def local_numbers() -> str:
    """Whoever uses the local socket is known by number in the sandbox; one beyond the map as 65534."""
    number = pwd.getpwnam("alice").pw_uid
    who = [run(sys.executable, __file__, "whoami", user=name) for name in ("root", "alice", "carol")]
    expect(who == ["local:0", f"local:{number}", "local:65534"], who)
    return ", ".join(who)


@step
def from_outside() -> str:
    """From outside, the key opens a WebSocket and lists cameras; a wrong one is refused, and the journal says why."""
    entered, listed = visited(login(ADMIN), ("get_camera_list", {}))
    expect(entered["result"]["authenticated"] is True, entered)
    expect("cameras" in listed["result"], listed)
    stranger, locked = visited(login({"api_key": ADMIN["api_key"][:-4] + "0000"}), ("get_camera_list", {}))
    expect("error" in locked and stranger.get("result", {}).get("authenticated") is not True, (stranger, locked))
    return journal_has("gate: refused", "reason=unknown_key", "method=api_key", "transport=ws")


@step
def numbers() -> None:
    """/metrics: with the key everywhere, without one on port 8003 only; with the process's own."""
    status, text = get("/metrics", 8002, ADMIN["api_key"])
    expect(status == 200 and "edged_" in text and "process_resident_memory_bytes" in text, (status, text[:300]))
    expect(get("/metrics", 8002)[0] == 401, "port 8002 gives them to anybody")
    expect(get("/metrics", 8003)[0] == 200, "port 8003 does not")
    expect(get("/health/ready", 8003)[0] == 200, "it is not ready")


@step
def root_alone() -> str:
    """Over loopback root needs no credential for /api/keys, and nobody else does without: asked under the sandbox."""
    for host in ("127.0.0.1", "::1"):
        answer = asked("root", host=host)
        expect(answer == "HTTP 201", f"root at {host}: {answer}")
    for user in ("alice", "bob", "carol", "edged", "nobody"):
        for host in ("127.0.0.1", "::1"):
            answer = asked(user, host=host)
            expect(refused(answer), f"{user} at {host}: {answer}")
    answer = asked("root", host=INSIDE, outside=True)
    expect(refused(answer), f"root of another network: {answer}")
    answer = asked("root", host=INSIDE)
    expect(refused(answer), f"root, not over loopback: {answer}")
    return "5 users refused, root let in"


@step
def pretended_root() -> None:
    """Root of a user namespace is not root."""
    if run("unshare", "--user", "--map-root-user", "id", "-u", user="bob", check=False) != "0":
        raise NotRun("no user namespaces in here")
    answer = asked("bob", wrap=("unshare", "--user", "--map-root-user"))
    expect(refused(answer), answer)


@step
def ghosts() -> None:
    """A connection that its owner closed reads as root's to the kernel; it makes no key."""
    for user in ("bob", "carol"):
        # Asleep while they come and go, the daemon finds nobody at the other end.
        os.kill(int(show("MainPID")), signal.SIGSTOP)
        try:
            run(sys.executable, __file__, "ghosts", user=user)
        finally:
            os.kill(int(show("MainPID")), signal.SIGCONT)
    names = [key["name"] for key in edged("key", "list")["keys"]]
    expect("ghost" not in names, names)
    expect("asked for" in names, names)


def leave_ghosts() -> None:
    body = json.dumps({"name": "ghost", "role": "admin"}).encode()
    head = b"POST /api/keys HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", 8002), timeout=20) as connection:
            connection.sendall(head % len(body) + body)


@step
def key_survives() -> str:
    """After a restart the key is still good, and the local socket is there with its group."""
    # Often and fast, as somebody does who tries settings.
    for _ in range(7):
        restart()
    files()
    (entered,) = visited(login(ADMIN))
    expect(entered["result"]["authenticated"] is True, entered)
    journal_has("edged: stopping")
    journal_has("edged: stopped")
    expect(show("NRestarts") == "0", "it had to be started again")
    return journal_has("edged: stopping")


@step
def settings() -> str:
    """A setting that is wrong stops the start with one line that says where; a right one is taken."""
    file = SETTINGS / "50-test.toml"
    file.write_text('[[camera]]\nname = "Test"\nsorce = "test"\n')
    run("systemctl", "restart", "edged", check=False)
    line = journal_has("50-test.toml", "source")
    time.sleep(3)
    expect(show("ActiveState") == "failed", f"it is tried again and again: {show('ActiveState')}")
    file.write_text('[[camera]]\nname = "Test"\nsource = "test"\nsize = "320x240"\n')
    run("systemctl", "start", "edged")
    (_, listed) = visited(login(ADMIN), ("get_camera_list", {}))
    expect(listed["result"]["cameras"], listed)
    return line


@step
def ffmpeg() -> str:
    """Without ffmpeg a picture is refused with the remedy; with it, installed meanwhile, it is taken in the sandbox."""
    take = ("take_snapshot", {"device": "camera0"})
    _, answer = visited(login(ADMIN), take)
    expect("apt install ffmpeg" in json.dumps(answer), answer)
    run("apt-get", "install", "-y", "--no-install-recommends", "ffmpeg", "udev", seconds=400)
    _, answer = visited(login(ADMIN), take)
    expect("error" not in answer, answer)
    (picture,) = STATE.glob("media/snapshots/**/*.jpg")
    expect(picture.owner() == "edged" and picture.read_bytes()[:2] == b"\xff\xd8", picture)
    return f"{picture.name}, {picture.stat().st_size} bytes"


@step
def mediamtx() -> str:
    """MediaMTX runs in the sandbox, and a viewer outside sees the camera with the key only."""
    if not MEDIAMTX.exists():
        raise NotRun("no mediamtx on this machine (scripts/get-mediamtx)")
    shutil.copy(MEDIAMTX, "/usr/local/bin/mediamtx")
    until(lambda: "mediamtx: ready" in "\n".join(journal()), "MediaMTX is ready", 60)
    watched = watch(VIEWER["api_key"], frames=10).communicate(timeout=60)[1]
    expect("frame=   10" in watched, watched)
    strangers = watch("camera_service_sk_" + "0" * 64, frames=1).communicate(timeout=60)[1]
    expect("401" in strangers, strangers)
    return journal_has("mediamtx: ready")


def watch(key: str, frames: int = 100000) -> subprocess.Popen[str]:
    source = f"rtsp://any:{key}@{INSIDE}:8554/camera0"
    arguments = ["ffmpeg", "-hide_banner", "-rtsp_transport", "tcp", "-i", source]
    arguments += ["-frames:v", str(frames), "-f", "null", "-"]
    outside = ["ip", "netns", "exec", "outside", "runuser", "-u", "visitor", "--"]
    return subprocess.Popen([*outside, *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


RECORDINGS = STATE / "media/recordings"
PRE_ROLL = Path("/run/edged-work/pre-roll")
KILLS = 7


def pieces(before: frozenset[Path] = frozenset()) -> list[Path]:
    """What MediaMTX has written into memory, but for what was there before."""
    found = []
    for path in PRE_ROLL.rglob("*.mp4"):
        with contextlib.suppress(FileNotFoundError):  # too old, and gone meanwhile
            if path not in before and path.stat().st_size:
                found.append(path)
    return found


def children() -> tuple[int, int]:
    """How many MediaMTX and ffmpeg there are of edged's."""
    mine = processes()
    return mine.count("mediamtx"), mine.count("ffmpeg")


@step
def recorded() -> str:
    """With a pre-roll a camera is recorded from before it was asked for, under Landlock where there is one; after each
    of seven kills in a row the daemon is back at once and records on, and what is there verifies."""
    if not MEDIAMTX.exists():
        raise NotRun("no mediamtx on this machine (scripts/get-mediamtx)")
    file = SETTINGS / "50-test.toml"
    plain = file.read_text()
    file.write_text(f"{plain}pre_roll_seconds = 6\n")
    restart()
    until(lambda: len(pieces()) >= 3, "MediaMTX records into memory; the journal ends:\n" + "\n".join(journal()[-9:]))
    expect(not list(RECORDINGS.glob("camera0/*/*.mp4")), "it is recorded without being asked for")
    begun = edged("recording", "start", "camera0", "--filename", "story")
    expect(begun["pre_roll"] >= 4, begun)
    took = []
    for _ in range(KILLS):
        time.sleep(3)
        killed, before, began = show("MainPID"), frozenset(PRE_ROLL.rglob("*.mp4")), time.time()
        os.kill(int(killed), signal.SIGKILL)
        until(lambda killed=killed: show("MainPID") not in (killed, "0"), "it is started again")  # type: ignore[misc]
        until(partial(pieces, before), "it records again", 60)
        took.append(time.time() - began)
        until(lambda: children() == (1, 1), f"one MediaMTX and one ffmpeg: {children()}")
    time.sleep(3)
    ended = edged("recording", "stop", "camera0")
    shown = edged("recording", "show", "story")
    expect(1 <= shown["gaps"] <= KILLS and ended["duration"] > 4 + 3 * KILLS, (shown, ended))
    kept = sorted(RECORDINGS.glob("camera0/*/*.mp4"))
    until(lambda: all(Path(f"{path}.seal").exists() for path in kept), "everything is sealed")
    expect(all(path.owner() == "edged" for path in kept), kept)
    said = run("edged", "recording", "verify", RECORDINGS)
    copy = Path("/tmp/story.mp4")
    run("edged", "recording", "download", "story", "--to", copy)
    run("ffmpeg", "-v", "error", "-xerror", "-i", copy, "-f", "null", "-")
    run("edged", "recording", "delete", "story")
    expect(not list(RECORDINGS.glob("camera0/*/*")), "something is left")
    copy.unlink()
    file.write_text(plain)
    restart()
    expect(not [line for line in journal() if "Traceback" in line], "a traceback")
    expect(said, "verify says nothing")
    confined = not [line for line in journal() if "children_not_confined" in line]
    return (
        f"{'under' if confined else 'without'} Landlock; {len(kept)} files, {shown['gaps']} gaps; recorded on after"
        f" {min(took):.1f} to {max(took):.1f} s"
    )


@step
def revoked() -> str:
    """Revoking the key ends its session and its picture at once, and it is refused from then on."""
    staying = visit(login(VIEWER), stay=True)
    assert staying.stdout is not None
    expect(json.loads(staying.stdout.readline())["result"]["authenticated"] is True, "it did not come in")
    picture = watch(VIEWER["api_key"]) if MEDIAMTX.exists() else None
    if picture is not None:
        until(lambda: "read" in "\n".join(journal()), "the viewer is there", 5)
        time.sleep(4)
        expect(picture.poll() is None, "the picture ended by itself")
    began = time.monotonic()
    edged("key", "revoke", VIEWER["key_id"])
    told, _ = staying.communicate(timeout=20)
    ended = time.monotonic() - began
    expect(json.loads(told.splitlines()[-1]) == {"closed": 4401}, told)
    if picture is not None:
        picture.communicate(timeout=20)
    refusal, locked = visited(login(VIEWER), ("get_camera_list", {}))
    expect("error" in locked and refusal.get("result", {}).get("authenticated") is not True, (refusal, locked))
    restart()
    refusal, locked = visited(login(VIEWER), ("get_camera_list", {}))
    expect("error" in locked, locked)
    return f"{journal_has('gate: refused', 'reason=revoked')}; closed after {ended:.1f} s, the command included"


@step
def watchdog() -> str:
    """A daemon that hangs is started again."""
    drop_in = Path("/run/systemd/system/edged.service.d/patience.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nWatchdogSec=2\n")
    run("systemctl", "daemon-reload")
    restart()
    began = time.monotonic()
    hung = show("MainPID")
    os.kill(int(hung), signal.SIGSTOP)
    until(lambda: show("MainPID") not in (hung, "0") and show("ActiveState") == "active", "it is back")
    journal_has("Watchdog timeout")
    shutil.rmtree(drop_in.parent)
    run("systemctl", "daemon-reload")
    return f"back after {time.monotonic() - began:.1f} s"


@step
def stops() -> None:
    """Stopped it stays stopped, whoever asks; nothing of it is left running."""
    run("systemctl", "stop", "edged")
    said = run("edged", "key", "list", user="alice", check=False)
    expect("not running" in said and "systemctl start edged" in said, said)
    expect(show("ActiveState") == "inactive" and show("Result") == "success", journal())
    expect(not processes(), processes())
    run("systemctl", "start", "edged")
    edged("key", "list")


@step
def upgraded() -> None:
    """Installed over itself it is restarted, and nothing is asked or lost."""
    before = show("MainPID")
    run("apt-get", "install", "-y", "--reinstall", "--no-install-recommends", "/job/edged.deb")
    expect(show("MainPID") not in (before, "0"), "it is the old process")
    files(fresh=False)
    (entered,) = visited(login(ADMIN))
    expect(entered["result"]["authenticated"] is True, entered)


@step
def credential() -> None:
    """A secret that systemd keeps for it signs tokens."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    secret = "of-more-than-thirty-two-letters-and-no-name"
    store = Path("/etc/credstore/edged.shared_secret.issuer")
    store.parent.mkdir(mode=0o700, exist_ok=True)
    store.write_text(secret)
    restart()
    claims = {"user_id": "u", "role": "viewer", "iat": int(time.time()), "exp": int(time.time()) + 600}
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret))
    (entered,) = visited(("authenticate", {"auth_token": token, "auth_type": "jwt"}))
    store.unlink()
    expect(entered.get("result", {}).get("authenticated") is True, entered)
    restart()


@step
def wrapped() -> str:
    """A credential that systemd keeps encrypted wraps the signing keys; without it edged says what to do."""
    kept = signing_keys()
    plain = [json.loads(private)["d"].encode() for private in kept.values()]
    expect(plain and all(secret in stored() for secret in plain), "they were not plain")
    credential = Path("/etc/credstore.encrypted/edged.wrapping_key")
    credential.parent.mkdir(mode=0o700, exist_ok=True)
    encrypt = f"head -c 32 /dev/urandom | base64 | systemd-creds encrypt --name={credential.name} - {credential}"
    run("sh", "-c", encrypt)
    restart()
    expect(list(signing_keys()) == list(kept), "they are other keys")
    expect(not any(secret in stored() for secret in plain), "a private half still stands there")
    token = edged("token", "issue", "ann", "--role", "viewer", "--signing-key", "RS256")["token"]
    credential.unlink()
    run("systemctl", "restart", "edged", check=False)
    line = journal_has("edged.wrapping_key", "was not given", "signing-key abandon")
    run("systemctl", "stop", "edged")
    run("edged", "signing-key", "abandon", user="edged")
    run("systemctl", "start", "edged")
    expect(not set(signing_keys()) & set(kept), "it signs with what nobody can read")
    (entered,) = visited(("authenticate", {"auth_token": token, "auth_type": "jwt"}))
    expect(entered.get("result", {}).get("authenticated") is True, entered)
    return line


def signing_keys() -> dict[str, str]:
    """The private halves that there are, as they are stored."""
    with contextlib.closing(sqlite3.connect(STATE / "trust.db")) as database:
        return dict(database.execute("SELECT number, private FROM signing_keys WHERE private IS NOT NULL"))


def stored() -> bytes:
    """The whole state folder, but for pictures."""
    files = [file for file in STATE.rglob("*") if file.is_file() and "media" not in file.parts]
    return b"".join(file.read_bytes() for file in files)


@step
def removed() -> None:
    """apt remove takes the program and leaves keys and settings; installed again it knows them."""
    run("apt-get", "remove", "-y", "edged")
    expect(not SOCKET.exists() and not shutil.which("edged"), "it is still there")
    expect(run("systemctl", "is-active", "edged", check=False) != "active", "it is still running")
    expect((STATE / "trust.db").exists() and list(SETTINGS.iterdir()), "remove took what is the user's")
    run("apt-get", "install", "-y", "--no-install-recommends", "/job/edged.deb")
    expect(any(key["key_id"] == ADMIN["key_id"] for key in edged("key", "list")["keys"]), "the key is gone")


@step
def purged() -> str:
    """apt purge leaves nothing but the locked account."""
    run("apt-get", "purge", "-y", "edged")
    left = run("find", "/", "-xdev", "-name", "*edged*", "-not", "-path", "/job/*", "-not", "-path", "/proc/*")
    left += run("find", "/run", "/var/cache/apt", "-name", "*edged*")
    expect(not left, left)
    account = run("getent", "shadow", "edged")
    expect(account.split(":")[1].startswith("!"), "the account can be used")
    return "account edged, locked"


def whoami() -> str:
    """As the daemon knows whoever asks on the local socket."""
    import trio

    from edged.cli.client import call_once

    return str(trio.run(call_once, SOCKET, "whoami")["user_id"])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["visit", calls, *stay]:
            talk(json.loads(calls), stay=bool(stay))
        case ["post", host]:
            print(post(host))
        case ["ghosts"]:
            leave_ghosts()
        case ["whoami"]:
            print(whoami())
        case _:
            sys.exit(tell())
