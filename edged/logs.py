"""The log: one readable line for each event, without secrets.

On a terminal or in a file a line is `time level noun: event key=value …`; in the journal the time is left
to it and the level is its priority prefix. What libraries say through `logging` goes the same way, from
WARNING up: below that some of them print headers and frames.

Masking is a processor, so nothing reaches a renderer unmasked, whoever logs it: API keys, compact JWTs,
credentials in headers and URLs, and whatever a field calls a password, secret or token.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import structlog

MASK: Final = "***"
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
#: syslog(3) priorities, as the journal reads them at the start of a line.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_DEEPEST = 8
_PLAIN = re.compile(r"[^\s\"'=\x00-\x1f\x7f]+\Z")

# Most texts have nothing to look at, and pay for this one search only. Every pattern takes time in proportion
# to the text: what is logged may come from somebody who would like it to take longer.
_SUSPICIOUS = re.compile(
    r"camera_service_sk_|://|[\w-]{8}\.[\w-]{8}|ey[\w-]{8}|bearer|basic|cookie"
    r"|authori[sz]ation|password|passwd|passphrase|secret|api[_-]?key|token|ticket|jwt",
    re.IGNORECASE,
)
_TELLTALE = (
    r"(?<![\w-])[\w-]*(?:password|passwd|passphrase|secret|api[_-]?key|token|ticket|jwt|cookie"
    r"|authori[sz]ation)"
)


def _hide_userinfo(address: re.Match[str]) -> str:
    """What follows `://`, without what stands before its last @."""
    _, at, rest = address[0].rpartition("@")
    return f"://{MASK}@{rest}" if at else address[0]


_MASKS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # Our own keys, the prefix kept so that a reader knows what stood there.
    (re.compile(r"(camera_service_sk_)[A-Za-z0-9]+"), rf"\1{MASK}"),
    (re.compile(r"(edged_ticket_)[A-Za-z0-9_-]+"), rf"\1{MASK}"),
    # A compact JWS or JWE: its header begins with {" in base64url; or three parts with a signature's length.
    (re.compile(r"(?<![A-Za-z0-9_-])ey[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}"), MASK),
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{12,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{32,}"), MASK),
    # user:password@ of a URL.
    (re.compile(r"://[^\s\"'<>]*+"), _hide_userinfo),
    # A header line, with or without its scheme; and the scheme alone.
    (
        re.compile(r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-service-token)(\s*:\s*)[^\r\n\"']+"),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+(?!\*)[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    # "password": "…" of JSON or of a printed dict; of a text that was cut off, to its end.
    (
        re.compile(rf"(?i)([\"']{_TELLTALE}[\"']\s*:\s*b?)(\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?)"),
        rf'\1"{MASK}"',
    ),
    # password=…, ?token=…, --secret=…
    (re.compile(rf"(?i)({_TELLTALE}=)(?:\"[^\"]*\"|'[^']*'|[^\s&#,;\"'<>]+)"), rf"\1{MASK}"),
)
_SECRET_FIELD = re.compile(rf"(?i){_TELLTALE}s?\Z")


def mask(text: str) -> str:
    """The text with everything that looks like a credential replaced by ***."""
    if _SUSPICIOUS.search(text) is None:
        return text
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return text


def mask_value(value: object, depth: int = 0) -> Any:
    """Any value, masked: containers member by member, other objects as their masked text."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return mask(bytes(value).decode("utf-8", "backslashreplace"))
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {mask(str(key)): _mask_field(str(key), item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [mask_value(item, depth + 1) for item in value]
    return mask(_text_of(value))


def mask_event(_logger: object, _level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor: no member of the event leaves it unmasked."""
    for key, value in event.items():
        event[key] = _mask_field(key, value, 0)
    return event


def _mask_field(key: str, value: object, depth: int) -> Any:
    """A number or a truth under a secret's name is a count or a switch, anything else is the secret."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return MASK if _SECRET_FIELD.search(key) else mask_value(value, depth)


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a log line is never the reason why something fails
        return f"<{type(value).__name__}>"


class Sink:
    """Where one noun's lines go; a stream that is gone swallows them."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.name = name
        self._stream = stream

    def write(self, line: str) -> None:
        # One write a line: lines of different threads do not mix. Closed or broken: nobody is listening.
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = write


class _Renderer:
    """An event → its line."""

    def __init__(self, journal: bool) -> None:
        self._journal = journal

    def __call__(self, logger: Any, level: str, event: MutableMapping[str, Any]) -> str:
        name = getattr(logger, "name", "")
        what = _one_line(event.pop("event", ""))
        fields = "".join(f" {key}={_quoted(value)}" for key, value in event.items() if value is not None)
        text = f"{name}: {what}{fields}" if name else f"{what}{fields}"
        if self._journal:
            return f"<{_PRIORITIES[level]}>{text}"
        now = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        return f"{now}Z {level:7} {text}"


def _one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else _json(text)[1:-1]


def _quoted(value: object) -> str:
    if isinstance(value, str) and _PLAIN.match(value) and value.isprintable():
        return value
    return _json(value)


def _json(value: object) -> str:
    """JSON without a character that a terminal would obey; letters of any script stay readable."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


class _FromLogging(logging.Handler):
    """What libraries say through `logging` → the same lines."""

    def __init__(self, write: Callable[[str, str, dict[str, Any]], None]) -> None:
        super().__init__(logging.WARNING)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for name in ("critical", "error") if record.levelno >= _LEVELS[name]), "warning")
        try:
            text = record.getMessage()
        except Exception:  # a library's wrong format string is not ours to fail for
            text = str(record.msg)
        self._write(level, record.name, {"event": text, "exc_info": record.exc_info})


def is_journal(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Whether what is written to the stream goes to the journal (systemd.exec(5) $JOURNAL_STREAM: device:inode)."""
    told = (os.environ if environ is None else environ).get("JOURNAL_STREAM", "")
    if not told:
        return False
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return told == f"{there.st_dev}:{there.st_ino}"


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Set up structlog and `logging` for this process. `level` is debug, info, warning or error.

    Configuring again replaces what was before.
    """
    target = sys.stderr if stream is None else stream
    render = _Renderer(is_journal(target))
    processors: Sequence[Callable[..., Any]] = [structlog.processors.format_exc_info, mask_event]
    structlog.configure(
        processors=[*processors, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *names: Sink(target, names[0] if names else ""),
        cache_logger_on_first_use=False,
    )

    def write(severity: str, name: str, event: MutableMapping[str, Any]) -> None:
        sink = Sink(target, name)
        for processor in processors:
            event = processor(sink, severity, event)
        sink.write(render(sink, severity, event))

    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _FromLogging)]:
        root.removeHandler(handler)
    root.addHandler(_FromLogging(write))
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
