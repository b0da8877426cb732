"""The composition root: settings in, a running daemon out. Read `run` aloud: it is the start-up order.

What stands deeper inside starts later and stops earlier: the doors stop before the publishers, these before
MediaMTX, that before the hook that it asks, that before the databases (architecture 15).
"""

from __future__ import annotations

import gc
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from edged import __version__, children, descriptors, logs, systemd
from edged.access.admissions import Admissions
from edged.access.gate import Gate
from edged.access.ledger import Ledger
from edged.access.limiter import Limiter
from edged.access.usage import Usage
from edged.accounts.api_keys import ApiKeys
from edged.accounts.first_admin import FirstAdmin
from edged.accounts.logins import Logins
from edged.accounts.passwords import Passwords
from edged.accounts.refreshes import Refreshes
from edged.accounts.registrar import Registrar
from edged.accounts.restores import Restores
from edged.accounts.revocations import Revocations
from edged.accounts.service_tokens import ServiceTokens
from edged.accounts.users import Users
from edged.app_cameras import build_cameras
from edged.app_reload import Load, Reload, means_stop
from edged.cameras.addresses import Addresses
from edged.cameras.model import Camera, Status
from edged.clock import Clock
from edged.config.model import LISTENERS, OFF, Config, LimitSettings
from edged.config.secrets import load_shared_secrets, load_wrapping_key
from edged.credentials.claims import Trust
from edged.credentials.issuers import IssuerRecord
from edged.credentials.policies import Policy
from edged.credentials.role_claims import RoleClaim
from edged.credentials.tokens import SharedSecret
from edged.credentials.wrapping import WrappingKey
from edged.errors import ConfigError, EdgedError, StartFailed
from edged.library.disks import Disks
from edged.library.snapshots import Snapshots
from edged.mediamtx.addresses import join_address, reach
from edged.mediamtx.conditions import Conditions
from edged.mediamtx.ffmpeg import find_ffmpeg, remove_leftovers
from edged.mediamtx.frames import Frames
from edged.mediamtx.looks import Looks
from edged.mediamtx.paths import Paths
from edged.mediamtx.process import Supervisor
from edged.mediamtx.publisher import Publishers
from edged.mediamtx.settings import USER, MediaSettings
from edged.mediamtx.viewers import Viewers
from edged.metrics import Metrics
from edged.net.doors import WEBSOCKET_PATHS, Doors, Restriction
from edged.net.hook import serve_hook
from edged.net.listener import Listener, Server, inherit, open_all_tcp, open_unix, serve
from edged.operations import gather, metric_labels, streams
from edged.operations.health import count_causes, count_problems
from edged.operations.listings import CameraRow, Listings, row
from edged.operations.services import Services
from edged.operations.session import Sessions
from edged.operations.sessions import count_sessions
from edged.reactions import cameras as camera_reactions
from edged.reactions import mediamtx as mediamtx_reactions
from edged.reactions import revocations, upkeep
from edged.reactions import viewers as viewer_reactions
from edged.reactions.signing_keys import Rotation
from edged.rpc import notifications
from edged.rpc.session import Rpc
from edged.signing.issuers import Issuers, Source
from edged.signing.keyring import Keyring
from edged.store import meta
from edged.store.database import Database
from edged.store.folders import hold_folders
from edged.store.migrations import TRUST, USAGE
from edged.store.opening import leave_marker
from edged.web.app import Curtain, make_app
from edged.web.mediamtx_hook import make_answer

_log = structlog.get_logger("edged")


Task = Callable[..., Awaitable[Any]]
#: What asks us to stop.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: What has no other effect while no loop listens.
_HANDLED = (*STOP_SIGNALS, signal.SIGHUP)


def main(config: Config, load: Load | None = None) -> int:
    """Run until SIGTERM or Ctrl-C; SIGHUP reads the settings again by `load`, or without one, and in a terminal, is as
    SIGTERM. A failed start is one clear line, never a traceback.

    Returns the exit code, for a process that ends now: it hears these signals no more.
    """
    logs.configure(config.log.level)
    # From here on they end us in order only: one that comes before the loop listens is kept for it.
    early: list[int] = []
    set_handlers(lambda number, _frame: early.append(number))
    code = 0
    again = None if means_stop() else load
    stops = _HANDLED if again is None else STOP_SIGNALS
    try:
        trio.run(partial(run, config, early=early, started=_collect_from_here, load=again, stops=stops))
    except* EdgedError as problems:
        code = 1
        for problem in _leaves(problems):
            _log.error("failed", problem=str(problem))
            systemd.notify(f"STATUS=failed: {problem}")
            # Another start would find the same setting: systemd makes none (RestartPreventExitStatus).
            code = os.EX_CONFIG if isinstance(problem, ConfigError) else code
    finally:
        gc.enable()
        # One that comes while the interpreter ends must not make another end of it.
        set_handlers(signal.SIG_IGN)
    return code


