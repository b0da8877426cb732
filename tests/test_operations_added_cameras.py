"""Network cameras that calls add, change and remove in a running box; paths; and rights that stay with the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
from daemon_helpers import SECRET, RunningDaemon, make_config, running_daemon
from patience import fail_after
from rtsp_client import RtspReader, RtspRefused

from edged.config.model import CameraSettings, Config, SourceSettings
from edged.credentials import tokens

SOURCE = "rtsp://ann:planted-password@192.0.2.7/stream1?pwd=planted-too"
REAL = [pytest.mark.mediamtx, pytest.mark.ffmpeg]


def with_settings(
    folder: Path, *cameras: CameraSettings, allow: tuple[str, ...] = (), mediamtx: bool = False
) -> Config:
    config = make_config(folder, cameras=1, mediamtx=mediamtx)
    places = tuple(f"{folder}/conf.d/box.toml line {7 * at + 3}" for at in range(1 + len(cameras)))
    return msgspec.structs.replace(
        config,
        camera=(*config.camera, *cameras), camera_places=places, sources=SourceSettings(also_allowed=allow),
    )  # fmt: skip


def bearer(text: str) -> dict[str, str]:
    """A key or a token."""
    return {"Authorization": f"Bearer {text}"}


async def names(daemon: RunningDaemon, key: str) -> list[str]:
    reply = await daemon.request("GET", "/api/cameras", headers=bearer(key))
    assert reply.status == 200
    return [camera["device"] for camera in reply.json["cameras"]]


async def test_a_network_camera_is_added_changed_and_removed_without_a_restart(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It keeps its number at another source and under another name, and no secret is shown anywhere."""
    shown = []
    async with running_daemon(tmp_path, config=with_settings(tmp_path)) as daemon:
        _, admin = await daemon.create_key("admin")
        body = {"name": "Gate", "source": SOURCE, "path": "gate"}
        made = await daemon.request("POST", "/api/cameras", key=admin, body=body)
        assert made.status == 201
        assert made.json["device"] == "camera1"
        assert made.json["stream_name"] == "gate"
        assert await names(daemon, admin) == ["camera0", "camera1"]
        for name in ("camera1", "gate"):
            one = await daemon.request("GET", f"/api/cameras/{name}", key=admin)
            assert (one.status, one.json["device"], one.json["name"]) == (200, "camera1", "Gate")
        changed = await daemon.request(
            "PATCH", "/api/cameras/gate", key=admin, body={"source": "rtsp://192.0.2.8/", "name": "Yard"}
        )
        assert (changed.status, changed.json["device"], changed.json["source"]) == (200, "camera1", "rtsp://192.0.2.8/")
        back = await daemon.request("PATCH", "/api/cameras/camera1", key=admin, body={"source": SOURCE})
        shown += [made.body, back.body, changed.body]
        # What was shown may be sent back: the masked source is the one that it has.
        same = await daemon.request("PATCH", "/api/cameras/gate", key=admin, body={**back.json, "mode": "always"})
        assert same.json == {**back.json, "mode": "always"}
        odd: list[object] = ["camera0", [], 1, None]
        for device in odd:
            wrong = await daemon.request("PATCH", "/api/cameras/gate", key=admin, body={"device": device, "name": "x"})
            assert wrong.status == 400
        async with daemon.local() as local:
            refused = await local.ask("add_camera", name="Other", source=SOURCE)
            assert refused["error"]["code"] == -32020
            assert "camera1" in refused["error"]["data"]["detail"]
            shown += [str(refused).encode(), str(await local.call("get_camera_list")).encode()]
    # It is there after a restart, under its number.
    async with running_daemon(tmp_path, config=daemon.config) as daemon:
        assert await names(daemon, admin) == ["camera0", "camera1"]
        gone = await daemon.request("DELETE", "/api/cameras/gate", key=admin)
        assert (gone.status, gone.json["removed"]) == (200, True)
        assert await names(daemon, admin) == ["camera0"]
        assert (await daemon.request("GET", "/api/cameras/camera1", key=admin)).status == 404
        # Another camera gets another number; the same one is recognised.
        other = {"name": "Other", "source": "rtsp://192.0.2.9/"}
        assert (await daemon.request("POST", "/api/cameras", key=admin, body=other)).json["device"] == "camera2"
        again = await daemon.request("POST", "/api/cameras", key=admin, body={"name": "Gate", "source": SOURCE})
        assert again.json["device"] == "camera1"
        shown += [again.body, gone.body]
    said = capfd.readouterr().out
    assert not any(b"planted" in text for text in shown)
    assert "planted" not in said
    for event in ("camera_added", "camera_updated", "camera_removed"):
        lines = [line for line in said.splitlines() if event in line]
        assert lines
        assert all("by=" in line for line in lines)


