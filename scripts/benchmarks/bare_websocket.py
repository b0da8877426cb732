"""The least that a WebSocket server on trio can do: the Sans-I/O core, msgspec both ways, a fixed reply.

bare_websocket.py RESULT-FILE [keys FILE | token FILE]

Prints its port. RESULT-FILE holds the JSON of the result to answer with. With `keys` each call's `auth_token` is looked
up by its SHA-256 among those of the FILE, one a line; with `token` it is verified by joserfc with the secret in FILE.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import h11
import msgspec
import trio
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import accept_key

SILENT = logging.getLogger("silent")
SILENT.disabled = True


class Params(msgspec.Struct):
    auth_token: str


class Request(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: msgspec.Raw = msgspec.Raw()


class Reply(msgspec.Struct):
    jsonrpc: str
    result: msgspec.Raw
    id: int | str | None


def make_check(kind: str, path: str) -> Callable[[msgspec.Raw], object]:
    """What is done with the params of each call; raises if the credential in them is not good."""
    decoder, lines = msgspec.json.Decoder(Params), Path(path).read_text().splitlines()
    if kind == "keys":
        known = {hashlib.sha256(line.encode()).digest(): line for line in lines}
        return lambda params: known[hashlib.sha256(decoder.decode(params).auth_token.encode()).digest()]
    from joserfc import jwt
    from joserfc.jwk import OctKey

    key = OctKey.import_key(lines[0])
    return lambda params: jwt.decode(decoder.decode(params).auth_token, key, algorithms=["HS256"])


async def serve(result: msgspec.Raw, check: Callable[[msgspec.Raw], object], stream: trio.SocketStream) -> None:
    decoder, encoder = msgspec.json.Decoder(Request), msgspec.json.Encoder()
    head = h11.Connection(h11.SERVER)
    while not isinstance(event := head.next_event(), h11.Request):
        head.receive_data(await stream.receive_some(65536))
    key = dict(event.headers)[b"sec-websocket-key"].decode()
    upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_key(key))]
    while not isinstance(head.next_event(), h11.EndOfMessage | type(h11.PAUSED)):
        pass
    await stream.send_all(head.send(h11.InformationalResponse(status_code=101, headers=upgrade)))
    protocol = ServerProtocol(state=State.OPEN, logger=SILENT)
    while data := await stream.receive_some(65536):
        protocol.receive_data(data)
        for received in protocol.events_received():
            if isinstance(received, Frame) and received.opcode is Opcode.TEXT:
                request = decoder.decode(received.data)
                check(request.params)
                protocol.send_text(encoder.encode(Reply("2.0", result, request.id)))
        for chunk in protocol.data_to_send():
            await stream.send_all(chunk)


async def main() -> None:
    result = msgspec.Raw(Path(sys.argv[1]).read_bytes())
    check = make_check(*sys.argv[2:]) if sys.argv[2:] else lambda _params: None

    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await serve(result, check, stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        print(listeners[0].socket.getsockname()[1], flush=True)


trio.run(main)
