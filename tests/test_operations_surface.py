"""Each operation as REST, RPC and command from one declaration (contract 10.1, 5.1 to 5.3): the table, and no drift.

RPC is the catalogue itself. Routes and options are written by hand: here each is asked, and what it hands to the
catalogue is compared with the declaration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlencode

import click
import msgspec
import pytest
import trio
from click.testing import CliRunner
from msgspec import UNSET, inspect, structs
from starlette.requests import Request as HttpRequest
from web_helpers import Counted

from edged import operations
from edged.cli import client
from edged.cli.client import Answered
from edged.cli.main import main
from edged.credentials.callers import Peer
from edged.metrics import Metrics
from edged.operations import gather, metric_labels
from edged.operations.caller_sessions import Session
from edged.web.bodies import FORM
from edged.web.requests import Request, Route
from edged.web.routes import list_routes

CATALOGUE = operations.gather()


class Row(NamedTuple):
    """How an operation is reached beside RPC; nothing where the contract names nothing."""

    rest: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def row(rest: str = "", *commands: str) -> Row:
    return Row((rest,) if rest else (), commands)


RPC_ONLY = Row()
SURFACE: dict[str, Row] = {
    "ping": RPC_ONLY,
    "authenticate": RPC_ONLY,
    "whoami": row("GET /api/whoami", "whoami"),
    "get_camera_list": row("GET /api/cameras", "camera list"),
    "get_camera_status": row("GET /api/cameras/{device}", "camera show"),
    "add_camera": row("POST /api/cameras", "camera add"),
    "update_camera": row("PATCH /api/cameras/{device}", "camera set"),
    "remove_camera": row("DELETE /api/cameras/{device}", "camera remove"),
    "rename_camera": row("POST /api/cameras/{device}/rename", "camera rename"),
    "list_camera_devices": row("GET /api/camera-devices", "camera devices"),
    "bind_camera": row("POST /api/camera-devices/bind", "camera bind"),
    "release_camera_device": row("POST /api/camera-devices/release", "camera release"),
    "forget_camera": row("POST /api/cameras/{device}/forget", "camera forget"),
    "take_snapshot": row("POST /api/cameras/{device}/snapshots", "camera snapshot"),
    "get_snapshot": row("POST /api/cameras/{device}/recorded-snapshots", "camera snapshot"),
    "create_clip": row("POST /api/cameras/{device}/clips", "recording clip"),
    "start_recording": row("POST /api/cameras/{device}/recording", "recording start"),
    "stop_recording": row("DELETE /api/cameras/{device}/recording", "recording stop"),
    "get_recording_status": row("GET /api/cameras/{device}/recording", "recording status"),
    "list_recordings": row("GET /api/recordings", "recording list"),
    "get_recording_info": row("GET /api/recordings/{filename}", "recording show", "recording download"),
    "get_recording_evidence": row("GET /api/recordings/{filename}/evidence", "recording download"),
    "delete_recording": row("DELETE /api/recordings/{filename}", "recording delete"),
    "protect_recording": row("PUT /api/recordings/{filename}/protection", "recording protect"),
    "unprotect_recording": row("DELETE /api/recordings/{filename}/protection", "recording unprotect"),
    "create_file_link": row("POST /api/links", "recording link", "snapshot link"),
    "list_snapshots": row("GET /api/snapshots", "snapshot list"),
    "get_snapshot_info": row("GET /api/snapshots/{filename}", "snapshot show"),
    "delete_snapshot": row("DELETE /api/snapshots/{filename}", "snapshot delete"),
    "get_storage_info": row("GET /api/storage", "storage show"),
    "set_retention_policy": row("PUT /api/storage/retention", "storage retention"),
    "cleanup_old_files": row("POST /api/storage/cleanup", "storage cleanup"),
    "get_streams": row("GET /api/streams", "stream list"),
    "get_stream_url": row("GET /api/cameras/{device}/stream", "stream url"),
    "create_event": row("POST /api/cameras/{device}/events", "camera event"),
    "get_timeline": row("GET /api/cameras/{device}/timeline", "camera timeline"),
    "create_playback_link": row("POST /api/cameras/{device}/playback", "camera playback"),
    "get_events": row("GET /api/events", "events"),
    "get_system_status": row("GET /api/status", "status"),
    "subscribe_events": RPC_ONLY,
    "unsubscribe_events": RPC_ONLY,
    "login": row("POST /api/login"),
    "get_token_usage": row("GET /api/tokens/usage", "token usage"),
    "issue_token": row("POST /api/tokens", "token issue"),
    "refresh_token": row("POST /api/token/refresh", "token refresh"),
    # Two names of one question: guide S0's, and RFC 7662's.
    "validate_token": row("POST /api/tokens/validate", "token verify"),
    "introspect_token": row("POST /oauth/introspect"),
    "revoke_token": row("POST /oauth/revoke", "token revoke"),
    "create_stream_token": row("POST /api/token"),
    "create_key": row("POST /api/keys", "key create"),
    "list_keys": row("GET /api/keys", "key list"),
    "get_key": row("GET /api/keys/{key_id}", "key show"),
    "update_key": row("PATCH /api/keys/{key_id}", "key update"),
    "rotate_key": row("POST /api/keys/{key_id}/rotate", "key rotate"),
    "suspend_key": row("POST /api/keys/{key_id}/suspend", "key suspend"),
    "resume_key": row("POST /api/keys/{key_id}/resume", "key resume"),
    "revoke_key": row("DELETE /api/keys/{key_id}", "key revoke"),
    "import_keys": row("POST /api/keys/import", "key import"),
    "list_users": row("GET /api/users", "user list"),
    "create_user": row("POST /api/users", "user add"),
    "get_user": row("GET /api/users/{name}", "user show"),
    "update_user": row("PATCH /api/users/{name}", "user set"),
    "set_password": row("PUT /api/users/{name}/password", "user password"),
    "delete_user": row("DELETE /api/users/{name}", "user remove"),
    "create_demo_login": row("POST /api/demo-login", "user demo-login"),
    "list_service_tokens": row("GET /api/service-tokens", "service-token list"),
    "create_service_token": row("POST /api/service-tokens", "service-token add"),
    "rotate_service_token": row("POST /api/service-tokens/{token_id}/rotate", "service-token rotate"),
    "revoke_service_token": row("DELETE /api/service-tokens/{token_id}", "service-token revoke"),
    "import_service_token": row("POST /api/service-tokens/import", "service-token import"),
    "generate_files_token": row("POST /v1/files/generate-token"),
    "list_signing_keys": row("GET /api/signing-keys", "signing-key list"),
    "create_signing_key": row("POST /api/signing-keys", "signing-key create"),
    "promote_signing_key": row("POST /api/signing-keys/{kid}/promote", "signing-key promote"),
    "retire_signing_key": row("POST /api/signing-keys/{kid}/retire", "signing-key retire"),
    "list_sessions": row("GET /api/sessions", "session list"),
    "end_session": row("DELETE /api/sessions/{session_id}", "session end"),
    "list_revocations": row("GET /api/revocations", "revocation list"),
    "revoke": row("POST /api/revocations", "revocation add"),
    "create_ticket": row("POST /api/tickets", "stream ticket"),
    "claim": row("POST /api/claim", "claim"),
    "get_claim_code": row("GET /api/claim/code"),
    "create_claim_code": row("POST /api/claim/code", "claim"),
    "get_clock": row("GET /api/clock", "clock show"),
    "reset_clock": row("POST /api/clock/reset", "clock reset"),
    "confirm_restore": row("POST /api/trust/confirm-restore", "trust confirm-restore"),
}

#: Commands that ask the running daemon nothing.
SILENT = {
    "recording verify",
    "serve",
    "demo",
    "version",
    "logout",
    "config check",
    "db tables",
    "db schema",
    "db query",
    "db export",
    "config show",
    "signing-key abandon",
    "trust restore",
    "trust begin-anew",
}

#: Params that a route or a command leaves out on purpose, and why.
NOT_BY_REST = {
    ("refresh_token", "auth_token"): "the other spelling of token; by HTTP it is the Bearer",
    ("revoke_token", "jti"): "RFC 7009 names a token by its text; POST /api/revocations takes a jti",
    ("revoke_token", "token_hash"): "as jti",
}
WHOLE = "a command shows the whole list, page by page"
NOT_BY_COMMAND = {
    **{
        (name, "cursor"): WHOLE
        for name in ("list_keys", "list_users", "list_service_tokens", "list_signing_keys", "get_camera_list")
    },
    **{("get_streams", member): "a command shows the whole list" for member in ("limit", "cursor")},
    **{("get_recording_evidence", member): "a command fetches all of it" for member in ("limit", "cursor")},
    ("get_timeline", "limit"): "a command shows all of it",
    ("get_timeline", "cursor"): "as limit",
    ("list_sessions", "cursor"): "a command takes an offset",
    ("list_revocations", "cursor"): "a command takes an offset",
    ("list_recordings", "cursor"): "a command takes an offset",
    ("list_snapshots", "cursor"): "a command takes an offset",
    ("claim", "code"): "on the unix socket no code is needed",
    ("refresh_token", "auth_token"): "the other spelling of token",
    **{
        ("start_recording", f"duration_{unit}"): "another spelling of duration"
        for unit in ("seconds", "minutes", "hours")
    },
    **{
        ("get_snapshot", member): "said beside --at or --event, without which it is take_snapshot's"
        for member in ("filename", "format", "quality")
    },
    ("set_password", "old_password"): "whoever may open the unix socket is an administrator, who needs none",
}
#: Params whose null says something else than their absence, which a command cannot say, and why.
NEVER_NULL = {
    ("create_key", "owner"): "on the unix socket a key is nobody's without it",
}
#: What commands look at before they ask what they are for, and what they find.
LOOKED_AT: dict[str, Any] = {
    "list_users": {"users": []},
    "get_user": {},
    "list_sessions": {"sessions": [], "total": 0},
    "get_camera_list": {"cameras": []},
}
#: Good for whatever takes a text, a claim too.
TEXT = "a=1"


def test_every_operation_has_a_row() -> None:
    """Whoever adds an operation says here how it is reached, or that it is by RPC alone; nothing is left over."""
    assert CATALOGUE.operations.keys() == SURFACE.keys()


def test_every_operation_has_a_route_and_a_command_or_says_why_not() -> None:
    """A reason stands exactly where there is none."""
    for name, item in CATALOGUE.operations.items():
        assert (item.rest is None) == bool(item.no_rest) == (not SURFACE[name].rest), name
        assert bool(item.no_command) == (not SURFACE[name].commands), name


def test_every_route_is_in_the_table() -> None:
    """Method and path of each route that asks an operation; one that the contract does not name is not there."""
    found = {f"{route.method} {route.path}": route.operation for route in routes() if route.operation}
    assert found == {rest: name for name, each in SURFACE.items() for rest in each.rest}


def test_every_command_is_in_the_table() -> None:
    """Each command line of `edged` asks an operation of the table, or is known to ask nothing."""
    assert dict(commands()).keys() == {name for each in SURFACE.values() for name in each.commands} | SILENT


async def test_by_rest_every_param_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the path, the query, the body or the head: what is said there is what the operation is asked with."""
    left_out = set()
    for route in routes():
        if not route.operation:
            continue
        for field in fields(route.operation):
            heard = [await ask_route(monkeypatch, route, field, where) for where in ("json", "form", "query", "head")]
            if not any(heard):
                left_out.add((route.operation, field.encode_name))
    assert left_out == NOT_BY_REST.keys()


