"""HTTP Basic with a key or a token as the password, and OAuth clients' own ways to say who they are.

A browser adds what it has kept by Basic to requests of its own accord, also to another port of the same host: so a few
routes take it, and none that changes anything but what the password itself could.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from daemon_helpers import RunningDaemon, running_daemon
from hypothesis import given
from hypothesis import strategies as st
from patience import fail_after
from starlette.datastructures import Headers
from test_oauth_over_the_wire import FORM, sign
from test_operations_surface import routes
from web_helpers import Site

from edged.credentials.callers import NoCredential, parse_credential
from edged.web.app import build_router
from edged.web.credentials import is_cross_origin, read_basic
from edged.web.requests import Request, Route, json_response

pytestmark = pytest.mark.ffmpeg
BEARER, BASIC = 'Bearer realm="edged"', 'Basic realm="edged", charset="UTF-8"'
LIVE, STILL = "/api/cameras/camera0/live.mjpeg", "/api/cameras/camera0/snapshot.jpg"
#: Method and path of everything that takes Basic; what is not here takes it never.
BASIC_ROUTES = {
    "GET /metrics", "GET /api/cameras/{camera}/live.mjpeg", "GET /api/cameras/{camera}/snapshot.jpg",
    "POST /oauth/introspect", "POST /oauth/revoke",
}  # fmt: skip


@dataclass
class Answer:
    """Headers in their order: one name may come more than once."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def challenges(self) -> list[str]:
        return [value for name, value in self.headers if name.lower() == "www-authenticate"]


def basic(password: str, user: str = "prometheus") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def ask(
    server: RunningDaemon, method: str, path: str, headers: Mapping[str, str] | None = None, form: object = None
) -> Answer:
    """One exchange; of a stream the beginning."""

    def exchange() -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        sent, body = dict(headers or {}), None
        if form is not None:
            sent["Content-Type"], body = FORM, urlencode(form)  # type: ignore[arg-type]
        connection.request(method, path, body=body, headers=sent)
        with connection.getresponse() as response:
            is_stream = "multipart" in response.headers.get("Content-Type", "")
            data = response.read(100) if is_stream else response.read()
            answer = Answer(response.status, response.getheaders(), data)
        connection.close()
        return answer

    return await trio.to_thread.run_sync(exchange, abandon_on_cancel=True)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningDaemon]:
    with fail_after(80):
        async with running_daemon(tmp_path, cameras=1) as running:
            yield running


async def test_a_key_as_password_reads_metrics_and_pictures(server: RunningDaemon) -> None:
    """As Prometheus, a browser's bar and curl -u send it: any user name, GET and HEAD, a key or a token."""
    _, monitor = await server.create_key("monitor")
    _, viewer = await server.create_key("viewer")
    for user in ("", "prometheus", "ann@example.com"):
        answer = await ask(server, "GET", "/metrics", basic(monitor, user))
        assert (answer.status, b"edged_build_info" in answer.body) == (200, True)
    assert (await ask(server, "HEAD", "/metrics", basic(monitor))).status == 200
    assert (await ask(server, "GET", "/metrics", basic(viewer))).status == 403
    token = sign(server.log.parent, role="viewer")
    for secret in (viewer, token):
        answer = await ask(server, "GET", f"{LIVE}?fps=10", basic(secret))
        assert (answer.status, b"image/jpeg" in answer.body) == (200, True)
        assert (await ask(server, "HEAD", LIVE, basic(secret))).status == 200
        answer = await ask(server, "GET", STILL, basic(secret))
        assert (answer.status, answer.body[:2]) == (200, b"\xff\xd8")
    browser = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
    assert (await ask(server, "HEAD", LIVE, basic(viewer) | browser)).status == 200
    at = f"127.0.0.1:{server.port}"
    for same in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": f"http://{at}"}, {"Origin": f"https://{at.upper()}"}):
        assert (await ask(server, "GET", "/metrics", basic(monitor) | same)).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
