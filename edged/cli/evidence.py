"""A recording with all that proves it, fetched from the daemon into a folder (docs/seals.md)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from edged.cli.asking import ask
from edged.cli.downloads import fetch
from edged.cli.output import errors_shown
from edged.errors import InvalidState, StoreFailed

#: As `cli.verification` reads them.
_STATEMENTS: Final = ".statements"


def fetch_evidence(filename: str, target: Path, **where: Any) -> dict[str, Any]:
    """Write segments, seals, heads, tombstones and the archive of keys into a new folder; what was written. Errors end
    the command, and leave no folder."""
    with errors_shown(as_json=where["as_json"]):
        try:
            target.mkdir(mode=0o750)
        except FileExistsError:
            raise InvalidState(f"{target} exists", hint="name another folder with --to") from None
        except OSError as problem:
            raise StoreFailed(f"{target} cannot be made: {problem.strerror}") from problem
    try:
        return _fetch(filename, target, where)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def fetch_seal(filename: str, target: Path, **where: Any) -> str:
    """The seal of a recording that was downloaded as this file, beside it; its path. Errors end the command."""
    found = ask("get_recording_evidence", {"filename": filename, "limit": 1}, **where)
    is_single = len(found["segments"]) == 1 and "next_cursor" not in found
    text = found["seal"] or (found["segments"][0]["seal"] if is_single else "")
    seal = target.with_name(f"{target.name}.seal")
    with errors_shown(as_json=where["as_json"]):
        if not text:
            raise InvalidState(f"{filename} has no seal yet", hint="fetch its segments: --evidence")
        _write(seal, text)
    return str(seal)


def _fetch(filename: str, target: Path, where: dict[str, Any]) -> dict[str, Any]:
    segments = size = unsealed = 0
    statements, cursor = "", None
    while True:
        found = ask("get_recording_evidence", {"filename": filename, "cursor": cursor}, **where)
        for each in found["segments"]:
            path = _path_in(target, each["file"], where)
            size += fetch(each["download_url"], path, **where)
            segments += 1
            if each["seal"]:
                _write_shown(path.with_name(f"{path.name}.seal"), each["seal"], where)
            else:
                unsealed += 1
        statements += found["statements"]
        if (cursor := found.get("next_cursor")) is None:
            break
    _write_shown(target / f"{found['device']}{_STATEMENTS}", statements, where)
    _write_shown(target / f"keys{_STATEMENTS}", found["keys"], where)
    return {
        "filename": found["filename"], "folder": str(target), "segments": segments, "unsealed": unsealed,
        "file_size": size,
    }  # fmt: skip


def _path_in(target: Path, file: str, where: dict[str, Any]) -> Path:
    """Where a segment goes; nothing that the daemon says leads out of the folder."""
    from edged.credentials.seals import is_file

    with errors_shown(as_json=where["as_json"]):
        if not is_file(file):
            raise InvalidState(f"the daemon names a file {file!r}, which is none of a recording")
        path = target / file
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as problem:
            raise StoreFailed(f"{path.parent} cannot be made: {problem.strerror}") from problem
    return path


def _write_shown(path: Path, text: str, where: dict[str, Any]) -> None:
    with errors_shown(as_json=where["as_json"]):
        _write(path, text)


def _write(path: Path, text: str) -> None:
    """Raises StoreFailed."""
    try:
        path.write_bytes(text.encode())
    except OSError as problem:
        raise StoreFailed(f"{path} cannot be written: {problem.strerror}") from problem
