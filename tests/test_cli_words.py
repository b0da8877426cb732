"""A typing error in rights is told before anything is made, and what was made is shown with what it may do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_helpers import Shell, running_daemon


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The settings folder of a running daemon with one camera, "Front Dock"."""
    with running_daemon(tmp_path_factory.mktemp("box")) as directory:
        yield directory


@pytest.fixture
def shell(settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys, settings)


def keys_of(shell: Shell) -> set[str]:
    return {item["name"] for item in shell.run("key", "list", "--json").json["keys"]}


@pytest.mark.parametrize(
    ("word", "meant"),
    [("nope", "known are"), ("camera:raed", "did you mean camera:read?"), ("view:camera", "known are"),
     ("contrl", "did you mean control?")],
)  # fmt: skip
@pytest.mark.parametrize(
    "command",
    [
        ("key", "create", "typo", "--role", "viewer"),
        ("user", "add", "typo", "--no-password"),
        ("token", "issue", "typo"),
    ],
)
def test_an_unknown_permission_makes_nothing_and_names_the_known_ones(
    shell: Shell, command: tuple[str, ...], word: str, meant: str
) -> None:
    """It would narrow the role to nothing."""
    done = shell.run(*command, "--permission", word)
    assert done.code == 2
    assert repr(word) in done.err
    assert meant in done.err
    assert "typo" not in keys_of(shell)


def test_an_unknown_camera_makes_nothing_and_names_the_known_ones(shell: Shell) -> None:
    """With --force it is taken, for a camera still to come, and the reply says that it gives nothing yet."""
    done = shell.run("key", "create", "later", "--role", "viewer", "--camera", "camera7")
    assert done.code == 2
    assert "camera0" in done.err
    assert "Front dock" in done.err
    assert "--force" in done.err
    assert "later" not in keys_of(shell)
    made = shell.run("key", "create", "later", "--role", "viewer", "--camera", "camera7", "--force", "--json")
    assert made.json["without_effect"] == ["camera7"]


@pytest.mark.parametrize("words", [("--read", "camera0,nope"), ("--publish", "camera7"), ("--read", "dock*")])
def test_an_unknown_stream_of_a_key_makes_nothing_and_names_the_known_ones(
    shell: Shell, words: tuple[str, str]
) -> None:
    """A key is good at this box only. With --force it is taken, and the reply says that it gives nothing yet."""
    done = shell.run("key", "create", "stream", "--role", "viewer", *words)
    assert done.code == 2
    assert repr(words[1].rpartition(",")[2]) in done.err
    assert "known are" in done.err
    assert "camera0" in done.err
    assert "stream" not in keys_of(shell)
    made = shell.run("key", "create", f"forced {words}", "--role", "viewer", *words, "--force", "--json").json
    assert (made.get("without_effect") or []) == [name for name in words[1].split(",") if name in ("nope", "camera7")]
    assert shell.run("key", "update", made["key_id"], *words).code == 2


def test_an_unknown_stream_of_a_user_or_a_token_is_good_elsewhere_and_named(shell: Shell) -> None:
    """A MediaMTX that edged does not run may have it."""
    for command in (("user", "add", "far", "--no-password"), ("token", "issue", "far")):
        done = shell.run(*command, "--read", "camera0,camera_one", "--json")
        assert done.code == 0
        assert "'camera_one': no camera here has this stream" in done.err
        assert "'camera0'" not in done.err
        assert not done.json["without_effect"]


@pytest.mark.parametrize("name", ["camera0", "Front dock"])
def test_a_camera_may_be_named_by_its_label(shell: Shell, name: str) -> None:
    """What is stored is its id, which no other camera gets."""
    made = shell.run("key", "create", f"by {name}", "--role", "viewer", "--camera", name, "--json").json
    assert shell.run("key", "show", made["key_id"], "--json").json["camera_access"] == ["camera0"]


