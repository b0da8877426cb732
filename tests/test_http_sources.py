"""Cameras with a web server, read by edged itself: each fault is named, nothing but the address is opened, and no
password is shown that was not asked for."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from mjpeg_server import PASSWORD, USER, Web, make_jpegs, make_tls, serving
from patience import fail_after

from edged.mediamtx import causes
from edged.mediamtx.causes import Cause, NoPicture
from edged.mediamtx.feeding import open_feed
from edged.mediamtx.sources import http_reader
from edged.mediamtx.sources.http_login import _digest, answer
from edged.mediamtx.sources.http_reader import read_jpegs
from edged.mediamtx.sources.multipart import PICTURE_BYTES, PartsParser, is_jpeg, read_size
from edged.urls import mask_url

pytestmark = pytest.mark.ffmpeg


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    return make_jpegs()


async def read(url: str, count: int = 3, still_seconds: float = 0.1) -> list[bytes] | Cause:
    """The first pictures at an address, or why there are not so many."""
    found: list[bytes] = []
    with trio.CancelScope() as enough:

        def put(picture: bytes) -> None:
            found.append(picture)
            if len(found) >= count:
                enough.cancel()

        try:
            await read_jpegs("camera0", url, put, lambda: None, still_seconds=still_seconds)
        except NoPicture as failure:
            return failure.cause
    return found


def address(web: Web, login: str = "", path: str = "/stream?a=1", scheme: str = "http") -> str:
    return f"{scheme}://{login}127.0.0.1:{web.port}{path}"


@pytest.mark.parametrize("mood", ["good", "unmeasured", "still"])
async def test_pictures_come_as_the_camera_sends_them(jpegs: list[bytes], mood: str) -> None:
    with fail_after(20):
        async with serving(Web(jpegs, mood, seconds=0.01)) as web:
            found = await read(address(web), 5)
            assert isinstance(found, list)
            assert [picture.rstrip(b"\r\n") for picture in found] == [
                jpegs[(at + (mood == "still")) % len(jpegs)].rstrip(b"\r\n") for at in range(5)
            ]
            assert web.requests[0].startswith("GET /stream?a=1 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("mood", "slug", "said"),
    [
        ("page", "no_video", "text/html"), ("parts", "no_video", "text/plain"), ("noise", "not_rtsp", ""),
        ("302", "redirected", "302"), ("403", "forbidden", "403"), ("404", "no_stream", "404"), ("500", "ended", "500"),
        ("503", "ended", "503"), ("silent", "silent", ""), ("stalls", "stalled", ""), ("trickle", "stalled", ""),
    ],
)  # fmt: skip
async def test_what_is_wrong_has_a_name(
    jpegs: list[bytes], mood: str, slug: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_reader, "SILENCE_SECONDS", 0.8)
    monkeypatch.setattr(http_reader, "LONGEST_SECONDS", 2.0)
    with fail_after(20):
        async with serving(Web(jpegs, mood, seconds=0.01)) as web:
            cause = await read(address(web), 50)
            assert isinstance(cause, Cause)
            assert (cause.slug, said in cause.exact) == (slug, True)
            assert len(web.requests) == 1, "a redirect is not followed"


async def test_where_nothing_listens_and_a_camera_that_dies(jpegs: list[bytes]) -> None:
    with fail_after(20):
        async with serving(Web(jpegs)) as web:
            url = address(web)
            async with trio.open_nursery() as nursery:
                found: list[object] = []

                async def watch() -> None:
                    found.append(await read(url, 1000))

                nursery.start_soon(watch)
                while not web.requests:
                    await trio.sleep(0.01)
                web.hang_up()
        assert [each.slug for each in found if isinstance(each, Cause)] == ["ended"]
        refused = await read(url)
        assert isinstance(refused, Cause)
        assert (refused.slug, refused.is_unreachable) == ("refused", True)
        unknown = await read("http://nobody.invalid/")
        assert isinstance(unknown, Cause)
        assert unknown.slug == "name_unknown"


@pytest.mark.parametrize("login", ["basic", "digest"])
async def test_a_password_is_shown_to_whom_asks_for_it(jpegs: list[bytes], login: str) -> None:
    """As the server asks; a wrong one, or none, is named. Nothing of it stands in the first request."""
    with fail_after(20):
        async with serving(Web(jpegs, login=login, seconds=0.01)) as web:  # type: ignore[arg-type]
            assert isinstance(await read(address(web, f"{USER}:{quote(PASSWORD, safe='')}@")), list)
            assert "Authorization" not in web.requests[0]
            assert PASSWORD not in "".join(web.requests)
            for wrong in (f"{USER}:x@", "nobody:y@", ""):
                cause = await read(address(web, wrong))
                assert isinstance(cause, Cause)
                assert cause.slug == "password"


@pytest.mark.parametrize("realm", [b"Kam\xe9ra", "Kam\u00e9ra".encode(), b"\xff\x80"])
async def test_a_server_may_call_itself_what_it_wants(realm: bytes) -> None:
    """Its realm is shown again and hashed as it was sent, a user's name as UTF-8 (RFC 7616, 4)."""
    asked: list[bytes] = []

    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            asked.append(await stream.receive_some(65536))
            await stream.send_all(
                b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="%b", nonce="n"\r\nContent-Length: 0\r\n\r\n'
                % realm
            )

    with fail_after(20):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
            found = await read(f"http://j%C3%B6rg:pw@127.0.0.1:{listener.socket.getsockname()[1]}/")
            nursery.cancel_scope.cancel()
    assert isinstance(found, Cause)
    assert found.slug == causes.PASSWORD.slug
    own, what = (hashlib.md5(each).hexdigest() for each in (b"j\xc3\xb6rg:%b:pw" % realm, b"GET:/"))
    response = hashlib.md5(f"{own}:n:{what}".encode()).hexdigest().encode()
    assert b'username="j\xc3\xb6rg", realm="%b", nonce="n", uri="/", response="%b"' % (realm, response) in asked[1]


