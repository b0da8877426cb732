"""The composition root: settings in, a running daemon out. Read `run` from top to bottom: that is the start-up order.

What stands deeper inside starts later and stops earlier: the listeners stop before the encoders, these before MediaMTX,
MediaMTX before the hook that it asks, the hook before the databases (architecture 15).
"""

from __future__ import annotations

import gc
import math
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import structlog
import trio

from edged import __version__, logs, systemd
from edged.config.model import Config
from edged.daemon.access import access_tasks, build_access
from edged.daemon.cameras import build_cameras
from edged.daemon.databases import open_databases
from edged.daemon.gauges import build_disks, watch
from edged.daemon.listeners import open_listeners, serving
from edged.daemon.media import build_media, removed_at_end
from edged.daemon.nurseries import started_tasks, tasks
from edged.daemon.recordings import build_recordings
from edged.daemon.reload import Load, Reload
from edged.daemon.secrets import read_secrets
from edged.daemon.services import build_services
from edged.daemon.signals import ALL_SIGNALS, STOP_SIGNALS, is_terminal, set_handlers, stop_signals
from edged.daemon.spawns import build_spawns
from edged.daemon.subscriptions import client_tasks, event_tasks, media_tasks, recording_tasks, subscribed
from edged.daemon.upgrade import execute_again, needs_upgrade, upgrade
from edged.errors import ConfigError, EdgedError
from edged.library.event_ring import EventRing
from edged.library.snapshots import Snapshots
from edged.metrics import Metrics
from edged.net.handlers import Handlers
from edged.net.hook import Answer
from edged.net.server import Server
from edged.operations import gather, metric_labels, streams
from edged.restarts import GOOD_SECONDS
from edged.rpc.endpoint import RpcEndpoint
from edged.store.folders import hold_folders
from edged.web.app import make_app
from edged.web.mediamtx_hook import make_answer

_log = structlog.get_logger("edged")


def main(config: Config, load: Load | None = None) -> int:
    """Run until SIGTERM or Ctrl-C. SIGHUP reads the settings again by `load`; without `load`, and in a terminal, it
    ends the daemon like SIGTERM. A failed start is one clear line, never a traceback.

    Returns the exit code, for a process that ends now: these signals are ignored from here on. 70 (EX_SOFTWARE) is an
    end by a fault of its own after it had served for some seconds: systemd starts it at once, and after a 1 later.
    """
    logs.configure(config.log.level)
    # A signal that arrives before the event loop receives signals is kept for it: the stop is always in order.
    early: list[int] = []
    set_handlers(lambda number, _frame: early.append(number))
    code = 0
    served_since = math.inf

    def serves(_server: Server) -> None:
        nonlocal served_since
        served_since = time.monotonic()
        _collect_from_here()

    again = None if is_terminal() else load
    stops = ALL_SIGNALS if again is None else STOP_SIGNALS
    try:
        # A stop that was asked for meanwhile is done in order by the start that follows; exec would forget it.
        if needs_upgrade(config.paths.state) and trio.run(upgrade, config) and set(stops).isdisjoint(early):
            execute_again()
        trio.run(partial(run, config, early=early, started=serves, load=again, stops=stops))
    except* EdgedError as problems:
        code = 1
        for problem in _leaves(problems):
            _log.error("failed", problem=str(problem))
            systemd.notify(f"STATUS=failed: {problem}")
            # Another start would find the same setting: systemd makes none (RestartPreventExitStatus).
            code = os.EX_CONFIG if isinstance(problem, ConfigError) else code
    except* Exception as fault:
        # Of a tree as deep as that of the nurseries Python shows the trunk only.
        for leaf in _leaves(fault):
            traceback.print_exception(leaf)
        code = 1
    finally:
        gc.enable()
        if code == 1 and time.monotonic() - served_since >= GOOD_SECONDS:
            code = os.EX_SOFTWARE
        # A signal that arrives while the interpreter ends must not change the exit code.
        set_handlers(signal.SIG_IGN)
    return code


