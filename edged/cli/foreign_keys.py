"""An api-keys.json of another camera service: reading its keys, and removing those that were imported.

Two services wrote files of this name (contract S1-33). One kept a map of records by id, each with its key in plain text
(`{"keys": {"<id>": {"key": …, "role": 1, …}}}`, roles 1 viewer, 2 operator, 3 admin); the other a list of records with
no key at all (`{"version": …, "keys": [{"key_id": …, "name": …}]}`), which nobody can take over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from edged.errors import NOT_JSON, EdgedError

_LARGEST: Final = 16 * 1024 * 1024
_LONGEST: Final = 128
_ROLES: Final[Mapping[str, str]] = {"1": "viewer", "2": "operator", "3": "admin"}
#: How a time that was never set is written.
_NEVER: Final = "0001-"


class BadFile(EdgedError):
    """The file cannot be read, or is not one of keys."""

    slug = "bad_file"


class KeyFile:
    """An opened file of keys.

    `keys` are those to hand over, as params of import_keys; `unusable` those that nobody can take, as rows of its
    report; `ended` the ids of those that their own service accepts no more, which are as good as taken out. Ids are
    what the file says where that tells the records apart, else `#` and their place in it.
    """

    def __init__(self, folder: int, descriptor: int, path: Path) -> None:
        """`folder` and `descriptor` are where the file is and the file itself, open. Raises BadFile."""
        self._folder = folder
        self._path = path
        self._status = os.fstat(descriptor)
        self._document = document = _read(descriptor, self._status, path)
        #: Id → where in the document.
        self._places: dict[str, str | int] = {}
        self.keys: list[dict[str, Any]] = []
        self.unusable: list[dict[str, Any]] = []
        self.ended: set[str] = set()
        kept = document["keys"]
        for at, (place, record) in enumerate(kept.items() if isinstance(kept, dict) else enumerate(kept)):
            said = str(place if isinstance(kept, dict) else record.get("key_id") or record.get("id") or "")
            source_id = said if 0 < len(said) <= _LONGEST and said not in self._places else f"#{at}"
            while source_id in self._places:
                source_id = f"#{source_id}"
            self._places[source_id] = place
            self._sort(source_id, record)

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[KeyFile]:
        """Nobody else imports the file while the block runs. Raises BadFile."""
        with ExitStack() as opened:
            try:
                folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, folder)
                # A link in a folder that another user may write to could name any file of the system.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(path.name, flags, dir_fd=folder)
                opened.callback(os.close, descriptor)
                if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
                    raise PermissionError(errno.EACCES, f"nothing can be written to {path.parent}")
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadFile(f"{path} is being imported already", hint="wait until that ends") from None
            except OSError as problem:
                raise BadFile(
                    f"{path} cannot be opened for reading and replacing: {problem.strerror}",
                    hint="imported keys are removed from the file: use sudo, and give the path of the file itself, not "
                    "of a link",
                ) from None
            yield cls(folder, descriptor, path)

    def take_out(self, source_ids: Collection[str]) -> int:
        """Replace the file by one without these records, with its mode and owner; returns how many are left.

        Whatever happens meanwhile, under its name there is all of it as it was or as it shall be. Raises BadFile.
        """
        kept, gone = self._document["keys"], {self._places[source_id] for source_id in source_ids}
        if not gone:
            return len(kept)
        if isinstance(kept, dict):
            kept = {name: record for name, record in kept.items() if name not in gone}
        else:
            kept = [record for at, record in enumerate(kept) if at not in gone]
        text = msgspec.json.format(msgspec.json.encode({**self._document, "keys": kept}), indent=2) + b"\n"
        try:
            self._replace(text)
        except OSError as problem:
            raise BadFile(
                f"the keys are imported, but {self._path} still contains them: {problem.strerror}",
                hint="correct this and repeat the command (no key is imported twice), or remove them by hand",
            ) from None
        try:
            os.fsync(self._folder)
        except OSError as problem:
            raise BadFile(
                f"the keys are imported and removed from {self._path}, but a power failure could bring them back: "
                f"{problem.strerror}",
                hint="check the file after the next start",
            ) from None
        return len(kept)

    def _replace(self, text: bytes) -> None:
        part = f".{self._path.name}.edged"
        # What an earlier try left when the power went.
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=self._folder)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fchown(descriptor, self._status.st_uid, self._status.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(self._status.st_mode))
                os.fsync(descriptor)
            self._refuse_changed()
            os.rename(part, self._path.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=self._folder)
            raise

    def _refuse_changed(self) -> None:
        """Raises BadFile if the name stands for something else than what was read: that would be lost."""
        now, read = os.stat(self._path.name, dir_fd=self._folder, follow_symlinks=False), self._status
        facts = [(each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in (now, read)]
        if facts[0] != facts[1]:
            raise BadFile(
                f"the keys are imported, but {self._path} was changed meanwhile and still contains them",
                hint="repeat the command: no key is imported twice",
            )

    def _sort(self, source_id: str, record: dict[str, Any]) -> None:
        status = record.get("status") or "active"
        if status in ("revoked", "expired") or record.get("is_active") is False:
            self.ended.add(source_id)
        elif status != "active":
            why = f"its status is {str(status)[:_LONGEST]!r}"
            self.unusable.append({"source_id": source_id, "status": "refused", "reason": why})
        elif not isinstance(record.get("key"), str) or not record["key"]:
            self.unusable.append({"source_id": source_id, "status": "no key", "reason": _describe(record)})
        else:
            self.keys.append(_param(source_id, record))


def _read(descriptor: int, status: os.stat_result, path: Path) -> dict[str, Any]:
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
        raise BadFile(f"{path} is not a file with keys", hint="give the path of an api-keys.json")
    try:
        document = msgspec.json.decode(os.pread(descriptor, _LARGEST, 0))
    except NOT_JSON:
        raise BadFile(f"{path} is not JSON", hint="give the path of an api-keys.json") from None
    records = document.get("keys") if isinstance(document, dict) else None
    values = records.values() if isinstance(records, dict) else records
    if not isinstance(records, (dict, list)) or not all(isinstance(each, dict) for each in values or ()):
        raise BadFile(f'{path} has no member "keys"', hint="give the path of an api-keys.json")
    found: dict[str, Any] = document
    return found


def _param(source_id: str, record: dict[str, Any]) -> dict[str, Any]:
    times = {name: record.get(name) for name in ("created_at", "expires_at")}
    return {
        "source_id": source_id,
        "key": record["key"],
        "role": _role(record),
        "name": str(record.get("description") or record.get("name") or "")[:_LONGEST],
        **{name: text for name, text in times.items() if isinstance(text, str) and not text.startswith(_NEVER)},
    }


def _role(record: dict[str, Any]) -> str:
    said = str(record.get("role"))[:_LONGEST]
    return _ROLES.get(said, said)


def _describe(record: dict[str, Any]) -> str:
    """What a new one would have to be like."""
    return f"{_role(record)} {str(record.get('name') or '')[:_LONGEST]!r}: the file does not contain its key"
