"""A stored session comes out of MCAP as it went in, read by other people's programs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import av
import msgspec
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader

from edgecap.cli.main import main
from edgecap.dataset import mcap_export
from edgecap.dataset.mcap_export import export_mcap
from edgecap.dataset.session import RecordedSession, load_session
from edgecap.errors import ExportError
from edgecap.ingest.store import SessionKey, Store, open_store
from tests.system.synthetic import RAW0, SECOND, UTC0, Synthetic, fit_for, imu_info, make_session

GRAVITY = 9.80665


def store_of(path: Path, *sessions: Synthetic, without: tuple[tuple[str, int], ...] = ()) -> Store:
    store = open_store(str(path), create=True)
    for made in sessions:
        store.append([c for c in made.chunks if (c.header.stream, c.header.seq) not in without])
    store.commit()
    return store


def session_of(store: Store, made: Synthetic) -> RecordedSession:
    return load_session(store, SessionKey("lab", "rig-07", made.session))


def utc_of(raw_ns):
    return UTC0 + (raw_ns - RAW0) + (raw_ns - RAW0) // 50_000


def read(path: Path) -> dict[str, list[SimpleNamespace]]:
    found: dict[str, list[SimpleNamespace]] = {}
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        for schema, channel, message, decoded in reader.iter_decoded_messages():
            found.setdefault(channel.topic, []).append(
                SimpleNamespace(
                    type=schema.name, log_ns=message.log_time, publish_ns=message.publish_time,
                    sequence=message.sequence, m=decoded,
                )
            )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    made = make_session(seconds=4)
    path = tmp_path_factory.mktemp("export")
    session = session_of(store_of(path / "store", made), made)
    seen: list[tuple[int, int]] = []
    result = export_mcap(session, path / "out", progress=lambda done, total: seen.append((done, total)))
    return SimpleNamespace(
        made=made, session=session, result=result, topics=read(Path(result.path)), progress=seen
    )


def test_counts_types_and_progress(exported):
    topics, counts = exported.topics, exported.result.messages
    assert {t: len(m) for t, m in topics.items()} == {t: n for t, n in counts.items() if n}
    assert counts["/left_hand_imu/imu"] == counts["/left_hand_imu/magnetic"] == 4000
    assert counts["/left_hand_force/channels"] == 3920
    assert counts["/left_hand_tactile/channels"] == 400
    assert counts["/head_camera/video"] == counts["/head_camera/frame"] == 120
    kinds = {topic: messages[0].type for topic, messages in topics.items()}
    assert kinds["/left_hand_imu/imu"] == "sensor_msgs/msg/Imu"
    assert kinds["/left_hand_imu/magnetic"] == "sensor_msgs/msg/MagneticField"
    assert kinds["/left_hand_imu/channels"] == "edgecap_msgs/msg/ChannelArray"
    assert kinds["/head_camera/video"] == "foxglove_msgs/msg/CompressedVideo"
    done = [d for d, _ in exported.progress]
    assert done == sorted(done)
    assert exported.progress[-1] == (4 * SECOND, 4 * SECOND)


def test_raw_numbers_are_bit_identical_and_bounded(exported):
    made = exported.made
    for stream, values in made.values.items():
        blocks = [x.m for x in exported.topics[f"/{stream.replace('-', '_')}/raw"]]
        field = "counts_float" if values.dtype.kind == "f" else "counts_int"
        out = np.concatenate([np.array(getattr(b, field)).reshape(-1, b.channels) for b in blocks])
        assert out.astype(values.dtype).tobytes() == values.tobytes()
        ticks = np.concatenate([b.tick for b in blocks])
        assert ticks.tolist() == made.ticks[stream].tolist()
        chunks = [c for c in made.chunks if c.header.stream == stream]
        assert [b.chunk_sha256 for b in blocks] == [c.hash.hex() for c in chunks]
        for second, block in enumerate(blocks):
            fit = fit_for(second)
            ideal = fit.ref_ns + (np.array(block.tick) - fit.ref_tick) * 1000 * (1 + fit.drift_ppm * 1e-6)
            assert np.max(np.abs(np.array(block.t_rig_ns) - np.rint(ideal).astype(np.int64))) <= 1
            assert block.u_ns == fit.u_ns
            assert sum(block.frame_n) == len(block.tick)
            assert len(block.arrival_ns) == len(block.frame_n)


def test_imu_in_si_at_utc(exported):
    values = exported.made.values["left-hand-imu"]
    scales = [c.scale for c in imu_info().channels]
    messages = exported.topics["/left_hand_imu/imu"]
    for i in (0, 1, 1999, 3999):
        imu = messages[i].m
        accel, gyro = imu.linear_acceleration, imu.angular_velocity
        assert [accel.x, accel.y, accel.z] == pytest.approx(values[i, :3] * scales[0] * GRAVITY, rel=1e-12)
        assert [gyro.x, gyro.y, gyro.z] == pytest.approx(np.deg2rad(values[i, 3:6] * scales[3]), rel=1e-12)
        assert imu.orientation_covariance[0] == -1
        assert imu.angular_velocity_covariance[0] == 0
        assert imu.header.frame_id == "left-hand-imu"
        assert imu.header.stamp.sec * SECOND + imu.header.stamp.nanosec == messages[i].log_ns
        assert messages[i].sequence == i
    rig = exported.session.stream("left-hand-imu").t_ns
    assert np.max(np.abs(utc_of(rig) - np.array([x.log_ns for x in messages]))) <= 1
    mag = exported.topics["/left_hand_imu/magnetic"][7].m.magnetic_field
    assert [mag.x, mag.y, mag.z] == pytest.approx(values[7, 6:9] * 0.15e-6, rel=1e-12)
    rest = exported.topics["/left_hand_imu/channels"][7].m
    assert list(rest.name) == ["temperature"]


def test_force_keeps_units_and_says_what_is_saturated(exported):
    values = exported.made.values["left-hand-force"]
    messages = exported.topics["/left_hand_force/channels"]
    assert list(messages[0].m.name) == [f"finger{k}" for k in range(5)]
    out = np.array([x.m.value for x in messages])
    assert out == pytest.approx((values * 0.0005).astype(np.float32))
    valid = np.array([x.m.valid for x in messages])
    assert valid.tolist() == (np.abs(values * 0.0005) < 50.0 - 0.0005).tolist()


def test_video_decodes_frame_by_frame(exported):
    messages = exported.topics["/head_camera/video"]
    assert [bytes(x.m.data) for x in messages] == exported.made.frames
    assert {x.m.format for x in messages} == {"h264"}
    decoder = av.CodecContext.create("h264", "r")
    pictures = [p for x in messages for p in decoder.decode(av.Packet(bytes(x.m.data)))]
    pictures += decoder.decode(None)
    assert len(pictures) == 120
    assert (pictures[0].width, pictures[0].height) == (320, 180)
    again = av.CodecContext.create("h264", "r")
    key = next(i for i, x in enumerate(exported.topics["/head_camera/frame"]) if i and x.m.key)
    assert again.decode(av.Packet(bytes(messages[key].m.data))) + again.decode(None)
    number = exported.topics["/head_camera/frame"][30].m
    assert number.index == 30
    assert number.t_rig_ns == number.tick - 4_000_000 + 90 * 18_000
    assert abs(messages[30].log_ns - utc_of(number.t_rig_ns)) <= 1


def test_messages_are_in_order_of_time(exported):
    with Path(exported.result.path).open("rb") as file:
        times = [m.log_time for _, _, m in make_reader(file).iter_messages(log_time_order=False)]
    assert times == sorted(times)
    assert exported.result.start_utc_ns == times[0]
    assert exported.result.end_utc_ns == times[-1]


def test_marks_gaps_fits_pairs_and_log(exported):
    topics, made = exported.topics, exported.made
    assert [(x.m.kind, x.m.text, x.m.by, x.m.t_rig_ns) for x in topics["/marks"]] == [
        (m.kind, m.text, m.by, m.t_ns) for m in made.marks
    ]
    (gap,) = [x.m for x in topics["/gaps"]]
    assert (gap.stream, gap.t0_rig_ns, gap.t1_rig_ns, gap.lost, gap.cause) == msgspec.structs.astuple(
        made.gaps[0]
    )
    fits = [x.m for x in topics["/left_hand_force/clock"]]
    assert [(f.ref_tick, f.drift_ppm, f.u_ns, f.locked) for f in fits] == [
        (fit_for(k).ref_tick, 17.25, fit_for(k).u_ns, True) for k in range(4)
    ]
    pairs = [x.m for x in topics["/clock/pairs"]]
    assert {(p.raw_ns, p.realtime_ns) for p in pairs} == {
        (RAW0 + k * SECOND, utc_of(RAW0 + k * SECOND)) for k in range(5)
    }
    assert any("gap of 80.0 ms" in x.m.message for x in topics["/log"])
    assert len(topics["/verdicts"]) == 16


def test_metadata_and_calibration(exported):
    with Path(exported.result.path).open("rb") as file:
        reader = make_reader(file)
        assert reader.get_header().profile == "ros2"
        metadata = {m.name: m.metadata for m in reader.iter_metadata()}
        attachments = list(reader.iter_attachments())
    assert metadata["edgecap.manifest"]["task"].startswith("Screw the lid")
    assert metadata["edgecap.manifest"]["consent"] == "c-2026-031"
    assert json.loads(metadata["edgecap.manifest"]["manifest_json"])["versions"]["edgecap"] == "0"
    assert metadata["edgecap.time"]["utc_trusted"] == "true"
    assert 1_200_000 <= int(metadata["edgecap.time"]["utc_u_ns_max"]) <= 1_300_000
    assert metadata["edgecap.completeness"]["complete"] == "true"
    assert [a.name for a in attachments] == ["calibration.json"]
    assert json.loads(attachments[0].data)["left-hand-force"]["version"] == 3


def test_rosbags_opens_the_file_and_reads_every_type(exported):
    seen = {}
    with AnyReader([Path(exported.result.path)]) as reader:
        assert reader.message_count == sum(exported.result.messages.values())
        for connection, _, raw in reader.messages():
            if connection.topic not in seen:
                seen[connection.topic] = reader.deserialize(raw, connection.msgtype)
    assert set(seen) == set(exported.topics)
    assert seen["/left_hand_imu/imu"].header.stamp.sec >= UTC0 // SECOND
    assert seen["/left_hand_tactile/raw"].counts_float.dtype == np.float32
    assert len(seen["/head_camera/video"].data) == len(exported.made.frames[0])


def test_refuses_what_is_not_whole(tmp_path):
    made = make_session(seconds=2)
    store = store_of(tmp_path / "store", made, without=(("left-hand-imu", 1),))
    session = session_of(store, made)
    with pytest.raises(ExportError, match=r"not complete.*left-hand-imu") as caught:
        export_mcap(session, tmp_path / "out")
    assert "--allow-incomplete" in caught.value.fix
    assert not list((tmp_path / "out").glob("*"))
    result = export_mcap(session, tmp_path / "out", allow_incomplete=True)
    assert not result.complete
    assert result.messages["/left_hand_imu/imu"] == 1000
    assert result.messages["/gaps"] == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"{made.session}.mcap"]


def test_refuses_what_the_worker_discarded(tmp_path):
    made = make_session(seconds=2, outcome="discarded")
    session = session_of(store_of(tmp_path / "store", made), made)
    with pytest.raises(ExportError, match="discarded by its worker"):
        export_mcap(session, tmp_path / "out")


def test_a_full_or_missing_disk_leaves_nothing_behind(tmp_path):
    made = make_session(seconds=2)
    session = session_of(store_of(tmp_path / "store", made), made)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="cannot write"):
        export_mcap(session, tmp_path / "file" / "out")


def test_an_untrusted_wall_clock_is_said_so(tmp_path):
    made = make_session(seconds=2, synced=False)
    result = export_mcap(session_of(store_of(tmp_path / "store", made), made), tmp_path)
    assert not result.utc_trusted
    assert result.utc_u_ns_max == -1


def test_command_line(tmp_path, capsys):
    whole, other = make_session(seconds=2), make_session(seconds=2, session="20261121-111111-aaaa")
    store = tmp_path / "store"
    store_of(store, whole, other, without=(("head-camera", 2),))
    out = tmp_path / "out"

    def edgecap(*args: object) -> SimpleNamespace:
        code = main(["export", *map(str, args)])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    unknown = edgecap(store, "20261121-101500-k3fy", "--to", "mcap", "--out", out)
    assert unknown.code == 1
    assert whole.session in unknown.err
    assert "Traceback" not in unknown.err

    odd = edgecap(store, whole.session, "--to", "mcpa", "--out", out)
    assert (odd.code, "available are: mcap" in odd.err) == (2, True)

    (tmp_path / "file").write_text("")
    blocked = edgecap(store, whole.session, "--to", "mcap", "--out", tmp_path / "file")
    assert (blocked.code, "cannot write into" in blocked.err) == (2, True)

    refused = edgecap(store, f"rig-07/{whole.session}", other.session, "--to", "mcap", "--out", out)
    assert refused.code == 1
    assert refused.err.count("not complete") == 2

    done = edgecap(
        store, whole.session, "--to", "mcap", "--out", out, "--overview", "--allow-incomplete", "--json"
    )
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    result = json.loads(line)
    assert Path(result["path"]).exists()
    assert Path(result["overview"]).read_bytes().startswith(b"\x89PNG")
    assert result["messages"]["/left_hand_imu/imu"] == 2000


def test_the_documented_way_to_read_works(exported):
    page = Path(mcap_export.__file__).with_name("MCAP.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    found: dict[str, np.ndarray] = {"path": exported.result.path}
    exec(code, found)
    values = exported.made.values["left-hand-imu"]
    assert found["counts"].tolist() == values.tolist()
    data = exported.session.stream("left-hand-imu")
    assert found["t_rig_ns"].tolist() == data.t_ns.tolist()
    assert found["u_ns"].tolist() == data.u_ns.tolist()
    assert found["index"].tolist() == data.index.tolist()


def test_the_documented_topics_are_those_there_are(exported):
    page = Path(mcap_export.__file__).with_name("MCAP.md").read_text()
    for topic in exported.topics:
        stream = topic.rpartition("/")[0] in (
            "/left_hand_imu",
            "/left_hand_force",
            "/left_hand_tactile",
            "/head_camera",
        )
        assert (f"`/S/{topic.rpartition('/')[2]}`" if stream else f"`{topic}`") in page
    with Path(exported.result.path).open("rb") as file:
        assert all(f"`{m.name}`" in page for m in make_reader(file).iter_metadata())
