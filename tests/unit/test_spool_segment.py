"""Segments against an independent reader, whole, cut and damaged."""

from __future__ import annotations

import contextlib
import io
import random
import sqlite3
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.spool import Spool, segment
from edgecap.spool.files import OsFiles
from edgecap.spool.segment import CHUNK, Damage, Record, SegmentHeader, new_header, scan
from edgecap.spool.segment_index import key_of, read_index
from edgecap.spool.segment_writer import SegmentWriter
from tests.chunks import SessionMaker
from tests.reference import segment as reference


class Bytes:
    """A file that is a byte string."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read_at(self, offset: int, n: int) -> bytes:
        self._data.seek(offset)
        return self._data.read(n)

    def size(self) -> int:
        return len(self._data.getbuffer())


def make_segment(tmp_path: Path, *, sealed: bool = True) -> bytes:
    writer = SegmentWriter(OsFiles(), tmp_path / "00000001.seg", new_header(1))
    for chunk in SessionMaker().whole(rounds=1, n_bytes=100):
        writer.append(chunk, key_of(chunk))
    if sealed:
        writer.seal()
    writer.close()
    return (tmp_path / "00000001.seg").read_bytes()


def read(data: bytes) -> list[tuple[int, int, bytes]]:
    return [(i.offset, i.kind, i.body) for i in scan(Bytes(data)) if isinstance(i, Record)]  # type: ignore[arg-type]


def test_both_readers_agree_on_a_whole_segment(tmp_path: Path) -> None:
    data = make_segment(tmp_path)
    assert reference.header_is_valid(data)
    found = read(data)
    assert found == reference.whole_records(data)
    chunks = SessionMaker().whole(rounds=1, n_bytes=100)
    assert [body for _, kind, body in found if kind == CHUNK] == [c.packed for c in chunks]
    index = read_index(Bytes(data), len(data))  # type: ignore[arg-type]
    assert index is not None
    assert [index[0].id(i) for i in range(len(index[0]))] == [c.id for c in chunks]
    assert [int(r["offset"]) for r in index[0].rows] == [o for o, kind, _ in found if kind == CHUNK]


@settings(max_examples=60, deadline=None)
@given(
    cut=st.integers(0, 4000), flips=st.lists(st.integers(0, 1 << 20), max_size=3), tail=st.binary(max_size=80)
)
def test_both_readers_agree_on_damage(cut: int, flips: list[int], tail: bytes) -> None:
    data = bytearray(_SEGMENT[:cut] + tail)
    for flip in flips:
        if data:
            data[flip % len(data)] ^= 1 << (flip % 8)
    expected = reference.whole_records(bytes(data))
    assert read(bytes(data)) == expected
    covered = sum(32 + len(body) for _, _, body in expected)
    damage = [i for i in scan(Bytes(bytes(data))) if isinstance(i, Damage)]  # type: ignore[arg-type]
    header = 64 if reference.header_is_valid(bytes(data)) else 0
    assert covered + header + sum(d.length for d in damage) == len(data)
    assert [d.torn for d in damage[:-1]] == [False] * len(damage[:-1])


def _make() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        return make_segment(Path(directory), sealed=False)


_SEGMENT = _make()


def test_hostile_segments_cost_bounded_work() -> None:
    """Millions of plausible record beginnings: the reader gives up instead of checking each to the end."""
    source = random.Random(1)
    header = new_header(1)
    begin = b"\xecRc\x1e" + (1 << 20).to_bytes(4, "little") + header.uid.to_bytes(8, "little")
    data = header.pack() + (begin + source.randbytes(16)) * 60_000
    items = list(scan(Bytes(data)))  # type: ignore[arg-type]
    assert isinstance(items[0], SegmentHeader)
    assert items[1:] == [Damage(64, len(data) - 64, torn=True)]


def test_the_document_has_the_tables_of_the_receipts(tmp_path: Path) -> None:
    page = (Path(segment.__file__).with_name("FORMAT.md")).read_text()
    with Spool.open(tmp_path / "spool"):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "spool" / "receipts.sqlite")) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert f"`user_version` {version}" in page
        for name in names:
            columns = ", ".join(f"`{row[1]}`" for row in db.execute(f"PRAGMA table_info({name})"))
            assert f"| `{name}` | {columns} |" in page, name