def _collect_from_here(_server: Server) -> None:
    """What the start has made is not looked through for garbage any more; what comes after it is."""
    gc.freeze()
    gc.enable()


async def run(
    config: Config, *, started: Callable[[Server], None] = lambda _server: None, early: Sequence[int] = (),
    load: Load | None = None, stops: Sequence[signal.Signals] = STOP_SIGNALS,
) -> None:  # fmt: skip
    """Build the services, serve until a signal, and take it down in order. Raises StartFailed, ConfigError.

    `early` holds the signals that came before anybody listened; `stops` are those that end it. With `load` SIGHUP reads
    the settings again.
    """
    _log.info("starting", version=__version__, pid=os.getpid())
    sessions, catalogue = Sessions(), gather()
    metrics = Metrics(metric_labels(catalogue), version=__version__)
    trust_file, usage_file = config.paths.state / "trust.db", config.paths.state / "usage.db"
    marker = trust_file.with_suffix(".exists")
    shared_secrets, wrapping = read_shared_secrets(config), read_wrapping_key()
    async with (
        stop_signals(early, stops) as stop,
        hold_folders(config.paths.state, config.paths.runtime),
        Database.open(
            trust_file, TRUST, name="trust", observe_commit=metrics.committed,
            reserve=trust_file.with_suffix(".reserve"), proofs=(marker, usage_file),
        ) as trust,
        Database.open(
            usage_file, USAGE, name="usage", synchronous="NORMAL", observe_commit=metrics.committed, is_expendable=True
        ) as tallies,
    ):  # fmt: skip
        leave_marker(marker)
        # Trust: what the gate knows.
        # trio's own clock, without the two calls that trio.current_time makes to find it each time.
        monotonic = trio.lowlevel.current_clock().current_time
        clock = Clock(partial(trust.read_now, meta.load_high_water), synchronized=systemd.is_clock_synchronized,
                      monotonic=monotonic, jumped=partial(upkeep.note_jump, metrics.clock_jumped))  # fmt: skip
        ledger, admissions = Ledger(), Admissions(monotonic, count_end=metrics.session_ended)
        usage = Usage(tallies, clock, admissions.has, lambda: trust.commits)
        registrar = Registrar(ledger, admissions, trust, clock, metrics)
        denials = Revocations(registrar, ledger, trust, clock, metrics)
        mark = upkeep.Mark(clock, mark_store(trust), partial(replace_mark, trust), denials.follow_reset)
        api_keys = ApiKeys(registrar, ledger, admissions, trust, clock)
        service_tokens = ServiceTokens(registrar, ledger, admissions, trust, clock)
        users = Users(registrar, ledger, admissions, trust, clock, issuer=config.auth.issuer)
        restores = Restores(registrar, ledger, trust, tallies, clock)
        registrar.load()
        await restores.examine()
        denials.load()
        users.load()
        api_keys.load()
        service_tokens.load()
        usage.load()
        limiter = make_limiter(config.limits, clock, metrics)
        limiter.load(tallies)
        keyring = Keyring(trust, clock, issuer=config.auth.issuer, is_denied=lambda name: name in ledger.denied,
                          wrapping=wrapping)  # fmt: skip
        keyring.load()
        await keyring.ensure()
        issuers = Issuers(read_issuers(config), trust, clock)
        issuers.load()
        gate = Gate(
            ledger, admissions, clock, metrics,
            shared_secrets=shared_secrets, find_key=keyring.find, issuers=issuers, own=config.auth.issuer,
            leeway=config.auth.leeway, tally=usage.tally, warned=metrics.token_warned,
        )  # fmt: skip
        passwords = Passwords(at_least=config.auth.password_cost)
        logins = Logins(users, passwords, limiter, gate, registrar, is_demo=config.auth.demo_login)
        logins.load()
        first_admin = FirstAdmin(config.paths.runtime, users.is_empty)
        refreshes = Refreshes(
            registrar, ledger, gate, keyring, trust, clock, metrics,
            shared_secrets=shared_secrets, grace=config.auth.refresh_grace_seconds,
        )  # fmt: skip
        refreshes.load()
        disks = make_disks(config)
        # Cameras, and whoever makes pictures of them.
        cameras = build_cameras(config, trust, metrics.udev_resynced, Addresses(config.sources.also_allowed))
        environment = systemd.child_environment()
        hook = Hook()
        paths = Paths()
        mediamtx = Supervisor(
            media_settings(config), hook_url=lambda: hook.url, runtime=config.paths.runtime, environment=environment,
            new_secret=ledger.new_secret, drop_secret=ledger.drop_secret, wanted_paths=paths.wanted,
        )  # fmt: skip
        viewers = Viewers(mediamtx, metrics.session_kicked)
        spawn = partial(children.spawn, environment=environment)
        remove_leftovers(config.paths.runtime)
        conditions = Conditions()
        frames = Frames(
            spawn, find_ffmpeg, lambda name: reader_url(name, mediamtx, publishers, ledger),
            drop_secret=ledger.drop_secret, restarted=partial(metrics.child_restarted, "frames"),
            folder=config.paths.runtime, conditions=conditions,
        )  # fmt: skip
        publishers = Publishers(
            spawn, find_ffmpeg, partial(rtsp_address, mediamtx), ledger.new_secret, ledger.drop_secret, paths.list,
            make_way=frames.make_way, restarted=partial(metrics.child_restarted, "publisher"),
            intruded=metrics.publisher_intruded, unreachable=mediamtx.suspect,
            folder=config.paths.runtime, conditions=conditions,
        )  # fmt: skip
        looks = Looks(spawn, find_ffmpeg, frames, conditions, publishers.is_trying, folder=config.paths.runtime)
        services = Services(
            clock=clock, counts=metrics, gate=gate, ledger=ledger, registrar=registrar, revocations=denials,
            refreshes=refreshes,
            api_keys=api_keys, service_tokens=service_tokens, users=users, logins=logins, usage=usage,
            sessions=sessions,
            cameras=cameras, mediamtx=mediamtx, paths=paths, publishers=publishers, viewers=viewers, frames=frames,
            snapshots=Snapshots(config.snapshots.folder), listings=Listings(), keyring=keyring,
            passwords=passwords, limiter=limiter, first_admin=first_admin, disks=disks, restores=restores,
            shared_secrets=shared_secrets,
            root_needs_no_key=config.auth.local_keys == "root", reset_clock=mark.reset,
        )  # fmt: skip
        doors = Rpc(
            catalogue, services, calls_in_flight=config.limits.calls_in_flight, longest_batch=config.limits.batch
        )
        ready = trio.Event()
        app = make_app(catalogue, services, metrics, is_ready=ready.is_set, show_metrics=config.metrics.enabled)
        answer = make_answer(partial(streams.admit, services), metrics.hook_asked)

        with cameras.changes.subscribe() as for_media, cameras.changes.subscribe() as for_clients, \
                admissions.endings.subscribe() as endings, mediamtx.states.subscribe() as states, \
                conditions.changes.subscribe() as sources:  # fmt: skip
            async with (
                started_tasks(registrar.run, partial(hook.serve, answer), cameras.run),
                tasks(usage.run, partial(limiter.run, tallies), first_admin.run, disks.run, admissions.run, mark.keep,
                      gate.refusals.run,
                      partial(upkeep.watch_clock, clock, partial(admissions.recompute, gate.seconds_left),
                              denials.mind_clock),
                      partial(upkeep.prune, clock, denials.prune),
                      Rotation(keyring, clock, config.auth.signing_key_days).run, issuers.run),
                started_tasks(mediamtx.run, partial(paths.run, mediamtx), viewers.run),
                tasks(publishers.run, frames.run, looks.run,
                      partial(camera_reactions.follow, for_media, cameras, paths, conditions, publishers, frames,
                              looks),
                      partial(camera_reactions.follow_sources, sources, cameras, conditions, looks),
                      partial(mediamtx_reactions.follow, states, publishers, metrics.child_restarted),
                      partial(revocations.follow, endings, admissions, viewers, clock.monotonic),
                      partial(viewer_reactions.follow, admissions, viewers)),
                tasks(partial(notifications.run, for_clients, sessions, doors.conversations, gate,
                              partial(show_camera, mediamtx), cameras=cameras.all, now=clock.now)),
                serving(open_listeners(config), Doors(app, doors.open), config, metrics) as server,
            ):  # fmt: skip
                watch(metrics, services, server, issuers, conditions)
                ready.set()
                for listener in server.listeners:
                    _log.info("listening", listener=listener.name, address=listener.address)
                status = partial(show_status, restores)
                systemd.notify(f"READY=1\nSTATUS={status()}")
                started(server)
                reloads = [partial(Reload(config, load, cameras, status).follow, early)] if load else []
                async with tasks(watchdog, *reloads):
                    await stop.wait()
                systemd.notify("STOPPING=1\nSTATUS=stopping")
                _log.info("stopping")
            await mark.save()
    _log.info("stopped")