@pytest.mark.parametrize(
    "source",
    ["rtsp://127.0.0.1:8554/camera0", "rtsp://localhost/", "rtsp://[::1]/", "rtsp://169.254.1.1/", "rtsp://224.0.0.1/",
     "rtsp://0.0.0.0/", "http://127.0.0.1/", "test", "ID_SERIAL=*", "file:///etc/passwd", "ftp://192.0.2.1/","rtsp://***@192.0.2.1/"],
)  # fmt: skip
async def test_a_call_cannot_name_what_only_this_box_reaches(tmp_path: Path, source: str) -> None:
    """Neither for a new camera nor for one that was added with another address."""
    async with running_daemon(tmp_path, config=with_settings(tmp_path)) as daemon:
        _, admin = await daemon.create_key("admin")
        reply = await daemon.request("POST", "/api/cameras", key=admin, body={"name": "x", "source": source})
        assert (reply.status, reply.json["code"]) == (400, "invalid_params")
        assert await names(daemon, admin) == ["camera0"]
        good = {"name": "Gate", "source": "rtsp://192.0.2.7/"}
        assert (await daemon.request("POST", "/api/cameras", key=admin, body=good)).json["device"] == "camera1"
        changed = await daemon.request("PATCH", "/api/cameras/camera1", key=admin, body={"source": source})
        assert (changed.status, changed.json["code"]) in ((400, "invalid_params"), (409, "invalid_state"))
        kept = await daemon.request("PATCH", "/api/cameras/camera1", key=admin, body={"name": "Gate"})
        assert kept.json["source"] == good["source"]


async def test_the_settings_name_any_address_and_are_changed_in_their_file_only(tmp_path: Path) -> None:
    """The error names file and line."""
    camera = CameraSettings(name="Inside", source="rtsp://127.0.0.1:1/stream")
    async with running_daemon(tmp_path, config=with_settings(tmp_path, camera)) as daemon:
        _, admin = await daemon.create_key("admin")
        assert await names(daemon, admin) == ["camera0", "camera1"]
        for method, body in (("PATCH", {"name": "Outside"}), ("DELETE", None)):
            reply = await daemon.request(method, "/api/cameras/camera1", key=admin, body=body)
            assert reply.status == 409
            assert f"{tmp_path}/conf.d/box.toml line 10" in reply.json["detail"]


async def test_only_administrators_add_cameras(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, config=with_settings(tmp_path)) as daemon:
        _, operator = await daemon.create_key("operator")
        _, admin = await daemon.create_key("admin")
        body = {"name": "Gate", "source": SOURCE}
        assert (await daemon.request("POST", "/api/cameras", body=body)).status == 401
        assert (await daemon.request("POST", "/api/cameras", key=operator, body=body)).status == 403
        assert (await daemon.request("POST", "/api/cameras", key=admin, body=body)).status == 201
        for method in ("PATCH", "DELETE"):
            assert (
                await daemon.request(method, "/api/cameras/camera1", key=operator, body={"name": "x"})
            ).status == 403


