"""Kept snapshots: `<folder>/<camera>/<file>`, each file name used once whatever the camera.

A name is a single plain file name, and what exists is never overwritten: a second `gate.jpg` becomes `gate-1.jpg`.
A file appears whole, under its name, or not at all. File work runs in a thread: an SD card can be slow.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
import trio

from edged.errors import InvalidParams, InvalidState, NotFound, StoreFailed
from edged.feeds import Feed
from edged.library.pictures import HEAD_BYTES, read_size

Format: TypeAlias = Literal["jpg", "png"]

#: Names: letters, digits, dot, dash and underscore, no dot in front; short enough for a counter and any file system.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}\Z")
_ENDINGS: Final = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
#: Characters of a name to save under; a counter may be added.
_LONGEST: Final = 100
#: Files of one name that are counted before we give up.
_HIGHEST_COUNT: Final = 10_000


class SavedSnapshot(msgspec.Struct, frozen=True):
    """A kept picture: `filename` with ending, `size` in bytes, `created_at` Unix seconds."""

    filename: str
    path: Path
    size: int
    created_at: float

    @property
    def place(self) -> tuple[float, str]:
        """By which pictures are sorted: unlike that of any other."""
        return self.created_at, f"{self.path.parent.name}/{self.filename}"


def check_name(filename: str) -> str:
    """The name itself. Raises InvalidParams for anything that is not one plain file name."""
    if _NAME.match(filename) is None:
        raise InvalidParams(
            "filename is not a plain file name",
            hint=f"use up to {_LONGEST} letters, digits, dots, dashes and underscores, with no dot in front",
            field="filename",
        )
    return filename


def complete_name(filename: str | None, camera: str, form: Format, now: float) -> str:
    """The name to save under: as given, with the ending of its format; without one, camera and time (UTC).

    Raises InvalidParams for an unsafe name, or for the ending of another format.
    """
    if not filename:
        return f"{camera}_{datetime.fromtimestamp(now, UTC):%Y-%m-%d_%H-%M-%S}.{form}"
    name = check_name(filename)
    if len(name) > _LONGEST:
        raise InvalidParams(f"filename is longer than {_LONGEST} characters", field="filename")
    ending = _ENDINGS.get(Path(name).suffix.lower())
    if ending is None:
        return check_name(f"{name}.{form}")
    if ending != form:
        raise InvalidParams(f"filename ends in {Path(name).suffix} but the format is {form}", field="filename")
    return name


class SnapshotChanged(msgspec.Struct, frozen=True):
    """A picture of a camera was kept under a name, of so many bytes; or none could be: `problem` says why. `event_id`
    of the event that it was taken for, "" for none."""

    camera: str
    filename: str = ""
    size: int = 0
    problem: str = ""
    event_id: str = ""

    @property
    def event(self) -> str:
        """Its name in contract 3b."""
        return "snapshot.error" if self.problem else "snapshot.taken"


class Snapshots:
    """The folder of snapshots; it is made when the first one is saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.changes: Feed[SnapshotChanged] = Feed()

    async def save(
        self,
        filename: str | None,
        camera: str,
        data: bytes,
        format: Format,  # noqa: A002 (the contract's word)
        now: float,
        event_id: str = "",
    ) -> SavedSnapshot:
        """Keep a picture of a camera. `now`: Unix seconds; `event_id` as SnapshotChanged.

        Raises InvalidParams for an unsafe name, StoreFailed if the disk does not take it.
        """
        name = complete_name(filename, check_name(camera), format, now)
        saved = await trio.to_thread.run_sync(self._save, name, camera, data, now)
        self.changes.publish(SnapshotChanged(camera, saved.filename, saved.size, event_id=event_id))
        return saved

    def fail(self, camera: str, problem: str, event_id: str = "") -> None:
        """A picture that was asked for could not be taken or kept. Returns at once."""
        self.changes.publish(SnapshotChanged(camera, problem=problem, event_id=event_id))

    async def find(self, filename: str) -> list[Path]:
        """What this name may mean: the file of the name, else those that only lack its ending, newest first (C-39).

        Never empty: raises NotFound, or InvalidParams for what is not a file name.
        """
        paths = await trio.to_thread.run_sync(self._find, check_name(filename))
        if not paths:
            raise no_snapshot(filename)
        return paths

    async def list_page(
        self, may_see: Callable[[str], bool], *, limit: int, offset: int, after: tuple[float, str] | None = None
    ) -> tuple[list[SavedSnapshot], int]:
        """(pictures of the cameras that `may_see` says, newest first; how many there are in all).

        `after`: only those behind the picture with this `SavedSnapshot.place`, which may be gone.
        """
        folders = await trio.to_thread.run_sync(self._list_cameras)
        chosen = [folder for folder in folders if may_see(folder.name)]
        return await trio.to_thread.run_sync(self._list_page, chosen, limit, offset, after)

    async def measure(self, sees: Callable[[str], bool]) -> int:
        """Bytes of all pictures of the cameras that `sees` admits."""
        cameras = await trio.to_thread.run_sync(self._list_cameras)
        folders = [folder for folder in cameras if sees(folder.name)]

        def add() -> int:
            return sum(size for folder in folders for _, _, size in _list_pictures(folder))

        return await trio.to_thread.run_sync(add)

    async def describe(self, path: Path) -> tuple[SavedSnapshot, tuple[int, int] | None]:
        """A picture that `find` returned, and its width and height in pixels, None if it does not say them."""

        def look() -> tuple[SavedSnapshot, tuple[int, int] | None]:
            with path.open("rb") as file:
                found, head = os.fstat(file.fileno()), file.read(HEAD_BYTES)
            return SavedSnapshot(path.name, path, found.st_size, found.st_mtime), read_size(head)

        try:
            return await trio.to_thread.run_sync(look)
        except FileNotFoundError:
            raise no_snapshot(path.name) from None
        except OSError as error:
            raise StoreFailed(f"the snapshot cannot be read: {error.strerror}", hint="look at the disk") from error

    async def read(self, path: Path) -> bytes:
        """The bytes of a picture that `find` returned. Raises NotFound, StoreFailed."""
        try:
            return await trio.to_thread.run_sync(path.read_bytes)
        except FileNotFoundError:
            raise no_snapshot(path.name) from None
        except OSError as error:
            raise StoreFailed(f"the snapshot cannot be read: {error.strerror}", hint="look at the disk") from error

    async def delete(self, path: Path) -> None:
        """Delete a picture that `find` returned. Raises NotFound, StoreFailed."""
        try:
            await trio.to_thread.run_sync(path.unlink)
        except FileNotFoundError:
            raise no_snapshot(path.name) from None
        except OSError as error:
            raise StoreFailed(f"the snapshot was not deleted: {error.strerror}") from error

    @staticmethod
    def camera_of(path: Path) -> str:
        """Which camera a file that `find` returned is of."""
        return path.parent.name

    def _list_cameras(self) -> list[Path]:
        with suppress(OSError):
            return [folder for folder in self._folder.iterdir() if folder.is_dir() and not folder.is_symlink()]
        return []

    @staticmethod
    def _list_page(
        folders: Sequence[Path], limit: int, offset: int, after: tuple[float, str] | None
    ) -> tuple[list[SavedSnapshot], int]:
        found = [
            SavedSnapshot(name, folder / name, size, taken)
            for folder in folders
            for taken, name, size in _list_pictures(folder)
        ]
        found.sort(key=lambda picture: picture.place, reverse=True)
        behind = found if after is None else [picture for picture in found if picture.place < after]
        return behind[offset : offset + limit], len(found)

    def _find(self, name: str) -> list[Path]:
        """A symbolic link is no snapshot."""
        found: list[tuple[int, Path]] = []
        with suppress(OSError):
            folders = [folder for folder in self._folder.iterdir() if folder.is_dir() and not folder.is_symlink()]
            for folder in folders:
                if (path := folder / name).is_file() and not path.is_symlink():
                    return [path]
            for path in (path for folder in folders for path in folder.iterdir() if _is_meant(path, name)):
                with suppress(OSError):  # deleted meanwhile
                    found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found, reverse=True)]

    def _save(self, name: str, camera: str, data: bytes, now: float) -> SavedSnapshot:
        try:
            (self._folder / camera).mkdir(mode=0o750, parents=True, exist_ok=True)
            for candidate in _candidates(name):
                path = self._folder / camera / candidate
                if self._write(path, data):
                    return SavedSnapshot(candidate, path, len(data), now)
        except OSError as error:
            raise StoreFailed(f"the snapshot was not saved: {error.strerror}", hint="is the disk full?") from error
        raise InvalidState(f"there are {_HIGHEST_COUNT} snapshots named like {name!r}", hint="choose another name")

    def _write(self, path: Path, data: bytes) -> bool:
        """Write the file whole, unless its name is taken. False if it is.

        Whoever holds the part file, of which there is one a name for all cameras, is the only one to use the name.
        """
        part = self._folder / f".{path.name}.part"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as file:
                if self._is_taken(path.name):
                    return False
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
        return True

    def _is_taken(self, name: str) -> bool:
        return any(os.path.lexists(folder / name) for folder in self._folder.iterdir() if folder.is_dir())


def no_snapshot(filename: str) -> NotFound:
    """The one error for a file that is not there and for one that the asker may not know of."""
    return NotFound(f"no snapshot {filename!r}", hint="take_snapshot makes one", resource="file", id=filename)


def _list_pictures(folder: Path) -> list[tuple[float, str, int]]:
    """(Unix seconds, name, bytes) of the pictures in a folder."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in _ENDINGS and entry.is_file(follow_symlinks=False):
                with suppress(OSError):  # deleted meanwhile
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, entry.name, status.st_size))
    return found


def _is_meant(path: Path, name: str) -> bool:
    """Whether a file is a picture whose name without its ending is `name`."""
    return path.stem == name and path.suffix.lower() in _ENDINGS and path.is_file() and not path.is_symlink()


def _candidates(name: str) -> itertools.chain[str]:
    """The name, then the name with a counter: gate.jpg, gate-1.jpg, gate-2.jpg, …"""
    path = Path(name)
    counted = (f"{path.stem}-{count}{path.suffix}" for count in range(1, _HIGHEST_COUNT))
    return itertools.chain([name], counted)
