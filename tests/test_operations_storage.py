"""operations/storage.py: what the disk holds, and limits of what is kept, of all cameras or of one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from operations_helpers import GATE, YARD, Bench, KeptRecordings, make_recording
from web_helpers import JPEG

from edged.access.grants import Commit, Grant
from edged.library.obstacles import ABSENT, FULL, STOPPED, Obstacle
from edged.library.retention_policies import read
from edged.library.retention_sweep import Overdue
from edged.library.snapshots import Snapshots
from edged.operations.storage import describe
from edged.store.retention import RetentionSetting

LATE = Overdue(("camera0",), "files of camera0 are older than allowed", "look at the disk")


class Box:
    """A bench with recordings of cameras 0 and 7, of which the latter is gone, and limits that are noted."""

    def __init__(self, folder: Path = Path("/nonexistent")) -> None:
        self.snapshots = Snapshots(folder)
        self.recordings = KeptRecordings(make_recording(0), make_recording(1, "camera7"))
        self.space = (250, 1000)
        self.recordings.index = SimpleNamespace(free=self._free, sums=self._sums)
        self.recordings.sweep = SimpleNamespace(
            overdue=None, is_short=lambda free, total: free < total / 2, clean_up=self._clean_up,
            policies=SimpleNamespace(set_policy=self._set_policy),
        )  # fmt: skip
        self.set: dict[str, RetentionSetting] = {}
        self.bench = Bench(GATE, YARD, recordings=self.recordings, snapshots=self.snapshots)

    async def _free(self) -> tuple[int, int]:
        await trio.lowlevel.checkpoint()
        return self.space

    async def _sums(self) -> dict[str, tuple[int, int]]:
        await trio.lowlevel.checkpoint()
        return {"camera0": (2, 300), "camera7": (1, 50)}

    async def _clean_up(self) -> tuple[int, int]:
        await trio.lowlevel.checkpoint()
        return 3, 4096

    async def _set_policy(self, camera: str, setting: RetentionSetting, grant: Grant) -> None:
        async def work(commit: Commit) -> None:
            await commit(lambda _connection: None, undo=lambda _connection: None)
            self.set[camera] = setting

        await grant(work)

    async def limit(self, who: Any, **params: Any) -> Any:
        return await self.bench.ask(who, "set_retention_policy", **{"enabled": True, **params})


async def test_the_disk_is_shown_with_what_recordings_and_pictures_take_of_it(tmp_path: Path) -> None:
    box = Box(tmp_path / "snapshots")
    await box.snapshots.save("gate", "camera0", JPEG, "jpg", 0)
    info = await box.bench.ask(box.bench.caller("admin"), "get_storage_info")
    assert (info.total_space, info.used_space, info.available_space) == (1000, 750, 250)
    assert (info.usage_percentage, info.recordings_size, info.snapshots_size) == (75.0, 350, len(JPEG))


@pytest.mark.parametrize(
    ("obstacle", "overdue", "space", "state", "low", "critical", "message"),
    [
        (None, None, (900, 1000), "ok", False, False, ""),
        (None, None, (100, 1000), "low", True, False, ""),
        (None, LATE, (900, 1000), "ok", False, False, LATE.message),
        (FULL, None, (0, 1000), "full", True, True, FULL.message),
        (STOPPED, LATE, (0, 1000), "full", True, True, f"{STOPPED.message}; {LATE.message}"),
        (ABSENT, None, (900, 1000), "absent", False, True, ABSENT.message),
    ],
)
async def test_what_is_wrong_with_the_disk_is_said_in_words_and_in_one_state(
    obstacle: Obstacle | None, overdue: Overdue | None, space: tuple[int, int], state: str, low: bool, critical: bool,
    message: str,
) -> None:  # fmt: skip
    box = Box()
    box.recordings.obstacle, box.recordings.sweep.overdue, box.space = obstacle, overdue, space
    info = await box.bench.ask(box.bench.caller("admin"), "get_storage_info")
    assert (info.state, info.low_space_warning, info.critical_space_warning) == (state, low, critical)
    assert info.message == message


async def test_a_medium_that_is_not_there_has_no_bytes(tmp_path: Path) -> None:
    """Those of the disk under its folder are none of it."""
    box = Box(tmp_path)
    box.recordings.obstacle = ABSENT
    info = await box.bench.ask(box.bench.caller("admin"), "get_storage_info")
    assert (info.total_space, info.used_space, info.available_space, info.usage_percentage) == (0, 0, 0, 0.0)


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"policy_type": "age", "max_age_days": 7}, RetentionSetting("age", True, 7.0, 0.0)),
        ({"policy_type": "size", "max_size_gb": 0.5}, RetentionSetting("size", True, 0.0, 0.5)),
        ({"policy_type": "manual"}, RetentionSetting("manual", True, 0.0, 0.0)),
        ({"policy_type": "age", "enabled": False}, RetentionSetting("age", False, 0.0, 0.0)),
        # A number by which the policy does not go is no limit, and is not said to be one.
        ({"policy_type": "age", "max_age_days": 7, "max_size_gb": 5}, RetentionSetting("age", True, 7.0, 0.0)),
        ({"policy_type": "manual", "max_age_days": 7, "max_size_gb": 5}, RetentionSetting("manual", True, 0.0, 0.0)),
    ],
)
async def test_a_policy_is_kept_with_the_limit_that_it_goes_by(params: dict[str, Any], kept: RetentionSetting) -> None:
    box = Box()
    reply = await box.limit(box.bench.caller("admin"), **params)
    assert box.set == {"": kept}
    assert (reply.policy_type, reply.enabled, reply.device) == (kept.policy_type, kept.enabled, "")
    assert (reply.max_age_days, reply.max_size_gb) == (kept.max_age_days, kept.max_size_gb)


@pytest.mark.parametrize(
    "params",
    [
        {"policy_type": "age"},
        {"policy_type": "size", "max_age_days": 7},
        {"policy_type": "never"},
        *({"policy_type": "age", "max_age_days": each} for each in (0, -1, 3651, 1e300, "7", True)),
        *({"policy_type": "size", "max_size_gb": each} for each in (0, -1, 1_000_001)),
        *({"policy_type": "manual", "device": each} for each in ("", "x" * 65, 1)),
    ],
)
async def test_a_policy_that_cannot_be_changes_nothing(params: dict[str, Any]) -> None:
    box = Box()
    outcome = await box.bench.outcome(box.bench.caller("admin"), "set_retention_policy", **{"enabled": True, **params})
    assert (outcome, box.set) == ("invalid_params", {})


@pytest.mark.parametrize(
    ("device", "access", "outcome"),
    [
        ("gate", None, "camera0"),
        ("/dev/video0", None, "camera0"),
        # It is gone, and there are recordings of it.
        ("camera7", None, "camera7"),
        ("camera7", ("camera7",), "camera7"),
        ("camera9", None, "camera_not_found"),
        ("camera9", ("camera9",), "camera_not_found"),
        ("camera0", ("camera1",), "camera_not_found"),
        ("camera7", ("camera1",), "camera_not_found"),
    ],
)
async def test_a_limit_of_one_camera_is_for_whoever_may_see_it(
    device: str, access: tuple[str, ...] | None, outcome: str
) -> None:
    box = Box()
    admin = box.bench.caller("admin", camera_access=access)
    params = {"policy_type": "manual", "enabled": True, "device": device}
    found = await box.bench.outcome(admin, "set_retention_policy", **params)
    assert list(box.set) == ([outcome] if found == "ok" else [])
    assert found in ("ok", outcome)


@pytest.mark.parametrize("device", ["camera0", "camera7"])
async def test_whoever_loses_the_camera_before_the_commit_limits_nothing(device: str) -> None:
    box = Box()
    admin = box.bench.caller("admin")
    original = box.bench.registrar.granting

    def granting(authority: Any) -> Any:
        box.bench.narrow(admin, "camera1")
        return original(authority)

    box.bench.registrar.granting = granting
    params = {"policy_type": "manual", "enabled": True, "device": device}
    assert await box.bench.outcome(admin, "set_retention_policy", **params) == "camera_denied"
    assert box.set == {}


async def test_a_clean_up_says_what_it_deleted_and_is_for_administrators() -> None:
    box = Box()
    report = await box.bench.ask(box.bench.caller("admin"), "cleanup_old_files")
    assert (report.cleanup_executed, report.files_deleted, report.space_freed) == (True, 3, 4096)
    assert report.message == "3 files, 4096 bytes deleted"
    for operation in ("cleanup_old_files", "get_storage_info"):
        assert await box.bench.outcome(box.bench.caller("operator"), operation) == "missing_scope"


@given(
    kind=st.sampled_from(["age", "size", "manual"]), enabled=st.booleans(), days=st.floats(0.01, 3650),
    gigabytes=st.floats(0.01, 1e6), device=st.sampled_from(["", "camera0"]),
)  # fmt: skip
def test_the_sentence_says_what_the_sweep_does(
    kind: Any, enabled: bool, days: float, gigabytes: float, device: str
) -> None:
    """A limit that is in force stands in it, and no other."""
    setting = RetentionSetting(kind, enabled, days, gigabytes)
    said, limits = describe(setting, device), read(setting)
    assert (" days " in said) == (limits.max_age is not None)
    assert (" GB" in said) == (limits.max_bytes is not None)
    assert said.count("camera0") == (1 if device else 0)
    assert ("those of all cameras" in said) == (device != "" and not enabled)
