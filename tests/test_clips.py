"""Clips and pictures out of recordings over the whole daemon, with the real MediaMTX and ffmpeg."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fork_server
import msgspec
import pytest
import trio
from daemon_helpers import Conversation, RunningDaemon, make_config, running_daemon
from fmp4_helpers import make_segment
from patience import fail_after
from PIL import Image, ImageChops, ImageStat

from edged.cli.verification import verify
from edged.clock import read_iso
from edged.credentials.seal_signatures import read, read_thumbprints
from edged.credentials.seals import DerivedSeal
from edged.mediamtx import settings
from edged.mediamtx.stills import Stills

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg, pytest.mark.slow]


async def record(client: Conversation, folder: Path, seconds: float) -> float:
    """Record camera0 for so long, and go on; Unix seconds when the first picture was there."""
    await client.call("start_recording", device="camera0", filename="yard")
    while not [path for path in (folder / "open").rglob("*.mp4") if path.stat().st_size > 5000]:
        await trio.sleep(0.05)
    began = time.time()
    await trio.sleep(seconds)
    return began


def length(file: Path) -> float:
    """Seconds of a file that ffmpeg decodes whole, without an error."""
    subprocess.run(["ffmpeg", "-v", "error", "-xerror", "-i", file, "-f", "null", "-"], check=True)
    command: list[str | Path] = ["ffprobe", "-v", "error", "-show_format", "-of", "json", file]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["format"]["duration"])


async def fetch(daemon: RunningDaemon, key: str, url: str, file: Path) -> Path:
    reply = await daemon.request("GET", url, key=key)
    assert reply.status == 200, reply.body
    file.write_bytes(reply.body)
    return file


def decode(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image.convert("RGB")


def distance(one: Image.Image, other: Image.Image) -> float:
    """How different two pictures are: 0 to 255, in the mean of all points."""
    return float(sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3)


def frame(file: Path, second: float) -> Image.Image:
    """The picture of a file at this second."""
    command: list[str | Path] = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        file,
        "-ss",
        f"{second:.3f}",
        "-frames:v",
        "1",
        "-f",
        "image2pipe",
    ]
    return decode(subprocess.run([*command, "-c:v", "png", "-"], check=True, capture_output=True).stdout)


async def test_a_clip_is_cut_from_what_is_recorded_and_lives_like_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across files, with the one that is being written; the recording goes on, and its deletion leaves the clip."""
    monkeypatch.setattr(settings, "SEGMENT_DURATION", "3s")
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, operator = await daemon.create_key("operator")
            _, viewer = await daemon.create_key()
            began = await record(admin, config.recording.folder, 10)
            asked = time.time()
            clip = await admin.call("create_clip", device="camera0", start=began + 1, end=asked, filename="visit")
            # The part that holds its end was waited for.
            assert asked <= read_iso(clip["end_time"]) + 0.01
            assert (clip["filename"], clip["format"], clip["missing"]) == ("visit.mp4", "mp4", [])
            file = await fetch(daemon, viewer, clip["download_url"], tmp_path / "visit.mp4")
            # From the key frame, which are two seconds apart, and to the last whole part of a second.
            assert 7 < clip["duration"] < 12
            assert length(file) == pytest.approx(clip["duration"], abs=0.7)
            assert read_iso(clip["start_time"]) <= began + 1
            # The last seconds alone are in the file that is being written, or in it and the one before.
            late = await daemon.request(
                "POST", "/api/cameras/camera0/clips", key=operator,
                body={"start": time.time() - 2, "end": str(time.time())},
            )  # fmt: skip
            assert late.status == 201, late.body
            assert late.json["filename"].startswith("camera0_")
            assert late.json["filename"].endswith("_clip.mp4")
            assert length(await fetch(daemon, viewer, late.json["download_url"], tmp_path / "late.mp4")) > 0.5
            listed = (await admin.call("list_recordings"))["files"]
            assert all(item["file_size"] > 0 and item["duration"] > 0.5 for item in listed)
            names = [item["filename"] for item in listed]
            assert names == [late.json["filename"], "visit.mp4", "yard.mp4"]
            shown = await admin.call("get_recording_info", filename="visit")
            assert (shown["status"], shown["file_size"] > 0) == ("STOPPED", True)
            await admin.call("delete_recording", filename=late.json["filename"])
            # A file is on the disk a second after its begin: until then there is nothing that the stop could wait for.
            while not list((config.recording.folder / "open").rglob("*.mp4")):
                await trio.sleep(0.01)
            await admin.call("stop_recording", device="camera0")
            await admin.call("delete_recording", filename="yard")
            # What was made while its end was being written is made anew, the same, and gets its seal.
            before = await daemon.request("GET", "/api/recordings/visit/evidence", key=viewer)
            assert before.json["seal"] == ""
            again = await fetch(daemon, viewer, clip["download_url"], tmp_path / "again.mp4")
            assert again.read_bytes() == file.read_bytes()
            await judge_seal(daemon, viewer, again, clip)
            (config.recording.folder / "joined" / f"{clip['recording_id']}.mp4").unlink()
            anew = await fetch(daemon, viewer, clip["download_url"], tmp_path / "anew.mp4")
            assert length(anew) == pytest.approx(length(file), abs=0.2)
            await admin.call("delete_recording", filename="visit")
            left = [path for path in config.recording.folder.rglob("*") if path.is_file()]
            assert left == []


