"""Addresses of cameras that cannot work, found before anything is started."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from cli_helpers import Shell, write_config
from hypothesis import assume, given
from hypothesis import strategies as st

from edged.config.camera_urls import find_fault

SECRET = "p-4Kz9-word"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (f"rtsp://admin:{SECRET}#1@192.0.2.7/s", "rtsp://admin:***@192.0.2.7/s"),
        (f"rtsp://admin:{SECRET}/1@192.0.2.7:554/s", "rtsp://admin:***@192.0.2.7:554/s"),
        (f"rtsp://admin:{SECRET}?1@cam.example", "rtsp://admin:***@cam.example"),
        (f"rtsp://admin:{SECRET} 1@192.0.2.7/s", "rtsp://admin:***@192.0.2.7/s"),
        (f"rtsp://ad#min:{SECRET}@192.0.2.7/s", "rtsp://ad%23min:***@192.0.2.7/s"),
        (f"rtsp://ad min:{SECRET}@192.0.2.7/s", "rtsp://ad%20min:***@192.0.2.7/s"),
        (f"rtsp://ad/min:{SECRET}@192.0.2.7/s", "rtsp://ad%2Fmin:***@192.0.2.7/s"),
        (f"rtsps://u:{SECRET}@x#@[2001:db8::7]:322/s?token={SECRET}", "rtsps://u:***@[2001:db8::7]:322/s?token=***"),
    ],
)
def test_a_sign_that_must_be_escaped_is_named_with_the_right_spelling(written: str, shown: str) -> None:
    """The password is masked, what is to be written for each sign is said."""
    fault = find_fault(written)
    assert fault.endswith(f"that is {shown}")
    assert SECRET not in fault


@pytest.mark.parametrize(
    "good",
    [
        "rtsp://192.0.2.7/stream1",
        "rtsp://u:p%23%2F@192.0.2.7:554/cam@2/x",
        "rtsp://u:p@ss@cam/x",
        "rtsp://192.0.2.7:554/user=admin_password=x_channel=1_stream=0.sdp?real_stream",
        "rtsp://cam.example/live?user=me@example.org&pwd=x:y@z",
        "rtsp://[2001:db8::7]/x:y@z",
        "rtsp://10.0.0.9/a:b@c/d",
    ],
)
def test_an_address_that_can_work_has_no_fault(good: str) -> None:
    """Also where an @ stands in a path or a query."""
    assert find_fault(good) == ""


@pytest.mark.parametrize(
    "bad", ["rtsp://", "rtsp:///x", "rtsp://h:port/x", "rtsp://h:99999/x", "rtsp://h/a b", "rtsp://[/x"]
)
def test_what_has_no_host_or_port_is_found(bad: str) -> None:
    """Without a traceback, whatever it is."""
    assert find_fault(bad)


@given(st.text(alphabet="ab#/? :@%", min_size=1, max_size=8), st.text(alphabet="cd#/? :@%[]", min_size=1, max_size=12))
def test_what_is_escaped_has_no_fault_and_what_is_not_is_never_shown(user: str, password: str) -> None:
    """Every user name and password can be written so that it works."""
    escaped = f"rtsp://{quote(user, safe='')}:{quote(password, safe='')}@192.0.2.7/s"
    assert find_fault(escaped) == ""
    assert urlsplit(escaped).hostname == "192.0.2.7"
    assume(len(set(password)) > 3)
    assert f":{password}@" not in find_fault(f"rtsp://{user}:{password}@192.0.2.7/s")


@given(st.text(max_size=200))
def test_any_text_is_judged(text: str) -> None:
    """No address makes the check fail."""
    assert isinstance(find_fault(f"rtsp://{text}"), str)


def test_config_check_finds_an_address_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 78, the file, the line, the camera and the right spelling; without the password."""
    directory = write_config(tmp_path)
    (directory / "cam.toml").write_text(
        f'\n[[camera]]\nname = "Gate"\nsource = "rtsp://admin:{SECRET}#1@192.0.2.7/s"\n'
    )
    shell = Shell(monkeypatch, capsys, directory)
    ran = shell.run("config", "check")
    assert ran.code == 78
    assert "cam.toml line 2" in ran.err
    assert "'Gate'" in ran.err
    assert "%23 for #" in ran.err
    assert "rtsp://admin:***@192.0.2.7/s" in ran.err
    assert SECRET not in ran.err + ran.out
