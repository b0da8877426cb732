"""Databases of an older schema: brought up to date before anything else starts, then the program is executed again.

A migration imports sqlite-utils, which a daemon that serves shall not carry around. So a start that has migrated
replaces itself (execve(2)): the same arguments, environment and process id, so that systemd's LISTEN_PID, WATCHDOG_PID
and main process stay right; sockets that systemd passed are not touched before and stay open.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import structlog

from edged import systemd
from edged.config.model import Config
from edged.daemon.databases import open_databases
from edged.store.folders import hold_folders
from edged.store.migrating import is_older
from edged.store.migrations import TRUST, USAGE

_log = structlog.get_logger("edged")


def needs_upgrade(state: Path) -> bool:
    """Whether a database in this folder is of an older schema. Costs two reads; opens no database."""
    return is_older(state / "trust.db", TRUST) or is_older(state / "usage.db", USAGE)


async def upgrade(config: Config) -> bool:
    """Open both databases, which brings them up to date, and close them; whether this process has migrated one.

    Raises StartFailed: nobody has opened a listener yet.
    """
    systemd.notify("STATUS=migrating the databases")
    async with (
        hold_folders(config.paths.state, config.paths.runtime),
        open_databases(config.paths.state, lambda _name, _seconds: None),
    ):
        # Another edged may have done it, where only its log says so (is_older): then this process is as good as new.
        return "sqlite_utils" in sys.modules


def execute_again() -> None:
    """Replace this process by the same program with the same arguments; returns only if the system refuses that."""
    _log.info("databases_migrated", next="the program is executed again")
    try:
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the arguments are those that this process was started with
    except OSError as problem:
        # It can serve all the same; only memory is lost.
        _log.warning("execute_again_failed", problem=problem.strerror)
