"""library/seal_evidence.py: what is fetched is enough to verify, page by page, and no more is claimed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seal_helpers import SealingBox, sealing_box

from edged.cli.verification import verify
from edged.credentials.evidence import Verdict
from edged.credentials.identities import Identity
from edged.credentials.seal_signatures import read, split, thumbprint_of
from edged.credentials.seals import Head, KeyArchive, Tombstone
from edged.library.seal_evidence import collect_page, make_archive
from edged.store.segments import SegmentRow


async def fetch(box: SealingBox, folder: Path, rows: Sequence[SegmentRow], page: int = 200) -> Path:
    """As `edged recording download --evidence`, without the daemon."""
    before = None
    statements = b""
    for at in range(0, len(rows), page):
        found = await collect_page(box.sealing, rows[at : at + page], before)
        before = rows[at + page - 1] if at + page < len(rows) else None
        statements += found.statements
        for row, seal in found.segments:
            path = folder / row.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((box.root / row.file).read_bytes())
            path.with_name(f"{path.name}.seal").write_text(seal)
    (folder / "camera0.statements").write_bytes(statements)
    (folder / "keys.statements").write_bytes(await make_archive(box.sealing))
    return folder


def judge(box: SealingBox, folder: Path) -> Verdict:
    public = box.keyring.current("ES256").public
    return verify([folder], known=frozenset({thumbprint_of(public["x"], public["y"])}))


async def test_a_part_of_a_series_verifies_alone_also_if_it_came_in_pages(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        rows = await box.record(12)
        for page in (200, 4, 1):
            folder = await fetch(box, tmp_path / f"by-{page}", rows[3:10], page)
            verdict = judge(box, folder)
            assert (verdict.problems, verdict.notes, verdict.proven, verdict.segments) == ([], [], True, 7)
        (folder / rows[9].file).unlink()
        (folder / f"{rows[9].file}.seal").unlink()
        assert [problem.number for problem in judge(box, folder).problems] == [10]


async def test_what_was_deleted_in_between_is_bridged(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        rows = await box.record(10)
        gone = rows[4:6]
        await box.index.remove(gone, dict.fromkeys((row.file for row in gone), "request"))
        left = [row for row in rows if row not in gone]
        for page in (200, 4):
            folder = await fetch(box, tmp_path / f"by-{page}", left, page)
            assert judge(box, folder).problems == []
            kinds = [type(read(text).statement) for text in split((folder / "camera0.statements").read_bytes())]
            assert Tombstone in kinds
            assert Head in kinds
            (folder / "camera0.statements").write_bytes(b"")
            assert [problem.number for problem in judge(box, folder).problems] == [5]


async def test_segments_that_are_not_of_the_recording_are_there_by_their_seals_alone(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        rows = await box.record(8)
        folder = await fetch(box, tmp_path / "evidence", [*rows[:3], *rows[5:]])
        verdict = judge(box, folder)
        assert (verdict.problems, verdict.segments) == ([], 6)


async def test_the_archive_says_when_each_key_signed_and_that_one_is_distrusted(tmp_path: Path) -> None:
    async with sealing_box(tmp_path) as box:
        rows = await box.record(3)
        await box.index.remove(rows[1:2], {rows[1].file: "age"})
        before = box.keyring.current("ES256")
        box.time[0] += 5
        box.denied.add(Identity.of_signing_key(before.kid))
        await box.keyring.give_up(before.kid)
        rows += await box.record(2)
        archive = read(await make_archive(box.sealing))
        assert isinstance(archive.statement, KeyArchive)
        first, second = archive.statement.keys
        assert (first.kid, second.kid) == (before.kid, box.keyring.current("ES256").kid)
        assert first.last is not None
        assert first.first < first.last
        assert first.distrusted is not None
        assert (second.last, second.distrusted, archive.kid) == (None, None, second.kid)
        # What the distrusted key sealed is confirmed by what came after; its tombstone was signed anew.
        folder = await fetch(box, tmp_path / "evidence", [rows[0], *rows[2:]])
        assert judge(box, folder).problems == []
