"""Key pairs made by a process of its own, with which the libraries that this takes end: a daemon that signs nothing and
only changes its keys now and then would carry them around from then on (11 MB).

The child has the interpreter and the import path of its parent and nothing else of its environment; it is spawned as
every other child, and the pairs come through a pipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from edged.children import Spawn
from edged.credentials import key_pairs
from edged.credentials.key_pairs import Algorithm, Jwk
from edged.errors import NOT_JSON, DependencyFailed

#: An RSA key takes the smallest box some seconds; a card that reads slowly takes longer.
LONGEST_SECONDS: Final = 120.0
#: Bytes of its output, of which a pair takes 2 KB.
_LONGEST_OUTPUT: Final = 65_536


def child_environment(search_path: str) -> dict[str, str]:
    """The whole environment of the child; `search_path` (a PATH variable) has setpriv on it."""
    imports = os.pathsep.join(entry for entry in sys.path if entry) or os.curdir
    return {"PATH": search_path, "PYTHONPATH": imports, "LC_ALL": "C.UTF-8"}


async def make(spawn: Spawn, algorithms: Sequence[Algorithm]) -> list[Jwk]:
    """A new key pair for each of these, as `key_pairs.generate` makes it. `spawn` fills in `child_environment`.

    Raises DependencyFailed if the child made none, OutOfDescriptors if it could not be started for want of them.
    """
    # -P: a module in the working folder is not taken for one of ours; -S: the path is complete already.
    command = [sys.executable, "-P", "-S", "-m", key_pairs.__name__, *algorithms]
    told, said, code = bytearray(), bytearray(), -1
    with trio.move_on_after(LONGEST_SECONDS) as limit:
        async with spawn(command) as child, trio.open_nursery() as nursery:
            nursery.start_soon(_read, child.stdout, told)
            nursery.start_soon(_read, child.stderr, said)
            code = await child.wait()
    if code == 0:
        try:
            return msgspec.json.decode(told, type=list[Jwk])
        except NOT_JSON as problem:
            why = str(problem)
    elif limit.cancelled_caught:
        why = f"it took longer than {LONGEST_SECONDS:g} s"
    else:
        why = said.decode(errors="replace").strip().rpartition("\n")[2] or f"it ended with {code}"
    raise DependencyFailed(
        f"the process that makes signing keys failed: {why[:200]}", hint="reinstall python3-cryptography"
    )


async def _read(stream: trio.lowlevel.FdStream | None, found: bytearray) -> None:
    assert stream is not None, "asked for above"
    while data := await stream.receive_some(4096):
        found += data[: _LONGEST_OUTPUT - len(found)]
