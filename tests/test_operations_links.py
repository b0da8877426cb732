"""operations/links.py: a link is made for whoever may open its file, absolute where edged knows its own name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
import trio
import trio.testing
from operations_helpers import NOW, Bench, KeptRecordings, make_recording
from web_helpers import JPEG, LOCAL, REMOTE, UNIX

from edged.access.links import MOST_OF_ONE
from edged.clock import iso
from edged.credentials.callers import Caller, Link, Peer
from edged.library.snapshots import Snapshots
from edged.operations import links
from edged.operations.caller_sessions import Session
from edged.operations.links import with_links
from edged.operations.own_urls import OwnUrls

REACHED = dataclasses.replace(REMOTE, reached="192.0.2.1:8002")


class Box:
    """A bench with a recording and a picture of camera0."""

    def __init__(self, folder: Path, public_url: str = "") -> None:
        self.recordings = KeptRecordings(make_recording(0))
        self.snapshots = Snapshots(folder)
        self.bench = Bench(recordings=self.recordings, snapshots=self.snapshots, own_urls=OwnUrls(public_url, 8002))

    async def link(self, caller: Caller, peer: Peer = REACHED, **params: Any) -> Any:
        given = {"filename": "gate-0", **params}
        return await self.bench.ask(self.bench.session(caller, peer), "create_file_link", **given)

    def opens(self, url: str) -> bool:
        """Whether the link of this URL is good at the gate."""
        parts = urlsplit(url)
        said = dict(parse_qsl(parts.query))
        link = Link(f"{parts.path}?", said["exp"], said["by"], said["sig"])
        return self.bench.gate.is_good(link, "http")


@pytest.fixture
async def box(tmp_path: Path) -> Box:
    made = Box(tmp_path)
    await made.snapshots.save("shot", "camera0", JPEG, "jpg", NOW)
    return made


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "/files/recordings/gate-0.mp4"),
        ({"filename": "gate-0.mp4", "kind": "recording"}, "/files/recordings/gate-0.mp4"),
        ({"filename": "shot", "kind": "snapshot"}, "/files/snapshots/shot.jpg"),
    ],
)
async def test_a_link_names_the_file_with_its_ending_and_opens_it_until_its_end(
    box: Box, params: dict[str, Any], path: str
) -> None:
    made = await box.link(box.bench.caller(), ttl=60, **params)
    assert urlsplit(made.url)._replace(query="").geturl() == f"http://192.0.2.1:8002{path}"
    assert (made.filename, made.expires_at) == (path.rpartition("/")[2], iso(NOW + 60))
    assert box.opens(made.url)
    assert not box.opens(made.url.replace(path, "/files/recordings/other.mp4"))
    box.bench.time += 60
    assert not box.opens(made.url)


@pytest.mark.parametrize(
    ("peer", "public", "base"),
    [
        (REACHED, "", "http://192.0.2.1:8002"),
        (REACHED, "https://box.example", "https://box.example"),
        (UNIX, "", "http://localhost:8002"),
        # Where edged cannot know by what name it is reached it says a path.
        (dataclasses.replace(REACHED, proxy="192.0.2.9"), "", ""),
        (LOCAL, "", ""),
    ],
)
async def test_a_link_is_absolute_where_edged_knows_how_it_is_reached(
    tmp_path: Path, peer: Peer, public: str, base: str
) -> None:
    box = Box(tmp_path, public)
    url = (await box.link(box.bench.caller(), peer)).url
    assert url.startswith(f"{base}/files/recordings/gate-0.mp4?exp=")


async def test_a_link_says_the_end_of_its_credential_where_that_comes_first(box: Box) -> None:
    made = await box.link(box.bench.caller(expires_at=NOW + 30), ttl=3600)
    assert made.expires_at == iso(NOW + 30)


@pytest.mark.parametrize("params", [{"ttl": 4}, {"ttl": 3601}, {"ttl": "60"}, {"kind": "clip"}, {"filename": None}])
async def test_params_that_are_none_make_no_link(box: Box, params: dict[str, Any]) -> None:
    given = {"filename": "gate-0", **params}
    assert await box.bench.outcome(box.bench.caller(), "create_file_link", **given) == "invalid_params"


@pytest.mark.parametrize(("kind", "name"), [("recording", "gate-0"), ("snapshot", "shot")])
async def test_nobody_makes_a_link_to_what_they_may_not_see(box: Box, kind: str, name: str) -> None:
    """It is not found, as what is not there."""
    narrow = box.bench.caller(camera_access=("camera1",))
    for caller, asked in ((narrow, name), (box.bench.caller(), "absent")):
        assert await box.bench.outcome(caller, "create_file_link", filename=asked, kind=kind) == "not_found"
    monitor = box.bench.caller("monitor")
    assert await box.bench.outcome(monitor, "create_file_link", filename=name, kind=kind) == "missing_scope"


async def test_a_camera_that_is_lost_while_its_recording_is_looked_up_gets_no_link(box: Box) -> None:
    caller = box.bench.caller()
    box.recordings.meanwhile = lambda: box.bench.narrow(caller, "camera1")
    assert await box.bench.outcome(caller, "create_file_link", filename="gate-0") == "not_found"


async def test_rows_of_a_reply_become_links_where_a_client_opens_them_as_they_are(box: Box) -> None:
    """One file and a list; on the unix socket, of other results, and of nobody's session nothing changes."""
    caller = box.bench.caller()
    session = box.bench.session(caller, REACHED)
    one, many = [await box.bench.ask(session, *each) for each in (("whoami",), ("list_recordings",))]
    signed = await with_links(many, box.bench.services, session)
    assert [box.opens(each.download_url) for each in signed.files] == [True]
    assert msgspec.structs.replace(signed, files=many.files) == many
    assert box.opens((await with_links(many.files[0], box.bench.services, session)).download_url)
    assert await with_links(one, box.bench.services, session) is one
    empty = msgspec.structs.replace(many, files=[])
    assert await with_links(empty, box.bench.services, session) is empty
    for other in (box.bench.session(caller, UNIX), box.bench.session(None, REACHED)):
        assert await with_links(many, box.bench.services, other) is many


