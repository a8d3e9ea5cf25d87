"""Chunkers: everything that goes in comes out once, in order, within the size limit, and gaps cut."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec.chunk import MAX_CHUNK_BYTES
from edgecap.codec.video import encode_units, join_units
from edgecap.model import ClockFit, FramePacket, Gap, SampleBlock
from edgecap.session.chunker import PAYLOAD_BYTES, Draft, SampleChunker, VideoChunker

FIT = ClockFit(0, 0, 0.0, 1000, 5000, 100.0, 0, True)
CAMERA_FIT = ClockFit(0, 0, 0.0, 1, 100, 0.0, 0, True)


def block(index: int, n: int, *, channels: int = 3, fit: ClockFit = FIT, frame: int = 10) -> SampleBlock:
    frames = [frame] * (n // frame) + ([n % frame] if n % frame else [])
    return SampleBlock(
        "s",
        index,
        np.arange(index, index + n, dtype=np.int64) * 1000,
        np.arange(index * channels, (index + n) * channels).astype(np.int16).reshape(n, channels),
        np.array(frames, np.int32),
        np.full(len(frames), (index + n) * 1_000_000, np.int64),
        fit,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3000), st.integers(0, 3), st.booleans(), st.integers(0, 1)),
        min_size=1,
        max_size=20,
    )
)
def test_samples_come_out_once_and_in_order(steps: list[tuple[int, int, bool, int]]) -> None:
    chunker = SampleChunker(1_000_000_000)
    drafts: list[Draft] = []
    given_blocks: list[SampleBlock] = []
    index, epoch = 0, 0
    for n, skip, gap, epoch_step in steps:
        if gap:
            drafts += chunker.add_gap(Gap("s", index, index + skip, skip, "line"))
        index += skip
        epoch += epoch_step
        one = block(index, n, fit=msgspec.structs.replace(FIT, epoch=epoch))
        given_blocks.append(one)
        drafts += chunker.add(one)
        index += n
    drafts += chunker.flush()
    for name in ("ticks", "values", "frame_n", "arrival_ns"):
        column = {"ticks": "tick"}.get(name, name)
        out = np.concatenate([d.columns[column] for d in drafts if d.columns])
        np.testing.assert_array_equal(out, np.concatenate([getattr(b, name) for b in given_blocks]))
    for draft in drafts:
        assert draft.columns is not None
        assert draft.n == len(draft.columns["tick"]) == draft.columns["frame_n"].sum()
        assert draft.raw_bytes <= PAYLOAD_BYTES + 8
        ticks = draft.columns["tick"]
        # No chunk spans a loss: its ticks are the consecutive ones it claims.
        np.testing.assert_array_equal(ticks, (draft.columns["index"][0] + np.arange(draft.n)) * 1000)
        assert draft.t1_ns - draft.t0_ns <= 1_000_000_000 + 3000 * 1_000_000
    assert sum(len(d.gaps) for d in drafts) == sum(g for _, _, g, _ in steps)


def test_a_chunk_promises_no_more_than_its_blocks_did() -> None:
    """The last fit disagrees with the first by 40 µs: the chunk's bound must cover it."""
    chunker = SampleChunker(10_000_000_000)
    list(chunker.add(block(0, 100)))
    moved = msgspec.structs.replace(FIT, ref_ns=40_000, u_ns=1000)
    list(chunker.add(block(100, 100, fit=moved)))
    (draft,) = chunker.flush()
    assert draft.fit is not None
    assert draft.fit.u_ns == 45_000
    assert draft.fit.ref_ns == 40_000


def frame(index: int, size: int, *, key: bool) -> FramePacket:
    data = bytes([index % 256]) * size
    return FramePacket("v", index, data, key, index * 33_333_333, index, 8_000_000, 0, CAMERA_FIT)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3 * MAX_CHUNK_BYTES), st.booleans()), min_size=1, max_size=12),
    st.sets(st.integers(0, 11)),
)
def test_frames_come_out_once_and_in_order(steps: list[tuple[int, bool]], gaps: set[int]) -> None:
    chunker = VideoChunker()
    frames = [frame(i, size, key=key or i == 0) for i, (size, key) in enumerate(steps)]
    drafts: list[Draft] = []
    for i, one in enumerate(frames):
        if i in gaps:
            drafts += chunker.add_gap(Gap("v", 0, 1, 1, "camera"))
        drafts += chunker.add(one)
    drafts += chunker.flush()
    joined = list(join_units(u for d in drafts for u in d.units))
    assert [(u.index, u.data, bool(u.flags & 1), u.tick) for u in joined] == [
        (f.index, f.data, f.key, f.tick) for f in frames
    ]
    assert sum(d.n for d in drafts) == len(frames)
    for draft in drafts:
        assert sum(len(u.data) for u in draft.units) <= PAYLOAD_BYTES
        # A key frame is always the first of its chunk.
        assert not any(u.flags & 1 and not u.flags & 4 for u in draft.units[1:])


@pytest.mark.parametrize(("intra", "chunks"), [(True, 4), (False, 100)])
def test_key_frames_alone_do_not_make_a_chunk_each(intra: bool, chunks: int) -> None:
    chunker = VideoChunker(intra=intra)
    drafts = [d for i in range(100) for d in chunker.add(frame(i, 900, key=True))] + list(chunker.flush())
    assert [u.index for d in drafts for u in d.units] == list(range(100))
    assert len(drafts) == chunks


def test_metadata_counts_in_a_chunks_size() -> None:
    chunker = VideoChunker(intra=True)
    frames = [replace(frame(i, 5000, key=True), metadata=bytes(1000)) for i in range(60)]
    drafts = [d for f in frames for d in chunker.add(f)] + list(chunker.flush())
    assert sum(len(d.units) for d in drafts) == 60
    assert all(len(encode_units(d.units)) <= PAYLOAD_BYTES for d in drafts)
    assert all(len(u.metadata) == 1000 for d in drafts for u in d.units)
