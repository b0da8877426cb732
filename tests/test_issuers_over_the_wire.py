"""Tokens of an outside issuer on the running daemon: taken by its keys, within its ceiling, gone when it is cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from daemon_helpers import RunningDaemon, ended, make_config, running_daemon
from issuer_helpers import Authority, Company, key_server, respond
from patience import fail_after

from edged.config.model import Config, IssuerSettings
from edged.errors import ConfigError


def trusting(folder: Path, *, cameras: int = 1, **issuers: IssuerSettings) -> Config:
    """Settings of a box that trusts these."""
    config = make_config(folder, cameras=cameras)
    return msgspec.structs.replace(config, auth=msgspec.structs.replace(config.auth, issuers=issuers))


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


async def enters(daemon: RunningDaemon, text: str) -> bool:
    async with daemon.websocket() as client:
        return (await client.ask("authenticate", auth_token=text)).get("result", {}).get("authenticated") is True


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def metric(daemon: RunningDaemon, name: str) -> float:
    _, key = await daemon.create_key("monitor")
    shown = (await daemon.request("GET", "/metrics", key=key)).body.decode()
    (found,) = [float(line.rpartition(" ")[2]) for line in shown.splitlines() if line.startswith(name)]
    return found


async def enters_soon(daemon: RunningDaemon, text: str) -> None:
    """Keys come in the background: a client that is refused tries again."""
    with fail_after(30):
        while not await enters(daemon, text):
            await trio.sleep(0.05)


async def test_an_outside_issuer_s_token_is_accepted_within_its_ceiling(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys by TLS, the caller with its subject, no more than the ceiling, counted by its own method; and the keys that
    were good last serve a restart without the issuer."""
    company = Company().add("a")
    with fail_after(80):
        async with key_server(lambda _head: respond(company.jwks()), authority.context("localhost")) as server:
            issuer = IssuerSettings(
                issuer=company.issuer, jwks=f"https://localhost:{server.port}/jwks.json", ceiling="operator",
                audience=("box",),
            )  # fmt: skip
            config = trusting(tmp_path, company=issuer)
            text = company.sign("a", role="admin", aud="box")
            async with running_daemon(tmp_path, config=config) as daemon:
                await enters_soon(daemon, text)
                async with daemon.websocket() as client:
                    said = await client.call("authenticate", auth_token=text)
                    assert (said["user_id"], said["role"]) == ("ann", "operator")
                    assert (await client.call("get_camera_list"))["total"] == 1
                    assert (await client.ask("list_keys"))["error"]["code"] == -32002
                assert not await enters(daemon, company.sign("a", role="admin"))
                assert await metric(
                    daemon, 'edged_token_uses_total{method="jwt_federated",role="operator",transport="ws"}'
                )
                refused = 'edged_auth_failures_total{method="jwt_federated",reason="bad_audience",transport="ws"}'
                assert await metric(daemon, refused) == 1
                assert await metric(daemon, 'edged_trust_last_success_timestamp_seconds{issuer="company"}') > 1e9
            assert set(server.asked) == {"/jwks.json"}
        asked = len(server.asked)
        async with running_daemon(tmp_path, config=config) as daemon:
            assert await enters(daemon, text)
            assert await metric(daemon, 'edged_trust_last_success_timestamp_seconds{issuer="company"}') > 1e9
        assert len(server.asked) == asked
    assert "keys_taken" in capsys.readouterr().out


async def test_a_cut_off_by_issuer_puts_its_callers_out_and_nobody_else(tmp_path: Path) -> None:
    """One session of each of two issuers: that of the one is closed, its token enters no more, a newer one does."""
    first, second = Company("one").add("a"), Company("two").add("a")
    (tmp_path / "one.pem").write_bytes(first.pem("a"))
    (tmp_path / "two.json").write_bytes(second.jwks())
    config = trusting(
        tmp_path, one=IssuerSettings(issuer="one", key=str(tmp_path / "one.pem")),
        two=IssuerSettings(issuer="two", jwks=str(tmp_path / "two.json")),
    )  # fmt: skip
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            texts = [each.sign("a", iat=1_700_000_000) for each in (first, second)]
            await enters_soon(daemon, texts[1])
            async with daemon.websocket() as one, daemon.websocket() as two:
                for client, text in zip((one, two), texts, strict=True):
                    assert (await client.call("authenticate", auth_token=text))["authenticated"]
                await admin.call("revoke", issuer="one", before="2026-01-01T00:00:00Z")
                assert await ended(one) == 4401
                assert (await two.call("get_camera_list"))["total"] == 1
            assert not await enters(daemon, texts[0])
            assert await enters(daemon, first.sign("a", iat=1_780_000_000))
            await admin.call("revoke", issuer="two")
            assert not await enters(daemon, texts[1])