async def test_where_too_many_credentials_have_links_the_rows_stay_as_they_are(box: Box) -> None:
    """A list is no less good without links: it is no error."""
    caller = box.bench.caller()
    for number in range(MOST_OF_ONE):
        other = dataclasses.replace(caller, credential_id=f"{number}", method="jwt_local", subject="ada")
        box.bench.gate.links.signer(other, 600)
    last = box.bench.session(
        dataclasses.replace(caller, credential_id="last", method="jwt_local", subject="ada"), REACHED
    )
    many = await box.bench.ask(box.bench.session(caller), "list_recordings")
    assert await with_links(many, box.bench.services, last) is many


async def test_a_long_list_is_signed_in_turns_and_a_single_file_at_once(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others run meanwhile; between a result and its reply there is no checkpoint where nothing takes long."""
    session: Session = box.bench.session(box.bench.caller(), REACHED)
    listed = await box.bench.ask(session, "list_recordings")
    long = msgspec.structs.replace(listed, files=listed.files * 900)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(links, "TURN_SECONDS", 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        await trio.lowlevel.checkpoint()
        began = turns
        shown = await with_links(long, box.bench.services, session)
        assert turns - began > len(long.files) / 2
        nursery.cancel_scope.cancel()
    assert [row.filename for row in shown.files] == [row.filename for row in long.files]
    assert all(row.download_url.startswith("http://192.0.2.1:8002/") for row in shown.files)
    monkeypatch.undo()
    with trio.testing.assert_no_checkpoints():
        one = await with_links(listed.files[0], box.bench.services, session)
    assert one.download_url.startswith("http://")


def test_the_usual_life_of_a_link_is_minutes() -> None:
    assert links.USUAL == 600
