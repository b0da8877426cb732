"""What a serving process does not take along, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import write_config

from edged.cli.main import PLACES, main

CODE = """
import sys
from edged.cli.unused import absent
with absent("rich"):
    from edged import app
assert "rich" not in sys.modules, "it is still said to be absent"
assert not any(name.startswith(("rich.", "pygments")) for name in sys.modules), "structlog took it along"
try:
    import rich
except ModuleNotFoundError:
    pass
"""


def test_the_daemon_does_not_load_what_structlog_colours_tracebacks_with() -> None:
    """It costs 3 MB and a tenth of the start; afterwards it can be imported as before."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


LATE = """
import sys
from edged.cli.unused import put_off
put_off()
import asyncio, importlib.metadata
assert "asyncio.events" not in sys.modules and "importlib.metadata._meta" not in sys.modules, "named, not executed"
assert asyncio.iscoroutinefunction(lambda: None) is False
assert "asyncio.events" not in sys.modules, "what is known needs no execution"

async def answer():
    await asyncio.sleep(0)
    return importlib.metadata.version("trio")

assert asyncio.run(answer())[0].isdigit()
from asyncio import Queue, events
assert asyncio.get_running_loop is events.get_running_loop and asyncio.Queue is Queue
"""


def test_what_is_put_off_is_the_whole_module_once_it_is_used() -> None:
    """It is the standard library's module, only later."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_command_is_where_the_table_says() -> None:
    """Under its own name, and nowhere else."""
    assert {name: command.name for name, command in main.commands.items()} == {name: name for name in main.commands}
    assert main.commands.keys() == {*PLACES, "version"}


FAULT = """
import sys, trio
from pathlib import Path
import edged.app as app
from edged.cli.asking import load_config

async def fail():
    await trio.sleep(0.3)
    raise RuntimeError("a fault")

app.watchdog, app.GOOD_SECONDS = fail, float(sys.argv[2])
sys.exit(app.main(load_config(Path(sys.argv[1]))))
"""


@pytest.mark.parametrize(("good", "code"), [(0.1, os.EX_SOFTWARE), (1000.0, 1)])
def test_a_fault_after_it_had_served_is_told_apart_from_a_failed_start(tmp_path: Path, good: float, code: int) -> None:
    """systemd starts it at once after the one, and five seconds later after the other (edged.service)."""
    command = [sys.executable, "-c", FAULT, str(write_config(tmp_path)), str(good)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "RuntimeError: a fault" in done.stderr
