"""Kills and freezes MediaMTX, an encoder and edged at random moments while two cameras record, and counts what is lost.

    scripts/soak record [--rounds 20] [--pre-roll SECONDS] [--facts] [KIND…]
    scripts/soak record --systemd [the same]

A KIND is kill-mediamtx, kill-encoder, kill-edged (SIGKILL), stop-mediamtx, stop-encoder or stop-edged (SIGSTOP); all
without one. The cameras outlive what is killed, and send pictures of which no two are the same; a reader at edged's
MediaMTX writes down which had arrived there. edged runs under a supervisor that does what systemd does with its unit;
with --systemd it is the package of what is committed, under the systemd of a booted Debian 13 (needs root, and the tools
of scripts/test-deb), and the kinds are kill-edged and stop-edged unless others are named.

After each round: the recording goes on within the limit; the processes are those that there should be; disk and index
agree; no file that was closed has gone or changed; `edged recording verify` finds every seal good. After the last one of
a kind: of what had arrived no second in a row is missing; each gap in what was recorded is told by an event with both
its ends, and nothing else is missing; each recording is one file that ffmpeg decodes without an error; the evidence of
each verifies with its heads and the box's key. With --facts the seconds until it goes on are shown and decide nothing, and
three times as much may be lost in a row: for a machine that does other things, too. Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from soak_box import CAMERAS, RATE, WATCHDOG, Box, Pictures, Reader, Refused, Source, SupervisedBox, UnitBox

#: Seconds until the recording has to go on.
LIMITS: Final = {
    "kill-mediamtx": 5.0, "kill-encoder": 5.0, "kill-edged": 5.0,
    "stop-encoder": 10.0, "stop-mediamtx": 20.0, "stop-edged": 40.0,
}  # fmt: skip
#: Seconds that a round takes here on a machine that does nothing else, and what is done once for a kind.
ROUND_SECONDS: Final = {
    "kill-mediamtx": 9.0, "kill-encoder": 8.0, "kill-edged": 11.5,
    "stop-encoder": 11.5, "stop-mediamtx": 23.0, "stop-edged": 31.5,
}  # fmt: skip
KIND_SECONDS: Final = 8.0
#: What is done under systemd, unless other kinds are named.
UNIT_KINDS: Final = ("kill-edged", "stop-edged")
#: Seconds in a row of what had arrived that may be lost: a part of MediaMTX's, and a picture.
MOST_LOST: Final = 1.0 + 1 / RATE
BAD: Final = "NOT OK"
#: Seconds between two files that are no gap (recording_index.GAP_SECONDS).
NO_GAP: Final = 0.5
#: Seconds that a round waits for the recording to go on, and for everything to be in order after that; so many times as
#: long where only facts decide.
PATIENCE: Final = 90.0
SETTLES: Final = 20.0
CALM: Final = 3.0


@dataclass
class Round:
    """Pictures sent when it was struck, seconds until there were new bytes on the disk, and what is wrong."""

    at: int
    took: float
    problems: list[str] = field(default_factory=list)


def until(what: Callable[[], object], seconds: float) -> float | None:
    """How long it took, None if it took longer."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if what():
            return time.monotonic() - began
        time.sleep(0.02)
    return None


# After each round ----------------------------------------------------------------------------------------------------


def check_processes(box: Box) -> list[str]:
    """Who is there and should not be, or is missing."""
    problems = box.strays()
    there = {name: len(box.children(name)) for name in ("mediamtx", "ffmpeg")}
    if there != {"mediamtx": 1, "ffmpeg": len(CAMERAS)}:
        problems.append(f"children: {there}")
    return problems


def check_files(box: Box, closed: dict[Path, int]) -> list[str]:
    """Where index and disk differ, and which closed file is gone; `closed` are those of before, to which new ones come."""
    rows = dict(box.rows("segments", "file", "size"))
    there = {path: size for camera in CAMERAS for path, size in box.segments(camera).items()}
    files = {str(path.relative_to(box.recordings)): size for path, size in there.items()}
    problems = [f"lost: {path.name}" for path in closed if path not in there]
    problems += [f"changed: {path.name}" for path, size in closed.items() if there.get(path, size) != size]
    problems += [f"not in the index: {name}" for name in sorted(files.keys() - rows.keys())]
    problems += [f"not on the disk: {name}" for name in sorted(rows.keys() - files.keys())]
    problems += [f"another size: {name}" for name in files.keys() & rows.keys() if files[name] != rows[name]]
    problems += [f"without a seal: {path.name}" for path in there if not Path(f"{path}.seal").exists()]
    damaged = box.recordings / "damaged"
    problems += [f"damaged: {path.name}" for path in damaged.rglob("*") if path.is_file()]
    closed |= there
    return problems