async def test_what_is_signed_elsewhere_is_explained_but_never_refreshed(tmp_path: Path) -> None:
    """edged cannot sign for another issuer; `validate_token` shows what it makes of such a token."""
    company = Company("one").add("a")
    (tmp_path / "one.pem").write_bytes(company.pem("a"))
    config = trusting(tmp_path, one=IssuerSettings(issuer="one", key=str(tmp_path / "one.pem")))
    text = company.sign("a", jti="x", iat=1_700_000_000)
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.local() as admin:
            shown = await admin.call("validate_token", token=text)
            assert shown["valid"] is True
            reply = await admin.ask("validate_token", token=company.sign("a", exp=1_600_000_000))
            assert reply["result"]["valid"] is False
            async with daemon.websocket() as client:
                await client.call("authenticate", auth_token=text)
                assert "error" in await client.ask("refresh_token", token=text)
                assert (await client.call("get_camera_list"))["total"] == 1


async def test_a_key_file_that_is_none_fails_the_start_by_name(tmp_path: Path) -> None:
    """As a wrong setting does, not as a traceback."""
    config = trusting(tmp_path, one=IssuerSettings(issuer="one", key=str(tmp_path / "absent.pem")))
    with fail_after(30), pytest.raises(ExceptionGroup) as caught:
        async with running_daemon(tmp_path, config=config):
            pass
    assert caught.group_contains(ConfigError, match=r"auth\.issuers\.one\.key", depth=None)


async def test_a_stranger_s_token_is_told_as_one_and_one_by_a_key_of_ours_that_is_gone_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its `iss`, whatever its kid says, and by the name that the settings give to our own; outside both failed."""
    config = trusting(tmp_path, cameras=0)
    config = msgspec.structs.replace(config, auth=msgspec.structs.replace(config.auth, issuer="box"))
    strangers = 'edged_auth_failures_total{method="jwt_federated",reason="untrusted_issuer",transport="ws"}'
    with fail_after(60):
        async with running_daemon(tmp_path, config=config) as daemon, daemon.websocket() as client:
            for issuer, counts in (("https://evil", 1), ("edged", 2), ("box", 2)):
                told = await client.ask("authenticate", auth_token=Company(issuer).add("key-9").sign("key-9"))
                assert told["error"]["data"]["reason"] == "auth_failed"
                assert await metric(daemon, strangers) == counts
    told = [line for line in capsys.readouterr().out.splitlines() if "refused" in line]
    assert "nobody is trusted by iss 'https://evil' to sign with" in told[0]
    assert "reason=unknown_key" in told[-1]


def counted(shown: str) -> dict[str, float]:
    """The refusals of outside tokens that are not 0, by reason; all of them came over HTTP."""
    start = 'edged_auth_failures_total{method="jwt_federated",reason="'
    rows = [line for line in shown.splitlines() if line.startswith(start) and not line.endswith(" 0.0")]
    assert all('transport="http"' in row for row in rows)
    return {row.removeprefix(start).partition('"')[0]: float(row.rpartition(" ")[2]) for row in rows}


#: What Entra ID, Keycloak, Auth0, Okta and others write into the header of an access token.
HEADERS: list[dict[str, object]] = [
    {"typ": "JWT", "x5t": "nOo3ZDrODXEK1jKWhXslHR_KXEg"},
    {"typ": "JWT", "x5t": "nOo3ZDrODXEK1jKWhXslHR_KXEg", "nonce": "AQABAAAAAAC"},
    {"typ": "at+jwt", "x5t#S256": "x"},
    {"typ": "AT+JWT", "cty": "JWT"},
    {"typ": "application/at+jwt"},
    {"pi.atm": "1", "org.example.region": {"name": "eu"}},
]


async def test_tokens_of_identity_providers_are_taken_and_their_words_are_ours(tmp_path: Path) -> None:
    """Hints in the header, a media type in any case, roles deep inside, a list as scope; the table says what they mean,
    and a word that is not in it nothing."""
    company = Company().add("a").add("b", "RS256")
    (tmp_path / "keys.json").write_bytes(company.jwks())
    issuer = IssuerSettings(
        issuer=company.issuer, jwks=str(tmp_path / "keys.json"), ceiling="admin", roles_claim="realm_access.roles",
        roles={"cam-operators": "operator", "Camera Viewers": "viewer"},
    )  # fmt: skip
    with fail_after(80):
        async with running_daemon(tmp_path, config=trusting(tmp_path, company=issuer)) as daemon:
            await enters_soon(daemon, company.sign("a", role=None, realm_access={"roles": ["cam-operators"]}))
            for number, header in enumerate(HEADERS):
                text = company.sign(
                    "ab"[number % 2], header=header, role="admin", scope=["openid", "profile"],
                    realm_access={"roles": ["offline_access", "admin", "cam-operators", "uma_authorization"]},
                )  # fmt: skip
                async with daemon.websocket() as client:
                    said = await client.call("authenticate", auth_token=text)
                    assert (said["role"], said["roles"]) == ("operator", ["operator"]), header
                reply = await daemon.request("GET", "/api/sessions", headers=bearer(text))
                assert reply.status == 200, header
                assert (await daemon.request("GET", "/api/keys", headers=bearer(text))).status == 403
            one = company.sign("a", role="admin", realm_access={"roles": "Camera Viewers"})
            async with daemon.websocket() as client:
                assert (await client.call("authenticate", auth_token=one))["role"] == "viewer"
            for roles in (["admin"], [], "x", ["viewer", "operator"]):
                assert not await enters(daemon, company.sign("a", realm_access={"roles": roles}))
            # A claim that nobody reads here may be of any type.
            assert await enters(daemon, company.sign("a", realm_access={"roles": "Camera Viewers"}, role={"x": []}))


async def test_a_token_may_be_longer_over_http_than_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to 12 KiB there, 8 KiB over a WebSocket, also when HTTP has just let it in; asked about it is whole."""
    company = Company().add("a")
    (tmp_path / "a.pem").write_bytes(company.pem("a"))
    issuer = IssuerSettings(
        issuer=company.issuer, key=str(tmp_path / "a.pem"), roles_claim="groups", roles={"watch": "viewer"}
    )
    groups = [f"{number:08}-0000-4000-8000-000000000000" for number in range(200)]
    text = company.sign("a", name_key=False, iat=1_700_000_000, groups=[*groups, "watch"])
    assert 8192 < len(text) < 12288
    with fail_after(60):
        async with (
            running_daemon(tmp_path, config=trusting(tmp_path, company=issuer)) as daemon,
            daemon.local() as admin,
        ):
            for _ in range(2):
                assert (await daemon.request("GET", "/api/sessions", headers=bearer(text))).status == 200
                assert not await enters(daemon, text)
            headers = [(b"authorization", b"Bearer " + text.encode())]
            async with daemon.websocket(extra_headers=headers) as client:
                assert (await client.ask("get_camera_list"))["error"]["code"] == -32001
            assert (await admin.call("validate_token", token=text))["valid"] is True
            assert (await admin.call("revoke_token", token=text))["revoked"] is True
            assert (await daemon.request("GET", "/api/sessions", headers=bearer(text))).status == 401
            longer = company.sign("a", name_key=False, groups=[*groups, *groups[:60], "watch"])
            assert (await daemon.request("GET", "/api/sessions", headers=bearer(longer))).status == 401
    told = [line for line in capsys.readouterr().out.splitlines() if "refused" in line and "transport=ws" in line]
    assert "longer than 8192 characters, the most where it was shown" in told[0]
    assert "method=jwt_federated" in told[0]


