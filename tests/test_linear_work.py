"""Work on text from outside grows in proportion to the text: every regular expression, every parser.

Expressions are found in the source, so that a new one without a row here fails, and are judged by the steps of a
matcher that counts (regex_work). Parsers, which are written by hand or call libraries, are judged by the ratio of the
processor time that they take for a text and for a 32nd of it.
"""

from __future__ import annotations

import ast
import base64
import importlib
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import pytest
import trio
from gate_helpers import verify
from regex_work import attacks, steps_of
from rpc_helpers import SECRET
from starlette.datastructures import Headers
from test_net_turns import make_websocket

import edged
from edged.config.places import find_line
from edged.config.sources import identify
from edged.credentials.callers import Peer, parse_credential
from edged.credentials.issuers import IssuerRecord, KeysRefused, read_key_set, read_public_key
from edged.credentials.places import client_of
from edged.credentials.plain_json import NotPlain, read_object
from edged.credentials.relays import is_direct
from edged.credentials.roles import expand
from edged.credentials.secret_texts import check_secret
from edged.credentials.stream_names import from_mediamtx, is_grant
from edged.credentials.tokens import TokenRefused
from edged.errors import EdgedError
from edged.logs import mask
from edged.mediamtx.ffmpeg import Complaints
from edged.mediamtx.output import Output
from edged.nesting import finish
from edged.net.handlers import WEBSOCKET_PATHS
from edged.net.head_lines import HeadLines
from edged.net.http_heads import BadHead, host_of, target_of
from edged.net.upgrades import choose_subprotocol, refuse_upgrade
from edged.operations.catalogue import DeviceParams
from edged.operations.params import read_params
from edged.operations.streams import Answer, StreamRequest, find_credential
from edged.urls import mask_url
from edged.web.bodies import judge, parse_form, parse_object
from edged.web.credentials import is_own_page, read_basic, read_credential
from edged.web.file_bytes import BadRange, read_range
from edged.web.mediamtx_hook import make_answer
from edged.wire import jsonrpc

PEER = Peer("main", "192.0.2.1")

ROOT = Path(edged.__file__).parent
#: Twice the text is at most so many times the work.
MOST = 2.5
_FROM_THE_START = {"match", "fullmatch"}
_CALLS = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}