def check_seals(box: Box) -> list[str]:
    if not any(box.segments(camera) for camera in CAMERAS):
        return []
    code, said = box.run("recording", "verify", box.recordings)
    return [] if code == 0 else [f"verify: {said.splitlines()[0] if said else code}"]


def settle(box: Box, closed: dict[Path, int], patience: float) -> list[str]:
    """What is still wrong after a while: while something is written, index and seals follow the disk."""
    problems: list[str] = []

    def is_good() -> bool:
        nonlocal problems
        problems = [*check_processes(box), *check_files(box, closed)]
        problems = problems or check_seals(box)
        return not problems

    until(is_good, SETTLES * patience)
    return problems


# After the last round of a kind --------------------------------------------------------------------------------------


def pictures_of(file: Path) -> list[bytes]:
    """The pictures of a recorded file, as far as it can be read."""
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "quiet", "-i", file, "-map", "0:v", "-c", "copy", "-f", "h264", "-"],
        capture_output=True, check=False,
    )  # fmt: skip
    pictures = Pictures()
    pictures.feed(done.stdout, is_last=True)
    return pictures.digests


def runs_of(numbers: list[int]) -> list[tuple[int, int]]:
    """Sorted numbers as (first, last) of each run without a hole."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


@dataclass
class Kept:
    """What there is of one recording: `lost` runs of pictures that had arrived, `missing` runs that were sent."""

    arrived: int
    recorded: int
    twice: int
    lost: list[tuple[int, int]]
    missing: list[tuple[int, int]]

    @property
    def most_lost(self) -> float:
        return max((last - first + 1 for first, last in self.lost), default=0) / RATE

    @property
    def longest(self) -> float:
        return max((last - first + 1 for first, last in self.missing), default=0) / RATE


def compare(sent: dict[bytes, int], arrived: list[bytes], files: list[Path]) -> Kept:
    seen = {sent[digest] for digest in arrived if digest in sent}
    recorded = [sent[digest] for file in files for digest in pictures_of(file) if digest in sent]
    kept = set(recorded)
    first, last = min(kept), max(kept)
    # What came before the recording began, and after it had ended, is no part of it.
    lost = sorted(number for number in seen - kept if first < number < last)
    missing = runs_of([number for number in range(first, last) if number not in kept])
    # What arrived of a run of lost pictures lies within one run of missing ones.
    return Kept(len(seen), len(kept), len(recorded) - len(kept), runs_of(lost), missing)


def check_gaps(box: Box, camera: str, info: dict[str, Any], kept: Kept, rounds: int) -> list[str]:
    """Whether all that is missing is a gap, and each gap was told with both its ends."""
    rows = sorted(box.rows("segments", "began", "began + duration", "camera"))
    own = [(began, ended) for began, ended, owner in rows if owner == camera]
    gaps = [(one[1], two[0]) for one, two in pairwise(own) if two[0] - one[1] > NO_GAP]
    problems = [] if info["gaps"] == len(gaps) else [f"{camera}: {info['gaps']} gaps are shown, there are {len(gaps)}"]
    told = [
        event["details"]
        for event in box.patient("GET", f"/api/events?device={camera}&kinds=recording.gap&limit=1000")["events"]
    ]
    for begin, end in gaps:
        if not any(abs(each["begin"] - begin) < 1 and abs(each["end"] - end) < 1 for each in map(ends_of, told)):
            problems.append(f"{camera}: no event tells the gap of {end - begin:.2f} s at {begin:.2f}")
    # A gap is as long as the clock says; pictures may have waited somewhere, so that fewer are missing.
    missing = sum(last - first + 1 for first, last in kept.missing) / RATE
    announced = sum(end - begin for begin, end in gaps)
    if missing > announced + NO_GAP * rounds:
        problems.append(f"{camera}: {missing:.1f} s are missing, {announced:.1f} s are announced")
    return problems


def ends_of(event: dict[str, Any]) -> dict[str, float]:
    """Begin and end of an event's gap, Unix seconds."""
    from datetime import datetime

    found = {}
    for name in ("begin", "end"):
        value = event[name]
        found[name] = datetime.fromisoformat(value).timestamp() if isinstance(value, str) else float(value)
    return found


