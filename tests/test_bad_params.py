"""Odd params of every operation about recordings, pictures, clips, events and files: a clear error in each dialect and
over HTTP, never an internal one, and whatever was kept is there afterwards."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import fork_server
import pytest
import trio
from cli_helpers import Shell, wait_for_socket, write_config
from daemon_helpers import RunningDaemon, free_port, port_of
from fmp4_helpers import make_segment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import fail_after

from edged import operations
from edged.config.load import load
from edged.rpc.dialects import FAULTS
from edged.store import recordings
from edged.store.database import Database
from edged.store.migrations import TRUST
from edged.store.recordings import RecordingRecord
from edged.web.faults import STATUSES

CATALOGUE = operations.gather()
#: When the kept recording begins, Unix seconds.
BEGAN = 1_790_000_000
#: What each operation is asked about where nothing is odd; of what is asked, `kept` is never what is deleted.
GOOD: Mapping[str, Mapping[str, Any]] = {
    "start_recording": {"device": "camera0"},
    "stop_recording": {"device": "camera0"},
    "get_recording_status": {"device": "camera0"},
    "take_snapshot": {"device": "camera0"},
    "get_snapshot": {"device": "camera0", "at": BEGAN + 1},
    "create_clip": {"device": "camera0", "start": BEGAN, "end": BEGAN + 1},
    "create_event": {"device": "camera0", "kind": "motion", "snapshot": False},
    "get_timeline": {"device": "camera0"},
    "create_playback_link": {"device": "camera0", "start": BEGAN, "end": BEGAN + 1},
    "list_recordings": {},
    "list_snapshots": {},
    "get_recording_info": {"filename": "kept.mp4"},
    "get_recording_evidence": {"filename": "kept.mp4"},
    "protect_recording": {"filename": "other.mp4"},
    "unprotect_recording": {"filename": "other.mp4"},
    "delete_recording": {"filename": "other.mp4"},
    "get_snapshot_info": {"filename": "kept.jpg"},
    "delete_snapshot": {"filename": "other.jpg"},
    "create_file_link": {"filename": "kept.mp4"},
    "get_events": {},
    "get_storage_info": {},
}
#: Reasons that a caller may hear for what it has sent, and for a box without MediaMTX and ffmpeg.
REASONS = {
    "invalid_params", "not_found", "camera_not_found", "invalid_state", "already_recording", "dependency_failed",
    "unsupported", "rate_limited",
}  # fmt: skip
NAMES = [
    "", "\0", "a\0b", "/", "../x", "..", ".", "a/b", "%2e%2e%2fx", "%00", "x" * 10_000, "x" * 101 + ".mp4", "é.mp4",
    "名前", "\u202egnp.exe", "💥", "a b.mp4", "a\nb", "a\r\nX-Y: z", "-rf", "'; drop table recordings", " lead",
    "trail ", "\x7f", "\u0085", ".hidden", "a.mp4.", "x.exe", "nothing.mp4", "other", "OTHER.MP4", "other.mp4/",
    "camera0\0", "camera77", "/dev/video0", "/dev/../etc/passwd", "recording", "2999-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z", "2026-11-30",
    "2026-13-01T00:00:00Z", "2026-11-30T00:00:00+99:00", "٢٠٢٦", "now", "nan", "1e400", "-1", "99999999999999999999",
]  # fmt: skip
NUMBERS = [0, -1, -0.5, 1e308, -1e308, 1e-300, 2**31, 2**63, 2**64, 10**400, 253402300800, time.time() + 86400 * 365]
ODD = st.one_of(
    st.sampled_from(NAMES), st.sampled_from(NUMBERS), st.text(max_size=40), st.floats(), st.integers(),
    st.none(), st.booleans(), st.just([]), st.just({}), st.just([[[]]]), st.just({"a": None}),
)  # fmt: skip
FEW = settings(
    max_examples=400 if os.environ.get("EDGED_TEST_FULL") else 60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """An operation, and params of which one or two are odd."""
    name = draw(st.sampled_from(sorted(GOOD)))
    params = dict(GOOD[name])
    members = CATALOGUE.operations[name].params.__struct_encode_fields__
    for member in draw(st.lists(st.sampled_from(members), max_size=2)) if members else []:
        params[member] = draw(ODD)
    return name, params


async def fill(folder: Path) -> None:
    """Two recordings and two pictures of camera0, of which one each may be deleted."""
    async with Database.open(folder / "state" / "trust.db", TRUST, name="trust") as trust:
        pictures = folder / "state" / "media" / "snapshots" / "camera0"
        pictures.mkdir(parents=True)
        for count, word in enumerate(("kept", "other")):
            began = BEGAN + 600 * count
            day = time.strftime("%Y-%m-%d", time.gmtime(began))
            segment = folder / "state" / "media" / "recordings" / "camera0" / day / f"{began}-000000.mp4"
            segment.parent.mkdir(parents=True, exist_ok=True)
            segment.write_bytes(make_segment(at_ns=began * 10**9))
            (pictures / f"{word}.jpg").write_bytes(b"\xff\xd8 a picture \xff\xd9")
            record = RecordingRecord(
                recording_id=f"rec_{count:016x}", filename=f"{word}.mp4", camera="camera0", format="fmp4",
                began=float(began), ended=began + 0.6,
            )  # fmt: skip
            await trust.write(partial(recordings.insert, record=record))


class Box:
    """A running daemon, and an administrator's key."""

    def __init__(self, daemon: RunningDaemon, directory: Path, key: str) -> None:
        self.daemon, self.directory, self.key = daemon, directory, key

    async def ask(self, port: int, text: str) -> Any:
        """One frame as it is; its answer."""
        with fail_after(30):
            async with self.daemon.websocket(port) as client:
                await client.call("authenticate", auth_token=self.key) if port == self.daemon.port else (
                    await client.call("authenticate", token=self.key)
                )
                await client.connection.send_message(text)
                while "method" in (answer := json.loads(await client.connection.get_message())):
                    pass
                return answer


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box")
    directory = write_config(folder)
    text = (directory / "box.toml").read_text()
    for name in ("main", "compat"):
        text = text.replace(f"{name} = []", f'{name} = ["127.0.0.1:{free_port()}"]')
    (directory / "box.toml").write_text(text)
    trio.run(fill, folder)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    serving = fork_server.start(["-m", "edged", "serve", "--directory", directory], environ, folder / "log")
    try:
        wait_for_socket(folder / "run" / "edged.sock", serving, folder / "log")
        daemon = RunningDaemon(load(directory), folder / "log")
        found = Box(daemon, directory, trio.run(daemon.create_key, "admin")[1])
        trio.run(until_indexed, found)
        yield found
        trio.run(check_whole, found)
        serving.terminate()
        assert serving.wait(timeout=30) == 0, (folder / "log").read_text()
        said = (folder / "log").read_text()
        assert "Traceback" not in said
        assert "incident" not in said
    finally:
        serving.kill()
        serving.wait()