async def judge_seal(daemon: RunningDaemon, key: str, file: Path, clip: dict[str, Any]) -> None:
    """The clip has a seal that names its segments, and verifies beside it and beside them; a changed bit does not."""
    evidence = (await daemon.request("GET", f"/api/recordings/{clip['recording_id']}/evidence", key=key)).json
    made = read(evidence["seal"].encode()).statement
    assert isinstance(made, DerivedSeal)
    assert (made.name, len(made.parts)) == (clip["filename"], len(evidence["segments"]))
    assert len(made.parts) > 1
    seal = file.with_name(f"{file.name}.seal")
    seal.write_text(evidence["seal"])
    known = read_thumbprints((await daemon.request("GET", "/.well-known/jwks.json")).body)
    for paths in ([file], [file, daemon.config.recording.folder]):
        verdict = verify(paths, known=known)
        assert (verdict.problems, verdict.proven) == ([], True)
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert verify([file], known=known).problems
    file.write_bytes(data)
    # It stays the same file for whoever goes on with a download.
    tags = [(await daemon.request("HEAD", clip["download_url"], key=key)).headers["etag"] for _ in range(2)]
    assert tags[0] == tags[1]


async def test_pictures_out_of_a_recording_are_those_of_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a closed file and from the one that is being written, as a file that is kept and as bytes."""
    monkeypatch.setattr(settings, "SEGMENT_DURATION", "4s")
    config = make_config(tmp_path, cameras=2, mediamtx=True)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, viewer = await daemon.create_key()
            began = await record(admin, config.recording.folder, 8)
            written = {}
            for second in (1.3, 2.9, 3.1, 6.5):
                taken = await admin.call("get_snapshot", device="camera0", at=began + second, format="png")
                assert abs(read_iso(taken["timestamp"]) - (began + second)) < 1.1
                written[read_iso(taken["timestamp"])] = decode(
                    (await daemon.request("GET", taken["download_url"], key=viewer)).body
                )
            clip = await admin.call("create_clip", device="camera0", start=began, end=began + 7)
            await refused_requests(daemon, admin, viewer, began)
            await by_command(daemon, tmp_path, began)
            await admin.call("stop_recording", device="camera0")
            # After its end the last picture is the one, whatever the time.
            last = await daemon.request("GET", f"/api/cameras/camera0/snapshot.jpg?at={time.time()}", key=viewer)
            assert (last.status, decode(last.body).size) == (200, (320, 240))
            file = await fetch(daemon, viewer, clip["download_url"], tmp_path / "clip.mp4")
    # The daemon, which is of this process, is gone: it would be held up.
    kept = {float(path.stem.replace("-", ".")): path for path in (config.recording.folder / "camera0").rglob("*.mp4")}
    written[read_iso(clip["start_time"])] = frame(file, 0)
    for at, picture in written.items():
        began = max(each for each in kept if each <= at + 0.001)
        # The same picture, the one before or the one behind it, each from half-way to it on; the test picture moves.
        places = [max(0.0, at - began + (each - 0.5) / 15) for each in (-1, 0, 1)]
        near = [distance(picture, frame(kept[began], place)) for place in places if place < 4]
        far = distance(picture, frame(kept[began], (at - began + 1.9) % 3.8))
        assert min(near) < 2 < far, (at - began, near, far)


async def refused_requests(daemon: RunningDaemon, admin: Conversation, viewer: str, began: float) -> None:
    """Each error says what is wrong; nothing is made."""
    before = (await admin.call("list_recordings"))["total"]
    now = time.time()
    for start, end, said in (
        (now + 100, now + 200, "end lies in the future"),
        (now - 5, now - 10, "end must be later than start"),
        (now - 5, now - 5, "end must be later than start"),
        (now - 200_000, now, "24 hours"),
        ("yesterday", now, "start is no ISO 8601 time"),
        ("2026-01-01T10:00:00", now, "start has no time zone"),
        ("-1", now, "start is no ISO 8601 time"),
        (-1, now, "outside of the years"),
        (1e300, now, "outside of the years"),
        (began - 3600, began - 3000, "nothing is recorded of camera0"),
    ):
        error = (await admin.ask("create_clip", device="camera0", start=start, end=end))["error"]
        assert said in error["data"].get("detail", error["message"]), error
    for name in ("../x", "a.mkv", "x" * 200):
        error = (await admin.ask("create_clip", device="camera0", start=began, end=now, filename=name))["error"]
        assert error["code"] == -32602
    assert (await admin.call("list_recordings"))["total"] == before
    for at, reason in ((now + 100, "invalid_params"), (began - 3600, "not_found"), ("now", "invalid_params")):
        error = (await admin.ask("get_snapshot", device="camera0", at=at))["error"]
        assert error["data"]["reason"] == reason
    for target, status in (
        (f"camera0/snapshot.jpg?at={now + 100}", 400),
        ("camera0/snapshot.jpg?at=x", 400),
        (f"camera1/snapshot.jpg?at={now}", 404),
        (f"camera0/snapshot.jpg?at={began + 1}", 200),
    ):
        assert (await daemon.request("GET", f"/api/cameras/{target}", key=viewer)).status == status
    # A ticket opens the live picture and not what was recorded.
    ticket = (await admin.call("create_ticket", device="camera0"))["ticket"]
    for query, status in (("", 200), (f"&at={began + 1}", 403)):
        reply = await daemon.request("GET", f"/api/cameras/camera0/snapshot.jpg?ticket={ticket}{query}")
        assert reply.status == status


async def by_command(daemon: RunningDaemon, folder: Path, began: float) -> None:
    """Both by the command line."""
    where = ["--socket", daemon.config.listen.unix or str(daemon.config.paths.runtime / "edged.sock"), "--json"]
    for words, member in (
        (["recording", "clip", "camera0", str(began), str(began + 3), "--filename", "short"], "short.mp4"),
        (["camera", "snapshot", "camera0", "--at", str(began + 2), "--filename", "then"], "then.jpg"),
    ):
        command = ["-m", "edged", *words, *where]
        done = await trio.to_thread.run_sync(fork_server.run, command, os.environ, folder)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["filename"] == member


async def test_what_was_not_recorded_in_between_is_said(tmp_path: Path) -> None:
    """Two recordings with a pause, and a clip over both: it holds what there is."""
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    config = msgspec.structs.replace(config)
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            _, viewer = await daemon.create_key()
            began = await record(admin, config.recording.folder, 3)
            await admin.call("stop_recording", device="camera0")
            await trio.sleep(3)
            await record(admin, config.recording.folder, 3)
            await admin.call("stop_recording", device="camera0")
            await trio.sleep(2)
            clip = await admin.call("create_clip", device="camera0", start=began - 10, end=time.time())
            assert len(clip["missing"]) == 3
            assert 3 < clip["duration"] < 9
            file = await fetch(daemon, viewer, clip["download_url"], tmp_path / "clip.mp4")
            assert length(file) == pytest.approx(clip["duration"], abs=0.7)
            assert (await admin.call("get_recording_info", filename=clip["filename"]))["gaps"] == 1


async def test_whoever_is_revoked_while_a_recorded_picture_is_decoded_gets_and_keeps_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, cameras=1)
    began = int(time.time()) - 600
    folder = config.recording.folder / "camera0" / f"{datetime.fromtimestamp(began, UTC):%Y-%m-%d}"
    folder.mkdir(parents=True)
    (folder / f"{began}-000000.mp4").write_bytes(make_segment(at_ns=began * 10**9))
    with fail_after(30):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:

            async def decode(*_: object, **__: object) -> bytes:
                await admin.call("revoke_key", key_id=operator)
                return b"\xff\xd8 a picture \xff\xd9"

            # The files are indexed after the start.
            while "error" in await admin.ask("create_clip", device="camera0", start=began, end=began + 1):
                await trio.sleep(0.02)
            monkeypatch.setattr(Stills, "decode", decode)
            for method, path, body in (
                ("POST", "/api/cameras/camera0/recorded-snapshots", {"at": began + 1, "filename": "then"}),
                ("GET", f"/api/cameras/camera0/snapshot.jpg?at={began + 1}", None),
            ):
                operator, secret = await daemon.create_key("operator")
                reply = await daemon.request(method, path, key=secret, body=body)
                assert (reply.status, b"a picture" in reply.body) == (401, False)
            assert (await admin.call("list_snapshots"))["total"] == 0
            assert not list(config.snapshots.folder.rglob("then*"))