def check_recording(box: Box, folder: Path, name: str) -> list[str]:
    """One file that can be played, and evidence that verifies by the box's own key."""
    problems = []
    file, evidence, keys = folder / f"{name}.mp4", folder / f"{name}.evidence", folder / "jwks.json"
    keys.write_text(json.dumps(box.patient("GET", "/.well-known/jwks.json")))
    for words in (("--to", file, "--seal"), ("--to", evidence, "--evidence")):
        code, said = box.run("recording", "download", name, *words, *box.socket)
        if code:
            return [f"download of {name}: {said}"]
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", file, "-f", "null", "-"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode or done.stderr:
        problems.append(f"{name} is not played: {done.stderr.strip()[:200]}")
    for what in (file, evidence):
        code, said = box.run("recording", "verify", what, "--jwks", keys)
        if code:
            problems.append(f"verify {what.name}: {said.splitlines()[0] if said else code}")
    file.unlink()
    Path(f"{file}.seal").unlink()
    shutil.rmtree(evidence)
    return problems


# The rounds ----------------------------------------------------------------------------------------------------------


def strike(box: Box, kind: str) -> None:
    """Send the signal. Raises Refused where there is nobody to send it to."""
    how, _, whom = kind.partition("-")
    number = signal.SIGKILL if how == "kill" else signal.SIGSTOP
    pids = [box.pid] if whom == "edged" else box.children("mediamtx" if whom == "mediamtx" else "ffmpeg")
    if not pids or not pids[0]:
        raise Refused(f"there is no {whom}")
    os.kill(random.choice(pids), number)


def is_growing(box: Box) -> bool:
    """Whether each camera has a file that grew within three seconds."""
    before = {camera: box.written(camera) for camera in CAMERAS}
    return until(lambda: all(grew(box, camera, before[camera]) for camera in CAMERAS), 3) is not None


def grew(box: Box, camera: str, before: dict[Path, int]) -> bool:
    return any(size > before.get(path, 0) for path, size in box.written(camera).items())


def goes_on(box: Box, whole: dict[str, dict[Path, int]]) -> bool:
    """Whether each camera has bytes in a file that was not there before the signal, or many more in one that was: that
    of the other encoder."""
    for camera in CAMERAS:
        now = box.written(camera)
        fresh = any(size > 0 and path not in whole[camera] for path, size in now.items())
        if not fresh and not any(size > whole[camera].get(path, size) + 100_000 for path, size in now.items()):
            return False
    return True


def one_round(
    kind: str, box: Box, source: Source, readers: list[Reader], closed: dict[Path, int], patience: float
) -> Round:
    time.sleep(random.uniform(2.0, 6.0))
    # The readers have to be there, too.
    for reader in readers:
        count = len(reader.digests)
        until(lambda reader=reader, count=count: len(reader.digests) > count, 30)  # type: ignore[misc]
    whole = {camera: box.written(camera) for camera in CAMERAS}
    at, began = source.sent, time.monotonic()
    strike(box, kind)
    if until(lambda: goes_on(box, whole), PATIENCE * patience) is None:
        return Round(at, PATIENCE * patience, ["it does not go on"])
    return Round(at, time.monotonic() - began, settle(box, closed, patience))