async def test_tls_without_a_name_and_what_is_none(jpegs: list[bytes], tmp_path: Path) -> None:
    with fail_after(30):
        async with serving(Web(jpegs, seconds=0.01), tls=make_tls(tmp_path)) as web:
            assert isinstance(await read(address(web, scheme="https")), list)
        async with serving(Web(jpegs, seconds=0.01)) as web:
            cause = await read(address(web, scheme="https"))
            assert isinstance(cause, Cause)
            assert cause.slug == "tls"


@pytest.mark.parametrize(
    "url",
    [
        "http://h:99999/",
        "http://[::/",
        "http://h/a b",
        "http://h\r\n/x",
        "http:///x",
        "gopher://h/",
        f"http://{64 * 'a'}.b/",
    ],
)
async def test_an_address_that_cannot_be_one_is_named(url: str) -> None:
    with fail_after(20):
        cause = await read(url)
        assert isinstance(cause, Cause)
        assert cause.slug in ("bad_address", "name_unknown", "refused")


def test_the_digest_is_that_of_the_standard() -> None:
    """RFC 7616, 3.9.1, both algorithms, and RFC 2069's without qop."""
    asked = {
        "realm": "http-auth@example.org", "qop": "auth, auth-int", "algorithm": "SHA-256",
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
    }  # fmt: skip
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    shown = _digest(asked, "Mufasa", "Circle of Life", "/dir/index.html", cnonce)
    assert shown is not None
    assert 'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"' in shown
    shown = _digest(asked | {"algorithm": "MD5"}, "Mufasa", "Circle of Life", "/dir/index.html", cnonce)
    assert shown is not None
    assert 'response="8ca523f5e9506fed4657c9700eebdbec"' in shown
    old = answer(['Digest realm="r", nonce="n"'], "u", "p", "/")
    assert old is not None
    assert "qop" not in old
    assert answer(['Digest realm="r", nonce="n", qop="auth-int"', 'Basic realm="r"'], "u", "p", "/") == "Basic dTpw"
    assert answer(["Bearer", "", "Digest", "Negotiate x"], "u", "p", "/") is None


@given(st.lists(st.binary(max_size=40)), st.sampled_from(["--b", "----b", "--"]), st.booleans(), st.integers(1, 50))
def test_parts_are_what_was_sent_however_it_is_cut(contents: list[bytes], mark: str, measured: bool, step: int) -> None:
    contents = [each for each in contents if measured or b"\n" not in each]
    sent = b"".join(
        f"{mark}\r\nContent-Type: Image/JPEG; x\r\n".encode()
        + (b"content-length: %d" % len(each) if measured else b"x: y") + b"\r\n\r\n" + each + b"\r\n"
        for each in contents
    ) + f"{mark}\r\n".encode()  # fmt: skip
    parser, found = PartsParser(), []
    for at in range(0, len(sent), step):
        found += parser.feed(sent[at : at + step])
    got = [(part.kind, part.content if measured else part.content.removesuffix(b"\r")) for part in found]
    expected = [each if measured else each.removesuffix(b"\r") for each in contents]
    assert got == [("image/jpeg", each) for each in expected if each] or (not measured and b"" in expected)


@given(st.lists(st.binary(max_size=300)))
def test_noise_is_refused_or_waits_and_nothing_else(pieces: list[bytes]) -> None:
    """Nothing is raised but ValueError, which the reader of a source takes for its end."""
    parser = PartsParser()
    try:
        for piece in pieces:
            parser.feed(piece)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "head", [b"x" * 5000, b"x\n" * 9000, b"--b\r\n" + b"a: b\r\n" * 9000, b"--b\r\nContent-Length: 99999999\r\n\r\n",
             b"--b\r\nContent-Length: -1\r\n\r\n", b"--b\r\n\r\n" + b"x" * (PICTURE_BYTES + 1)]
)  # fmt: skip
def test_a_stream_without_end_is_given_up(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"does not end|usable length"):
        PartsParser().feed(head)


def test_the_size_stands_in_the_picture(jpegs: list[bytes]) -> None:
    assert {read_size(each) for each in jpegs} == {(160, 120)}
    assert all(is_jpeg(each) for each in jpegs)
    assert (
        read_size(b"\xff\xd8\xff") == read_size(b"") == read_size(b"\xff\xd8" + b"\xff\xe0\x00\x00" * 10_000) == (0, 0)
    )


async def test_an_ffmpeg_that_is_slow_gets_the_latest_picture() -> None:
    with fail_after(20), open_feed() as feed:
        async with feed.writing():
            await trio.testing.wait_all_tasks_blocked()
            for number in range(100):
                feed.put(b"%02d" % number)
            async with trio.lowlevel.FdStream(os.dup(feed.reading)) as stream:
                assert await stream.receive_some(100) == b"99"


def test_a_query_with_a_password_is_masked() -> None:
    assert mask_url("http://u:p@h/x.cgi?user=a&pwd=b&ch=1") == "http://***@h/x.cgi?user=***&pwd=***&ch=1"
