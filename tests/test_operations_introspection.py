"""operations/introspection.py on a running daemon: what is said of a token that is shown."""

from __future__ import annotations

import time
from pathlib import Path

from daemon_helpers import SECRET, running_daemon
from patience import fail_after

from edged.credentials import tokens


async def test_validation_names_missing_and_wrong_claims(tmp_path: Path) -> None:
    """Guide S0's texts: missing permissions, expired, no expiry, a signature of somebody else."""
    secret = tokens.SharedSecret("test", SECRET)
    now = int(time.time())
    base: dict[str, object] = {"sub": "x", "role": "viewer", "permissions": ["camera:read"]}
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin:

            async def errors(claims: dict[str, object], **params: object) -> list[str]:
                text = tokens.sign(claims, secret)
                return list((await admin.call("validate_token", token=text, **params))["errors"])

            good = base | {"iat": now, "exp": now + 60}
            assert await errors(good, required_permissions=["camera:read"]) == []
            assert await errors(good, required_permissions=["camera:write"]) == [
                "Missing permissions: ['camera:write']"
            ]
            assert await errors(base | {"exp": now - 5}) == ["Token has expired"]
            assert await errors(base) == ["Missing required claim: exp"]
            assert await errors(good | {"iat": now + 3600}) == ["Token issued in the future"]
            old = await admin.call("validate_token", token=tokens.sign(good | {"iat": now - 40 * 86400}, secret))
            assert old["warnings"] == ["Token is very old", "Suspicious token patterns detected"]
            foreign = tokens.sign(good, tokens.SharedSecret("x", "a secret that nobody in here knows"))
            answer = await admin.call("validate_token", token=foreign)
            assert answer["valid"] is False
            assert answer["errors"][0].startswith("Invalid token: ")


async def test_introspecting_an_invalid_token_shows_no_claims(tmp_path: Path) -> None:
    """Guide S0 returns `False, None, text`: also where nothing is wrong but what was asked of it. Nothing is asked by
    an empty role or list. The gate lets in whom it let in before."""
    secret, now = tokens.SharedSecret("test", SECRET), int(time.time())
    seed_000 = {"sub": "x", "role": "viewer", "permissions": ["camera:read"], "iat": now, "exp": now + 60, "jti": "j"}
    seed_001 = {"user_id": "x", "role": "viewer", "iat": now, "exp": now + 60}
    no_sub = "Missing required claim: sub"
    suspicious = "Suspicious token patterns detected"
    judged: tuple[tuple[dict[str, object], dict[str, object], list[str], list[str]], ...] = (
        (seed_000, {}, [], []),
        (seed_000, {"required_role": "", "required_permissions": []}, [], []),
        (seed_000, {"required_role": "viewer", "required_permissions": ["camera:read"]}, [], []),
        (seed_000, {"required_role": "admin"}, ["Required role 'admin' not found"], []),
        (seed_000, {"required_permissions": ["x", "camera:read"]}, ["Missing permissions: ['x']"], []),
        (seed_001, {}, [], [no_sub, suspicious]),
        (seed_001, {"required_role": "admin"}, ["Required role 'admin' not found"], [no_sub, suspicious]),
        (without(seed_000, "sub"), {}, [no_sub], []),
        (without(seed_000, "exp"), {}, ["Missing required claim: exp"], []),
        (without(seed_000, "iat"), {}, ["Missing required claim: iat"], []),
        (seed_000 | {"nbf": now + 900}, {}, ["Invalid token: The token is not yet valid (nbf)"], []),
        (seed_000 | {"iat": now + 900}, {}, ["Token issued in the future"], []),
    )
    with fail_after(30):
        async with running_daemon(tmp_path, cameras=0) as daemon, daemon.local() as admin, daemon.websocket() as client:
            for claims, params, errors, warnings in judged:
                text = tokens.sign(claims, secret)
                told = await admin.call("validate_token", token=text, **params)
                assert told == {
                    "valid": not errors, "errors": errors, "warnings": warnings, "payload": None if errors else claims,
                }  # fmt: skip
                if claims in (seed_000, seed_001, without(seed_000, "iat")):
                    assert (await client.call("authenticate", auth_token=text))["authenticated"]


def without(claims: dict[str, object], name: str) -> dict[str, object]:
    return {member: value for member, value in claims.items() if member != name}
