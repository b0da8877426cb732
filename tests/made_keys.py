"""Key pairs that were made once, for the daemons of all test runs of this tree: build/test-keys.json.

To make an RSA key takes 0.08 s of CPU, and each process of tests and each server of forks would make dozens.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from edged.credentials.key_pairs import Algorithm, Jwk, generate

FILE = Path(__file__).parent.parent / "build/test-keys.json"
#: Pairs of each algorithm.
SIZE = 24


def load() -> dict[Algorithm, list[Jwk]]:
    """SIZE pairs of each algorithm; they are made if the file is not there, or not whole."""
    try:
        made: dict[Algorithm, list[Jwk]] = json.loads(FILE.read_text())
    except (OSError, ValueError):
        made = {}
    if any(len(made.get(algorithm, ())) != SIZE for algorithm in ("RS256", "ES256")):
        made = {"RS256": [generate("RS256") for _ in range(SIZE)], "ES256": [generate("ES256") for _ in range(SIZE)]}
        FILE.parent.mkdir(exist_ok=True)
        new = FILE.with_name(f"{FILE.name}.{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(made, file)
        new.replace(FILE)
    return made
