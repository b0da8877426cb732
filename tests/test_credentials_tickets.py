"""credentials/tickets.py: what a ticket is, and what it is worth."""

from __future__ import annotations

import dataclasses
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from identity_helpers import all_named

from edged.credentials.callers import Caller, Resource, Streams, TokenFacts, parse_credential
from edged.credentials.decision import decide
from edged.credentials.identities import Identity
from edged.credentials.roles import CAPABILITIES, ROLES
from edged.credentials.tickets import digest, is_ticket, mint, renewed, ticket_caller
from edged.logs import mask

ADMIN = Caller(
    "api_key", "key:1", frozenset({"admin"}), ROLES["admin"], identities=all_named("key:1", "secret:a"),
    credential_id="key_1", name="wall", permissions=("admin",), token=TokenFacts(claims={"iat": 5}), expires=900.0,
)  # fmt: skip
VIEWER = dataclasses.replace(ADMIN, roles=frozenset({"viewer"}), capabilities=ROLES["viewer"], permissions=())


def test_a_ticket_is_short_and_stands_in_a_url_as_it_is() -> None:
    """At most 96 characters, none of them to be escaped; each a new one; its digest is not itself."""
    made = {mint() for _ in range(100)}
    assert len(made) == 100
    for text, known_by in made:
        assert len(text) <= 96
        assert quote(text, safe="") == text
        assert is_ticket(text)
        assert known_by == digest(text)
        assert text.encode() not in known_by


@given(st.text(max_size=100) | st.from_regex(r"edged_ticket_[A-Za-z0-9_-]*", fullmatch=True))
def test_only_the_issued_form_is_a_ticket(text: str) -> None:
    """Whatever text comes, it has a digest; and no ticket is taken for a token."""
    assert is_ticket(text) == (text.startswith("edged_ticket_") and len(text) == 56 and text.isascii())
    assert len(digest(text)) == 32


def test_no_other_endpoint_takes_a_ticket_for_what_it_is() -> None:
    """Where keys and tokens are read it is looked up as a key, which it is not."""
    text, _ = mint()
    assert type(parse_credential(text)).__name__ == "ApiKey"


@given(
    st.sampled_from(["read", "publish"]),
    st.sampled_from([*sorted(CAPABILITIES), "self"]),
    st.sampled_from(["", "camera0", "camera1"]),
)
def test_a_ticket_opens_one_camera_for_one_action(action: str, capability: str, camera: str) -> None:
    """An administrator's ticket, whatever it is shown for."""
    caller = ticket_caller(ADMIN, action, "camera0", Identity.of_tickets("s"))  # type: ignore[arg-type]
    resource = Resource.of_camera(camera, "/dev/video0") if camera else Resource()
    allowed = decide(caller, capability, resource, now=0.0).allowed
    expected = camera == "camera0" and capability == {"read": "stream:read", "publish": "stream:publish"}[action]
    assert allowed == (expected or capability == "self")


def test_a_ticket_answers_to_every_name_of_its_parent() -> None:
    """So that one revocation, suspension, cut-off or expiry reaches both; the log names the parent's credential."""
    caller = ticket_caller(ADMIN, "read", "camera0", Identity.of_tickets("s"))
    assert caller.identities == all_named("key:1", "secret:a", "tickets:s")
    assert (caller.expires, caller.credential_id, caller.claims, caller.subject) == (
        900.0,
        "key_1",
        {"iat": 5},
        "key:1",
    )
    assert (caller.method, caller.role, caller.parent) == ("ticket", "none", ADMIN)


def test_a_newer_credential_of_the_same_subject_takes_over() -> None:
    """The end moves; the replaced secret is let go of, everything else of the old one still counts."""
    held = ticket_caller(ADMIN, "read", "camera0", Identity.of_tickets("s"))
    fresh = dataclasses.replace(ADMIN, identities=all_named("key:1", "secret:b", "jti:2"), expires=5000.0)
    taken = renewed(held, fresh)
    assert taken.identities == all_named("key:1", "secret:b", "jti:2", "tickets:s")
    assert (taken.expires, taken.parent, taken.method) == (5000.0, fresh, "ticket")
    assert taken.streams == Streams(read=frozenset({"camera0"}))
    assert decide(taken, "stream:read", Resource.of_camera("camera0"), now=0.0).allowed


def test_somebody_else_s_or_a_weaker_credential_takes_over_nothing() -> None:
    """A session may change hands, or be narrowed: what was opened stays with the credential that opened it."""
    held = ticket_caller(ADMIN, "read", "camera0", Identity.of_tickets("s"))
    assert renewed(held, dataclasses.replace(ADMIN, subject="key:2")) is held
    assert renewed(held, VIEWER) is held
    assert renewed(ADMIN, ADMIN) is ADMIN, "no ticket at all"


@given(st.sampled_from(["{}", "rtsp://10.0.0.5:8554/camera0?ticket={}", "x={}&y", '{{"ticket": "{}"}}', "('{}',)"]))
def test_no_log_line_shows_a_ticket(line: str) -> None:
    """Wherever it stands; what is written as a ticket in a URL is masked even if it is none."""
    text, _ = mint()
    assert text not in mask(line.format(text))
    assert "camera_yard" not in mask("/live.mjpeg?ticket=camera_yard")