# What run() is made of ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def tasks(*starters: Task) -> AsyncIterator[None]:
    """These tasks run while the block does, and are cancelled at its end. One that fails takes the services down."""
    async with trio.open_nursery() as nursery:
        for starter in starters:
            nursery.start_soon(starter)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def started_tasks(*starters: Task) -> AsyncIterator[None]:
    """The same for tasks that say when they are ready: the block begins when all of them are."""
    async with trio.open_nursery() as nursery:
        for starter in starters:
            await nursery.start(starter)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(listeners: list[Listener], doors: Doors, config: Config, metrics: Metrics) -> AsyncIterator[Server]:
    """The doors are open while the block runs; they close in order (net.listener)."""
    async with trio.open_nursery() as nursery:
        restrictions = read_restrictions(config, doors, metrics)
        proxies = config.listen.trusted_proxies
        is_proxy = Policy((), proxies).admits if proxies else (lambda _address: False)
        yield await nursery.start(
            partial(serve, listeners, doors, fit_limits(config.limits), counts=metrics, restrictions=restrictions,
                    is_proxy=is_proxy)
        )  # fmt: skip
        nursery.cancel_scope.cancel()


def fit_limits(limits: LimitSettings) -> LimitSettings:
    """As many connections as the system lets this process have open files for, less those of everything else."""
    files = descriptors.raise_limit()
    fitting = descriptors.connections_within(files, limits.connections)
    if fitting < limits.connections:
        _log.warning(
            "fewer connections", connections=fitting, wanted=limits.connections, open_files=files,
            remedy="raise LimitNOFILE in edged.service, or ulimit -n",
        )  # fmt: skip
    return msgspec.structs.replace(limits, connections=fitting)


