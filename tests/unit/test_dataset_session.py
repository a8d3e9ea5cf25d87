"""A session read back from the store: raw numbers, time, bounds, gaps."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import pytest

from edgecap.codec.chunk import pack_chunk
from edgecap.dataset.overview import draw_overview
from edgecap.dataset.session import MISSING, load_session, segments
from edgecap.errors import ChunkError, SessionError
from edgecap.ingest.store import SessionKey, open_store
from tests.system.synthetic import RAW0, SECOND, Synthetic, fit_for, make_session


@pytest.fixture(scope="module")
def made() -> Synthetic:
    return make_session(seconds=4)


def load(path, made: Synthetic, *, without: tuple[tuple[str, int], ...] = ()):
    store = open_store(str(path / "store"), create=True)
    store.append([c for c in made.chunks if (c.header.stream, c.header.seq) not in without])
    store.commit()
    return load_session(store, SessionKey("lab", "rig-07", made.session))


def test_everything_comes_back(tmp_path, made):
    session = load(tmp_path, made)
    assert session.report.complete
    assert session.outcome == "complete"
    assert list(session.infos) == ["left-hand-imu", "left-hand-force", "left-hand-tactile", "head-camera"]
    assert list(session.marks) == made.marks
    assert list(session.gaps) == made.gaps
    assert (session.t0_ns, session.t1_ns) == (RAW0, RAW0 + 4 * SECOND)
    for name, values in made.values.items():
        data = session.stream(name)
        assert data.values.dtype == values.dtype
        assert data.values.tobytes() == values.tobytes()
        assert data.ticks.tolist() == made.ticks[name].tolist()
        assert len(data.t_ns) == len(data.u_ns) == len(data.arrival_ns) == len(data.index) == len(values)
    force = session.stream("left-hand-force")
    assert list(force.gaps) == made.gaps
    assert [s.stop - s.start for s in segments(force.t_ns, force.index, force.epoch)] == [1000, 2920]
    assert set(force.u_ns.tolist()) == {fit_for(k).u_ns for k in range(4)}
    assert force.scaled()[17] == pytest.approx(force.values[17] * 0.0005)


def test_frames_come_whole_and_at_mid_exposure(tmp_path, made):
    session = load(tmp_path, made)
    frames = list(session.frames("head-camera"))
    assert [f.data for f in frames] == made.frames
    assert [f.index for f in frames] == list(range(120))
    assert [f.key for f in frames] == [k % 15 == 0 for k in range(120)]
    first = frames[0]
    assert first.t_ns == first.tick - 4_000_000 + 90 * 18_000
    assert first.u_ns == 2_000


def test_a_missing_chunk_becomes_a_gap(tmp_path, made):
    # Every third chunk of the stream is decodable by itself: without number 1, number 2 is lost too.
    session = load(tmp_path, made, without=(("left-hand-imu", 1),))
    assert not session.report.complete
    imu = session.stream("left-hand-imu")
    assert imu.index.tolist() == [*range(1000), *range(3000, 4000)]
    (gap,) = imu.gaps
    assert (gap.lost, gap.cause) == (2000, MISSING)
    assert gap.t0_ns == imu.t_ns[999]
    assert gap.t1_ns == imu.t_ns[1000]
    assert imu.values.tobytes() == made.values["left-hand-imu"][imu.index].tobytes()


def test_frames_after_a_missing_chunk_wait_for_a_key_frame(tmp_path, made):
    session = load(tmp_path, made, without=(("head-camera", 2),))
    frames = list(session.frames("head-camera"))
    assert [f.index for f in frames] == [*range(15), *range(30, 120)]
    assert [f.data for f in frames] == [made.frames[f.index] for f in frames]
    ((gap,),) = [f.gaps for f in frames if f.gaps]
    assert (gap.t0_ns, gap.t1_ns, gap.lost, gap.cause) == (frames[14].t_ns, frames[15].t_ns, 15, MISSING)


def test_a_session_without_its_manifest_cannot_be_read(tmp_path, made):
    with pytest.raises(SessionError, match="no manifest"):
        load(tmp_path, made, without=(("session", 0),))


def test_an_unknown_stream_is_named_with_those_there_are(tmp_path, made):
    session = load(tmp_path, made)
    with pytest.raises(SessionError, match="left-hand-imu"):
        session.stream("nose")


def test_segments_end_where_anything_breaks():
    t = np.array([0, 10, 20, 30, 25, 40], np.int64)
    index = np.array([0, 1, 3, 4, 5, 6], np.int64)
    epoch = np.array([0, 0, 0, 0, 0, 1], np.int32)
    assert segments(t, index, epoch) == [slice(0, 2), slice(2, 4), slice(4, 5), slice(5, 6)]
    assert segments(t[:0], index[:0], epoch[:0]) == []


def test_overview_is_a_picture_even_of_a_torn_session(tmp_path, made):
    session = load(tmp_path, made, without=(("left-hand-imu", 0), ("head-camera", 0), ("head-camera", 5)))
    path = draw_overview(session, tmp_path / "overview.png")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 1760


def test_a_session_of_its_records_alone_can_be_drawn(tmp_path, made):
    streams = {c.header.stream for c in made.chunks} - {"session"}
    nothing = tuple((c.header.stream, c.header.seq) for c in made.chunks if c.header.stream in streams)
    session = load(tmp_path, made, without=nothing)
    assert session.stream("left-hand-imu").t_ns.shape == (0,)
    assert draw_overview(session, tmp_path / "overview.png").exists()


@pytest.mark.parametrize(("stream", "seq"), [("left-hand-imu", 0), ("head-camera", 1), ("session", 0)])
def test_an_encrypted_payload_is_called_that(tmp_path, made, stream, seq):
    """The header's place for it is reserved: what a later version puts there is not taken for damage."""
    store = open_store(str(tmp_path / "store"), create=True)
    for chunk in made.chunks:
        if (chunk.header.stream, chunk.header.seq) == (stream, seq):
            payload = bytes(reversed(chunk.payload))
            told = {"enc": "x25519-1", "sha256": hashlib.sha256(payload).digest()}
            chunk = pack_chunk(msgspec.structs.replace(chunk.header, **told), payload)
        store.append([chunk])
    store.commit()

    def read() -> None:
        session = load_session(store, SessionKey("lab", "rig-07", made.session))
        list(session.frames(stream) if stream == "head-camera" else session.sample_chunks(stream))

    with pytest.raises(ChunkError, match=rf"{stream}/{seq} is encrypted \('x25519-1'\)"):
        read()