async def test_refusals_of_outside_tokens_are_counted_and_told_as_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is wrong with one, also in its header: it is the issuer's in log and metric, and for its own reason."""
    company = Company().add("a")
    (tmp_path / "a.pem").write_bytes(company.pem("a"))
    issuer = IssuerSettings(issuer=company.issuer, key=str(tmp_path / "a.pem"))
    no_key: dict[str, Any] = {"name_key": False}
    texts = {
        "malformed": [
            company.sign("a", header={"x5c": ["MII"]}, **no_key),
            company.sign("a", header={"typ": "dpop+jwt"}, **no_key),
            company.sign("a", role=["viewer"], **no_key),
        ],
        "expired": [company.sign("a", exp=1_600_000_000, **no_key)],
        "no_expiry": [company.sign("a", exp=None, **no_key)],
        "not_yet_valid": [company.sign("a", nbf=3_900_000_000, **no_key)],
        "role_denied": [company.sign("a", role="boss", **no_key)],
        "bad_audience": [company.sign("a", aud="x", **no_key)],
        "untrusted_issuer": [Company("https://evil").add("a", "RS256").sign("a", header={"x5t": "x"})],
    }  # fmt: skip
    with fail_after(60):
        async with running_daemon(tmp_path, config=trusting(tmp_path, cameras=0, company=issuer)) as daemon:
            for text in (text for those in texts.values() for text in those):
                assert (await daemon.request("GET", "/api/sessions", headers=bearer(text))).status == 401
            _, monitor = await daemon.create_key("monitor")
            shown = (await daemon.request("GET", "/metrics", key=monitor)).body.decode()
            assert counted(shown) == {reason: len(those) for reason, those in texts.items()}
    told = [line for line in capsys.readouterr().out.splitlines() if "refused" in line]
    assert all("method=jwt_federated" in line for line in told)
    assert "header member 'x5c' is not accepted" in told[0]
    assert len(told) == sum(map(len, texts.values()))