def test_commands_for_a_camera_take_its_label(shell: Shell) -> None:
    """As --camera does; an unknown one is refused as before."""
    assert shell.run("camera", "show", "Front dock", "--json").json["device"] == "camera0"
    assert shell.run("camera", "snapshot", "Front dock", "--json").json["device"] == "camera0"
    assert shell.run("camera", "set", "Front dock", "--rate", "5").err.count("camera0") > 0
    assert "no camera 'Back dock'" in shell.run("camera", "remove", "Back dock").err


def test_commands_of_devices_say_what_there_is_to_say(shell: Shell) -> None:
    """A name for a camera that was added; nothing is plugged in; a device is one camera or a new one."""
    assert shell.run("camera", "add", "Yard", "rtsp://192.0.2.7/").code == 0
    assert shell.run("camera", "rename", "Yard", "Orchard").out.endswith("is called Orchard\n")
    assert "stands in" in shell.run("camera", "rename", "Front dock", "Gate").err
    assert "no device is stored for it" in shell.run("camera", "forget", "Orchard").err
    assert shell.run("camera", "remove", "Orchard").code == 0
    assert shell.run("camera", "devices", "--json").json["total"] >= 0
    assert shell.run("camera", "devices").code == 0
    assert "is at 'usb-9'" in shell.run("camera", "bind", "usb-9", "Front dock").err
    assert "is at 'usb-9'" in shell.run("camera", "release", "usb-9").err
    for wrong in (("usb-9",), ("usb-9", "camera0", "--new")):
        assert "or say --new" in shell.run("camera", "bind", *wrong).err


@pytest.mark.parametrize("word", ["read:posts", "posts:*", "read:cameras", "camera:read:camera1", "*", "view"])
def test_words_of_other_systems_and_other_spellings_are_no_typing_errors(shell: Shell, word: str) -> None:
    """Contract 7.3 and 7.4."""
    assert shell.run("key", "create", f"word {word}", "--role", "viewer", "--permission", word).code == 0


def test_what_was_made_is_shown_with_what_it_may_do(shell: Shell) -> None:
    """A key whose owner may do less, a permission that its role does not hold, a token."""
    assert shell.run("user", "add", "small", "--role", "viewer", "--no-password").code == 0
    made = shell.run("key", "create", "owned", "--role", "operator", "--owner", "small")
    assert "effective_permissions  camera:read, stream:read, system:read" in made.out
    narrowed = shell.run("key", "create", "narrow", "--role", "viewer", "--permission", "camera:write")
    assert "effective_permissions  nothing" in narrowed.out
    listed = shell.run("key", "list").out
    assert "all of its role" in listed
    assert "nothing" in next(line for line in listed.splitlines() if " narrow " in line)
    fenced = shell.run("key", "create", "fenced", "--role", "viewer", "--camera", "Front dock", "--read", "cam*")
    assert "camera_access          Front dock" in fenced.out
    row = next(line for line in shell.run("key", "list").out.splitlines() if " fenced " in line)
    assert "all of its role; of camera0; read: cam*; publish: no stream" in row
    token = shell.run("token", "issue", "nobody", "--role", "viewer")
    assert "effective_permissions  camera:read, stream:read, system:read" in token.out
    assert "no user 'nobody'" in token.err
    limited = shell.run("token", "issue", "small", "--role", "viewer", "--camera", "Front dock", "--read", "cam*")
    assert re.search(r"^camera_access +Front dock$", limited.out, re.MULTILINE)
    assert re.search(r"^read +cam\*$", limited.out, re.MULTILINE)


@pytest.mark.parametrize("scope", [("--subject", "small"), ("--issuer", "elsewhere"), ("--before", "now")])
def test_a_revocation_that_may_mean_many_is_not_made_without_being_confirmed(
    shell: Shell, scope: tuple[str, str]
) -> None:
    """It says what will end; without a terminal --yes is needed. One token by its jti is denied without a question."""
    before = shell.run("revocation", "list", "--json").json["total"]
    done = shell.run("revocation", "add", *scope)
    assert done.code == 2
    assert "cannot be undone" in done.err
    assert "--yes" in done.err
    assert shell.run("revocation", "list", "--json").json["total"] == before
    assert shell.run("revocation", "add", "--jti", f"one of {scope}").code == 0