async def test_a_freed_path_inherits_no_right(tmp_path: Path) -> None:
    """Keys, users and tokens of edged name the camera that had the path when the right was given."""
    async with running_daemon(tmp_path, config=with_settings(tmp_path)) as daemon:
        _, admin = await daemon.create_key("admin")
        add = {"name": "Dock", "source": "rtsp://192.0.2.7/", "path": "front_dock"}
        assert (await daemon.request("POST", "/api/cameras", key=admin, body=add)).json["device"] == "camera1"
        async with daemon.local() as local:
            made = await local.call("create_key", name="guest", role="viewer", camera_access=["front_dock"])
            narrow = await local.call("create_key", name="n", role="viewer", permissions=["camera:read:front_dock"])
            streams = await local.call("create_key", name="s", role="viewer", streams={"read": ["front_dock"]})
            held = await local.call("get_key", key_id=made["key_id"])
            assert held["camera_access"] == ["camera1"]
            assert (await local.call("get_key", key_id=streams["key_id"]))["streams"]["read"] == ["camera1"]
            user = await local.call("create_user", name="ann", role="viewer", camera_access=["front_dock"])
            assert user["camera_access"] == ["camera1"]
            updated = await local.call("update_user", name="ann", camera_access=["front_dock", "camera0"])
            assert updated["camera_access"] == ["camera1", "camera0"]
            issued = await local.call(
                "issue_token", user_id="bob", role="viewer", camera_access=["front_dock"],
                streams={"read": ["front_dock"]}, signing_key="RS256",
            )  # fmt: skip
        claims = tokens.peek_claims(issued["token"])
        assert claims["camera_access"] == ["camera1"]
        assert claims["stream_access"] == {"read": ["camera1"], "publish": []}
        # A MediaMTX elsewhere knows nothing but paths.
        assert {"action": "read", "path": "front_dock"} in cast(list[Any], claims["mediamtx_permissions"])
        holders = (made["api_key"], narrow["api_key"], issued["token"])
        for holder in holders:
            assert await names(daemon, holder) == ["camera1"]
        # The path goes to another camera.
        await daemon.request("PATCH", "/api/cameras/camera1", key=admin, body={"path": ""})
        moved = {"name": "Vault", "source": "rtsp://192.0.2.8/", "path": "front_dock"}
        assert (await daemon.request("POST", "/api/cameras", key=admin, body=moved)).json["device"] == "camera2"
        for holder in holders:
            assert await names(daemon, holder) == ["camera1"]
            assert (await daemon.request("GET", "/api/cameras/front_dock", headers=bearer(holder))).status == 404
        # A name that no camera had when the right was given grants nothing later, whoever else asks by that name.
        _, stale = await daemon.create_key(camera_access=["later"])
        # A token of somebody else, who knows names only, names what has the name.
        outside = tokens.sign(
            {"user_id": "eve", "role": "viewer", "exp": 2e9, "camera_access": ["front_dock"]},
            tokens.SharedSecret("test", SECRET),
        )
        assert await names(daemon, outside) == ["camera2"]
        await daemon.request("PATCH", "/api/cameras/camera2", key=admin, body={"path": "later"})
        again = tokens.sign(
            {"user_id": "eve", "role": "viewer", "exp": 2e9, "camera_access": ["later"]},
            tokens.SharedSecret("test", SECRET),
        )
        assert (await names(daemon, again), await names(daemon, stale)) == (["camera2"], [])


async def test_a_path_is_one_camera_s_alone(tmp_path: Path) -> None:
    camera = CameraSettings(name="Inside", source="rtsp://192.0.2.7/", path="inside")
    async with running_daemon(tmp_path, config=with_settings(tmp_path, camera)) as daemon:
        _, admin = await daemon.create_key("admin")
        for path, status in (
            ("inside", 409),
            ("camera9", 400),
            ("Dock", 400),
            ("a/b", 400),
            ("x" * 33, 400),
            ("d", 201),
        ):
            body = {"name": f"c {path}"[:20], "source": f"rtsp://192.0.2.8/{len(path)}", "path": path}
            assert (await daemon.request("POST", "/api/cameras", key=admin, body=body)).status == status, path
        reply = await daemon.request(
            "POST", "/api/cameras", key=admin, body={"name": "Inside", "source": "rtsp://192.0.2.9/"}
        )
        assert reply.status == 409