async def until_indexed(box: Box) -> None:
    with fail_after(30):
        async with box.daemon.local() as admin:
            while not (await admin.call("get_recording_info", filename="kept"))["file_size"]:
                await trio.sleep(0.05)


async def check_whole(box: Box) -> None:
    """Nothing that was kept is lost, or changed."""
    with fail_after(30):
        for name in ("recordings/kept.mp4", "snapshots/kept.jpg"):
            reply = await box.daemon.request("GET", f"/files/{name}", key=box.key)
            assert reply.status == 200, reply.body


def test_every_operation_about_files_has_a_row() -> None:
    """But for those that change what is kept of all cameras."""
    others = {"set_retention_policy", "cleanup_old_files"}
    named = {name for name, each in CATALOGUE.operations.items() if each.counted_as == "recordings"}
    assert named - others <= GOOD.keys() <= CATALOGUE.operations.keys()


@FEW
@given(call=calls(), is_old=st.booleans())
def test_odd_params_are_told_by_the_reasons_and_codes_of_the_contract(
    box: Box, call: tuple[str, dict[str, Any]], is_old: bool
) -> None:
    """Contract 4b: the code of the dialect, both codes in data, a sentence; NaN and the like are no JSON."""
    name, params = call
    text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": name, "params": params})
    port = port_of(box.daemon.config.listen.compat) if is_old else box.daemon.port
    judge(trio.run(box.ask, port, text), is_old, params)


def judge(answer: Any, is_old: bool, params: Mapping[str, Any]) -> None:
    """Whether it is what contract 4b says of odd params."""
    if "error" not in answer:
        assert "result" in answer
        return
    assert ("result" in answer) is is_old
    error = answer["error"]
    if any(isinstance(value, float) and not math.isfinite(value) for value in params.values()):
        assert error["code"] == -32700
        return
    data = error["data"]
    assert data["reason"] in REASONS, (error, params)
    rows = [row for reason, row in FAULTS.items() if reason.removeprefix("camera_") == data["reason"]]
    assert (data["code_v1"], data["code_v2"]) in [(old[0], new[0]) for old, new in rows]
    assert error["code"] == data["code_v1" if is_old else "code_v2"]
    assert data["detail"]
    assert not re.search(r"<class|object at 0x|Error\(|\bNone\b", data["detail"]), data["detail"]


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"take_snapshot"}))
async def test_every_param_with_every_odd_value(box: Box, name: str) -> None:
    """One after another on one connection, which goes on; take_snapshot takes a picture each time."""
    with fail_after(60):
        async with box.daemon.websocket() as client:
            await client.call("authenticate", auth_token=box.key)
            for member in CATALOGUE.operations[name].params.__struct_encode_fields__:
                odd: tuple[Any, ...] = (*NAMES, *NUMBERS, None, True, [], {})
                for value in odd:
                    params = {**GOOD[name], member: value}
                    judge(await client.ask(name, **params), False, params)
            assert await client.call("ping") == "pong"


