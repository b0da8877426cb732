"""Every place that writes a database, and by what right: nothing that can be asked for reaches trust.db by hand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from daemon_helpers import Conversation, running_daemon
from patience import fail_after

import edged
from edged.access.asking import asking
from edged.access.authority import Asker, Proof
from edged.store.database import Database

ROOT = Path(edged.__file__).parent
#: module.function of every call of `Database.write` on trust.db: the two ways of grants, and what edged does by itself.
WRITERS = {
    "access.grants.commit": "what edged does by itself: the commit of Upkeep, see BY_ITSELF",
    "accounts.jobs.__call__": "grants, asked again right before and after it",
    "accounts.registrar.write": "the same, and denials",
    "daemon.cameras.build_cameras.save": "slots of cameras that were plugged in or described by the settings",
    "daemon.databases.save_mark.save": "the time that was reached",
    "daemon.databases.replace_mark": "the same, when root sets the clock back: asked for in the same step",
    "library.retention_policies.save": "the limits of cameras, by the settings",
    "library.deleted_recordings._bury": "recordings without files",
    "library.deleted_recordings._sweep": "there is nothing left of what was deleted",
    "library.deleted_recordings.prune": "what was deleted long ago is forgotten",
    "library.sealing._find_series": "seals of what was recorded",
    "library.sealing._save": "seals of what was recorded",
    "signing.issuers._store": "the last good keys of outside issuers",
    "signing.keyring._wrap_plain": "the start, when an operator hands over a wrapping key",
}
#: Of usage.db, which only counts.
COUNTING = {
    "access.limiter.flush", "access.usage.flush", "library.recording_index.remove", "library.recording_index.reconcile",
    "library.recording_index._insert",
    "library.recording_index.save_layouts", "library.sealing._seal", "library.sealing._adopt", "library.sealing.forget",
    "library.event_ring._save",
}  # fmt: skip
#: The modules that commit without a caller's right.
BY_ITSELF = {
    "accounts.registrar": "denials",
    "accounts.revocations": "what has ended is forgotten, and cut-offs of a wrong clock are corrected",
    "accounts.users": "users are disabled, a denial; hashes that cost too little are made anew",
    "daemon.access": "rotation of the signing keys",
    "daemon.cameras": "addresses of network cameras that are looked up again",
    "library.recordings": "hours of cameras that are always recorded, and lengths that are over",
    "signing.keyring": "the first keys, until when one must be published, and what distrust brings with it",
}


def find_writes() -> Iterator[str]:
    """module.function of each `X.write(…)` where X is a database."""
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module.startswith(("store.", "cli.")):
            continue
        yield from _find_in(ast.parse(path.read_text()), module)


def _find_in(node: ast.AST, place: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        within = place
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            within = f"{place}.{child.name}"
        if isinstance(child, ast.Attribute) and child.attr == "write":
            owner = ast.unparse(child.value)
            if owner.split(".")[-1].lstrip("_") in ("db", "trust", "usage", "database", "registrar"):
                yield within
        yield from _find_in(child, within)


def test_every_place_that_writes_a_database_is_named_here() -> None:
    """A change that somebody asks for takes a grant; a new place of another kind needs its reason here."""
    assert set(find_writes()) == set(WRITERS) | COUNTING


def test_every_module_that_commits_without_a_caller_s_right_is_named_here() -> None:
    """By `Upkeep`, or by the authority `EDGED`; operations never do."""
    found = set()
    for path in ROOT.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        if names & {"Upkeep", "EDGED"} and module not in ("access.authority", "access.grants"):
            found.add(module)
    assert found == set(BY_ITSELF)


class Steps(trio.abc.Instrument):
    """Numbers the steps of all tasks: what happens in one step has no checkpoint in between."""

    number = 0

    def before_task_step(self, task: object) -> None:
        self.number += 1


def watch_writes(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """What was asked for → by what right trust.db was written for it: granted, denial, or upkeep."""
    steps, seen = Steps(), dict[str, set[str]]()
    checked = [-1]
    trio.lowlevel.add_instrument(steps)
    write = Database.write

    def note(kind: type[Any]) -> None:
        check = kind.check

        def noted(self: Any) -> None:
            check(self)
            checked[0] = steps.number

        monkeypatch.setattr(kind, "check", noted)

    async def writing(self: Database, transaction: Any, *, may_stand: bool = False) -> Any:
        asker = asking.get()
        if self.name == "trust" and asker is not None:
            right = "denial" if may_stand else "granted" if checked[0] == steps.number else "upkeep"
            seen.setdefault(asker.doing, set()).add(right)
        return await write(self, transaction, may_stand=may_stand)

    note(Asker)
    note(Proof)
    monkeypatch.setattr(Database, "write", writing)
    return seen


PASSWORD = "a passphrase of the tests"
GRANTED, DENIAL = {"granted"}, {"denial"}
RIGHTS = {
    **dict.fromkeys(("create_key", "update_key", "resume_key", "rotate_key", "import_keys", "create_user"), GRANTED),
    **dict.fromkeys(("suspend_key", "revoke_key", "set_password", "delete_user"), DENIAL),
    "update_user": GRANTED | DENIAL,
    **dict.fromkeys(("create_service_token", "rotate_service_token", "import_service_token"), GRANTED),
    **dict.fromkeys(("revoke_service_token", "revoke"), DENIAL),
    **dict.fromkeys(("create_signing_key", "promote_signing_key"), GRANTED),
    "retire_signing_key": GRANTED | DENIAL,
    **dict.fromkeys(("add_camera", "update_camera", "remove_camera", "rename_camera"), GRANTED),
    **dict.fromkeys(("start_recording", "stop_recording", "delete_recording", "set_retention_policy"), GRANTED),
    **dict.fromkeys(("protect_recording", "unprotect_recording"), GRANTED),
}


async def test_whatever_an_operation_writes_to_trust_db_was_allowed_in_the_same_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operation that changes something, by an administrator's key; denials need no right any more."""
    with fail_after(60):
        async with running_daemon(tmp_path, cameras=2) as daemon, daemon.websocket() as client:
            await client.call("authenticate", auth_token=(await daemon.create_key("admin"))[1])
            written = watch_writes(monkeypatch)
            await change_everything(client)
    assert written == RIGHTS


