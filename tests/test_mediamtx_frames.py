"""Pictures: whole JPEGs out of a stream, one ffmpeg for everybody who looks, and what happens when it ends."""

from __future__ import annotations

import io
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from patience import fail_after
from pictures_helpers import PASSWORD, Camera, Spawner, command_lines, eventually, open_mediamtx, publish, write_script
from PIL import Image

from edged.errors import DependencyFailed
from edged.mediamtx import causes, live_picture
from edged.mediamtx import frames as module
from edged.mediamtx.causes import NoPicture
from edged.mediamtx.ffmpeg import (
    Complaints,
    _find_wheel,
    find_ffmpeg,
    make_playlist,
    password_of,
    private_file,
    remove_leftovers,
    secrets_of,
)
from edged.mediamtx.frames import Frames
from edged.mediamtx.pictures import PictureParser, convert_arguments, picture_arguments
from edged.mediamtx.sources.usb import Usb

ffmpeg = pytest.mark.ffmpeg
mediamtx = pytest.mark.mediamtx


def part(body: bytes) -> bytes:
    """As ffmpeg writes it."""
    return b"--ffmpeg\r\nContent-type: image/jpeg\r\nContent-length: %d\r\n\r\n%s\r\n" % (len(body), body)


@given(st.lists(st.binary(max_size=200).map(lambda tail: b"\xff\xd8" + tail), max_size=6), st.data())
def test_pictures_come_out_as_they_went_in_however_the_stream_is_cut(bodies: list[bytes], data: st.DataObject) -> None:
    """No cut, and no marker or head inside a picture, changes what comes out."""
    stream = b"".join(map(part, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = PictureParser()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [picture for piece in pieces for picture in parser.feed(piece)] == bodies


@given(st.binary(max_size=3000))
def test_the_parser_knows_no_other_error(data: bytes) -> None:
    """Whatever arrives gives pictures or a ValueError."""
    try:
        pictures = PictureParser().feed(data)
    except ValueError:
        return
    assert all(picture.startswith(b"\xff\xd8") for picture in pictures)


def test_what_is_no_jpeg_is_left_out() -> None:
    """A packet that a camera sent broken is dropped, the next one comes."""
    assert PictureParser().feed(part(b"rubbish") + part(b"\xff\xd8good")) == [b"\xff\xd8good"]


@pytest.mark.parametrize(
    "head",
    [
        b"x" * 2000,
        b"Content-type: image/jpeg\r\n\r\n",
        b"Content-length: 0\r\n\r\n",
        b"Content-length: 99999999999\r\n\r\n",
    ],
)
def test_a_head_without_a_usable_length_is_an_error(head: bytes) -> None:
    """Memory is not filled by a stream that makes no sense."""
    with pytest.raises(ValueError):
        PictureParser().feed(head)


def test_a_camera_that_gives_jpegs_is_not_decoded() -> None:
    """MJPG is copied, thinned out to ten a second; a slower one is not thinned out."""
    camera = Camera(kind="usb", node="/dev/video0", pixel_format="MJPG", rate=30.0)
    arguments = picture_arguments(camera)
    assert arguments[arguments.index("-c:v") + 1] == "copy"
    assert arguments[arguments.index("-input_format") + 1] == "mjpeg"
    assert "drop=" in arguments[arguments.index("-bsf:v") + 1]
    slow = picture_arguments(Camera(kind="usb", node="/dev/video0", pixel_format="MJPG", rate=5.0))
    assert slow[slow.index("-bsf:v") + 1] == "mjpeg2jpeg"


def test_any_other_camera_is_decoded_and_encoded() -> None:
    """YUYV is encoded at the size and rate of the camera."""
    arguments = picture_arguments(Camera(kind="usb", node="/dev/video2", pixel_format="YUYV", rate=29.97))
    assert arguments[arguments.index("-c:v") + 1] == "mjpeg"
    assert arguments[arguments.index("-framerate") + 1] == "29.97"
    assert "-input_format" not in Usb().read(Camera(kind="usb", node="/dev/video0", pixel_format="ODD1"), 5.0)
    with pytest.raises(DependencyFailed, match="no device file"):
        Usb().read(Camera(kind="usb"), 5.0)


@pytest.mark.parametrize(("quality", "scale"), [(100, "2"), (1, "31"), (None, "4")])
def test_quality_is_ffmpegs_scale_turned_round(quality: int | None, scale: str) -> None:
    """100 is ffmpeg's best, 1 its worst."""
    assert convert_arguments("f", "jpg", quality)[-4:-3] == [scale]


# --- what ffmpeg says, and where it is ---


@given(st.text(alphabet="abc\n@:/ ", max_size=200), st.integers(1, 40))
def test_no_complaint_shows_a_secret(text: str, step: int) -> None:
    """However its output is cut into pieces, the password is not in what is kept."""
    url = f"rtsp://u:{PASSWORD}@camera/x?token=query-secret"
    complaints = Complaints(secrets_of(url), may_redirect=False)
    data = f"{text}{url}: failed {PASSWORD}{text}".encode()
    for start in range(0, len(data), step):
        complaints.feed(data[start : start + step])
    complaints.finish()
    kept = "\n".join(complaints.lines)
    assert PASSWORD not in kept
    assert "query-secret" not in kept


@pytest.mark.parametrize("url", ["rtsp://p:p@camera/x", "rtsp://p:p@camera/x?p", "rtsp://camera/x?p=1"])
def test_a_short_password_masks_no_letters_of_other_words(url: str) -> None:
    """A password `p` is masked where it stands, and ffmpeg's sentence stays readable."""
    complaints = Complaints(secrets_of(url), may_redirect=False)
    complaints.feed(
        f"[rtsp @ 0x55] method DESCRIBE of {url} and {url}/trackID=0: 404, try -rtsp_transport udp\n".encode()
    )
    line = complaints.lines[0]
    assert line.startswith("[rtsp @ 0x55] method DESCRIBE of ")
    assert line.endswith(": 404, try -rtsp_transport udp")
    assert "p:p@" not in line
    assert "?p" not in line


def test_a_line_without_end_is_cut_and_shows_nothing_of_the_secret() -> None:
    """Memory is bounded, and the cut does not leave half a secret; the line after it is kept again."""
    complaints = Complaints([PASSWORD], may_redirect=False)
    for _ in range(50):
        complaints.feed(b"x" * 290 + PASSWORD.encode())
    complaints.feed(b"rest\nnext line\n")
    assert len(complaints.lines[0]) == 300
    assert not any(PASSWORD[:8] in line for line in complaints.lines)
    assert complaints.lines[-1] == "next line"
    assert len(complaints.lines) == 2


def test_a_known_complaint_comes_with_its_remedy() -> None:
    """The line that we know is preferred to ffmpeg's last words, and tells what to do."""
    complaints = Complaints(may_redirect=False)
    assert complaints.explain(causes.ENDED, network=False) is causes.ENDED
    complaints.feed(b"[v4l2] ioctl(VIDIOC_STREAMON): No space left on device\nError opening input files\n")
    assert complaints.explain(causes.ENDED, network=False).slug == "bandwidth"
    other = Complaints(may_redirect=False)
    other.feed(b"something odd\n")
    assert other.explain(causes.ENDED, network=False) == replace(causes.UNKNOWN, exact="something odd")


def test_a_userinfo_is_masked_even_of_an_address_we_do_not_know() -> None:
    """ffmpeg rewrites addresses before it prints them."""
    complaints = Complaints(may_redirect=False)
    complaints.feed(b"Impossible to open 'rtsp://u:p%40ss@host/x'\n")
    assert complaints.lines[0] == "Impossible to open 'rtsp://***@host/x'"


def test_secrets_of_an_address() -> None:
    """The password as it stands and as it reads, the query, and the whole; a broken address is secret itself."""
    long = "rtsp://u:pass%40word@h/x?key=abcd"
    assert secrets_of(long) == {long, "pass%40word", "pass@word", "key=abcd", "?key=abcd"}
    assert secrets_of("rtsp://u:p%40ss@h/x?a=b") == {"rtsp://u:p%40ss@h/x?a=b", "p%40ss", "?a=b"}
    assert secrets_of("rtsp://[") == {"rtsp://["}
    assert secrets_of("") == frozenset()
    assert password_of("rtsp://h/x") == ""


@pytest.mark.parametrize(
    "url", ["", "-", "http://host/", "file:///etc/passwd", "rtsp://h/x\nfile '/etc/passwd'", "rtsp://a b"]
)
def test_only_an_rtsp_address_goes_into_a_playlist(url: str) -> None:
    """A setting cannot make ffmpeg read a file."""
    with pytest.raises(DependencyFailed, match="not an rtsp"):
        make_playlist(url)


def test_an_address_cannot_end_its_quotes() -> None:
    """A quote in a password stays part of the address."""
    assert "file 'rtsp://u:it%27s@h/'\n" in make_playlist("rtsp://u:it's@h/")


def test_a_private_file_is_ours_alone_and_goes(tmp_path: Path) -> None:
    """Nobody else can read the playlist, and nothing of it is left."""
    with private_file(b"secret", ".txt", tmp_path) as name:
        assert Path(name).parent == tmp_path
        assert Path(name).stat().st_mode & 0o777 == 0o600
        assert Path(name).read_bytes() == b"secret"
    assert not Path(name).exists()


def test_private_files_of_a_killed_edged_are_removed(tmp_path: Path) -> None:
    """What it could not remove itself goes with the next start; nothing else does."""
    (tmp_path / "edged.sock").touch()
    left = private_file(b"secret", ".txt", tmp_path)
    name = left.__enter__()
    remove_leftovers(tmp_path)
    assert not Path(name).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["edged.sock"]
    left.__exit__(None, None, None)


def test_ffmpeg_is_found_where_it_is_or_the_remedy_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As configured, on PATH, in the wheel; else the error says what to install."""
    script = write_script(tmp_path, "exit 0")()
    assert find_ffmpeg(script) == script
    assert find_ffmpeg("", str(tmp_path)) == script
    with pytest.raises(DependencyFailed, match="correct the setting"):
        find_ffmpeg(str(tmp_path / "none"))
    monkeypatch.setattr("edged.mediamtx.ffmpeg._find_wheel", lambda: "/wheel/ffmpeg")
    assert find_ffmpeg("", str(tmp_path / "empty")) == "/wheel/ffmpeg"
    monkeypatch.setattr("edged.mediamtx.ffmpeg._find_wheel", lambda: "")
    with pytest.raises(DependencyFailed, match="apt install ffmpeg"):
        find_ffmpeg("", str(tmp_path / "empty"))


def test_the_wheels_ffmpeg_is_found_where_it_is_installed() -> None:
    """Without a system ffmpeg the one of the demo's wheel serves."""
    pytest.importorskip("imageio_ffmpeg")
    assert os.access(_find_wheel(), os.X_OK)


# --- the real thing ---


@asynccontextmanager
async def opened(
    spawn: Spawner, find: Callable[[], str] = find_ffmpeg, reader_url: Callable[[str], str | None] = lambda name: None,
    **more: object,
) -> AsyncIterator[Frames]:  # fmt: skip
    """Frames that run, and end with the block."""
    frames = Frames(spawn, find, reader_url, **more)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(frames.run)
        yield frames
        nursery.cancel_scope.cancel()


def decode(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


@ffmpeg
async def test_a_snapshot_is_a_picture_of_the_cameras_size_and_leaves_nothing_running() -> None:
    """A JPEG with more than one colour; ffmpeg ends with it: a camera that nobody watches costs nothing."""
    spawn = Spawner()
    with fail_after(60):
        async with opened(spawn) as frames:
            image = decode(await frames.snapshot(Camera()))
            assert (image.format, image.size) == ("JPEG", (160, 120))
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 100
            await eventually(lambda: not frames.running)
            assert not spawn.alive


@ffmpeg
async def test_a_snapshot_can_be_a_png_or_of_a_quality() -> None:
    """Format and quality are what was asked for."""
    with fail_after(60):
        async with opened(Spawner()) as frames:
            assert decode(await frames.snapshot(Camera(), format="png")).format == "PNG"
            poor = await frames.snapshot(Camera(), quality=1)
            fine = await frames.snapshot(Camera(), quality=100)
            assert decode(poor).size == decode(fine).size
            assert len(poor) < len(fine) / 2


@ffmpeg
async def test_snapshots_at_once_share_one_ffmpeg() -> None:
    """Ten who ask in the same moment cost one decode."""
    spawn = Spawner()
    with fail_after(60):
        async with opened(spawn) as frames, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(frames.snapshot, Camera())
    assert len(spawn.started) == 1


@ffmpeg
async def test_viewers_share_one_ffmpeg_and_see_it_move() -> None:
    """Two viewers, one ffmpeg, different pictures, and a snapshot taken meanwhile is the next of them."""
    spawn = Spawner()
    with fail_after(60):
        async with opened(spawn) as frames, frames.watch(Camera()) as first, frames.watch(Camera()) as second:
            number, seen = 0, set()
            for _ in range(5):
                number, picture = await first.next(number)
                seen.add(picture)
            assert len(seen) == 5
            assert (await second.next(0))[0] >= number
            before = first.number
            snapshot = await frames.snapshot(Camera())
            assert snapshot not in seen
            assert first.number > before
            assert len(spawn.started) == 1


@ffmpeg
async def test_a_slow_viewer_misses_pictures_and_delays_no_other() -> None:
    """Who comes late gets the latest, while others went on."""
    with fail_after(60):
        async with opened(Spawner()) as frames, frames.watch(Camera()) as slow, frames.watch(Camera()) as quick:
            late, _ = await slow.next(0)
            number = 0
            while number < late + 8:
                number, _ = await quick.next(number)
            assert (await slow.next(late))[0] >= late + 8


@ffmpeg
async def test_ffmpeg_ends_after_the_last_viewer_but_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is loaded again finds its picture running; then it ends."""
    monkeypatch.setattr(module, "LINGER_SECONDS", 1.0)
    spawn = Spawner()
    with fail_after(60):
        async with opened(spawn) as frames:
            for _ in range(2):
                async with frames.watch(Camera()) as reader:
                    await reader.next(0)
            assert len(spawn.started) == 1
            await eventually(lambda: not frames.running)
            assert not spawn.alive
            async with frames.watch(Camera()) as reader:
                await reader.next(0)
            assert len(spawn.started) == 2


@ffmpeg
async def test_a_killed_ffmpeg_is_started_again_while_there_is_a_viewer() -> None:
    """The viewer sees a gap, not an end."""
    spawn = Spawner()
    with fail_after(60):
        async with opened(spawn) as frames, frames.watch(Camera()) as reader:
            number, _ = await reader.next(0)
            spawn.started[0].kill()
            await eventually(lambda: len(spawn.started) == 2)
            again, picture = await reader.next(reader.number)
            assert again > number
            assert decode(picture).size == (160, 120)


@ffmpeg
async def test_a_frozen_ffmpeg_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is there but gives nothing is not enough."""
    monkeypatch.setattr(module, "STALL_SECONDS", 1.0)
    spawn = Spawner()
    with fail_after(60):
        async with opened(spawn) as frames, frames.watch(Camera()) as reader:
            await reader.next(0)
            os.kill(spawn.started[0].pid, signal.SIGSTOP)
            await eventually(lambda: len(spawn.started) >= 2)
            await reader.next(reader.number)
            assert spawn.started[0].returncode is not None


@ffmpeg
async def test_an_unplugged_camera_stops_and_comes_back_to_its_viewers() -> None:
    """While it is away no ffmpeg runs; viewers who wait get the next picture; other cameras notice nothing."""
    spawn = Spawner()
    with fail_after(60):
        async with opened(spawn) as frames, frames.watch(Camera()) as reader:
            await reader.next(0)
            frames.set_sources([Camera("camera1")])
            await eventually(lambda: not spawn.alive)
            frames.set_sources([Camera("camera1"), Camera(width=320, height=240)])
            _, picture = await reader.next(reader.number)
            assert decode(picture).size == (320, 240)
            frames.set_sources([Camera(width=320, height=240)])
            await reader.next(reader.number)
            assert len(spawn.started) == 2


async def test_a_viewer_of_a_camera_that_stays_unplugged_gets_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time in the contract the viewer is told, and why."""
    monkeypatch.setattr(live_picture, "PATIENCE_SECONDS", 0.5)
    with fail_after(60):
        async with (
            opened(Spawner(), write_script(tmp_path, "exec sleep 60")) as frames,
            frames.watch(Camera()) as reader,
        ):
            await trio.sleep(0.1)
            frames.set_sources([])
            with pytest.raises(NoPicture) as caught:
                await reader.next(0)
            assert caught.value.cause is causes.UNPLUGGED


async def test_a_source_that_gives_nothing_is_told_with_its_reason(tmp_path: Path) -> None:
    """After three tries those who wait are told what ffmpeg said, without the password; the next asker begins anew."""
    spawn = Spawner()
    url = f"rtsp://u:{PASSWORD}@127.0.0.1/x"
    script = write_script(tmp_path, f"echo '{url}: 401 Unauthorized' >&2; exit 1")
    with fail_after(60):
        async with opened(spawn, script) as frames:
            for tries in (3, 6):
                with pytest.raises(DependencyFailed) as caught:
                    await frames.snapshot(Camera(kind="rtsp", url=url))
                assert isinstance(caught.value, NoPicture)
                assert caught.value.cause.slug == "password"
                assert PASSWORD not in str(caught.value)
                assert len(spawn.started) == tries
    assert PASSWORD not in str(spawn.arguments)


async def test_no_ffmpeg_is_told_at_once_with_its_remedy() -> None:
    """Nobody waits ten seconds for a program that is not installed."""

    def find() -> str:
        raise DependencyFailed("no ffmpeg", hint="install it: apt install ffmpeg")

    with fail_after(5):
        async with opened(Spawner(), find) as frames:
            with pytest.raises(DependencyFailed, match="apt install"):
                await frames.snapshot(Camera())


async def test_a_full_disk_is_a_reason_like_any_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the playlist cannot be written the caller is told, and edged goes on."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with fail_after(30):
        async with opened(Spawner(), lambda: "/bin/true") as frames:
            with pytest.raises(NoPicture) as caught:
                await frames.snapshot(Camera(kind="rtsp", url="rtsp://127.0.0.1/x"))
            assert "could not be started" in caught.value.cause.exact


async def test_senseless_output_is_a_failed_try(tmp_path: Path) -> None:
    """What is no multipart stream ends in an error for the caller, not in a picture."""
    with fail_after(30):
        async with opened(Spawner(), write_script(tmp_path, "head -c 5000 /dev/zero; exec sleep 60")) as frames:
            with pytest.raises(NoPicture) as caught:
                await frames.snapshot(Camera())
            assert "does not end" in caught.value.cause.exact


async def test_a_conversion_that_fails_is_told(tmp_path: Path) -> None:
    """A picture that cannot be written in the wanted format is an error; what ffmpeg says may name a private file."""
    body = part(b"\xff\xd8not really").decode("latin-1").replace("\r", "\\r").replace("\n", "\\n")
    body = body.replace("\xff\xd8", "\\377\\330")
    script = write_script(
        tmp_path, f"case \"$*\" in *png*) echo broken >&2; exit 1;; esac\nprintf -- '{body}'; exec sleep 60"
    )
    with fail_after(30):
        async with opened(Spawner(), script) as frames:
            with pytest.raises(DependencyFailed, match="could not be written as png"):
                await frames.snapshot(Camera(), format="png")


async def test_who_still_waits_when_edged_stops_is_told(tmp_path: Path) -> None:
    """Nobody hangs for ten seconds in a daemon that stops; afterwards nobody can begin."""
    spawn, told = Spawner(), trio.Event()

    async def look(frames: Frames) -> None:
        with pytest.raises(DependencyFailed, match="no picture"):
            await frames.snapshot(Camera())
        told.set()

    with fail_after(30):
        async with trio.open_nursery() as nursery:
            async with opened(spawn, write_script(tmp_path, "exec sleep 60")) as frames:
                nursery.start_soon(look, frames)
                await eventually(lambda: bool(spawn.started))
            await told.wait()
            with pytest.raises(DependencyFailed, match="stopping"):
                await frames.snapshot(Camera())
    assert not spawn.alive


async def test_a_usb_camera_is_let_go_for_its_publisher(tmp_path: Path) -> None:
    """When `release_device` returns, the process that held the camera is gone, and it is not opened again at once."""
    spawn = Spawner()
    camera = Camera(kind="usb", node="/dev/video99", pixel_format="MJPG")
    with fail_after(30):
        async with opened(spawn, write_script(tmp_path, "exec sleep 60")) as frames, frames.watch(camera):
            await eventually(lambda: bool(spawn.started))
            await frames.release_device("camera0")
            assert not spawn.alive
            await trio.sleep(0.3)
            assert len(spawn.started) == 1
            await frames.release_device("camera7")


async def test_a_usb_camera_gets_a_moment_to_find_its_exposure(tmp_path: Path) -> None:
    """The first pictures of a camera just switched on are dark; the snapshot is a later one."""
    one = r"\377\330%s"
    body = f"--x\\r\\nContent-length: 3\\r\\n\\r\\n{one}\\r\\n"
    loop = f"for n in 0 1 2 3 4 5 6 7 8 9; do printf -- '{body}' $n; sleep 0.1; done; exec sleep 60"
    camera = Camera(kind="usb", node="/dev/video99", pixel_format="MJPG")
    with fail_after(30):
        async with opened(Spawner(), write_script(tmp_path, loop)) as frames:
            assert int((await frames.snapshot(camera))[2:]) >= 1


@ffmpeg
@mediamtx
async def test_pictures_come_from_mediamtx_while_it_has_them_and_its_password_is_given_back(tmp_path: Path) -> None:
    """The path is read with a password that no process list shows; when it ends, the source itself is taken."""
    spawn, dropped = Spawner(), list[str]()
    up = True

    def reader_url(name: str) -> str | None:
        return f"rtsp://edged:{PASSWORD}@{server.rtsp}/{name}" if up else None

    with fail_after(80):
        async with (
            open_mediamtx(tmp_path) as server,
            opened(spawn, find_ffmpeg, reader_url, drop_secret=dropped.append) as f,
        ):
            async with publish(server, "camera0"), f.watch(Camera(width=320, height=240)) as reader:
                _, picture = await reader.next(0)
                assert decode(picture).size == (160, 120)
                assert PASSWORD not in command_lines()
                assert (await server.find("camera0")).readers == 1
                up = False
                server.child.kill()
                with fail_after(20):
                    while decode(picture).size != (320, 240):
                        _, picture = await reader.next(reader.number)
            assert dropped == [PASSWORD]


@ffmpeg
@mediamtx
async def test_an_rtsp_camera_gives_a_snapshot_and_its_password_stays_hidden(tmp_path: Path) -> None:
    """The camera's own password is accepted by the camera and in no argument list."""
    spawn, dropped = Spawner(), list[str]()
    with fail_after(80):
        frames_of = opened(spawn, drop_secret=dropped.append)
        async with open_mediamtx(tmp_path) as server, publish(server, "locked"), frames_of as frames:
            camera = Camera(kind="rtsp", url=f"rtsp://u:{PASSWORD}@{server.rtsp}/locked")
            assert decode(await frames.snapshot(camera)).size == (160, 120)
            assert PASSWORD not in str(spawn.arguments)
            wrong = Camera("camera1", kind="rtsp", url=f"rtsp://u:wrong-word@{server.rtsp}/locked")
            with pytest.raises(DependencyFailed) as caught:
                await frames.snapshot(wrong)
            assert "wrong-word" not in str(caught.value)
    assert dropped == []
