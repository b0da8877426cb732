"""What a serving process does not take along."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from edged.cli.serve import absent
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
