"""Playback by a page of another origin, in a real Chromium: what its script may fetch, and what its player shows."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import trio
from test_playback import FILES, Box, made, opened

pytestmark = [pytest.mark.ffmpeg, pytest.mark.chromium, pytest.mark.slow]
_ = made

#: A player in so many words: one source buffer a size, as a player without hls.js does it.
SCRIPT = """
async function play(url) {
  const said = {};
  const list = await fetch(url);
  said.list = [list.status, list.headers.get("content-type")];
  const lines = (await list.text()).split("\\n"), at = uri => new URL(uri, url).href;
  const files = [];
  for (const [number, line] of lines.entries()) {
    const map = line.match(/^#EXT-X-MAP:URI="(.*)",BYTERANGE="([0-9]+)@0"$/);
    if (map) files.push({map: [at(map[1]), 0, +map[2]], parts: []});
    const range = line.match(/^#EXT-X-BYTERANGE:([0-9]+)@([0-9]+)$/);
    if (range) files.at(-1).parts.push([at(lines[number + 1]), +range[2], +range[1]]);
  }
  async function bytes([uri, offset, size], headers = {}) {
    const reply = await fetch(uri, {headers: {Range: `bytes=${offset}-${offset + size - 1}`, ...headers}});
    said.range = [reply.status, reply.headers.get("content-range").split("/")[0], reply.headers.get("accept-ranges")];
    said.etag ??= reply.headers.get("etag");
    return await reply.arrayBuffer();
  }
  said.shown = [];
  for (const file of files) {
    const video = document.createElement("video"), source = new MediaSource();
    video.muted = true;
    video.src = URL.createObjectURL(source);
    await new Promise(done => source.addEventListener("sourceopen", done, {once: true}));
    const buffer = source.addSourceBuffer('video/mp4; codecs="avc1.42c01e,mp4a.40.2"');
    for (const each of [file.map, ...file.parts]) {
      buffer.appendBuffer(await bytes(each));
      await new Promise(done => buffer.addEventListener("updateend", done, {once: true}));
    }
    source.endOfStream();
    const seen = new Promise(done => video.requestVideoFrameCallback(done));
    await video.play();
    await seen;
    said.shown.push([video.videoWidth, video.videoHeight, Math.round(video.duration)]);
  }
  // A header for which every browser asks before.
  await bytes(files[0].map, {"If-Range": said.etag});
  const broken = await fetch(files[0].map[0].slice(0, -1));
  said.broken = [broken.status, (await broken.json()).code];
  const trials = {header: [url, {headers: {"X-API-Key": "x"}}], cookies: [url, {credentials: "include"}],
                  bare: [new URL("/api/cameras", url).href, {}], deletion: [url, {method: "DELETE"}]};
  for (const [name, [target, how]] of Object.entries(trials)) {
    said[name] = await fetch(target, how).then(reply => reply.status, problem => problem.name);
  }
  return said;
}
play(URL_OF_LIST).catch(problem => ({problem: String(problem)})).then(
  said => fetch("/said", {method: "POST", body: JSON.stringify(said)}));
"""


@contextmanager
def page_about(url: str) -> Iterator[tuple[str, SimpleQueue[Any]]]:
    """A server of another origin whose page plays the list; where it is, and what its script said."""
    said: SimpleQueue[Any] = SimpleQueue()
    page = f"<!doctype html><title>player</title><script>{SCRIPT.replace('URL_OF_LIST', json.dumps(url))}</script>"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(page.encode())

        def do_POST(self) -> None:
            said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(b"")

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", said
        finally:
            server.shutdown()
            thread.join()


async def show(box: Box, folder: Path) -> Any:
    """What the script of a page of another origin said in a Chromium of its own."""
    with page_about(await box.link()) as (page, said):
        command = [
            "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio",
            "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={folder}", page,
        ]  # fmt: skip
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.run_process, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            while said.empty():
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        return said.get()


async def test_a_page_of_another_origin_plays_a_list_by_its_link_and_reads_nothing_else(
    tmp_path: Path, made: Path
) -> None:
    async with opened(tmp_path, made) as box:
        said = await show(box, tmp_path / "browser")
    assert "problem" not in said, said
    assert said["list"] == [200, "application/vnd.apple.mpegurl"]
    assert said["shown"] == [[*map(int, size.split("x")), 6] for _, size, _ in FILES]
    status, extent, unit = said["range"]
    assert (status, extent.startswith("bytes 0-"), unit) == (206, True, "bytes")
    assert said["etag"]
    assert said["broken"] == [401, "auth_failed"]
    assert [said[name] for name in ("header", "cookies", "bare", "deletion")] == ["TypeError"] * 4
