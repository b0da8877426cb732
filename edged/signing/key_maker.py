"""Key pairs made by a process of its own, with which the libraries that this takes end: a daemon that signs nothing and
only changes its keys now and then would carry them around from then on (11 MB).

The child has the interpreter, the environment and the import path of its parent; the pairs come through a pipe.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from edged.credentials import key_pairs
from edged.credentials.key_pairs import Algorithm, Jwk
from edged.errors import NOT_JSON, DependencyFailed

#: An RSA key takes the smallest box some seconds; a card that reads slowly takes longer.
LONGEST_SECONDS: Final = 120.0


def make(algorithms: Sequence[Algorithm]) -> list[Jwk]:
    """A new key pair for each of these, as `key_pairs.generate` makes it. Waits for the child: call it in a thread.

    Raises DependencyFailed if it made none.
    """
    path = os.pathsep.join(entry for entry in sys.path if entry) or os.curdir
    # -P: a module in the working folder is not taken for one of ours; -S: the path is complete already.
    command = [sys.executable, "-P", "-S", "-m", key_pairs.__name__, *algorithms]
    try:
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=LONGEST_SECONDS,
        )  # fmt: skip
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=list[Jwk])
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    except (OSError, subprocess.TimeoutExpired, *NOT_JSON) as problem:
        said = str(problem)
    raise DependencyFailed(
        f"the process that makes signing keys failed: {said[:200]}", hint="reinstall python3-cryptography"
    )
