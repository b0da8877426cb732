"""Recordings of the real MediaMTX: sealed, fetched with their evidence, verified elsewhere; each bit counts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from daemon_helpers import make_config, running_daemon
from patience import fail_after
from test_recordings import until_active

from edged.cli.downloads import fetch
from edged.cli.evidence import fetch_evidence, fetch_seal
from edged.cli.verification import verify
from edged.credentials.seal_signatures import read, read_thumbprints
from edged.credentials.seals import DerivedSeal

pytestmark = [pytest.mark.mediamtx, pytest.mark.ffmpeg, pytest.mark.slow]


async def until_closed(folder: Path) -> None:
    """Until no file is written any more: MediaMTX may begin one up to a second after it was told to stop."""
    quiet = 0
    while quiet < 15:
        await trio.sleep(0.1)
        quiet = 0 if list(folder.rglob("*.mp4")) else quiet + 1


async def test_a_recording_is_verified_elsewhere_and_every_change_is_found(tmp_path: Path) -> None:
    config = make_config(tmp_path, cameras=1, mediamtx=True)
    elsewhere = tmp_path / "elsewhere"
    with fail_after(80):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            where: Any = {"socket": Path(config.listen.unix), "directory": tmp_path, "as_json": False}
            for name, form in (("one", "fmp4"), ("two", "mkv")):
                await admin.call("start_recording", device="camera0", filename=name, format=form)
                await until_active(admin)
                await trio.sleep(1.2)
                await admin.call("stop_recording", device="camera0")
                await until_closed(config.recording.folder / "open")
            done = await trio.to_thread.run_sync(partial(fetch_evidence, "two", elsewhere, **where))
            assert (done["segments"], done["unsealed"]) == (1, 0)
            jwks = (await daemon.request("GET", "/.well-known/jwks.json")).body
            known = read_thumbprints(jwks)
            single = tmp_path / "alone.mkv"
            await trio.to_thread.run_sync(partial(fetch, "/files/recordings/two", single, **where))
            await trio.to_thread.run_sync(partial(fetch_seal, "two", single, **where))
            _, key = await daemon.create_key("viewer")
            told = await daemon.request("GET", "/api/recordings/two/evidence", key=key)
            (segment,) = json.loads(told.body)["segments"]
            reply = await daemon.request("GET", segment["download_url"], key=key)
            assert len(reply.body) == segment["file_size"]
            assert (await daemon.request("GET", segment["download_url"])).status == 401
            assert (await daemon.request("GET", "/files/segments/../../state/trust.db", key=key)).status == 404
            await admin.call("delete_recording", filename="one")
    # The daemon is gone.
    verdict = verify([elsewhere], known=known)
    assert (verdict.problems, verdict.notes, verdict.proven, verdict.segments) == ([], [], True, 1)
    # That is no segment but was made of one, which its seal names.
    made = read(single.with_name("alone.mkv.seal").read_bytes()).statement
    assert isinstance(made, DerivedSeal)
    assert (made.name, len(made.parts)) == ("two.mkv", 1)
    assert verify([single], known=known).problems == []
    assert verify([single, elsewhere], known=known).problems == []
    # What the box itself keeps, and the segment that was deleted.
    assert verify([config.recording.folder], known=known).problems == []
    (file,) = elsewhere.rglob("*.mp4")
    size = file.stat().st_size
    assert size > 10_000
    random = Random(5)
    for path in (file, file.with_name(f"{file.name}.seal"), *elsewhere.glob("*.statements")):
        data = path.read_bytes()
        for _ in range(20):
            changed = bytearray(data)
            changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
            path.write_bytes(bytes(changed))
            assert verify([elsewhere], known=known).problems, path
        path.write_bytes(data)
    assert verify([elsewhere], known=frozenset({"x" * 43})).problems[0].kind == "foreign"
    assert verify([elsewhere], known=known).problems == []
