"""How long recordings of each camera are kept, set by the settings and by calls, through a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import trio
from daemon_helpers import make_config, reason_of, running_daemon
from patience import fail_after
from trust_helpers import rows


def stored(tmp_path: Path, name: str) -> object:
    """A row of the trust database; None for none."""
    found = rows(tmp_path / "state" / "trust.db", f"SELECT value FROM meta WHERE name = '{name}'")
    return json.loads(str(found[0][0])) if found else None


async def test_limits_of_a_camera_are_set_and_taken_back_and_are_there_after_a_restart(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    limited = msgspec.structs.replace(config.camera[1], max_age_days=2.0, max_size_gb=1.5)
    config = msgspec.structs.replace(config, camera=(config.camera[0], limited))
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            made = await admin.call(
                "set_retention_policy", policy_type="size", enabled=True, max_size_gb=4.0, device="camera0"
            )
            assert (made["device"], made["max_size_gb"], made["success"]) == ("camera0", 4.0, True)
            assert made["message"] == "the oldest recordings of camera0 are deleted above 4 GB"
            for_all = await admin.call("set_retention_policy", policy_type="manual", enabled=True)
            assert (for_all["device"], for_all["message"]) == ("", "recordings are deleted for lack of space only")
            assert stored(tmp_path, "retention:camera0") == {
                "policy_type": "size", "enabled": True, "max_age_days": 0.0, "max_size_gb": 4.0
            }  # fmt: skip
            refused = await reason_of(
                admin, "set_retention_policy", policy_type="manual", enabled=True, device="camera7"
            )
            assert refused == "not_found"
            assert stored(tmp_path, "retention:camera7") is None
            # The sweep notes the limits of the settings: a camera is not known before it is plugged in.
            while stored(tmp_path, "camera_limits") is None:
                await trio.sleep(0.05)
            assert stored(tmp_path, "camera_limits") == {"camera1": [172800.0, 1_500_000_000]}
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            back = await admin.call("set_retention_policy", policy_type="size", enabled=False, device="camera0")
            assert back["message"] == "recordings of camera0 are kept as those of all cameras"
            assert stored(tmp_path, "retention:camera0") is None
            assert stored(tmp_path, "retention") is not None


async def test_an_added_camera_has_limits_of_its_own(tmp_path: Path) -> None:
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:
            made = await admin.call("add_camera", name="gate", source="rtsp://192.0.2.7/", max_age_days=3)
            assert (made["max_age_days"], made["max_size_gb"]) == (3.0, 0.0)
            changed = await admin.call("update_camera", device=made["device"], max_size_gb=0.5)
            assert (changed["max_age_days"], changed["max_size_gb"]) == (3.0, 0.5)
            reason = await reason_of(admin, "update_camera", device=made["device"], max_age_days=-1)
            assert reason == "invalid_params"
