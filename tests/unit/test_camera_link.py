"""Messages between a camera's process and the daemon survive any cutting, and nonsense is noticed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.errors import SourceError
from edgecap.model import ClockFit
from edgecap.source.camera_link import (
    CAUSES,
    FRAME,
    HEADER,
    MAX_BODY_BYTES,
    WORD,
    LinkFrame,
    MessageBuffer,
    Reply,
    Started,
    Stopped,
    frame_head,
    pack_word,
    unpack_frame,
)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
FITS = st.builds(
    ClockFit,
    ref_tick=INT64,
    ref_ns=INT64,
    drift_ppm=st.floats(-1000, 1000),
    tick_ns=st.just(1),
    u_ns=INT64,
    sigma_ns=st.just(0.0),
    epoch=st.just(0),
    locked=st.just(True),
)
FRAMES = st.builds(
    LinkFrame,
    INT64,
    INT64,
    INT64,
    INT64,
    FITS,
    st.booleans(),
    st.binary(max_size=300),
    st.sampled_from(CAUSES),
)
WORDS = st.one_of(st.builds(Started, INT64), st.builds(Stopped, INT64))


@given(st.lists(st.one_of(FRAMES, WORDS), max_size=8), st.data())
def test_messages_survive_any_cutting(messages, data):
    stream = b"".join(frame_head(m) + m.data if isinstance(m, LinkFrame) else pack_word(m) for m in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    buffer, got = MessageBuffer(), []
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for kind, body in buffer.feed(stream[a:b]):
            got.append(unpack_frame(body) if kind == FRAME else msgspec.json.decode(body, type=Reply))
    assert got == messages


@pytest.mark.parametrize("head", [HEADER.pack(9, 4), HEADER.pack(WORD, MAX_BODY_BYTES + 1), b"\xff" * 5])
def test_nonsense_is_refused(head):
    with pytest.raises(SourceError, match="sent a message of type"):
        list(MessageBuffer().feed(head))