async def test_no_other_route_takes_it_or_asks_for_it(server: RunningDaemon, method: str) -> None:
    """Whatever a browser could be made to send with it: nothing is done, and no password is asked for."""
    _, admin = await server.create_key("admin")
    taken = 0
    for route in [
        route for route in routes() if route.method == method and f"{route.method} {route.path}" not in BASIC_ROUTES
    ]:
        assert not route.takes_basic
        path = route.path.replace("{camera}", "camera0").replace("{name:path}", "x").replace("{", "").replace("}", "")
        answer = await ask(server, method, path, basic(admin) | {"Content-Type": "application/json"})
        assert not [told for told in answer.challenges if told.lower().startswith("basic")], path
        if answer.status == 401:
            taken += 1
            assert answer.json["code"] == "auth_required", path
        for told in (await ask(server, method, path)).challenges:
            assert told == BEARER, path
    assert taken or method == "PUT"
    assert {f"{route.method} {route.path}" for route in routes() if route.takes_basic} == BASIC_ROUTES
    assert (await server.request("GET", "/api/keys", key=admin)).json["keys"][0]["status"] == "active"


async def test_an_upgrade_never_takes_it(server: RunningDaemon) -> None:
    """A browser sends cached Basic with the handshake of a page of another port: such a WebSocket is nobody's."""
    _, admin = await server.create_key("admin")
    headers = [(name.lower().encode(), value.encode()) for name, value in basic(admin).items()]
    async with server.websocket(extra_headers=headers) as client:
        assert (await client.ask("get_camera_list"))["error"]["data"]["reason"] == "auth_required"
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    answer = await ask(server, "GET", "/metrics", basic(admin) | upgrade | {"Sec-WebSocket-Key": "x" * 22 + "=="})
    assert answer.status >= 400
    assert b"edged_build_info" not in answer.body


FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "who knows"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]  # fmt: skip