async def run(
    config: Config, *, started: Callable[[Server], None] = lambda _server: None, early: Sequence[int] = (),
    load: Load | None = None, stops: Sequence[signal.Signals] = STOP_SIGNALS,
) -> None:  # fmt: skip
    """Build everything, serve until a signal, and take it down in order. Raises StartFailed, ConfigError.

    `started` is called when it serves. `early`: signals that arrived before; `stops`: those that end it. With `load`
    SIGHUP reads the settings again.
    """
    _log.info("starting", version=__version__, pid=os.getpid())
    catalogue = gather()
    metrics = Metrics(metric_labels(catalogue), version=__version__)
    secrets = read_secrets(config)
    async with (
        stop_signals(early, stops) as stop,
        hold_folders(config.paths.state, config.paths.runtime),
        open_databases(config.paths.state, metrics.committed) as databases,
    ):
        spawns = build_spawns(config)
        access = await build_access(config, secrets, databases, metrics, spawns.key_maker)
        disks = build_disks(config)
        cameras = build_cameras(config, databases.trust, metrics)
        media = build_media(config, access.ledger, metrics, spawns)
        recordings = build_recordings(config, databases, access, media, metrics)
        snapshots, events = Snapshots(config.snapshots.folder), EventRing(databases.usage, access.clock)
        events.load()
        services = build_services(
            config, secrets, access, cameras, media, recordings, events, snapshots, disks, metrics
        )
        limits = config.limits
        rpc = RpcEndpoint(
            catalogue, services, gate=access.gate, counts=metrics, cameras=cameras,
            sessions=services.sessions, calls_in_flight=limits.calls_in_flight, longest_batch=limits.batch,
        )  # fmt: skip
        ready = trio.Event()
        app = make_app(catalogue, services, metrics, is_ready=ready.is_set, show_metrics=config.metrics.enabled)
        answer: Answer = make_answer(partial(streams.admit, services), metrics.hook_asked)
        with removed_at_end(media.folder), subscribed(access, cameras, media, recordings, snapshots, events) as feeds:
            async with (
                started_tasks(events.run),
                tasks(*event_tasks(feeds, events)),
                started_tasks(access.accounts.registrar.run, partial(media.hook.serve, answer), cameras.run),
                tasks(*access_tasks(config, databases, access), disks.run),
                started_tasks(media.mediamtx.run, partial(media.paths.run, media.mediamtx), media.viewers.run),
                tasks(*media_tasks(feeds, access, cameras, media, metrics)),
                started_tasks(recordings.run),
                tasks(*recording_tasks(feeds, access, cameras, recordings)),
                tasks(*client_tasks(feeds, access, cameras, media, recordings, services, rpc)),
                serving(open_listeners(config.listen), Handlers(app, rpc.open), config, metrics) as server,
            ):
                watch(metrics, access, cameras, media, disks, server, services)
                ready.set()
                for listener in server.listeners:
                    _log.info("listening", listener=listener.name, address=listener.address)

                def status() -> str:
                    return access.accounts.restores.message or "serving"

                systemd.notify(f"READY=1\nSTATUS={status()}")
                started(server)
                reloads = [partial(Reload(config, load, cameras, status).follow, early)] if load else []
                async with tasks(watchdog, *reloads):
                    await stop.wait()
                    events.end()
                systemd.notify("STOPPING=1\nSTATUS=stopping")
                _log.info("stopping")
            await recordings.close()
            await access.mark.save()
    _log.info("stopped")


async def watchdog() -> None:
    """Tell systemd that the event loop runs, as often as systemd asked for that; nothing where it did not."""
    interval = systemd.watchdog_interval()
    if interval is None:
        return
    while True:
        systemd.notify("WATCHDOG=1")
        await trio.sleep(interval)


def _collect_from_here() -> None:
    """Objects made by the start stay: they are not looked through for garbage any more, later ones are."""
    gc.freeze()
    gc.enable()


def _leaves(problem: BaseException) -> list[BaseException]:
    """The exceptions in a group, however deep."""
    if isinstance(problem, BaseExceptionGroup):
        return [leaf for each in problem.exceptions for leaf in _leaves(each)]
    return [problem]
