"""A camera's recording from picamera2 to the dataset: pictures, raw numbers, looks and previews."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader

from edgecap.clock import read_pair
from edgecap.codec.video import decode_metadata
from edgecap.dataset.frames_export import export_frames
from edgecap.dataset.mcap_export import export_mcap
from edgecap.dataset.overview import draw_overview
from edgecap.dataset.session import load_session
from edgecap.dataset.sync_flow import decoded_frames
from edgecap.dataset.thumbnails import thumbnails
from edgecap.ingest.store import SessionKey, open_store
from edgecap.model import DeviceEvent, FramePacket, PictureReport
from edgecap.session.manifest import Provenance, open_record
from edgecap.session.recorder import Recorder
from tests.camera.virtual_camera import use_virtual_libcamera, virtual_camera

SESSION = "20261121-101500-k3fz"
TOLD = {"ExposureTime": 8000, "AnalogueGain": 2.5, "DigitalGain": 1.25}
FRAMES = 60


async def record(camera, chunks):
    """What the daemon does between a camera and the spool; returns the frames and looks that came."""

    async def put(chunk):
        chunks.append(chunk)

    taken = []
    with ThreadPoolExecutor(1) as pool:
        recorder = Recorder(
            site="lab", rig="rig-07", session=SESSION, put=put, pool=pool, chunk_ns=10**9, level="fast"
        )  # fmt: skip
        async with camera.open() as feed:
            opening = open_record(
                site="lab", rig="rig-07", session=SESSION, provenance=Provenance("film", "p-1", "c-1"),
                pair=read_pair(), streams=feed.info, calibration={}, config={},
            )  # fmt: skip
            await recorder.open(opening, feed.info)
            await feed.start()
            sent = {}
            stopping = None
            async for item in feed:
                if isinstance(item, DeviceEvent):
                    recorder.event(item)
                    if item.kind == "stopped":
                        break
                    continue
                taken.append(item)
                await recorder.add(item)
                n = sum(isinstance(i, FramePacket) for i in taken)
                if n % 30 == 0 and isinstance(item, FramePacket):
                    pair = read_pair()
                    await recorder.tick(pair, recorder.verdicts(pair.raw_ns))
                if n >= FRAMES and stopping is None:
                    stopping = asyncio.create_task(feed.stop())
            sent = await stopping
        await recorder.close(read_pair(), "complete", sent)
    return taken


@pytest.fixture(scope="module", params=["h264", "mjpeg"])
def recorded(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_virtual_libcamera(monkeypatch)
        settings = {"codec": request.param, "bitrate_kbps": 8000, "preview_s": 1.0}
        chunks = []
        camera = virtual_camera("--tell", json.dumps(TOLD), **settings)
        taken = asyncio.run(record(camera, chunks))
    path = tmp_path_factory.mktemp("camera")
    store = open_store(str(path / "store"), create=True)
    store.append(chunks)
    store.commit()
    return path, taken, load_session(store, SessionKey("lab", "rig-07", SESSION)), chunks


def of(items, kind):
    return [i for i in items if isinstance(i, kind)]


def test_the_session_is_whole_and_every_frame_is_as_it_came(recorded):
    _, taken, session, chunks = recorded
    assert session.report.complete, session.report.problems
    frames, wanted = list(session.frames("head")), of(taken, FramePacket)
    assert [(f.index, f.data, f.tick, f.exposure_ns) for f in frames] == [
        (w.index, w.data, w.tick, 8_000_000) for w in wanted
    ]
    assert all(decode_metadata(f.metadata) == {"AnalogueGain": 2.5, "DigitalGain": 1.25} for f in frames)
    (close,) = [s for s in session.report.streams if s.name == "head"]
    assert close.unaccounted == 0
    video = [c for c in chunks if c.header.stream == "head"]
    assert len(video) < len(frames) / 3  # a key frame each, and still not a chunk each
    assert video[-1].header.quality["sharpness"] > 0


def test_previews_are_a_stream_of_their_own(recorded):
    _, taken, session, _ = recorded
    previews = list(session.previews("head-preview"))
    assert [(p.t_ns, p.jpeg) for p in previews] == [
        (r.t_ns, r.jpeg) for r in of(taken, PictureReport) if r.jpeg
    ]
    assert len(previews) >= 2
    assert [i.name for i in session.video_streams()] == ["head"]
    assert session.sample_streams() == []


def test_verdicts_tell_of_the_picture(recorded):
    _, taken, session, _ = recorded
    (verdict,) = session.verdicts[-1]["streams"]  # the preview has none of its own
    assert verdict["stream"] == "head"
    looks = {round(r.sharpness, 1) for r in of(taken, PictureReport)}
    assert verdict["sharpness"] in looks
    assert 0.3 < verdict["brightness"] < 0.7


def test_other_programs_read_it(recorded):
    path, taken, session, _ = recorded
    result = export_mcap(session, path / "out")
    messages: dict[str, list] = {}
    with Path(result.path).open("rb") as file:
        for schema, channel, _, m in make_reader(
            file, validate_crcs=True, decoder_factories=[DecoderFactory()]
        ).iter_decoded_messages():
            messages.setdefault(channel.topic, []).append((schema.name, m))
    frames = of(taken, FramePacket)
    codec = session.info("head").codec
    kind, m = messages["/head/video"][-1]
    if codec == "mjpeg":
        assert (kind, m.format, bytes(m.data)) == ("sensor_msgs/msg/CompressedImage", "jpeg", frames[-1].data)
    else:
        assert (kind, m.format) == ("foxglove_msgs/msg/CompressedVideo", "h264")
    _, numbers = messages["/head/frame"][-1]
    assert (numbers.analogue_gain, numbers.digital_gain) == (2.5, 1.25)
    assert json.loads(numbers.metadata) == {"AnalogueGain": 2.5, "DigitalGain": 1.25}
    kind, m = messages["/head_preview/picture"][0]
    assert (kind, m.format) == ("sensor_msgs/msg/CompressedImage", "jpeg")
    (picture,) = av.CodecContext.create("mjpeg", "r").decode(av.Packet(bytes(m.data)))
    assert (picture.width, picture.height) == (320, 240)
    _, verdict = messages["/verdicts"][-1]
    assert verdict.sharpness > 0
    with AnyReader([Path(result.path)]) as reader:
        for connection, _, raw in reader.messages():
            reader.deserialize(raw, connection.msgtype)


def test_pictures_can_be_seen(recorded):
    path, taken, session, _ = recorded
    shown = thumbnails(session, "head", 4, 120)
    assert len(shown) >= 2
    assert all(t.image.shape == (120, 160, 3) and np.ptp(t.image) > 100 for t in shown)
    assert sum(1 for _ in decoded_frames(session, "head")) == len(of(taken, FramePacket))
    assert draw_overview(session, path / "overview.png").stat().st_size > 10_000


def test_a_row_per_frame_and_its_picture(recorded):
    path, taken, session, _ = recorded
    (camera,) = export_frames(session, path / "frames").cameras
    frames = of(taken, FramePacket)
    rows = pq.read_table(camera.table).to_pylist()
    assert [(r["frame_n"], r["exposure_ns"]) for r in rows] == [(f.index, 8_000_000) for f in frames]
    assert [r["t_ns"] for r in rows] == [f.t_ns for f in session.frames("head")]
    with av.open(camera.video) as video:
        shown = [(p.time, p.to_ndarray(format="gray")) for p in video.decode(video=0)]
    assert [t for t, _ in shown] == pytest.approx([r["timestamp"] for r in rows], abs=1e-9)
    decoder = av.CodecContext.create("mjpeg" if session.info("head").codec == "mjpeg" else "h264", "r")
    originals = [p for f in frames for p in decoder.decode(av.Packet(f.data))] + decoder.decode(None)
    for (_, picture), original in zip(shown, originals, strict=True):
        assert np.array_equal(picture, original.to_ndarray(format="gray"))
