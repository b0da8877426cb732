"""get_timeline over the whole daemon: the times it is asked for, its pages, and the command."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import fork_server
import trio
from daemon_helpers import make_config, running_daemon
from fmp4_helpers import make_segment
from patience import fail_after

from edged.config.model import Config
from edged.store import recordings
from edged.store.database import Database
from edged.store.migrations import TRUST
from edged.store.recordings import RecordingRecord

BEGAN = 1_790_000_000
DAY = {"start": "2026-09-21T00:00:00Z", "end": "2026-09-22T00:00:00Z"}
BAD: Sequence[tuple[dict[str, object], str]] = (
    ({"start": "yesterday", "end": DAY["end"]}, "start is no ISO 8601 time"),
    ({"start": DAY["end"], "end": DAY["start"]}, "end must lie behind start"),
    ({"start": DAY["end"], "end": DAY["end"]}, "end must lie behind start"),
    ({"start": "9000-01-01T00:00:00Z"}, "start lies in the future"),
    ({"end": "1969-12-31T00:00:00Z"}, "outside of the years"),
    ({**DAY, "cursor": "nothing"}, "cursor is none of this list"),
    ({**DAY, "limit": 0}, "limit"),
)


async def run(config: Config, *words: str) -> str:
    """What a command shows."""
    command = ["-m", "edged", *words, "--socket", str(config.listen.unix)]
    done = await trio.to_thread.run_sync(fork_server.run, command, os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


async def plant(folder: Path) -> None:
    """Five files of 10 s, the third a minute behind the second, in one recording of camera0; and one of a camera that
    is gone."""
    async with Database.open(folder / "state" / "trust.db", TRUST, name="trust") as trust:
        for number, camera in enumerate(("camera0", "camera7")):
            for offset in (0, 10, 80, 90, 100)[: 5 if number == 0 else 1]:
                began = BEGAN + offset
                place = (
                    folder / "state" / "media" / "recordings" / camera / time.strftime("%Y-%m-%d", time.gmtime(began))
                )
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{began}-000000.mp4").write_bytes(make_segment(parts=30, at_ns=began * 10**9))
            record = RecordingRecord(
                recording_id=f"rec_{number:016x}", filename=f"{camera}.mp4", camera=camera, format="fmp4",
                began=float(BEGAN), ended=BEGAN + 120.0,
            )  # fmt: skip
            await trust.write(partial(recordings.insert, record=record))


async def test_it_tells_what_is_recorded_and_what_is_missing_page_by_page(tmp_path: Path) -> None:
    await plant(tmp_path)
    config = make_config(tmp_path, cameras=1)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            while not (whole := await admin.call("get_timeline", device="camera0", **DAY))["spans"]:
                await trio.sleep(0.05)
            assert whole["spans"] == [
                {"start": "2026-09-21T14:13:20.000Z", "end": "2026-09-21T14:13:40.000Z"},
                {"start": "2026-09-21T14:14:40.000Z", "end": "2026-09-21T14:15:10.000Z"},
            ]
            assert whole["gaps"] == [
                {"start": "2026-09-21T14:13:40.000Z", "end": "2026-09-21T14:14:40.000Z"},
                {"start": "2026-09-21T14:15:10.000Z", "end": "2026-09-21T14:15:20.000Z"},
            ]
            assert (whole["start"], whole["end"]) == ("2026-09-21T00:00:00.000Z", "2026-09-22T00:00:00.000Z")
            assert "next_cursor" not in whole
            first = await admin.call("get_timeline", device="camera0", **DAY, limit=1)
            last = await admin.call("get_timeline", device="camera0", **DAY, limit=1, cursor=first["next_cursor"])
            assert first["end"] == last["start"] == whole["spans"][1]["start"]
            assert first["spans"] + last["spans"] == whole["spans"]
            assert first["gaps"] + last["gaps"] == whole["gaps"]
            # Of a camera that is gone, for those who might see it.
            assert len((await admin.call("get_timeline", device="camera7", **DAY))["spans"]) == 1
            # Without times the last day, in which nothing was recorded.
            await admin.call("create_event", device="camera0", kind="motion", text="gate", snapshot=False)
            late = await admin.call("get_timeline", device="camera0")
            assert late["spans"] == late["gaps"] == []
            assert late["events"][-1]["details"]["text"] == "gate"
            command = ["camera", "timeline", "camera0", "--start", DAY["start"], "--end", DAY["end"]]
            shown = (await run(config, *command)).splitlines()
            assert [line.split()[-1] for line in shown[1:]] == ["recorded", "missing", "recorded", "missing"]
            assert json.loads(await run(config, *command, "--json")) == whole
            for params, said in BAD:
                error = (await admin.ask("get_timeline", device="camera0", **params))["error"]
                assert error["data"]["reason"] == "invalid_params"
                assert said in error["data"]["detail"]