def test_by_command_every_param_can_be_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an option, an argument or standard input; and null where that says something that absence does not."""
    heard, told = ask_commands(monkeypatch, tmp_path)
    assert heard.keys() == {name for name, each in SURFACE.items() if each.commands}
    params = {(name, field.encode_name) for name in heard for field in fields(name)}
    assert {each for each in params if not told(*each, null=False)} == NOT_BY_COMMAND.keys()
    lifted = {(name, member) for name in heard for member in nullable(name)}
    assert {each for each in lifted if not told(*each, null=True)} == NEVER_NULL.keys()


def test_a_command_asks_what_the_table_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each by its own name: no command asks an operation of another one's row, nor one that does not exist."""
    heard, _ = ask_commands(monkeypatch, tmp_path)
    assert {name: {command for command, *_ in calls} for name, calls in heard.items()} == {
        name: set(each.commands) for name, each in SURFACE.items() if each.commands
    }


# --- the declarations -------------------------------------------------------------------------------------------


def fields(operation: str) -> tuple[inspect.Field, ...]:
    kind = inspect.type_info(CATALOGUE.operations[operation].params)
    assert isinstance(kind, inspect.StructType)
    return kind.fields


def nullable(operation: str) -> set[str]:
    """Params whose null is told apart from their absence."""
    defaults = {each.encode_name: each.default for each in structs.fields(CATALOGUE.operations[operation].params)}
    kinds = {each.encode_name: each.type for each in fields(operation)}
    optional = {
        name
        for name, kind in kinds.items()
        if isinstance(kind, inspect.UnionType) and any(isinstance(each, inspect.NoneType) for each in kind.types)
    }
    return {name for name in optional if defaults[name] is UNSET}


