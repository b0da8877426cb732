"""The log: one readable line for each event, and no secret in any of them."""

from __future__ import annotations

import io
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from edged import logs
from edged.credentials.api_keys import mint_secret
from edged.credentials.tokens import SharedSecret, issue_claims, sign
from edged.logs import MASK, is_journal, mask, mask_event, mask_value

KEY = "camera_service_sk_" + "0123456789abcdef" * 4
TOKEN = sign(
    issue_claims("somebody", role="admin", now=0, expires_in=60),
    SharedSecret("test", "a secret that nobody in here knows"),
)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Logging is global to the process; each test leaves it as it found it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines_of(level: str = "info") -> tuple[Any, io.StringIO]:
    stream = io.StringIO()
    # pytest listens as well, and raises for what a handler should put up with.
    logging.getLogger().handlers.clear()
    logs.configure(level, stream)
    return structlog.get_logger("noun"), stream


# Lines ----------------------------------------------------------------------------------------------------------------


def test_a_line_has_time_level_noun_event_and_fields() -> None:
    """What people read first stands first; a field that says nothing is left out."""
    log, stream = lines_of()
    log.warning("moved", camera="camera0", tries=2, label="Front dock", nothing=None, ok=True)
    when, rest = stream.getvalue().split(" ", 1)
    assert when.endswith("Z")
    assert rest == 'warning noun: moved camera=camera0 tries=2 label="Front dock" ok=true\n'


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    """A stranger's line break cannot forge a second line."""
    log, stream = lines_of()
    log.info(
        "first\n<0>second", text="a\nb\x1b[31m", nested={"x": ["\n"]}, separator="a\u2028b", c1="\x9b31m", word="Größe"
    )
    assert len(stream.getvalue().splitlines()) == 1
    assert stream.getvalue().rstrip("\n").isprintable()
    assert "word=Größe" in stream.getvalue()


def test_a_level_below_the_configured_one_is_not_written() -> None:
    """debug costs a call and nothing else where it is off."""
    log, stream = lines_of("warning")
    log.info("quiet")
    log.error("loud")
    assert "quiet" not in stream.getvalue()
    assert "noun: loud" in stream.getvalue()


def test_a_logger_without_a_noun_has_none() -> None:
    """The daemon's own start may come before any other part."""
    _, stream = lines_of()
    structlog.get_logger().info("started")
    assert stream.getvalue().endswith("info    started\n")


def test_configuring_again_replaces_what_was_before() -> None:
    """Loggers made before, such as those of modules, follow."""
    log, first = lines_of()
    _, second = lines_of("debug")
    log.debug("here")
    logging.getLogger("library").error("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert "here" in second.getvalue()


def test_an_exception_is_shown_with_its_traceback_in_the_line() -> None:
    """What went wrong can be found again, on the same line and masked."""
    log, stream = lines_of()
    try:
        raise ValueError(f"bad key {KEY}")
    except ValueError:
        log.exception("failed")
    line = stream.getvalue()
    assert "error   noun: failed exception=" in line
    assert "ValueError: bad key camera_service_sk_***" in line
    assert "test_ground_logs.py" in line
    assert KEY not in line
    assert line.count("\n") == 1


def test_the_default_stream_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """systemd and terminals read it there."""
    logs.configure()
    structlog.get_logger("noun").info("here")
    assert "noun: here" in capsys.readouterr().err


def test_a_stream_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    """A closed terminal is no reason to fail. Nothing is raised."""
    stream = (tmp_path / "log").open("w")
    logs.configure("info", stream)
    stream.close()
    structlog.get_logger("noun").info("nobody hears this")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        logs.configure("info", broken)
        structlog.get_logger("noun").info("nor this")
        # What is left in its buffer would fail once more when it is closed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), broken.fileno())


def test_the_journal_gets_priorities_and_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """journalctl -p err finds the errors; the time is the journal's own."""
    with (tmp_path / "journal").open("w+") as stream:
        there = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        logs.configure("debug", stream)
        log = structlog.get_logger("noun")
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)("happened", n=1)
        stream.seek(0)
        written = stream.read().splitlines()
    assert written == [f"<{number}>noun: happened n=1" for number in (7, 6, 4, 3, 2)]


def test_only_the_very_stream_is_the_journal(tmp_path: Path) -> None:
    """A daemon started by hand in a unit's shell inherits the variable, not the stream."""
    with (tmp_path / "x").open("w") as stream:
        there = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino + 1}"})
        assert not is_journal(stream, {})
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_libraries_are_heard_from_warning_up() -> None:
    """Below that some print headers and frames; what they warn of is masked as well."""
    _, stream = lines_of("debug")
    library = logging.getLogger("library")
    library.info("GET /ws %s", KEY)
    library.warning("odd %s", KEY)
    library.error("wrong %d", "not a number")
    library.critical("gone")
    try:
        raise RuntimeError("inside")
    except RuntimeError:
        library.exception("caught")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("deprecated", stacklevel=1)
    text = stream.getvalue()
    assert "GET" not in text
    assert "warning library: odd camera_service_sk_***" in text
    assert "error   library: wrong %d" in text
    assert "critical library: gone" in text
    assert "RuntimeError: inside" in text
    assert "warning py.warnings: " in text
    assert text.count("\n") == 5


# Masks ----------------------------------------------------------------------------------------------------------------