def soak(
    kind: str, rounds: int, folder: Path, box: Box, source: Source, key: str, *, facts: bool
) -> bool:  # fmt: skip
    """A recording of each camera with so many rounds; whether all limits hold, with `facts` those that are no times."""
    patience, started, hung = CALM if facts else 1.0, time.monotonic(), box.watchdog_ends
    readers = [Reader(f"rtsp://soak:{key}@127.0.0.1:{box.rtsp}/{camera}") for camera in CAMERAS]
    results: list[Round] = []
    problems: list[str] = []
    closed: dict[Path, int] = {}
    names = {camera: f"{kind}-{camera}" for camera in CAMERAS}
    try:
        for camera, name in names.items():
            box.patient("POST", f"/api/cameras/{camera}/recording", filename=name, format="mp4")
        if not until(lambda: is_growing(box), 60 * patience):
            raise Refused("nothing is recorded")
        for number in range(rounds):
            one = one_round(kind, box, source, readers, closed, patience)
            results.append(one)
            print(f"  {kind} {number + 1}: {one.took:.2f} s {'; '.join(one.problems[:3])}", flush=True)
        time.sleep(3)
        for camera in CAMERAS:
            box.patient("DELETE", f"/api/cameras/{camera}/recording")
    finally:
        for reader in readers:
            reader.close()
    for one in results:
        problems += one.problems
    until(lambda: not check_files(box, closed), SETTLES * patience)
    problems += check_files(box, closed)
    problems += [f"left in {path.parent}: {path.name}" for camera in CAMERAS for path in box.written(camera)
                 if box.recordings in path.parents]  # fmt: skip
    sent, found, infos = source.numbers(), {}, {}
    for camera, reader in zip(CAMERAS, readers, strict=True):
        infos[camera] = box.patient("GET", f"/api/recordings/{names[camera]}")
        found[camera] = compare(sent, reader.digests, list(box.segments(camera)))
        problems += check_gaps(box, camera, infos[camera], found[camera], rounds)
        problems += check_recording(box, folder, names[camera])
    # On a machine that does other things it may have hung once more.
    ends = box.watchdog_ends - hung
    if kind == "stop-edged" and (ends < rounds or (ends > rounds and not facts)):
        problems.append(f"the watchdog has ended it {ends} times")
    if any(kept.twice for kept in found.values()):
        problems.append(f"{[kept.twice for kept in found.values()]} pictures are recorded twice")
    worst = max(one.took for one in results)
    lost = max(kept.most_lost for kept in found.values())
    word = judge(kind, worst, lost, problems, facts=facts)
    median = sorted(one.took for one in results)[len(results) // 2]
    print(
        f"{word}: {kind}: {len(results)} rounds, goes on after {median:.2f} s, worst {worst:.2f}"
        f" (limit {LIMITS[kind]:g}); of {sum(kept.arrived for kept in found.values())} pictures that had arrived"
        f" at most {lost:.2f} s in a row lost (limit {MOST_LOST:.2f}),"
        f" {sum(kept.recorded for kept in found.values())} recorded; longest gap in pictures"
        f" {max(kept.longest for kept in found.values()):.2f} s; gaps {[info['gaps'] for info in infos.values()]};"
        f" {len(closed)} files; problems: {'; '.join(problems) or 'none'}; {time.monotonic() - started:.0f} s, load"
        f" {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    for name in names.values():
        box.patient("DELETE", f"/api/recordings/{name}")
    return word != BAD


def judge(kind: str, worst: float, lost: float, problems: Sequence[str], *, facts: bool) -> str:
    """BAD, or how good it is: `worst` seconds until it went on, `lost` seconds in a row of what had arrived.

    With `facts` the first decide nothing, and the second are pictures, of which some more may wait to be written.
    """
    if not problems and worst <= LIMITS[kind] and lost <= MOST_LOST:
        return "ok"
    return "over a limit of seconds" if facts and not problems and lost <= CALM * MOST_LOST else BAD


def estimate(kinds: Sequence[str], rounds: int) -> str:
    """How long it takes about."""
    seconds = sum(KIND_SECONDS + rounds * ROUND_SECONDS[kind] for kind in kinds)
    return f"about {max(1, round(seconds / 60))} minutes"


def main() -> int:
    # A stop from outside closes what was started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    usual = 20
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"{usual} rounds of every kind take {estimate(list(LIMITS), usual)}, "
        f"with --systemd {estimate(UNIT_KINDS, usual)} and some for the package and the boot; "
        f"2 rounds {estimate(list(LIMITS), 2)}.",
    )  # fmt: skip
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(LIMITS))
    parser.add_argument("--rounds", type=int, default=usual, help="of each kind")
    parser.add_argument("--pre-roll", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--facts", action="store_true", help="how long it takes decides nothing")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--mediamtx", default=shutil.which("mediamtx"))
    parser.add_argument("--keep", type=Path, help="a folder for the log of edged")
    parser.add_argument("--watchdog", type=float, default=WATCHDOG, metavar="SECONDS", help="of the supervisor")
    parser.add_argument(
        "--unit", action="store_true", help="of the package that is installed; what --systemd does there"
    )
    args = parser.parse_args()
    if unknown := set(args.kinds) - LIMITS.keys():
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    if args.mediamtx is None or shutil.which("ffmpeg") is None:
        print("not run: the soak of recordings: mediamtx or ffmpeg not found")
        return 77
    kinds = args.kinds or (UNIT_KINDS if args.unit else list(LIMITS))
    seed = random.randrange(10**6) if args.seed is None else args.seed
    print(f"seed {seed}; {estimate(kinds, args.rounds)}", flush=True)
    random.seed(seed)
    is_good = True
    with tempfile.TemporaryDirectory(prefix="edged-soak-") as name:
        folder = Path(name)
        source = Source(folder, args.mediamtx)
        box: UnitBox | SupervisedBox | None = None
        try:
            if args.unit:
                box = UnitBox(args.mediamtx, source.urls, args.pre_roll)
            else:
                box = SupervisedBox(folder, args.mediamtx, source.urls, args.pre_roll, args.watchdog)
            key = box.patient("POST", "/api/keys", name="soak", role="admin")["api_key"]
            for kind in kinds:
                is_good &= soak(kind, args.rounds, folder, box, source, key, facts=args.facts)
        finally:
            if box is not None:
                box.close()
            source.close()
            if args.keep is not None and box is not None:
                args.keep.mkdir(parents=True, exist_ok=True)
                box.save_log(args.keep)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