def sample(kind: inspect.Type) -> Any:
    """A value of this type that is not its default."""
    if isinstance(kind, inspect.Metadata):
        return sample(kind.type)
    if isinstance(kind, inspect.UnionType):
        return sample(next(each for each in kind.types if not isinstance(each, inspect.NoneType)))
    if isinstance(kind, inspect.LiteralType):
        return kind.values[-1]
    if isinstance(kind, inspect.ListType):
        return [sample(kind.item_type)]
    if isinstance(kind, inspect.StructType):
        return {each.encode_name: sample(each.type) for each in kind.fields}
    known: dict[type[inspect.Type], Any] = {
        inspect.StrType: TEXT, inspect.IntType: 7, inspect.FloatType: 7.0, inspect.BoolType: True,
        inspect.DictType: {"name": "value"},
    }  # fmt: skip
    return known[type(kind)]


# --- the routes ---------------------------------------------------------------------------------------------------


def routes() -> list[Route]:
    services: Any = SimpleNamespace(clock=SimpleNamespace(monotonic=float))
    return list(list_routes(CATALOGUE, services, Counted()))


class Heard(Exception):
    """What a route has handed to the catalogue."""

    def __init__(self, operation: str, params: dict[str, Any]) -> None:
        super().__init__(operation)
        self.operation = operation
        self.params = params


