"""Who may do what: the databases and the settings → the gate, and what changes credentials."""

from __future__ import annotations

from functools import partial

import msgspec
import trio

from edged import systemd
from edged.access.admissions import Admissions
from edged.access.authority import EDGED
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
from edged.children import Spawn
from edged.clock import Clock
from edged.config.model import Config
from edged.daemon.databases import Databases, replace_mark, save_mark
from edged.daemon.nurseries import Task
from edged.daemon.secrets import Secrets
from edged.feeds import Feed
from edged.metrics import Metrics
from edged.reactions import clock_upkeep
from edged.reactions.signing_keys import Rotation
from edged.signing import key_maker
from edged.signing.issuers import Issuers
from edged.signing.keyring import Keyring
from edged.store import meta
from edged.store.restores import was_restored


class Accounts(msgspec.Struct, frozen=True):
    """What changes credentials and commits, loaded from the trust database."""

    registrar: Registrar
    revocations: Revocations
    restores: Restores
    users: Users
    api_keys: ApiKeys
    service_tokens: ServiceTokens


class Access(msgspec.Struct, frozen=True):
    """The gate, everything it decides by, and everything that changes that."""

    clock: Clock
    #: By how many seconds the system clock was set.
    jumps: Feed[float]
    mark: clock_upkeep.Mark
    ledger: Ledger
    admissions: Admissions
    usage: Usage
    limiter: Limiter
    accounts: Accounts
    keyring: Keyring
    issuers: Issuers
    gate: Gate
    passwords: Passwords
    logins: Logins
    first_admin: FirstAdmin
    refreshes: Refreshes


async def build_access(
    config: Config, secrets: Secrets, databases: Databases, metrics: Metrics, spawn_key_maker: Spawn
) -> Access:
    """Build and load all of it; nothing runs yet. Raises ConfigError, StoreFailed."""
    trust, auth = databases.trust, config.auth
    # trio's own clock, without the two calls that trio.current_time makes to find it each time.
    monotonic = trio.lowlevel.current_clock().current_time
    jumps: Feed[float] = Feed()
    clock = Clock(
        partial(trust.read_now, meta.load_high_water), synchronized=systemd.is_clock_synchronized,
        monotonic=monotonic, jumped=partial(clock_upkeep.note_jump, metrics.clock_jumped, jumps.publish),
    )  # fmt: skip
    ledger, admissions = Ledger(), Admissions(monotonic, count_end=metrics.session_ended)
    usage = Usage(databases.usage, clock, admissions.has, lambda: trust.commits, ledger.is_known)
    accounts = await build_accounts(config, databases, ledger, admissions, clock, metrics, usage)
    usage.load([*ledger.keys, *ledger.service_tokens])
    limiter = build_limiter(config, clock, metrics)
    limiter.load(databases.usage)
    keyring = Keyring(
        trust, clock, issuer=auth.issuer, is_denied=ledger.denials.__contains__, wrapping=secrets.wrapping,
        make=partial(key_maker.make, spawn_key_maker), was_restored=was_restored(ledger.epoch),
    )  # fmt: skip
    keyring.load()
    await keyring.ensure()
    issuers = Issuers(auth.issuers, trust, clock)
    issuers.load()
    gate = Gate(
        ledger, admissions, limiter, clock, metrics,
        shared_secrets=secrets.shared, find_key=keyring.find, issuers=issuers, own=auth.issuer,
        leeway=auth.leeway, tally=usage.tally, warned=metrics.token_warned,
    )  # fmt: skip
    passwords = Passwords(at_least=auth.password_cost)
    logins = Logins(accounts.users, passwords, limiter, gate, accounts.registrar, is_demo=auth.demo_login)
    logins.load()
    refreshes = Refreshes(
        accounts.registrar, ledger, gate, keyring, trust, clock, metrics,
        shared_secrets=secrets.shared, grace=auth.refresh_grace_seconds,
    )  # fmt: skip
    refreshes.load()
    return Access(
        clock=clock,
        jumps=jumps,
        mark=clock_upkeep.Mark(
            clock, save_mark(trust), partial(replace_mark, trust), accounts.revocations.follow_reset
        ),
        ledger=ledger,
        admissions=admissions,
        usage=usage,
        limiter=limiter,
        accounts=accounts,
        keyring=keyring,
        issuers=issuers,
        gate=gate,
        passwords=passwords,
        logins=logins,
        first_admin=FirstAdmin(config.paths.runtime, accounts.users.is_empty),
        refreshes=refreshes,
    )


async def build_accounts(
    config: Config, databases: Databases, ledger: Ledger, admissions: Admissions, clock: Clock, metrics: Metrics,
    usage: Usage,
) -> Accounts:  # fmt: skip
    """Build what changes credentials and load the ledger: a restored database is examined before its records count.

    Raises StoreFailed.
    """
    trust = databases.trust
    registrar = Registrar(ledger, admissions, trust, clock, metrics)
    revocations = Revocations(
        registrar, ledger, trust, clock, metrics,
        keep_ended_days=config.auth.keep_ended_days, forgotten=usage.forget,
    )  # fmt: skip
    api_keys = ApiKeys(registrar, ledger, admissions, trust, clock)
    service_tokens = ServiceTokens(registrar, ledger, admissions, trust, clock)
    users = Users(registrar, ledger, admissions, trust, clock, issuer=config.auth.issuer)
    restores = Restores(registrar, ledger, trust, databases.usage, clock)
    registrar.load()
    await restores.examine()
    for loaded in (revocations, users, api_keys, service_tokens):
        loaded.load()
    return Accounts(registrar, revocations, restores, users, api_keys, service_tokens)


def build_limiter(config: Config, clock: Clock, metrics: Metrics) -> Limiter:
    """How much guessing costs, by the settings."""
    return Limiter(
        clock.monotonic,
        metrics.auth_throttled,
        guesses=config.limits.guesses,
        guess_seconds=config.limits.guess_seconds,
        longest_backoff=config.limits.longest_backoff_seconds,
    )


def access_tasks(config: Config, databases: Databases, access: Access) -> tuple[Task, ...]:
    """What runs beside the registrar for as long as anything asks the gate."""
    clock, revocations = access.clock, access.accounts.revocations
    corrected = partial(access.admissions.recompute, access.gate.seconds_left)
    return (
        access.usage.run,
        partial(access.limiter.run, databases.usage),
        access.first_admin.run,
        access.admissions.run,
        access.mark.keep,
        access.gate.refusals.run,
        partial(clock_upkeep.watch_clock, clock, corrected, revocations.mind_clock),
        partial(clock_upkeep.prune, clock, revocations.prune),
        Rotation(access.keyring, clock, config.auth.signing_key_days, access.accounts.registrar.granting(EDGED)).run,
        access.issuers.run,
    )