async def change_everything(client: Conversation) -> None:
    """In an order in which each finds something to change."""
    made = (await client.call("create_key", name="k", role="viewer"))["key_id"]
    await client.call("update_key", key_id=made, name="renamed")
    await client.call("suspend_key", key_id=made)
    await client.call("resume_key", key_id=made)
    await client.call("rotate_key", key_id=made)
    await client.call("revoke_key", key_id=made)
    await client.call("import_keys", keys=[{"source_id": "1", "key": "k" * 32, "role": "viewer"}])
    await client.call("create_user", name="ann", role="viewer", password=PASSWORD)
    await client.call("update_user", name="ann", role="operator")
    await client.call("update_user", name="ann", role="viewer")
    await client.call("set_password", name="ann", password=f"{PASSWORD}.")
    await client.call("delete_user", name="ann")
    files = (await client.call("create_service_token", name="files"))["token_id"]
    await client.call("rotate_service_token", token_id=files)
    await client.call("revoke_service_token", token_id=files)
    await client.call("import_service_token", service_token="s" * 32)
    await client.call("issue_token", user_id="ada", algorithm="ES256")
    await client.call("revoke", jti="somebody's")
    await client.call("create_signing_key", algorithm="ES256")
    await client.call("promote_signing_key", kid="key-3", force=True)
    await client.call("create_signing_key", algorithm="ES256")
    await client.call("retire_signing_key", kid="key-4")
    await client.call("retire_signing_key", kid="key-3", distrust=True)
    added = (await client.call("add_camera", name="new", source="rtsp://192.0.2.9/1"))["device"]
    await client.call("update_camera", device=added, name="renamed")
    await client.call("rename_camera", device=added, name="renamed again")
    await client.call("remove_camera", device=added)
    await client.call("start_recording", device="camera0")
    kept = await client.call("stop_recording", device="camera0")
    await client.call("protect_recording", filename=kept["filename"])
    await client.call("unprotect_recording", filename=kept["filename"])
    await client.call("delete_recording", filename=kept["filename"])
    await client.call("set_retention_policy", policy_type="age", enabled=True, max_age_days=7)
