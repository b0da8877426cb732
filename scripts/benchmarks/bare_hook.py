"""The least that an HTTP server on trio can do with a POST: h11 reads it, and it is sent back. Prints its port."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import h11
import trio


async def serve(stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER)
    body = b""
    with suppress(trio.BrokenResourceError):
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
        if connection.our_state is h11.SEND_RESPONSE:
            headers = [("Content-Length", str(len(body))), ("Connection", "close")]
            head = connection.send(h11.Response(status_code=200, headers=headers))
            data = connection.send(h11.Data(data=body))
            await stream.send_all(head + data + connection.send(h11.EndOfMessage()))


async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        print(listeners[0].socket.getsockname()[1], flush=True)


trio.run(main)
