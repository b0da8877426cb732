"""What the stories of the package are made of: steps that hold, or end the story with the reason and the journal."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

SOCKET = Path("/run/edged/edged.sock")
STATE = Path("/var/lib/edged")
STEPS: list[Callable[[], str | None]] = []


class NotRun(Exception):
    """What the step needs is not there."""


Step = TypeVar("Step", bound=Callable[..., str | None])


def step(action: Step) -> Step:
    """The function is the next step: its docstring says what holds, what it returns is shown beside it."""
    STEPS.append(action)
    return action


def tell() -> int:
    """Every step in the order of the file; the code to end with."""
    for action in STEPS:
        name = (action.__doc__ or "").removesuffix(".")
        began = time.monotonic()
        try:
            word, said = "passed", action()
        except NotRun as reason:
            word, said = "not run", str(reason)
        except Exception as problem:
            print(f"FAILED   {name}: {type(problem).__name__}: {problem}", flush=True)
            if isinstance(problem, subprocess.CalledProcessError):
                print(problem.stdout, problem.stderr)
            print("--- the journal of edged ---\n" + "\n".join(journal()[-60:]))
            return 1
        print(f"{word:8} {name}{f': {said}' if said else ''} ({time.monotonic() - began:.1f} s)", flush=True)
    return 0


def run(*command: str | Path, user: str = "", check: bool = True, seconds: float = 60) -> str:
    """A command's output; as `user` if one is named."""
    prefix = ("runuser", "-u", user, "--") if user else ()
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=seconds, check=check)
    return (done.stdout + done.stderr).strip()


def journal(*more: str) -> list[str]:
    """What edged and systemd say of the daemon, as `journalctl -u edged` shows it."""
    run("journalctl", "--sync")
    return run("journalctl", "-u", "edged.service", "-o", "cat", *more).splitlines()


def journal_has(*words: str) -> str:
    """The first line that holds all of these; waits a moment for it."""
    for _ in range(50):
        for line in journal():
            if all(word in line for word in words):
                return line
        time.sleep(0.2)
    raise AssertionError(f"no line of the journal has {words}")


def until(holds: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """What `holds` returns, once that is something."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)
    return found


def processes(user: str = "edged") -> list[str]:
    """What runs as this user, by name; ps is not part of a small Debian."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, KeyError):  # ended meanwhile, or of nobody known
            if folder.owner() == user:
                found.append((folder / "comm").read_text().strip())
    return found


def show(name: str, unit: str = "edged.service") -> str:
    """A property of a unit, as systemctl shows it."""
    return run("systemctl", "show", "--value", "--property", name, unit)


def expect(holds: object, otherwise: object) -> None:
    if not holds:
        raise AssertionError(str(otherwise))