SECRET = "hunter2-Zq8"


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"key={KEY}.",
        mint_secret()[0],
        TOKEN,
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}=",
        f"got Bearer {SECRET} from",
        f"X-API-Key: {SECRET}",
        f"Cookie: a=b; session={SECRET}",
        f"rtsp://edged:{SECRET}@127.0.0.1:8554/camera0: Connection refused",
        f"rtsp://{SECRET}@host",
        f"rtsp://user:p@{SECRET}@host/x",
        f"http://host/x?token={SECRET}&y=1",
        f"http://host/x?y=1&jwt={SECRET}",
        f"--password={SECRET}",
        f"auth_token={SECRET}",
        f'password="two {SECRET} words"',
        f"{{'secret': '{SECRET}'}}",
        json.dumps({"params": {"auth_token": SECRET, "api_key": SECRET}}),
        json.dumps({"password": f'a"{SECRET}'}),
        f'b\'{{"token": "{SECRET}"}}\'',
        f"Token(text='...', token='{SECRET}')",
    ],
)
def test_a_credential_in_text_is_masked(text: str) -> None:
    """Keys, tokens, headers, URLs, JSON, printed dicts and command lines."""
    shown = mask(text)
    assert MASK in shown
    assert SECRET not in shown
    assert KEY not in shown
    assert TOKEN.split(".")[1] not in shown
    assert TOKEN.split(".")[2] not in shown


@pytest.mark.parametrize(
    "text",
    [
        "edged.operations.catalogue imported",
        "no token given; token: expired",
        "unix:///run/edged/edged.sock",
        "http://127.0.0.1:8002/api/keys?role=viewer",
        "version 1.20.1, basic setup",
        "key_0123456789abcdef revoked",
        "shared secret 'issuer' is shorter than 32 bytes",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    """A mask that eats the log helps nobody."""
    assert mask(text) == text


def test_what_stands_around_a_secret_stays() -> None:
    """The reader still sees which host, which file, which flag."""
    assert mask(f"rtsp://u:{SECRET}@cam.local/1: refused") == f"rtsp://{MASK}@cam.local/1: refused"
    assert mask(f"/live?token={SECRET}&fps=5") == f"/live?token={MASK}&fps=5"
    assert mask(f"use {KEY} please") == f"use camera_service_sk_{MASK} please"


@given(
    st.text(max_size=40),
    st.sampled_from([KEY, TOKEN, f"rtsp://u:{KEY}@h/", f"?token={TOKEN}", f"Bearer {TOKEN}"]),
    st.text(alphabet=" \n\"'{}()<>,;&/=:", max_size=20),
)
def test_a_key_or_token_is_masked_wherever_it_stands(before: str, secret: str, after: str) -> None:
    """No text around it makes a planted key or token show."""
    shown = mask(f"{before} {secret}{after}")
    assert KEY not in shown
    assert TOKEN.rpartition(".")[2] not in shown


@pytest.mark.parametrize("unit", ["://", "ey-", "token=", "a-", "ey.", "a.", "'token':\"", 'token="', "cookie:", '\\"'])
def test_masking_takes_time_in_proportion(unit: str) -> None:
    """A stranger's long text does not hold the loop: ten times the text, far less than a hundred times the time."""

    def seconds(length: int) -> float:
        text = "://" + unit * (length // len(unit))
        started = time.process_time()
        mask(text)
        return time.process_time() - started

    assert min(seconds(100_000) for _ in range(3)) < 40 * min(seconds(10_000) for _ in range(3)) + 0.05


def test_a_field_named_for_a_secret_is_masked_whatever_it_holds() -> None:
    """Also deep inside; a number under such a name is a count, and a name that only sounds so stays."""
    event = mask_event(
        None, "info",
        {
            "password": SECRET, "auth_token": [SECRET], "Authorization": {"x": SECRET}, "tokens": 3, "secret": None,
            "nested": {"list": [{"api_key": SECRET}, (KEY,)], KEY: 1}, "credential": "key_12", "token_hash": "ab12",
        },
    )  # fmt: skip
    assert event["password"] == event["auth_token"] == event["Authorization"] == MASK
    assert event["tokens"] == 3
    assert event["secret"] is None
    assert event["nested"] == {
        "list": [{"api_key": MASK}, [f"camera_service_sk_{MASK}"]],
        f"camera_service_sk_{MASK}": 1,
    }
    assert (event["credential"], event["token_hash"]) == ("key_12", "ab12")


def test_other_objects_are_masked_as_their_text() -> None:
    """Bytes, exceptions, and objects that cannot even be printed."""

    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError

    assert mask_value(KEY.encode()) == f"camera_service_sk_{MASK}"
    assert mask_value(ValueError(f"token={SECRET}")) == f"token={MASK}"
    assert mask_value(Unprintable()) == "<Unprintable>"
    assert mask_value({1: b"\xff"}) == {"1": "\\xff"}


def test_a_value_without_end_is_cut() -> None:
    """A list that holds itself is printed, not followed."""
    endless: list[object] = [KEY]
    endless.append(endless)
    assert KEY not in json.dumps(mask_value(endless))


def test_no_line_shows_a_planted_secret() -> None:
    """The way a careless module would log it, through the whole chain."""
    log, stream = lines_of("debug")
    for secret in (KEY, TOKEN):
        log.info(f"got {secret}")
        log.info("got", what=secret, url=f"rtsp://edged:{secret}@h/x", nested={"deep": [{"er": secret}]})
        log.bind(token=secret).warning("bound")
        log.error("failed", problem=ConnectionError(f"http://h/?jwt={secret}"))
        log.info("positional %s", secret)
        logging.getLogger("library").warning("heard %s", secret)
    assert KEY not in stream.getvalue()
    assert TOKEN.split(".")[2] not in stream.getvalue()
    assert stream.getvalue().count("\n") == 12