@asynccontextmanager
async def stop_signals(
    early: Sequence[int] = (), stops: Sequence[signal.Signals] = STOP_SIGNALS
) -> AsyncIterator[trio.Event]:
    """An event that the signals of `stops` set, also one of `early`. A start goes on to its end, then stops in order.

    It surrounds everything else: however often somebody asks meanwhile, the order is the same.
    """
    stop = trio.Event()

    async def listen(task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*stops) as signals:
            if asked := [number for number in early if number in stops]:
                _log.info("signal", name=signal.Signals(asked[0]).name)
                stop.set()
            task_status.started()
            async for number in signals:
                _log.info("signal", name=signal.Signals(number).name)
                stop.set()

    async with started_tasks(listen):
        yield stop


def set_handlers(handler: Callable[[int, Any], Any] | signal.Handlers) -> None:
    """What becomes of the signals that ask us to stop while no loop listens."""
    for number in _HANDLED:
        signal.signal(number, handler)


class Hook:
    """Where MediaMTX asks: its own listener, a port of the kernel's, a path that nobody guesses (architecture 6)."""

    def __init__(self) -> None:
        self._path = f"/{secrets.token_urlsafe(24)}"
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}{self._path}"

    async def serve(self, answer: Callable[[bytes], tuple[int, bytes]], task_status: trio.TaskStatus[None]) -> None:
        """Answer until cancelled; started once it listens."""
        async with trio.open_nursery() as nursery:
            self._port = await nursery.start(partial(serve_hook, answer, path=self._path))
            task_status.started()