#: Every expression of edged by its place, and what else than its own parts is tried on it. An expression that is only
#: used within a function stands under the function's name.
ROWS: dict[str, tuple[str, ...]] = {
    "edged.errors:_PRIVATE_PATH": (),
    "edged.config.camera_urls:_ENDS": (),
    "edged.config.camera_urls:_HOST": (),
    "edged.config.camera_urls:_take_apart": (),
    "edged.config.camera_urls:find_fault": (),
    "edged.cameras.identity:is_telling": (),
    "edged.config.conversion:_ISSUER_NAME": (),
    "edged.config.places:_HEADER": (),
    "edged.config.places:_ASSIGNMENT": (),
    "edged.config.places:_PART": (),
    "edged.config.conversion:convert": (" - at ",),
    "edged.config.schedules:_WINDOW": (),
    "edged.config.cameras:_LABEL": (),
    "edged.config.cameras:_PATH": (),
    "edged.config.cameras:_SLOT_NAME": (),
    "edged.config.cameras:_CAMERA_ID": (),
    "edged.config.cameras:_SIZE": (),
    "edged.config.cameras:_UDEV_MATCH": (),
    "edged.credentials.api_keys:_SHAPE": (),
    "edged.credentials.issuers:_NAME": (),
    "edged.credentials.issuers:_BASE64": (),
    "edged.credentials.issuers:_PEM": (),
    "edged.credentials.passwords:_PHC": (),
    "edged.credentials.relays:_RELAYED": (),
    "edged.access.revoked:_IDS": ("key_0123456789abcdef",),
    "edged.credentials.roles:_SEGMENT": (),
    "edged.credentials.secret_texts:_SPELLINGS": ("END ", "-----", '"kty"', "ssh-"),
    "edged.credentials.secret_texts:_DER": (),
    "edged.credentials.service_tokens:_USER_ID": (),
    "edged.credentials.stream_names:_NAME": (),
    "edged.credentials.stream_names:_SHAPE": (),
    "edged.credentials.links:_EXPIRES": (),
    "edged.credentials.links:_PLAIN": (),
    "edged.credentials.links:_MAKER": (),
    "edged.credentials.links:_SIGNATURE": (),
    "edged.credentials.tickets:_SHAPE": (),
    "edged.credentials.token_headers:_KID": (),
    "edged.credentials.tokens:_COMPACT": (),
    "edged.credentials.tokens:_KID": (),
    "edged.credentials.users:_NAME": (),
    "edged.library.snapshots:_NAME": (),
    "edged.logs:_PLAIN": (),
    "edged.logs:_SUSPICIOUS": ("://", "x."),
    "edged.logs:_MASKS": ("://", "x@", 'token="', "'token':", "cookie ", "bearer ", "password"),
    "edged.logs:_SECRET_FIELD": ("password", "-"),
    "edged.mediamtx.sources.http_login:_PARAMETER": (),
    "edged.mediamtx.ffmpeg:_COMPONENT": ("[", " @ "),
    "edged.mediamtx.ffmpeg:_LEVEL": ("[",),
    "edged.mediamtx.ffmpeg:_USERINFO": ("://", "//", "@"),
    "edged.mediamtx.figures:_SIZE": (),
    "edged.mediamtx.health:_ABOUT_CONNECTION": (),
    "edged.mediamtx.output:_IN_USE": ("listen tcp ", ":1"),
    "edged.mediamtx.output:_UNKNOWN": (),
    "edged.mediamtx.ports:find_holder": (),
    "edged.mediamtx.settings:parse_version": (),
    "edged.metrics.gauges:_VERSION": (),
    "edged.net.http_heads:_HOST": (),
    "edged.net.http_heads:_PRINTED_BYTES": (),
    "edged.operations.revocations:_HASH": (),
    "edged.operations.tokens:_HASH": (),
    "edged.store.backups:_NAME": ("-0000-schema1-",),
    "edged.store.reserve:_COMMITS": (),
    "edged.urls:_OWN": (),
    "edged.urls:mask_url": (),
    "edged.web.credentials:_PORT": (":",),
    "edged.cameras.entries:_BETWEEN": (),
    "edged.mediamtx.output:_NOT_FOUND": (),
    "edged.credentials.identities:_HEX": (),
    "edged.library.event_kinds:_KIND": (),
    "edged.library.recording_files:_NAME": (),
    "edged.library.recording_files:_CAMERA": (),
    "edged.library.recording_files:_DAY": (),
    "edged.library.recording_files:_JOINED_NAME": (),
    "edged.mediamtx.ffmpeg:_REDIRECT": (),
}


class Found(NamedTuple):
    """An expression, and whether it is looked for at every place of a text."""

    pattern: re.Pattern[Any]
    is_search: bool