class TestRealStreams:
    """With the real MediaMTX: what one camera does disturbs nobody who watches another."""

    pytestmark = REAL

    async def test_nobody_else_s_stream_ends_while_cameras_come_change_and_go(self, tmp_path: Path) -> None:
        """The added camera is this box's own first one, read back by a key."""
        config = with_settings(tmp_path, allow=("127.0.0.0/8",), mediamtx=True)
        with fail_after(60):
            async with running_daemon(tmp_path, config=config) as daemon:
                await daemon.wait_media()
                _, admin = await daemon.create_key("admin")
                viewer = RtspReader(daemon.rtsp, "camera0", "viewer", admin)
                await viewer.play()
                await viewer.wait_packet()
                source = f"rtsp://any:{admin}@127.0.0.1:{daemon.rtsp}/camera0"
                body = {"name": "Dock", "source": source, "path": "dock"}
                assert (await daemon.request("POST", "/api/cameras", key=admin, body=body)).status == 201
                second = await watch(daemon, "dock", admin)
                # Under another path it is there at once, and the old one is not.
                reply = await daemon.request("PATCH", "/api/cameras/dock", key=admin, body={"path": "gate"})
                assert reply.json["device"] == "camera1"
                third = await watch(daemon, "gate", admin)
                await second.wait_end()
                late = RtspReader(daemon.rtsp, "dock", "viewer", admin)
                with pytest.raises((RtspRefused, OSError)):
                    await late.play()
                assert (await daemon.request("DELETE", "/api/cameras/gate", key=admin)).status == 200
                await third.wait_end()
                before = viewer.received
                await viewer.wait_packet()
                assert viewer.received > before
                for each in (viewer, second, third, late):
                    await each.aclose()

    async def test_whoever_watches_a_path_does_not_see_the_camera_that_gets_it_next(self, tmp_path: Path) -> None:
        """The stream ends as the path goes to another camera, and is refused to the old right."""
        config = with_settings(tmp_path, allow=("127.0.0.0/8",), mediamtx=True)
        with fail_after(60):
            async with running_daemon(tmp_path, config=config) as daemon:
                await daemon.wait_media()
                _, admin = await daemon.create_key("admin")
                _, guest = await daemon.create_key(camera_access=["camera1"])
                own = f"rtsp://any:{admin}@127.0.0.1:{daemon.rtsp}/camera0"
                first = {"name": "Dock", "source": own, "path": "dock"}
                assert (await daemon.request("POST", "/api/cameras", key=admin, body=first)).json["device"] == "camera1"
                viewer = await watch(daemon, "dock", guest)
                with fail_after(10):
                    async with daemon.local() as local:
                        await local.call("update_camera", device="camera1", path="")
                        await local.call("add_camera", name="Vault", source=f"{own}?vault=1", path="dock")
                    await viewer.wait_end()
                await viewer.aclose()
                await (await watch(daemon, "dock", admin)).aclose()
                late = RtspReader(daemon.rtsp, "dock", "viewer", guest)
                with pytest.raises(RtspRefused):
                    await late.play()
                await late.aclose()


async def watch(daemon: RunningDaemon, path: str, key: str) -> RtspReader:
    """A viewer who has seen something; MediaMTX hears of a new path a moment later."""
    while True:
        viewer = RtspReader(daemon.rtsp, path, "viewer", key)
        try:
            await viewer.play()
            await viewer.wait_packet()
        except (RtspRefused, OSError):
            await viewer.aclose()
            await trio.sleep(0.1)
        else:
            return viewer


async def test_no_more_memory_than_there_is_can_be_asked_for_pre_rolls(tmp_path: Path) -> None:
    """64 MB in all cameras, counted by their bit rates; the refusal has the figure."""
    large = {"source": "rtsp://192.0.2.7/a", "pre_roll_seconds": 30, "bitrate": 8_000_000}
    async with running_daemon(tmp_path, config=with_settings(tmp_path)) as daemon:
        _, admin = await daemon.create_key("admin")
        made = await daemon.request("POST", "/api/cameras", key=admin, body={"name": "Gate", **large})
        assert (made.status, made.json["pre_roll_seconds"]) == (201, 30)
        more = {**large, "name": "Yard", "source": "rtsp://192.0.2.7/b"}
        refused = await daemon.request("POST", "/api/cameras", key=admin, body=more)
        assert refused.status == 400
        assert "the pre-rolls need 68.0 MB of memory by the cameras' bit rates; there are 64 MB" in str(refused.json)
        made = await daemon.request("POST", "/api/cameras", key=admin, body={**more, "pre_roll_seconds": 20})
        assert made.status == 201
        changed = await daemon.request(
            "PATCH", f"/api/cameras/{made.json['device']}", key=admin, body={"pre_roll_seconds": 30}
        )
        assert changed.status == 400
        on_disk = {"pre_roll_seconds": 30, "record": "always"}
        changed = await daemon.request("PATCH", f"/api/cameras/{made.json['device']}", key=admin, body=on_disk)
        assert changed.status == 200