def make_limiter(limits: LimitSettings, clock: Clock, metrics: Metrics) -> Limiter:
    """How much guessing costs, by the settings."""
    return Limiter(
        clock.monotonic,
        metrics.auth_throttled,
        guesses=limits.guesses,
        guess_seconds=limits.guess_seconds,
        longest_backoff=limits.longest_backoff_seconds,
    )


def read_shared_secrets(config: Config) -> tuple[SharedSecret, ...]:
    """The HS256 secrets of the settings. Raises ConfigError."""
    texts = load_shared_secrets(config, systemd.credentials_directory())
    own = config.auth.issuer
    issuers, audiences = frozenset({own, *config.auth.shared_issuers}), frozenset(config.auth.shared_audiences)
    trust = Trust(issuers, audiences, own=own)
    return tuple(SharedSecret(name, text, trust) for name, text in texts.items())


def read_issuers(config: Config) -> list[Source]:
    """The `[auth.issuers.NAME]` of the settings as the room of access knows them."""
    return [
        Source(
            IssuerRecord(
                name,
                given.issuer,
                given.algorithms,
                frozenset(given.audience),
                given.ceiling,
                RoleClaim(given.roles_claim, given.roles),
            ),
            given.key or given.jwks,
            is_pem=bool(given.key),
        )
        for name, given in config.auth.issuers.items()
    ]


def read_wrapping_key() -> WrappingKey | None:
    """What the private halves of signing keys are wrapped by, if the operator hands it over. Raises ConfigError."""
    text = load_wrapping_key(systemd.credentials_directory())
    return None if text is None else WrappingKey(text)


def make_disks(config: Config) -> Disks:
    """Every folder that edged writes to."""
    paths = config.paths
    folders = {"state": paths.state, "runtime": paths.runtime, "media": config.snapshots.folder}
    return Disks(folders, config.limits.disk_low_mib * 1024 * 1024)


def media_settings(config: Config) -> MediaSettings:
    """The `[mediamtx]` section as MediaMTX's room knows it."""
    given = config.mediamtx
    return MediaSettings(
        enabled=given.enabled,
        binary=given.binary,
        rtsp=given.rtsp,
        hls=given.hls,
        webrtc=given.webrtc,
        webrtc_udp=given.webrtc_udp,
        rtmp=given.rtmp,
        srt=given.srt,
        minimum_version=given.minimum_version,
        recommended_version=given.recommended,
    )


def rtsp_address(mediamtx: Supervisor) -> str | None:
    """Where edged's own publishers and readers find MediaMTX, None while it is not ready."""
    state = mediamtx.state
    address = state.addresses.get("rtsp") if state.status == "ready" else None
    return join_address(*reach(address)) if address else None


def reader_url(name: str, mediamtx: Supervisor, publishers: Publishers, ledger: Ledger) -> str | None:
    """Where edged itself reads a camera that is being published; its password is good for one DESCRIBE and one SETUP.

    None for one that sleeps: a picture straight from the source is there sooner, and wakes no encoder.
    """
    address = rtsp_address(mediamtx) if publishers.is_active(name) else None
    return f"rtsp://{USER}:{ledger.new_secret(name, 'read', 2)}@{address}/{name}" if address else None


def show_camera(mediamtx: Supervisor, camera: Camera, host: str) -> CameraRow:
    """A camera as notifications show it."""
    return row(camera, host, mediamtx.state)


def open_listeners(config: Config) -> list[Listener]:
    """Every socket of the settings; the unix socket is systemd's where it hands one over. Raises StartFailed."""
    listeners: list[Listener] = []
    with ExitStack() as undo:
        undo.callback(_close_all, listeners)
        given = systemd.listen_fds()
        for sock in given.values():
            undo.callback(sock.close)
        for name, sock in given.items():
            # systemd's second socket of a name is called NAME.2 there; here it is one more of the same kind.
            plain, _, number = name.rpartition(".")
            listeners.append(inherit(plain if number.isdecimal() else name, sock))
        if config.listen.unix != OFF and all(each.name != "unix" for each in listeners):
            listeners.append(open_unix("unix", Path(config.listen.unix)))
        without: list[str] = []
        listeners += open_all_tcp("main", config.listen.main, without)
        listeners += open_all_tcp("compat", config.listen.compat, without)
        listeners += open_all_tcp("local", config.listen.local, without)
        listeners += open_tokens(config, without)
        undo.pop_all()
    if without:
        _log.warning("no_ipv6", addresses=without, effect="this system has no IPv6: edged does not listen there")
    return listeners