@pytest.mark.parametrize("foreign", FOREIGN)
async def test_a_page_of_another_origin_gets_nothing_by_it(
    server: RunningDaemon, foreign: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before the password is looked at, and said why; another port of the same host is another origin. A
    credential that no browser adds by itself is taken from there as ever."""
    _, admin = await server.create_key("admin")
    token = sign(server.log.parent)
    for method, path, form in (
        ("GET", "/metrics", None), ("HEAD", "/metrics", None), ("GET", LIVE, None), ("GET", STILL, None),
        ("POST", "/oauth/introspect", {"token": token}), ("POST", "/oauth/revoke", {"token": token}),
    ):  # fmt: skip
        answer = await ask(server, method, path, basic(admin) | foreign, form)
        assert (answer.status, answer.challenges) == (403, []), path
        if method != "HEAD":
            assert answer.json["code"] == "origin_denied"
            assert "Basic is taken from no page of another origin" in answer.json["detail"]
        if path not in (LIVE, STILL):
            shown = {"Authorization": f"Bearer {admin}"} | foreign
            assert (await ask(server, method, path, shown, form)).status == 200
    assert "reason=origin_denied" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/metrics"), ("GET", LIVE), ("GET", STILL), ("POST", "/oauth/introspect")]
)
async def test_both_schemes_are_offered_to_whoever_may_use_them(server: RunningDaemon, method: str, path: str) -> None:
    """In lines of their own, as every browser reads them; a script that shows another credential, or a player with a
    ticket, makes no browser ask its user for a password."""
    form = {"token": "x"} if method == "POST" else None
    answer = await ask(server, method, path, form=form)
    assert (answer.status, answer.challenges) == (401, [BEARER, BASIC])
    assert "as the password" in answer.json["detail"]
    for wrong in ("wrong", "camera_service_sk_" + "0" * 64, "a.b.c", "ü:x"):
        answer = await ask(server, method, path, basic(wrong), form)
        assert (answer.status, answer.challenges) == (401, [f'{BEARER}, error="invalid_token"', BASIC])
        assert answer.json["code"] == "auth_failed"
    for garbage in ("Basic", "Basic ", "Basic !!!", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "basic YQ=="):
        answer = await ask(server, method, path, {"Authorization": garbage}, form)
        assert (answer.status, answer.challenges[-1]) == (401, BASIC), garbage
    for other in ({"Authorization": "Bearer x"}, {"X-API-Key": "x"}, {"X-API-Key": "x"} | basic("y")):
        answer = await ask(server, method, path, other, form)
        assert (answer.status, answer.challenges) == (401, [f'{BEARER}, error="invalid_token"'])
    if path in (LIVE, STILL):
        answer = await ask(server, method, f"{path}?ticket=x")
        assert (answer.status, len(answer.challenges)) == (401, 1)


async def test_a_credential_of_another_kind_comes_before_it(server: RunningDaemon) -> None:
    """A proxy's own password in front of an API key, and a browser's old one in front of a ticket, harm nothing."""
    _, viewer = await server.create_key("viewer")
    async with server.websocket() as client:
        await client.call("authenticate", auth_token=viewer)
        ticket = (await client.call("create_ticket", device="camera0"))["ticket"]
    assert (await ask(server, "HEAD", LIVE, basic("a proxy's") | {"X-API-Key": viewer})).status == 200
    assert (await ask(server, "HEAD", f"{LIVE}?ticket={ticket}", basic("an old one"))).status == 200
    assert (await ask(server, "HEAD", f"{LIVE}?ticket=none", basic(viewer))).status == 401


async def test_oauth_clients_authenticate_by_basic_or_in_the_form(server: RunningDaemon) -> None:
    """RFC 6749, 2.3.1: by Basic, percent-encoded or not, or in the form; the secret is a key or token, the id free."""
    _, admin = await server.create_key("admin")
    token, own = sign(server.log.parent), sign(server.log.parent, role="admin")
    encoded = "".join(f"%{byte:02X}" if chr(byte) in "_-." else chr(byte) for byte in admin.encode())
    spellings: list[tuple[dict[str, str], dict[str, str]]] = [
        (basic(admin, "my-app"), {}), (basic(encoded, "my%2Dapp"), {}), (basic(own), {}),
        ({}, {"client_id": "my-app", "client_secret": admin}), ({}, {"client_secret": own}),
        ({"Authorization": f"Bearer {admin}"}, {"client_id": "my-app", "client_secret": "whatever"}),
    ]  # fmt: skip
    for headers, form in spellings:
        answer = await ask(server, "POST", "/oauth/introspect", headers, {"token": token, **form})
        assert (answer.status, answer.json["active"], answer.json["sub"]) == (200, True, "ann")
    for number, (headers, form) in enumerate(spellings):
        doomed = sign(server.log.parent)
        answer = await ask(server, "POST", "/oauth/revoke", headers, {"token": doomed, **form})
        assert (answer.status, answer.json) == (200, {}), number
        answer = await ask(server, "POST", "/oauth/introspect", basic(admin), {"token": doomed})
        assert answer.json == {"active": False}
    # Who has no secret says its id alone: to hold the token is enough to end it, and not to ask about it.
    public = {"token": token, "client_id": "my-app"}
    assert (await ask(server, "POST", "/oauth/introspect", {}, public)).status == 401
    assert (await ask(server, "POST", "/oauth/revoke", {}, public | {"client_secret": ""})).status == 200


@pytest.mark.parametrize(("said", "status"), [("true", 200), ("TRUE", 200), ("False", 200), ("yes", 400), ("1", 400)])
async def test_whether_made_keys_end_too_is_read_or_refused(server: RunningDaemon, said: str, status: int) -> None:
    """Whoever says it in a way that is not known is not told 200 for less than was asked."""
    answer = await ask(server, "POST", "/oauth/revoke", form={"token": "a.b.c", "include_made": said})
    assert answer.status == status


async def test_a_wrong_client_secret_is_told_in_oauth_s_words(server: RunningDaemon) -> None:
    """RFC 6749, 5.2: invalid_client, 401; a Bearer that is wrong is told as everywhere; a narrow one is 403."""
    _, viewer = await server.create_key("viewer")
    token = sign(server.log.parent)
    for path in ("/oauth/introspect", "/oauth/revoke"):
        for headers, form in ((basic("wrong"), {}), ({}, {"client_id": "x", "client_secret": "wrong"})):
            answer = await ask(server, "POST", path, headers, {"token": token, **form})
            assert (answer.status, answer.json["error"], answer.json["code"]) == (401, "invalid_client", "auth_failed")
            assert answer.json["error_description"] == answer.json["detail"] == "this credential is not accepted"
        answer = await ask(server, "POST", path, {"Authorization": "Bearer wrong"}, {"token": token})
        assert answer.json["error"] == "Authentication failed"
    answer = await ask(server, "POST", "/oauth/introspect", basic(viewer), {"token": token})
    assert (answer.status, answer.json["code"]) == (403, "permission_denied")
    twice = [("token", "x"), ("client_secret", "a"), ("client_secret", viewer)]
    assert (await ask(server, "POST", "/oauth/introspect", {}, twice)).status == 401
    long = await ask(server, "POST", "/oauth/introspect", {}, {"token": "x" * 20000, "client_secret": viewer})
    assert long.status == 413
    long = await ask(server, "POST", "/oauth/introspect", basic(viewer), {"token": "x" * 20000})
    assert (long.status, long.json["error_description"]) == (400, "the form is longer than 16384 bytes")


texts = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=40)


@given(st.sampled_from(["Basic", "basic", "BASIC", "Bearer", "", "Basi"]), texts, st.booleans())
def test_any_authorization_is_read(scheme: str, text: str, encoded: bool) -> None:
    """Never an exception; and nothing but the password of Basic comes out as a credential."""
    said = base64.b64encode(text.encode()).decode() if encoded else text
    found = read_basic(Headers({"authorization": f"{scheme} {said}"}))
    if scheme.lower() != "basic":
        assert isinstance(found, NoCredential)
    elif encoded and "%" not in text:
        password = text.partition(":")[2].strip()
        assert found == parse_credential(password)


@given(st.text(":/%abc", max_size=12), st.sampled_from(["viewer_key", "a.b.c", "camera_service_sk_0"]))
def test_the_user_name_is_free(user: str, password: str) -> None:
    """Whatever stands before the first colon; RFC 7617 forbids one there."""
    pair = f"{user.replace(':', '')}:{password}".encode()
    headers = Headers({"authorization": f"Basic {base64.b64encode(pair).decode()}"})
    assert read_basic(headers) == parse_credential(password)


@given(st.lists(st.sampled_from(["http://box", "https://box", "HTTP://BOX", "http://box:1", "null", "", "http://evil"])),
       st.lists(st.sampled_from(["none", "same-origin", "same-site", "cross-site", ""])),
       st.lists(st.sampled_from(["box", "Box", "evil"]), min_size=1, max_size=2))  # fmt: skip
def test_another_origin_is_told_by_any_of_its_headers(origins: list[str], sites: list[str], hosts: list[str]) -> None:
    """One that says so is enough, and a request that could be read in two ways is another origin's."""
    named = {"origin": origins, "sec-fetch-site": sites, "host": hosts}
    raw = [(name.encode(), value.encode()) for name, values in named.items() for value in values]
    own = {"http://box", "https://box"} if len(hosts) == 1 and hosts[0].lower() == "box" else set()
    other = any(origin.lower() not in own for origin in origins) and hosts != ["evil"]
    other = other or (hosts == ["evil"] and any(origin != "http://evil" for origin in origins))
    other = other or any(site not in ("none", "same-origin") for site in sites)
    assert is_cross_origin(Headers(raw=raw)) is other


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/keys"), ("DELETE", "/metrics"), ("PUT", "/oauth/revoke"), ("POST", "/mcp")]
)
async def test_a_route_that_must_not_take_it_does_not_start(tmp_path: Path, method: str, path: str) -> None:
    """The rule is a declaration of the route, and is checked once, before anything listens."""

    async def answer(_request: Request) -> Any:
        return json_response({})

    site = Site(tmp_path)
    make = partial(Route, answer=answer, capability="self", takes_basic=True)
    build_router([make(method="GET", path=path)], site.catalogue, site.services, site.counts)
    with pytest.raises(ValueError, match="takes Basic"):
        build_router([make(method=method, path=path)], site.catalogue, site.services, site.counts)