async def ask_route(monkeypatch: pytest.MonkeyPatch, route: Route, field: inspect.Field, where: str) -> bool:
    """Whether a param that stands in this place of the request reaches the operation as it was said."""

    async def listen(_self: Request, operation: str, params: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise Heard(operation, msgspec.json.decode(params) if isinstance(params, msgspec.Raw) else dict(params))

    monkeypatch.setattr(Request, "call", listen)
    name, value = field.encode_name, sample(field.type)
    in_path = re.findall(r"{(\w+)(?::\w+)?}", route.path)
    if name in in_path:
        value = "in-path"
    elif where == "head":
        value = "a.b.c"
    said = {name: value}
    spelled = {name: str(value).lower() if isinstance(value, bool) else value}
    # `token` is what every form of /oauth holds.
    body = msgspec.json.encode(said if where == "json" else {})
    if where == "form":
        body = urlencode({"token": "a.b.c", **spelled}).encode()
    headers = {"host": "localhost", "content-length": str(len(body))}
    headers["content-type"] = FORM if where == "form" else "application/json"
    if where == "head":
        headers["authorization"] = "Bearer a.b.c"
    scope = {
        "type": "http", "method": route.method, "path": route.path, "path_params": dict.fromkeys(in_path, "in-path"),
        "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
        "query_string": urlencode(spelled).encode() if where == "query" else b"",
    }  # fmt: skip
    request = HttpRequest(scope, partial(receive, body))
    try:
        nobody: Any = SimpleNamespace()
        await route.answer(Request(request, CATALOGUE, nobody, nobody, Session(Peer("main"), "http"), route))
    except Heard as heard:
        got = heard.params.get(name)
        return heard.operation == route.operation and (got == value or (where == "query" and str(got) == str(value)))
    except Exception:
        return False
    return False


async def receive(body: bytes) -> dict[str, Any]:
    await trio.lowlevel.checkpoint()
    return {"type": "http.request", "body": body, "more_body": False}


# --- the commands -----------------------------------------------------------------------------------------------


def commands(group: click.Group = main, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def ask_commands(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> tuple[dict[str, list[tuple[str, dict[str, Any]]]], Any]:
    """Every command with each of its options: operation → by which command and with which params it was asked."""
    heard: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    asking = ""
    code = folder / "code"
    code.write_text("ABCDEFGHJK")

    async def listen(_path: Path, method: str, params: dict[str, Any]) -> Any:
        await trio.lowlevel.checkpoint()
        if method in LOOKED_AT and asking not in SURFACE[method].commands:
            return LOOKED_AT[method]
        heard.setdefault(method, []).append((asking, dict(params)))
        if method in ("get_claim_code", "create_claim_code"):
            return {"path": str(code), "expires_in": 900}
        raise Answered(0, "heard")

    monkeypatch.setattr(client, "call_once", listen)
    monkeypatch.delenv("CAMERA_SERVICE_JWT_TOKEN", raising=False)
    for name, command in commands():
        asking = name
        if name not in SILENT:
            for words in lines(command, folder):
                CliRunner().invoke(main, [*name.split(), *words], input="a long passphrase\n")

    def told(operation: str, member: str, *, null: bool) -> bool:
        return any((params[member] is None) == null for _, params in heard[operation] if member in params)

    return heard, told


def lines(command: click.Command, folder: Path) -> Iterator[list[str]]:
    """The command with what it must have, and with each other option beside that."""
    must, may = [], []
    for each in command.params:
        if isinstance(each, click.Argument):
            must += [write(each.type, folder)]
        elif each.required or each.name in ("password_stdin", "force", "yes"):
            must += option(each, each.opts[0], folder)
        elif each.name not in ("socket", "directory", "as_json"):
            may += [option(each, word, folder) for word in (each.opts[0], *each.secondary_opts)]
    yield from ([*must, "--socket", "/nowhere", *extra] for extra in ([], *may))


def option(each: click.Parameter, word: str, folder: Path) -> list[str]:
    return [word] if isinstance(each, click.Option) and each.is_flag else [word, write(each.type, folder)]


def write(kind: Any, folder: Path) -> str:
    """A word that this type takes."""
    if isinstance(kind, click.Choice):
        return str(next(iter(kind.choices)))
    if isinstance(kind, click.Path):
        file = folder / "api-keys.json"
        file.write_bytes(msgspec.json.encode({"keys": {"1": {"key": "k" * 40, "role": 1}}}))
        return str(file)
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        return str(kind.min or min(100, kind.max or 100))
    return "100" if kind.name in ("integer", "number") else TEXT


def test_all_operations_together_stay_below_the_limit_of_metric_series() -> None:
    """At most 500 series with two cameras and five keys, counted with the operations that there are."""
    metrics = Metrics(metric_labels(gather()), version="1.2.3")
    metrics.gauges.watch(cameras=lambda: {"camera0": True, "camera1": False}, api_keys=lambda: {"active": 5})
    lines = [line for line in metrics.render()[0].decode().splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 500