def find_patterns() -> dict[str, list[Found]]:
    """Place → the expressions there, of all modules of edged."""
    found: dict[str, list[Found]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(("edged", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        tree = ast.parse(path.read_text())
        for place, call in calls_of_re(tree):
            if place.startswith("def "):
                assert isinstance(call.args[0], ast.Constant), f"{name}: {ast.unparse(call)}: compile it at the top"
                pattern = re.compile(cast(str, call.args[0].value))
                is_search = call.func.attr not in _FROM_THE_START  # type: ignore[attr-defined]
                found.setdefault(f"{name}:{place[4:]}", []).append(Found(pattern, is_search))
            elif f"{name}:{place}" not in found:
                value = getattr(importlib.import_module(name), place)
                used = {method for known, method in uses_of(tree) if known == place}
                is_search = not used or bool(used - _FROM_THE_START)
                found[f"{name}:{place}"] = [Found(pattern, is_search) for pattern in patterns_in(value)]
    return found


def test_expressions_are_made_by_the_module_re_under_its_name() -> None:
    """Else the source would not show them."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "re"), path
            assert not (isinstance(node, ast.Import) and any(name.name == "re" and name.asname for name in node.names))


@pytest.mark.usefixtures("deep_stack")
@pytest.mark.parametrize(
    "text",
    [
        r'"[^"\\]*(?:\\.[^"\\]*)*"', r'"(?:[^"\\]|\\.)*"', r"://[^\s]*@", r"(BEGIN|END) [A-Z0-9 ]*(KEY|CERTIFICATE)\b",
        r"(?i)\A(?:.*(?:pass|key)[\w.-]*|pw)\Z", r"\s+\Z", r"(a+)+b",
    ],
)  # fmt: skip
def test_the_counting_matcher_knows_an_expression_that_is_slow(text: str) -> None:
    """Those that stood in edged once, and the textbook's."""
    found = Found(re.compile(text), is_search=True)
    assert any(growth(found, attack, 32) > MOST for attack in attacks(found.pattern, ()))


def calls_of_re(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Each call of `re`, with the name that it is assigned to, or `def` and the function in which it stands."""
    for top in tree.body:
        for node in ast.walk(top):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr in _CALLS
            ):
                if isinstance(top, ast.Assign | ast.AnnAssign):
                    target = top.targets[0] if isinstance(top, ast.Assign) else top.target
                    yield ast.unparse(target), node
                else:
                    assert isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                    yield f"def {top.name}", node


def uses_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name, method) of all calls `NAME.method(…)`, and of methods that are passed on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in _CALLS:
            yield node.value.id, node.attr


def patterns_in(value: Any) -> Iterator[re.Pattern[Any]]:
    """The expressions in a value, however deep."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        yield from patterns_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from patterns_in(item)


PATTERNS = find_patterns()


def text_of(attack: tuple[str, str, str], times: int) -> str:
    start, part, end = attack
    return start + part * times + end


def growth(found: Found, attack: tuple[str, str, str], times: int) -> float:
    """How many times the work it is to repeat something twice as often."""
    one, two = (
        steps_of(found.pattern, text_of(attack, count), is_search=found.is_search) for count in (times, 2 * times)
    )
    return math.inf if math.isinf(two) else two / max(one, 1)


@pytest.fixture
def deep_stack() -> Iterator[None]:
    """The matcher calls itself for each repetition of a group."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(200_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("deep_stack")
@pytest.mark.parametrize("place", PATTERNS)
def test_an_expression_takes_steps_in_proportion_to_the_text(place: str) -> None:
    """Whatever is repeated: what the expression itself wants, parts of that, and what its row says."""
    for found in PATTERNS[place]:
        grown = [
            (growth(found, attack, max(40 // len(attack[1]), 4)), attack)
            for attack in attacks(found.pattern, ROWS.get(place, ()))
        ]
        # What a bounded repetition costs at most is no growth: the worst are looked at again in longer texts.
        for _, attack in sorted((one for one in grown if one[0] > MOST), reverse=True)[:5]:
            times = 8 * max(40 // len(attack[1]), 4)
            assert growth(found, attack, times) <= MOST, f"{found.pattern.pattern!r} is slow on {attack}"


def test_every_expression_has_a_row() -> None:
    """Who adds one says what an attacker would try on it, beside its own parts: mostly nothing."""
    assert sorted(PATTERNS) == sorted(ROWS)
    assert all(PATTERNS.values())


# --- parsers ----------------------------------------------------------------------------------------------------------

Attack = tuple[str, str, str]

#: What readers of JSON stumble over: (beginning, what is repeated, end).
JSON: list[Attack] = [
    ("[" * 65 + '"', '\\"', ""),
    ("[" * 65 + '"', "\\", ""),
    ("", "[", ""),
    ("", "[]", ""),
    ('{"a":', "{}", "}"),
    ("[", '{"]":"["},', "1]"),
    ("[", '"",', "1]"),
    ("[", "1,", "1]"),
    ('{"a":"', "\\u0041", '"}'),
    ('{"a":"', "\\ud83d", '"}'),
    ('{"a":', "1", "}"),
    ('{"a":0.', "1", "}"),
    ('{"a":1e', "1", "}"),
    ("{", '"a":1,', '"b":1}'),
    ('{"', "a", '":1}'),
    ("", " ", "1"),
    ("", '"', ""),
    ("", "\\", ""),
    ("[", "[],", "1]"),
    ('{"a":[', "1.5,", "1]}"),
]
QUERIES: list[Attack] = [
    ("", "&", ""),
    ("", "a=%41&", ""),
    ("jwt=", "%25", ""),
    ("", "token=", ""),
    ("token=", "a.", ""),
    ("", "+", ""),
    ("", ";", ""),
    ("", "%", ""),
]
URLS: list[Attack] = [
    ("http://", "a:", "/"),
    ("", "://", ""),
    ("rtsp://", "@", "/"),
    ("/", "%41", ""),
    ("/", "/", ""),
    ("/", "../", ""),
    ("rtsp://a?", "pass&", ""),
    ("rtsp://a?", "pass", "=\x01"),
    ("http://[", ":", "]"),
    ("/?", "&", ""),
]
WORDS: list[Attack] = [
    ("", "a", ""),
    ("", ".", ""),
    ("", ":", ""),
    ("", ",", ""),
    ("a", ".a", ""),
    ("a", ":a", ""),
    ("", " ", ""),
    ("", "*", ""),
    ("bytes=", "0-0,", ""),
    ("", "1.1.1.1,", ""),
    ("", "::1, ", ""),
    ("~^", r"\.", "$"),
    ("[", "::", "]"),
    ("", "%41", ""),
]
LINES: list[Attack] = [
    ("", "\n", ""),
    ("", "a\n", ""),
    ("", "x" * 64, ""),
    ("", "://a", ""),
    ("", '{"level":"', ""),
    ("ERR: ", "listen tcp :1", ""),
    ("", "listen ", ""),
    ("", "[a.b]\n", ""),
    ("", "a = 'b'\n", ""),
    ("", "a.", ""),
    ("", " ", "="),
    ('"', "a", ""),
]
LOGGED: list[Attack] = [
    ("", "://", ""),
    ("", "://a@", ""),
    ("://", "@", " "),
    ('"token":"', '\\"', ""),
    ("", '"token":"', ""),
    ("", "token=", ""),
    ("", "token='", ""),
    ("", "password", ""),
    ("password", " ", ""),
    ("", "bearer ", ""),
    ("bearer", " ", ""),
    ("", "cookie", ""),
    ("cookie", " ", ""),
    ("cookie:", " ", "\n"),
    ("", "ey", ""),
    ("eyAAAAAAAA", ".", ""),
    ("", "AAAAAAAAAAAA.", ""),
    ("", "-", ""),
    ("", "camera_service_sk_", ""),
    ("", "edged_ticket_", ""),
    ("", "authorization", ""),
]


def base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("latin-1")).decode().rstrip("=")


HS256 = base64url('{"alg":"HS256"}')


def verify_payload(text: str) -> None:
    verify(f"{HS256}.{base64url(text)}.AAAA", [SECRET], now=0.0, longest=10**9)


def verify_header(text: str) -> None:
    verify(f"{base64url(text)}.{base64url('{}')}.AAAA", [SECRET], now=0.0, longest=10**9)


def headers(**values: str) -> Headers:
    return Headers(raw=[(name.encode(), value.encode("latin-1")) for name, value in values.items()])


def read_heads(text: str) -> None:
    lines = HeadLines()
    for char in text.encode("latin-1"):
        lines.feed(bytes([char]))


def read_frames(text: str) -> None:
    websocket = make_websocket([])
    trio.run(websocket._take_rest, text.encode("latin-1"), 0)


def read_frames_by_the_byte(text: str) -> None:
    websocket = make_websocket([])

    async def feed() -> None:
        for char in text.encode("latin-1"):
            data, websocket._head = websocket._head + bytes([char]), b""
            await websocket._take_rest(data, 0)

    trio.run(feed)


def feed_output(text: str) -> None:
    output = Output(lambda: 0.0)
    for at in range(0, len(text), 4096):
        output.feed(text[at : at + 4096].encode("latin-1"))


def feed_complaints(text: str) -> None:
    complaints = Complaints(["secret"], may_redirect=False)
    for at in range(0, len(text), 4096):
        complaints.feed(text[at : at + 4096].encode("latin-1"))


def ask_hook(text: str) -> None:
    def admit(question: StreamRequest) -> Answer:
        find_credential(question)
        return Answer(False, "missing")

    make_answer(admit)(msgspec.json.encode(StreamRequest(query=text, password="", token="")))


FRAME = "\x81\x80\x01\x02\x03\x04"
FRAMES: list[Attack] = [
    ("", FRAME, ""), ("", "\x89\x80\x01\x02\x03\x04", ""), ("\x01\x80\x01\x02\x03\x04", "\0\x80\x01\x02\x03\x04", ""),
    ("\x81\xff\0\0\0\0\0\x0f\0\0\x01\x02\x03\x04", "a", ""), ("\x81\x7f\x7f", "\xff", ""),
]  # fmt: skip
ISSUER = IssuerRecord("company", "https://login.example.com/", ("RS256", "ES256"))


class Parser(NamedTuple):
    """A function that reads text from outside, the longest text that reaches it in characters, and what is tried."""

    read: Callable[[str], object]
    longest: int
    attacks: list[Attack]


#: Every function of edged that takes text from outside apart, and the library functions behind it.
PARSERS = {
    "a message of JSON-RPC": Parser(lambda text: jsonrpc.parse(text.encode("latin-1")), 2**20, JSON),
    "params of a call": Parser(
        lambda text: jsonrpc.parse(b'{"jsonrpc":"2.0","method":"a","id":1,"params":' + text.encode("latin-1") + b"}"),
        2**20, JSON,
    ),
    "params of an operation": Parser(
        lambda text: read_params(DeviceParams, msgspec.Raw(text.encode("latin-1"))), 2**20, JSON
    ),
    "the body of a request": Parser(
        lambda text: (finish(judge(text.encode("latin-1"))), parse_object(text.encode("latin-1"))), 2**20, JSON
    ),
    "a form": Parser(lambda text: parse_form(text.encode("latin-1")), 2**15, QUERIES),
    "plain JSON": Parser(lambda text: read_object(text.encode("latin-1"), "it"), 2**18, JSON),
    "a key set": Parser(lambda text: read_key_set(text.encode("latin-1"), ISSUER), 2**18, JSON),
    "a key in PEM": Parser(lambda text: read_public_key(text.encode("latin-1"), ISSUER), 2**18, [
        ("-----BEGIN PUBLIC KEY-----", "A", ""), ("", "\n", ""), ("", "-----BEGIN PUBLIC KEY-----A", ""),
        ("-----BEGIN PUBLIC KEY-----", "A\n", "-----END PUBLIC KEY-----"),
    ]),
    "the payload of a token": Parser(verify_payload, 12 * 1024, JSON),
    "the header of a token": Parser(verify_header, 12 * 1024, JSON),
    "a token": Parser(lambda text: verify(text, [SECRET], now=0.0), 2**20, [*WORDS, ("a.", "a", ".a")]),
    "a credential": Parser(parse_credential, 2**20, WORDS),
    "Basic": Parser(lambda text: read_basic(headers(authorization=f"Basic {base64url(text)}")), 16384, QUERIES),
    "Bearer": Parser(lambda text: read_credential(headers(authorization=f"Bearer {text}"), PEER), 16384, WORDS),
    "a permission": Parser(lambda text: expand([text, "*"]), 2**14, WORDS),
    "the name of a stream": Parser(lambda text: (from_mediamtx(text), is_grant(text)), 2**18, WORDS),
    "a line of the log": Parser(mask, 2**16, LOGGED),
    "the lines of a head": Parser(read_heads, 2**14, LINES),
    "the target of a request": Parser(lambda text: target_of(text.encode("latin-1")), 2**14, [*URLS, *QUERIES]),
    "Host": Parser(lambda text: (host_of(text.encode("latin-1")), is_direct("127.0.0.1", [], [text])), 2**14, WORDS),
    "Host and Origin": Parser(lambda text: is_own_page(headers(host=text, origin=text), ["box"]), 2**14, WORDS),
    "Range": Parser(lambda text: read_range(f"bytes={text}", 1000), 2**14, WORDS),
    "X-Forwarded-For": Parser(lambda text: client_of("127.0.0.1", [text], lambda _address: True), 2**14, WORDS),
    "an upgrade": Parser(
        lambda text: (
            refuse_upgrade(
                {"connection": text, "upgrade": text, "sec-websocket-key": text}, b"GET", "/ws", WEBSOCKET_PATHS
            ),
            choose_subprotocol(text),
        ),
        2**14, WORDS,
    ),
    "frames": Parser(read_frames, 2**16, FRAMES),
    "frames in single bytes": Parser(read_frames_by_the_byte, 2**14, FRAMES),
    "MediaMTX's question": Parser(ask_hook, 2**16, QUERIES),
    "MediaMTX's output": Parser(feed_output, 2**16, LINES),
    "ffmpeg's complaints": Parser(feed_complaints, 2**16, [*LINES, *URLS]),
    "a URL that is shown": Parser(mask_url, 2**14, URLS),
    "a camera's address": Parser(identify, 2**14, [*URLS, *QUERIES]),
    "a line of the settings": Parser(lambda text: find_line(text, "auth", "issuer"), 2**16, LINES),
    "a shared secret": Parser(lambda text: check_secret("name", text), 2**16, [
        *LINES, ("", "END ", ""), ("", "-----", ""), ("", "ssh-a ", ""), ("", "0\x82\x01", ""), ("", "QUJD", "=")
    ]),
}  # fmt: skip


def seconds_of(read: Callable[[str], object], text: str, runs: int) -> float:
    """Processor seconds of this thread, the least of some runs."""
    times = []
    for _ in range(runs):
        started = time.thread_time()
        with suppress(EdgedError, TokenRefused, KeysRefused, NotPlain, BadHead, BadRange):
            read(text)
        times.append(time.thread_time() - started)
    return min(times)


def ratio_of(parser: Parser, attack: Attack) -> float:
    """The time for the longest text beside that for a 32nd of it; 0 where even the longest takes next to none. Whatever
    disturbs the run of the longest makes the ratio larger, and it is measured again."""
    times = max(parser.longest // len(attack[1]), 32)
    long = seconds_of(parser.read, text_of(attack, times), 1)
    return 0.0 if long < 0.002 else long / seconds_of(parser.read, text_of(attack, times // 32), 3)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_takes_time_in_proportion_to_the_text(name: str) -> None:
    """32 times the text is five doublings; a quadratic parser takes 1024 times as long."""
    for attack in PARSERS[name].attacks:
        ratios: list[float] = []
        while not ratios or (min(ratios) > MOST**5 and len(ratios) < 10):
            ratios.append(ratio_of(PARSERS[name], attack))
        # Where others use the caches meanwhile a large text costs more a byte: still far from 1024.
        assert min(ratios) <= 3.2**5, attack