@FEW
@given(call=calls())
def test_odd_requests_are_told_in_json_by_the_statuses_of_the_contract(
    box: Box, call: tuple[str, dict[str, Any]]
) -> None:
    """By each operation's route: in the path, in the query, in the body."""
    name, params = call
    rest = CATALOGUE.operations[name].rest
    assert rest is not None
    path, left = rest.path, dict(params)
    for member in re.findall(r"{(\w+)", path):
        value = left.pop(member)
        text = value if isinstance(value, str) else json.dumps(value)
        path = path.replace(f"{{{member}}}", quote(text.encode("utf-8", "surrogatepass"), safe=""))
    body: object = None
    if rest.source == "query":
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in left.items()}
        path += f"?{urlencode(texts, errors='surrogatepass')}" if texts else ""
    else:
        body = left
    reply = trio.run(partial(box.daemon.request, rest.method, path, key=box.key, body=body))
    if reply.status < 300:
        return
    if reply.status in (404, 405, 414, 431) and "code" not in reply.json:
        pytest.fail(reply.body.decode())
    assert 400 <= reply.status < 500 or reply.json["code"] in ("dependency_failed", "unsupported"), reply.body
    code = reply.json["code"]
    assert reply.json["detail"] or code == "method_not_allowed"
    if code in STATUSES:
        assert reply.status == STATUSES[code][0]


@FEW
@given(
    kind=st.sampled_from(["recordings", "snapshots", "segments"]),
    name=st.one_of(st.sampled_from(NAMES), st.text(max_size=40)),
    is_raw=st.booleans(),
    head=st.sampled_from([{}, {"Range": "bytes=0-"}, {"Range": "bytes=9999999999999999999-"}, {"Range": "x"}]),
)
def test_odd_names_of_files_are_told_in_json(
    box: Box, kind: str, name: str, is_raw: bool, head: dict[str, str]
) -> None:
    """As they are, where HTTP lets them through, and percent-encoded."""
    safe = "".join(each for each in name if "!" <= each <= "~" and each not in "?#") if is_raw else ""
    path = f"/files/{kind}/{safe}" if is_raw else f"/files/{kind}/{quote(name, safe='')}"
    reply = trio.run(partial(box.daemon.request, "GET", path, key=box.key, headers=head))
    assert reply.status in (200, 206, 400, 404, 416, 431), reply.body
    if reply.status >= 400:
        assert reply.json["code"] in ("bad_request", "invalid_params", "not_found", "bad_range", "head_too_large")


#: Lines of the command, what each ends with, and a word of what it says.
LINES = [
    (["recording", "show", "../etc/passwd"], "plain file name"),
    (["recording", "show", "x" * 10_000], "plain file name"),
    (["recording", "show", "nothing.mp4"], "no recording"),
    (["recording", "delete", "nothing.mp4", "--yes"], ""),
    (["recording", "start", "camera0", "--duration", "-5"], "duration"),
    (["recording", "start", "camera0", "--duration", "nan"], "duration"),
    (["recording", "start", "camera0", "--duration", "1e300"], "duration"),
    (["recording", "start", "camera77"], "camera77"),
    (["recording", "start", "camera0", "--format", "avi"], "avi"),
    (["recording", "start", "camera0", "--filename", "a/b"], "plain file name"),
    (["recording", "clip", "camera0", "2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z"], ""),
    (["recording", "clip", "camera0", "yesterday", "today"], "ISO 8601"),
    (["recording", "clip", "camera0", "2026-09-22T00:00:00Z", "2026-09-21T00:00:00Z"], "later"),
    (["recording", "download", "nothing.mp4"], "no recording"),
    (["recording", "list", "--limit", "0"], "limit"),
    (["camera", "snapshot", "camera0", "--at", "2999-01-01T00:00:00Z"], "future"),
    (["camera", "snapshot", "camera0", "--filename", ".."], ""),
    (["camera", "timeline", "camera0", "--start", "2999-01-01T00:00:00Z"], "future"),
    (["camera", "timeline", "camera0", "--end", "2999-01-01T00:00:00Z"], "future"),
    (["camera", "playback", "camera0", "--start", "2026-13-01", "--end", "2026-09-21T00:00:00Z"], "ISO 8601"),
    (["camera", "event", "camera0", "NO KIND"], "kind"),
    (["camera", "event", "camera0", "motion", "--record-seconds", "-1"], "record"),
    (["events", "--since", "x"], "cursor"),
    (["snapshot", "show", "nothing.jpg"], "no snapshot"),
    (["snapshot", "delete", "%00", "--yes"], ""),
]


@pytest.mark.parametrize(("line", "word"), LINES, ids=[" ".join(line)[:60] for line, _ in LINES])
def test_odd_lines_end_with_a_sentence(
    box: Box, line: list[str], word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another exit code than 0, one sentence of what is wrong, and no traceback."""
    ran = Shell(monkeypatch, capsys, box.directory).run(*line)
    assert ran.code != 0, ran.out
    assert ran.err.strip()
    assert "Traceback" not in ran.err
    assert word in ran.err, ran.err
