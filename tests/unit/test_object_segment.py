"""Objects are the format of segment files, and say nothing but what their chunks say."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec.chunk import Chunk, pack_chunk
from edgecap.ingest.object_file import BLOCK_BYTES, BlockCache, ObjectFile
from edgecap.ingest.object_segment import OBJECT_NAME, other_name, pack_segment
from edgecap.spool.segment_index import read_index
from tests.chunks import SessionMaker
from tests.reference.segment import whole_records

CHUNKS = SessionMaker().whole(rounds=8, n_bytes=60)


class Piece:
    """A bucket that holds one object, and counts what is asked of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def get(self, name: str, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        return self.data[start:end]


def file_of(data: bytes, cache: BlockCache | None = None) -> ObjectFile:
    return ObjectFile(Piece(data), "x", len(data), cache or BlockCache())  # type: ignore[arg-type]


def test_an_independent_reader_finds_every_chunk() -> None:
    made = pack_segment(CHUNKS, "w-1")
    records = whole_records(made.data)
    assert [kind for _, kind, _ in records] == [1] * len(CHUNKS) + [2]
    bodies = [body for _, kind, body in records if kind == 1]
    assert set(bodies) == {c.packed for c in CHUNKS}
    # A stream's chunks lie together and in order, the session's own first.
    streams = [c.header.stream for body in bodies for c in CHUNKS if c.packed == body]
    assert streams == sorted(streams, key=lambda s: (s != "session", s))
    found = read_index(file_of(made.data), len(made.data))
    assert found is not None
    assert [row["offset"] for row in found[0].rows] == [at for at, kind, _ in records if kind == 1]


def test_name_and_bytes_depend_on_the_chunks_alone() -> None:
    first = pack_segment(CHUNKS, "w-1")
    shuffled = list(CHUNKS)
    random.Random(1).shuffle(shuffled)
    assert pack_segment(shuffled, "w-1") == first
    assert OBJECT_NAME.fullmatch(first.name)
    assert first.name.startswith("session.0000000000.w-1.")
    others = [
        pack_segment(CHUNKS, "w-2"),
        pack_segment(CHUNKS[:-1], "w-1"),
        pack_segment(CHUNKS, "w-1", conflict=True),
        pack_segment([signed(CHUNKS[0]), *CHUNKS[1:]], "w-1"),
    ]
    assert len({first.name, *(o.name for o in others), other_name(first)}) == 6
    assert all(OBJECT_NAME.fullmatch(o.name) for o in others)
    assert OBJECT_NAME.fullmatch(other_name(first))


def signed(chunk: Chunk) -> Chunk:
    """The same header and hash, other bytes."""
    return pack_chunk(chunk.header, chunk.payload, bytes(64))


@given(
    st.integers(0, 3 * BLOCK_BYTES + 5),
    st.lists(st.tuples(st.integers(0, 4 * BLOCK_BYTES), st.integers(0, 2 * BLOCK_BYTES)), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_reading_in_blocks(size: int, reads: list[tuple[int, int]]) -> None:
    data = random.Random(size).randbytes(size)
    cache = BlockCache(2 * BLOCK_BYTES)
    file = file_of(data, cache)
    for offset, n in reads:
        assert file.read_at(offset, n) == data[offset : offset + n]
        assert cache._bytes <= 2 * BLOCK_BYTES
    assert file.size() == size


def test_what_was_read_is_not_asked_for_again() -> None:
    piece = Piece(bytes(3 * BLOCK_BYTES))
    file = ObjectFile(piece, "x", len(piece.data), BlockCache())  # type: ignore[arg-type]
    file.read_at(BLOCK_BYTES + 5, 10)
    file.read_at(BLOCK_BYTES + 500, 10)
    assert piece.asked == [(BLOCK_BYTES, 2 * BLOCK_BYTES)]
    file.read_at(0, 3 * BLOCK_BYTES)
    assert piece.asked[1:] == [(0, 3 * BLOCK_BYTES)]
    file.read_at(7, 2 * BLOCK_BYTES)
    assert len(piece.asked) == 2
