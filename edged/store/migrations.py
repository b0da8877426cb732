"""Numbered steps, never changed once released: how the databases came to look as they do (store.migrating)."""

from __future__ import annotations

from typing import TypeAlias

#: Step n (from 1) as statements; one item per version.
Migrations: TypeAlias = tuple[tuple[str, ...], ...]

#: What must never be lost. Times are Unix seconds; lists and maps JSON text; digests SHA-256.
TRUST: Migrations = (
    (
        """CREATE TABLE api_keys (
            key_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            role TEXT NOT NULL,
            digest BLOB NOT NULL UNIQUE,
            created_at REAL NOT NULL,
            expires_at REAL,
            permissions TEXT,
            camera_access TEXT,
            revoked_at REAL,
            rotated_at REAL,
            previous_digest BLOB,
            previous_valid_until REAL
        ) STRICT""",
        """CREATE TABLE revocations (
            identity TEXT PRIMARY KEY,
            reason TEXT NOT NULL,
            at REAL NOT NULL,
            until REAL
        ) STRICT""",
        """CREATE TABLE cameras (
            number INTEGER PRIMARY KEY CHECK (number >= 0),
            identity TEXT NOT NULL,
            label TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('usb', 'rtsp', 'test'))
        ) STRICT""",
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT",
    ),
    (
        "ALTER TABLE api_keys ADD COLUMN streams TEXT",
        "ALTER TABLE api_keys ADD COLUMN suspended_at REAL",
        """CREATE TABLE cut_offs (
            scope TEXT PRIMARY KEY,
            before REAL NOT NULL,
            at REAL NOT NULL,
            reason TEXT NOT NULL
        ) STRICT""",
    ),
    (
        """CREATE TABLE signing_keys (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            algorithm TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('next', 'current', 'retired')),
            public TEXT NOT NULL,
            private TEXT,
            created_at REAL NOT NULL,
            promoted_at REAL,
            retired_at REAL,
            signs_until REAL NOT NULL DEFAULT 0.0
        ) STRICT""",
        # Of each algorithm one key signs and one waits.
        "CREATE UNIQUE INDEX signing_key_states ON signing_keys (algorithm, state) WHERE state <> 'retired'",
    ),
    (
        """CREATE TABLE users (
            name TEXT PRIMARY KEY,
            display_name TEXT NOT NULL,
            role TEXT NOT NULL,
            permissions TEXT,
            camera_access TEXT,
            streams TEXT,
            password TEXT,
            epoch INTEGER NOT NULL,
            created_at REAL NOT NULL,
            password_changed_at REAL,
            disabled_at REAL,
            deleted_at REAL
        ) STRICT""",
        "ALTER TABLE api_keys ADD COLUMN owner TEXT",
    ),
    (
        """CREATE TABLE service_tokens (
            token_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            digest BLOB NOT NULL UNIQUE,
            created_at REAL NOT NULL,
            networks TEXT,
            rotated_at REAL,
            previous_digest BLOB,
            previous_valid_until REAL
        ) STRICT""",
    ),
    (
        # What edged's own tokens are compared with: the epoch, and lines that somebody drew at a time of the past.
        "ALTER TABLE cut_offs ADD COLUMN own_before REAL",
        "ALTER TABLE cut_offs ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
        "UPDATE cut_offs SET own_before = before",
        """CREATE TABLE families (
            family_id TEXT PRIMARY KEY,
            started REAL NOT NULL,
            until REAL NOT NULL
        ) STRICT""",
        """CREATE TABLE family_members (
            family_id TEXT NOT NULL REFERENCES families,
            identity TEXT NOT NULL,
            PRIMARY KEY (family_id, identity)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE refreshes (
            name TEXT PRIMARY KEY,
            family_id TEXT NOT NULL REFERENCES families,
            claims TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX refreshes_of_families ON refreshes (family_id)",
    ),
    (
        # The last good keys of outside issuers, as they came.
        """CREATE TABLE issuers (
            name TEXT PRIMARY KEY,
            source TEXT NOT NULL,
            keys TEXT NOT NULL,
            fetched_at REAL NOT NULL
        ) STRICT""",
    ),
    (
        # Secrets that were replaced before the previous one, while their grace runs.
        "ALTER TABLE api_keys ADD COLUMN older_secrets TEXT",
        "ALTER TABLE service_tokens ADD COLUMN older_secrets TEXT",
    ),
    (
        # Cut-offs "up to now" that were drawn while the clock was not trusted: at which second of which boot.
        """CREATE TABLE provisional_cut_offs (
            scope TEXT PRIMARY KEY,
            boot TEXT NOT NULL,
            seconds REAL NOT NULL,
            at REAL NOT NULL,
            reason TEXT NOT NULL,
            epoch INTEGER NOT NULL
        ) STRICT""",
    ),
    (
        # A camera's path at MediaMTX, and cameras that a call has added: their settings as JSON text.
        "ALTER TABLE cameras ADD COLUMN path TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE added_cameras (
            number INTEGER PRIMARY KEY REFERENCES cameras,
            settings TEXT NOT NULL,
            address TEXT NOT NULL
        ) STRICT""",
    ),
    (
        # By which names whoever made a key is known; and a jti is a name of its issuer's only: all families are ours.
        "ALTER TABLE api_keys ADD COLUMN made_by TEXT",
        "ALTER TABLE service_tokens ADD COLUMN made_by TEXT",
        "UPDATE family_members SET identity = 'jti_of::' || substr(identity, 5) WHERE identity LIKE 'jti:%'",
    ),
    (
        # What is revoked is read from the disk by page, and deleted some time after its end; but not what was imported,
        # which another import would make good again. Nobody knows which of the earlier ones were.
        "ALTER TABLE api_keys ADD COLUMN imported INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE service_tokens ADD COLUMN imported INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE service_tokens ADD COLUMN revoked_at REAL",
        "UPDATE service_tokens SET revoked_at ="
        " (SELECT at FROM revocations WHERE identity = 'service:' || service_tokens.token_id)",
        # A start reads those in force by the first, and all that it needs of the others from the second alone, as does
        # whoever looks for what is to be deleted.
        "CREATE INDEX api_keys_in_force ON api_keys (created_at, key_id) WHERE revoked_at IS NULL",
        "CREATE INDEX api_keys_revoked ON api_keys (created_at, key_id, digest, revoked_at, imported, previous_digest,"
        " older_secrets) WHERE revoked_at IS NOT NULL",
        "CREATE INDEX revocations_by_time ON revocations (at, identity)",
    ),
    (
        # Recordings: `stem` is the file name without its ending.
        """CREATE TABLE recordings (
            recording_id TEXT PRIMARY KEY,
            filename TEXT NOT NULL UNIQUE,
            stem TEXT NOT NULL GENERATED ALWAYS AS (rtrim(rtrim(filename, '4kmpv'), '.')) STORED,
            camera TEXT NOT NULL,
            format TEXT NOT NULL CHECK (format IN ('fmp4', 'mp4', 'mkv')),
            began REAL NOT NULL,
            ended REAL,
            until REAL,
            reason TEXT NOT NULL,
            made_by TEXT NOT NULL,
            is_protected INTEGER NOT NULL DEFAULT 0,
            deleted_at REAL,
            delete_reason TEXT NOT NULL DEFAULT ''
        ) STRICT""",
        "CREATE INDEX recordings_of_cameras ON recordings (camera, began) WHERE deleted_at IS NULL",
        "CREATE INDEX recordings_by_stem ON recordings (stem)",
        "CREATE INDEX running_recordings ON recordings (began) WHERE ended IS NULL",
    ),
    (
        # Each camera's series of sealed files; heads and tombstones as they were signed.
        "CREATE TABLE series (camera TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT, WITHOUT ROWID",
        """CREATE TABLE statements (
            series TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('head', 'tombstone')),
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            camera TEXT NOT NULL,
            kid TEXT NOT NULL,
            sealed REAL NOT NULL,
            text BLOB NOT NULL,
            PRIMARY KEY (series, kind, first)
        ) STRICT""",
        "CREATE INDEX statements_by_end ON statements (series, kind, last)",
        "CREATE INDEX statements_of_keys ON statements (kid, sealed)",
    ),
    (
        # Seconds before it was asked for that a recording begins.
        "ALTER TABLE recordings ADD COLUMN pre_roll REAL NOT NULL DEFAULT 0",
    ),
    (
        # When a trusted clock first saw that the key had expired, and how often it has looked since.
        "ALTER TABLE api_keys ADD COLUMN ended_at REAL",
        "ALTER TABLE api_keys ADD COLUMN ended_looks INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX api_keys_ending ON api_keys (expires_at) WHERE revoked_at IS NULL AND expires_at IS NOT NULL",
    ),
    (
        # Lists of many thousand recordings are read from indexes; how many of a camera there are, and the seconds of
        # the longest that has ended (those of an interval are found by when they began) stand in `recording_sums`.
        "DROP INDEX recordings_of_cameras",
        "CREATE INDEX recordings_of_cameras ON recordings (camera, began, recording_id, ended)"
        " WHERE deleted_at IS NULL",
        "CREATE INDEX recordings_by_age ON recordings (began, recording_id, camera) WHERE deleted_at IS NULL",
        "CREATE INDEX protected_recordings ON recordings (camera, began, ended)"
        " WHERE deleted_at IS NULL AND is_protected = 1",
        """CREATE TABLE recording_sums (
            camera TEXT PRIMARY KEY,
            number INTEGER NOT NULL,
            longest REAL NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "INSERT INTO recording_sums SELECT camera, sum(deleted_at IS NULL), coalesce(max(ended - began), 0.0)"
        " FROM recordings GROUP BY camera",
        """CREATE TRIGGER recording_inserted AFTER INSERT ON recordings BEGIN
            INSERT INTO recording_sums (camera, number, longest)
                VALUES (NEW.camera, NEW.deleted_at IS NULL, coalesce(NEW.ended - NEW.began, 0.0))
                ON CONFLICT (camera) DO UPDATE SET
                    number = number + excluded.number, longest = max(longest, excluded.longest);
        END""",
        """CREATE TRIGGER recording_changed AFTER UPDATE OF began, ended, deleted_at ON recordings BEGIN
            UPDATE recording_sums SET
                number = number + (NEW.deleted_at IS NULL) - (OLD.deleted_at IS NULL),
                longest = max(longest, coalesce(NEW.ended - NEW.began, 0.0))
                WHERE camera = NEW.camera;
        END""",
        """CREATE TRIGGER recording_removed AFTER DELETE ON recordings BEGIN
            UPDATE recording_sums SET number = number - (OLD.deleted_at IS NULL) WHERE camera = OLD.camera;
        END""",
    ),
    (
        # `is_swept`: after it was deleted its files were looked for once more.
        "ALTER TABLE recordings ADD COLUMN is_swept INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX deleted_recordings ON recordings (deleted_at, recording_id) WHERE deleted_at IS NOT NULL",
        "CREATE INDEX unswept_recordings ON recordings (deleted_at, recording_id)"
        " WHERE delete_reason = 'request' AND is_swept = 0",
    ),
    (
        # `binding`: why that device is this camera. A USB camera's identity becomes the record of its device: `model`
        # was "vendor:product", or what the device calls itself; `port` ended with the USB interface that `part` began
        # with ("00.0": interface and number of the node).
        "ALTER TABLE cameras ADD COLUMN binding TEXT NOT NULL DEFAULT ''",
        """UPDATE cameras SET identity = json_set(
                json_remove(identity, '$.part'),
                '$.vendor', CASE WHEN identity ->> 'model' GLOB '????:????'
                    THEN substr(identity ->> 'model', 1, 4) ELSE '' END,
                '$.product', CASE WHEN identity ->> 'model' GLOB '????:????'
                    THEN substr(identity ->> 'model', 6) ELSE '' END,
                '$.model', CASE WHEN identity ->> 'model' GLOB '????:????'
                    THEN '' ELSE identity ->> 'model' END,
                '$.interface', substr(identity ->> 'part', 1, instr(identity ->> 'part', '.') - 1),
                '$.index', substr(identity ->> 'part', instr(identity ->> 'part', '.') + 1),
                '$.path', CASE WHEN identity ->> 'port' GLOB 'sys:*' THEN '' ELSE identity ->> 'port' END,
                '$.driver', '')
            WHERE kind = 'usb' AND json_type(identity, '$.model') = 'text' AND json_type(identity, '$.part') = 'text'
                AND json_type(identity, '$.port') = 'text'""",
        """UPDATE cameras SET identity = json_set(identity, '$.port', CASE
                WHEN identity ->> 'port' GLOB '*-usb*:*:[0-9]*.[0-9]*'
                    THEN rtrim(rtrim(identity ->> 'port', replace(identity ->> 'port', ':', '')), ':')
                WHEN identity ->> 'port' GLOB 'sys:*/*-*:[0-9]*.[0-9]*'
                    THEN rtrim(rtrim(identity ->> 'port', replace(identity ->> 'port', '/', '')), '/')
                ELSE identity ->> 'port' END)
            WHERE kind = 'usb' AND json_type(identity, '$.index') = 'text'""",
    ),
)

#: What only counts.
USAGE: Migrations = (
    (
        """CREATE TABLE tallies (
            credential_id TEXT PRIMARY KEY,
            last_used REAL NOT NULL,
            count INTEGER NOT NULL
        ) STRICT""",
    ),
    (
        # Seconds, not times of day: who guesses, how long they still wait, and where users come from.
        """CREATE TABLE offenders (
            axis TEXT NOT NULL CHECK (axis IN ('address', 'subject')),
            name TEXT NOT NULL,
            level INTEGER NOT NULL,
            wait REAL NOT NULL,
            PRIMARY KEY (axis, name)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE known_places (
            subject TEXT NOT NULL,
            address TEXT NOT NULL,
            age REAL NOT NULL,
            PRIMARY KEY (subject, address)
        ) STRICT, WITHOUT ROWID""",
    ),
    (
        # How many commits the trust database had been through: one that has been through fewer is an older copy.
        """CREATE TABLE trust_commits (
            id INTEGER PRIMARY KEY CHECK (id = 0),
            number INTEGER NOT NULL
        ) STRICT""",
    ),
    (
        # Recorded files, below the folder of recordings.
        """CREATE TABLE segments (
            file TEXT PRIMARY KEY,
            camera TEXT NOT NULL,
            began REAL NOT NULL,
            duration REAL NOT NULL,
            size INTEGER NOT NULL,
            recovered INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX segments_of_cameras ON segments (camera, began, duration, size)",
        "CREATE INDEX segments_by_age ON segments (began, file)",
    ),
    (
        # Which number each recorded file has in its camera's series, by the seals beside the files.
        """CREATE TABLE seals (
            file TEXT PRIMARY KEY,
            camera TEXT NOT NULL,
            series TEXT NOT NULL,
            number INTEGER NOT NULL,
            digest TEXT NOT NULL,
            previous TEXT NOT NULL,
            sealed REAL NOT NULL,
            kid TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX seals_by_number ON seals (series, number)",
        "CREATE INDEX seals_of_keys ON seals (kid, sealed)",
    ),
    (
        # What happened, and the starts of the daemon that it is numbered by. No index beside the number: each would be
        # another page of every write.
        """CREATE TABLE event_runs (
            name TEXT PRIMARY KEY,
            first INTEGER NOT NULL,
            is_whole INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE events (
            number INTEGER PRIMARY KEY,
            at REAL NOT NULL,
            kind TEXT NOT NULL,
            camera TEXT NOT NULL,
            details TEXT NOT NULL
        ) STRICT""",
    ),
    (
        # Of 100,000 segments lists read one index, in which everything of them stands; how many of a camera there are,
        # their bytes, and the seconds of the longest stand in `segment_sums`.
        "DROP INDEX segments_of_cameras",
        "CREATE INDEX segments_of_cameras ON segments (camera, began, file, duration, size, recovered)",
        """CREATE TABLE segment_sums (
            camera TEXT PRIMARY KEY,
            files INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            longest REAL NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "INSERT INTO segment_sums SELECT camera, count(*), sum(size), max(duration) FROM segments GROUP BY camera",
        """CREATE TRIGGER segment_inserted AFTER INSERT ON segments BEGIN
            INSERT INTO segment_sums (camera, files, bytes, longest) VALUES (NEW.camera, 1, NEW.size, NEW.duration)
                ON CONFLICT (camera) DO UPDATE SET
                    files = files + 1, bytes = bytes + excluded.bytes, longest = max(longest, excluded.longest);
        END""",
        """CREATE TRIGGER segment_changed AFTER UPDATE ON segments BEGIN
            UPDATE segment_sums SET bytes = bytes + NEW.size - OLD.size, longest = max(longest, NEW.duration)
                WHERE camera = NEW.camera;
        END""",
        """CREATE TRIGGER segment_removed AFTER DELETE ON segments BEGIN
            UPDATE segment_sums SET files = files - 1, bytes = bytes - OLD.size WHERE camera = OLD.camera;
        END""",
    ),
    (
        # Where a player can begin within a recorded file (library.layouts); NULL while nobody has looked.
        "ALTER TABLE segments ADD COLUMN layout BLOB",
    ),
)