def open_tokens(config: Config, without: list[str]) -> list[Listener]:
    """The door that MediaMTX servers fetch the JWKS from; its usual port is a favourite of others, and edged can do
    without it (contract S4-1)."""
    try:
        return open_all_tcp("tokens", config.listen.tokens, without)
    except StartFailed as problem:
        _log.warning(
            "not listening", listener="tokens", problem=str(problem),
            remedy="the other listeners serve the same: free the port, or name another in listen.tokens",
        )  # fmt: skip
        return []


def read_policies(config: Config) -> dict[str, Policy]:
    """The `[listen.policy.NAME]` of the settings by listener; one that shows everything to everybody is none."""
    policies = {}
    for name in LISTENERS:
        given = getattr(config.listen.policy, name)
        policy = Policy(given.paths, given.networks)
        if not (policy.shows_everything and policy.admits_everybody):
            policies[name] = policy
    return policies


def read_restrictions(config: Config, doors: Doors, metrics: Metrics) -> dict[str, Restriction]:
    """What each listener with a policy is held to. Settled here, so that a request to any other costs nothing more."""
    found = {}
    for name, policy in read_policies(config).items():
        behind = doors
        if not policy.shows_everything:
            app = Curtain(doors.app, metrics, policy.shows)
            behind = Doors(app, doors.open_session, frozenset(filter(policy.shows, WEBSOCKET_PATHS)))
        found[name] = Restriction(behind, None if policy.admits_everybody else policy.admits)
    return found


def _close_all(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()


def mark_store(trust: Database) -> Callable[[float], Awaitable[None]]:
    """How the clock's high-water mark is kept; a disk that fails is told in the log and tried again next time."""

    async def save(mark: float) -> None:
        try:
            await trust.write(lambda connection: meta.save_high_water(connection, mark))
        except EdgedError as problem:
            _log.warning("mark not kept", problem=str(problem))

    return save


async def replace_mark(trust: Database, mark: float) -> None:
    """Root has set the clock's mark. Raises StoreFailed."""
    await trust.write(lambda connection: meta.replace_high_water(connection, mark))


def watch(metrics: Metrics, services: Services, server: Server, issuers: Issuers, conditions: Conditions) -> None:
    """Where metrics look when somebody scrapes."""

    def count_keys() -> Mapping[str, int]:
        now = services.clock.now()
        return Counter(services.ledger.key_status(record, now) for record in services.ledger.keys.values())

    def show_cameras() -> Mapping[str, bool | None]:
        states = {Status.CONNECTED: True, Status.DISCONNECTED: False, Status.ERROR: None}
        return {camera.name: states[camera.status] for camera in services.cameras.all()}

    metrics.gauges.watch(
        sessions=lambda: count_sessions(services),
        connections=lambda: server.connections,
        cameras=show_cameras,
        children=lambda: {
            "mediamtx": int(services.mediamtx.state.pid is not None),
            "publisher": sum(state.pid is not None for state in services.publishers.states.values()),
            "frames": len(services.frames.running),
        },
        camera_causes=lambda: count_causes(services.cameras.all()),
        camera_restarts=lambda: {
            camera.name: conditions.find(camera.name).restarts for camera in services.cameras.all()
        },
        api_keys=count_keys,
        mediamtx_version=lambda: services.mediamtx.state.version,
        clock=lambda: (services.clock.is_synchronized, services.clock.is_trusted, services.clock.high_water()),
        issuers=issuers.last_success,
        denials_owed=lambda: services.registrar.owed,
        health=lambda: count_problems(services),
        restore_unconfirmed=lambda: services.restores.pending is not None,
        disks=lambda: {disk.name: disk.free_bytes for disk in services.disks.latest},
    )


def show_status(restores: Restores) -> str:
    """What systemd shows of a daemon that serves."""
    return restores.message or "serving"


async def watchdog() -> None:
    """Tell systemd that the loop turns, where it asked for that."""
    interval = systemd.watchdog_interval()
    if interval is None:
        return
    while True:
        systemd.notify("WATCHDOG=1")
        await trio.sleep(interval)


def _leaves(problem: BaseException) -> list[BaseException]:
    """The exceptions in a group, however deep."""
    if isinstance(problem, BaseExceptionGroup):
        return [leaf for each in problem.exceptions for leaf in _leaves(each)]
    return [problem]
