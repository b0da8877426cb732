"""The closed tables of label values: every legal label set of every metric.

No label takes a value from the wire.
"""

from __future__ import annotations

from itertools import product

#: The transports of contract 7; the last five are MediaMTX's.
TRANSPORTS = ("ws", "http", "uds", "rtsp", "rtmp", "srt", "hls", "webrtc")
#: More cameras than this share the label `other`.
MOST_CAMERAS = 32
OTHER = "other"
#: MediaMTX's protocols share this label in counters: the log says which, `edged_sessions` who is there now by each.
MEDIA = "media"
SHARED_LABELS = dict.fromkeys(TRANSPORTS[3:], MEDIA)
_COUNTED_TRANSPORTS = (*TRANSPORTS[:3], MEDIA)
_FILES_TRANSPORTS = ("http", "uds")
_LOGIN_TRANSPORTS = ("ws", "http")
_TICKET_TRANSPORTS = ("http", MEDIA)
_ROLES = ("monitor", "viewer", "operator", "admin")

_ANY_CREDENTIAL = ("expired", "revoked", "missing_scope", "camera_denied")
_OUTSIDE = (
    "untrusted_issuer", "unknown_key", "bad_signature", "alg_not_allowed", "bad_audience", "missing_scope", "malformed",
    "no_expiry", "not_yet_valid", "expired", "revoked", "role_denied", "camera_denied",
)  # fmt: skip
_TOKEN_ONLY = ("malformed", "bad_signature", "alg_not_allowed", "no_expiry", "not_yet_valid", "role_denied")

#: (reason, method, transport) of refusals that can happen.
AUTH_FAILURES: tuple[tuple[str, ...], ...] = (
    *product(("missing",), ("none",), _COUNTED_TRANSPORTS),
    *product(("unknown_key", "suspended"), ("api_key",), _COUNTED_TRANSPORTS),
    *product(("suspended",), ("jwt_local",), _COUNTED_TRANSPORTS),
    *product(_ANY_CREDENTIAL, ("api_key", "jwt_local"), _COUNTED_TRANSPORTS),
    *product(_TOKEN_ONLY, ("jwt_local",), _COUNTED_TRANSPORTS),
    ("token_cut", "jwt_local", MEDIA),
    *product(("bad_audience", "untrusted_issuer"), ("jwt_local",), ("ws", "http")),
    # Tokens of outside issuers: MediaMTX's protocols seldom carry them, and count as HTTP.
    *product(_OUTSIDE, ("jwt_federated",), ("http", "ws")),
    *product(("unknown_key", "expired", "revoked", "camera_denied"), ("ticket",), _TICKET_TRANSPORTS),
    *product(("unknown_key", "expired", "revoked", "address_denied"), ("service_token",), _FILES_TRANSPORTS),
    ("origin_denied", "none", "http"),
    # Outside the allowed networks of a listener, refused before the first byte is read.
    ("address_denied", "none", "http"),
    ("unknown_key", "claim_code", "http"),
    *product(("unknown_key", "suspended"), ("password",), _LOGIN_TRANSPORTS),
    ("revoked", "password", "http"),
    ("malformed", "none", "ws"),
    ("malformed", "none", "http"),
    ("unknown_key", "internal", "http"),
    ("unknown_key", "internal", MEDIA),
)
#: (method, transport, role) of accepted credentials. A monitor sees no streams.
TOKEN_USES: tuple[tuple[str, ...], ...] = (
    *product(("api_key", "jwt_local"), ("ws", "http", "uds"), ("monitor",)),
    *product(("api_key",), _COUNTED_TRANSPORTS, _ROLES[1:]),
    *product(("jwt_local",), _COUNTED_TRANSPORTS, (*_ROLES[1:], "none")),
    *product(("jwt_federated",), ("ws", "http"), (*_ROLES[1:], "none")),
    *product(("ticket",), _TICKET_TRANSPORTS, ("none",)),
    *product(("service_token",), _FILES_TRANSPORTS, ("none",)),
    ("peercred", "uds", "admin"),
    ("peercred", "http", "admin"),
    *product(("password",), _LOGIN_TRANSPORTS, _ROLES),
    ("internal", "http", "none"),
    ("internal", MEDIA, "none"),
)
#: (transport, cause) of sessions that were ended.
TERMINATIONS: tuple[tuple[str, ...], ...] = tuple(
    product(_COUNTED_TRANSPORTS, ("revoked", "expired", "suspended", "ended"))
)
#: Error slugs of operations (edged.errors).
SLUGS = (
    "invalid_params", "unknown_method", "refused", "not_found", "camera_not_found", "invalid_state", "storage",
    "rate_limited", "dependency_failed", "unsupported", "not_built", "store_error", "overloaded", "internal",
)  # fmt: skip
#: Kinds of revocations; a cut-off revokes everything issued before a time.
REVOCATIONS = ("key", "token", "service_token", "subject", "issuer", "cut_off")
#: Results of a refresh: a new token, the same successor again, refused.
REFRESHES = ("ok", "replayed", "denied")
#: Warnings about an accepted token (contract S0, get_token_usage).
TOKEN_WARNINGS = ("suspicious", "old")
#: Why recorded files are deleted: by a caller, or by retention.
DELETIONS = ("size", "request", "age", "disk_full")
CHILDREN = ("mediamtx", "publisher", "frames")
HOOK_QUESTIONS = (
    *product(("read", "publish", "playback", "api", "metrics", "pprof"), ("allowed", "refused")),
    (OTHER, "refused"),
)
#: (action, outcome) of udev's events about video devices.
HOTPLUG_EVENTS: tuple[tuple[str, ...], ...] = tuple(
    product(("change", "add", "remove"), ("ignored", "applied", "debounced", "quarantined", "failed"))
)
HOTPLUG_SECONDS = (0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
CAMERA_STATES = ("connected", "disconnected", "error")
KEY_STATES = ("active", "expired", "suspended", "revoked")
PROPAGATION_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
