"""What a device says of itself and of its sensors is exactly what its recordings hold."""

from __future__ import annotations

import asyncio
import struct

import numpy as np
import pytest

from edgecap.model import ChannelInfo
from edgecap.sim.firmware import FirmwareStream, grasp_force, motion_imu, read_truth, recorded_stream
from edgecap.sim.recordings import RECORDINGS
from tests.hw.board import joined, running
from tests.reference import serial_frames as sf

KIND = {"imu": 1, "force": 2, "tactile": 3, "magnetic": 4, "scalar": 5}
DTYPE = {"int16": 1, "int24": 2, "int32": 3, "float32": 4}
REPLAYED = [RECORDINGS[name] for name in ("gopro-gyro", "anyskin", "smartwheel", "smartwheel-forces")]


def test_descriptors(binary, tmp_path):
    streams = [recorded_stream(recording) for recording in REPLAYED]
    streams[0] = FirmwareStream(**{**_fields(streams[0]), "lag_us": -2500})

    async def main():
        async with running(binary, tmp_path, streams, serial_number="SN-7") as (_, board):
            boots = {hello.boot_id for hello in board.hellos()}
            ack = await board.command(sf.OP_HELLO)
            await board.until(lambda: len(board.hellos()) == 2 * len(streams), "HELLO again")
            assert (ack.status, ack.numbers) == (0, [])
            assert {hello.boot_id for hello in board.hellos()} == boots
            assert len(boots) == 1
            return board.hellos()

    hellos = asyncio.run(main())
    assert [(h.part, h.parts) for h in hellos] == [(i, 4) for i in range(4)] * 2
    for hello, stream in zip(hellos, streams * 2, strict=True):
        assert hello.firmware.startswith("edgecap-fw ")
        assert hello.serial == "SN-7"
        assert (hello.stream, hello.kind, hello.dtype) == (hello.part, KIND[stream.kind], DTYPE[stream.dtype])
        assert (hello.name, hello.lag_us) == (stream.name, stream.lag_us)
        assert hello.rate_mhz == round(stream.rate_hz * 1000)
        for got, wanted in zip(hello.channels, stream.channels, strict=True):
            assert (got.name, got.unit) == (wanted.name, wanted.unit)
            assert got.scale == np.float32(wanted.scale)
            assert got.full_scale == np.float32(wanted.full_scale)


def _fields(stream: FirmwareStream) -> dict:
    return {name: getattr(stream, name) for name in FirmwareStream.__slots__}


def test_a_device_without_streams_says_hello(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, []) as (_, board):
            (hello,) = board.hellos()
            assert (hello.part, hello.parts, hello.channels) == (0, 0, [])
            assert (await board.command(sf.OP_START)).status == 0
            assert (await board.command(sf.OP_STOP)).numbers == []

    asyncio.run(main())


def test_values_indices_and_totals_are_exact(binary, tmp_path):
    streams = [recorded_stream(recording) for recording in REPLAYED]

    async def main():
        async with running(binary, tmp_path, streams) as (firmware, board):
            assert not board.frames(sf.SAMPLES)
            await board.command(sf.OP_START)
            # The tactile recording is slowest; its rate bounds the wait to about 0.6 s.
            await board.until(lambda: board.n_samples(1) >= 60, "samples")
            ack = await board.command(sf.OP_STOP)
            assert not board.deframer.broken
            assert [frame.seq for frame in board.deframer.frames] == list(range(len(board.deframer.frames)))
            assert board.deframer.frames[-1].kind == sf.ACK
            assert (await firmware.totals()) == dict(
                zip((stream.name for stream in streams), ack.numbers, strict=True)
            )
            assert (await board.command(sf.OP_STOP)).numbers == ack.numbers
            return ack.numbers, [joined(board.samples(s)) for s in range(len(streams))]

    totals, received = asyncio.run(main())
    truth = read_truth(tmp_path / "truth.bin")
    for s, (total, (index, t_us, values)) in enumerate(zip(totals, received, strict=True)):
        assert np.array_equal(index, np.arange(total))
        recorded = np.load(REPLAYED[s].path)
        assert np.array_equal(values, recorded[index % len(recorded)])
        assert values.dtype == recorded.dtype
        mine = truth[truth["stream"] == s]
        assert np.array_equal(mine["index"], index)
        assert np.array_equal(mine["t_us"], t_us)
        ideal = t_us[0] + np.arange(total) * 10**9 // round(REPLAYED[s].rate_hz * 1000)
        assert np.array_equal(t_us, ideal)


def test_batches_use_the_cheapest_time_mode(binary, tmp_path):
    streams = [
        motion_imu("fast", axes=3),
        recorded_stream(RECORDINGS["gopro-accl"]),
        motion_imu("slow", rate_hz=2),
    ]

    async def main():
        async with running(binary, tmp_path, streams) as (_, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples(0) >= 600, "samples")
            await board.command(sf.OP_STOP)
            return [board.samples(s) for s in range(3)]

    fast, odd, slow = asyncio.run(main())
    assert {batch.mode for batch in fast} == {0}
    assert {len(batch.t_us) for batch in fast[:-1]} == {10}
    # 198.385 Hz: two samples fit 10 ms; two alone are always uniform.
    assert {len(batch.t_us) for batch in odd[:-1]} == {2}
    assert {int(b - a) for batch in odd[:-1] for a, b in [batch.t_us]} == {5040, 5041}
    assert {len(batch.t_us) for batch in slow} == {1}


def test_uneven_steps_travel_as_deltas(binary, tmp_path):
    streams = [motion_imu("odd", rate_hz=999.93, axes=3)]

    async def main():
        async with running(binary, tmp_path, streams) as (_, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples() >= 300, "samples")
            await board.command(sf.OP_STOP)
            return board.samples()

    batches = asyncio.run(main())
    assert {batch.mode for batch in batches} == {0, 1}
    index, t_us, _ = joined(batches)
    assert np.array_equal(t_us, t_us[0] + index * 10**9 // 999_930)


def test_every_dtype_and_a_full_frame(binary, tmp_path):
    rng = np.random.default_rng(5)
    print("seed 5")
    channels = tuple(ChannelInfo(f"c{i}", "count", 1.0) for i in range(4))
    wide = tuple(ChannelInfo(f"c{i}", "", 1.0) for i in range(64))
    arrays = {
        "int16": rng.integers(-(2**15), 2**15, (70, 4)).astype("<i2"),
        "int24": rng.integers(-(2**23), 2**23, (70, 4)).astype("<i4"),
        "int32": rng.integers(-(2**31), 2**31, (70, 64)).astype("<i4"),
        "float32": rng.normal(size=(70, 4)).astype("<f4"),
    }
    for value, row in ((-(2**23), 0), (2**23 - 1, 1), (-1, 2)):
        arrays["int24"][row] = value
    streams = []
    for dtype, array in arrays.items():
        np.save(tmp_path / f"{dtype}.npy", array)
        streams.append(
            FirmwareStream(
                dtype,
                "scalar",
                400.0,  # what waits for a host that is busy must fit the queue
                wide if dtype == "int32" else channels,
                dtype,
                tmp_path / f"{dtype}.npy",
            )
        )

    async def main():
        async with running(binary, tmp_path, streams) as (_, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples(2) >= 150, "samples")
            await board.command(sf.OP_STOP)
            assert max(len(frame.payload) for frame in board.frames(sf.SAMPLES)) <= 1008
            return [board.samples(s) for s in range(4)]

    for batches, array in zip(asyncio.run(main()), arrays.values(), strict=True):
        index, _, values = joined(batches)
        assert np.array_equal(index, np.arange(len(index)))
        assert np.array_equal(values, array[index % 70])


def test_replay_once_ends_in_a_sensor_fault(binary, tmp_path):
    np.save(tmp_path / "short.npy", np.arange(60, dtype="<i2").reshape(20, 3))
    stream = FirmwareStream(
        "short",
        "scalar",
        200.0,
        tuple(ChannelInfo(c, "", 1.0) for c in "abc"),
        "int16",
        tmp_path / "short.npy",
    )

    async def main():
        async with running(binary, tmp_path, [stream], loop=False) as (_, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.events(sf.SENSOR_FAULT), "no fault")
            assert (await board.command(sf.OP_STOP)).numbers == [20]
            index, t_us, values = joined(board.samples())
            assert np.array_equal(index, np.arange(20))
            assert np.array_equal(values.ravel(), np.arange(60))
            (fault,) = board.events(sf.SENSOR_FAULT)
            assert fault.stream == 0
            assert fault.t_us - t_us[-1] == 5000

    asyncio.run(main())


def test_starting_again_starts_anew(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [recorded_stream(RECORDINGS["anyskin"])]) as (_, board):
            for _ in range(2):
                await board.command(sf.OP_START)
                before = board.n_samples()
                await board.until(lambda before=before: board.n_samples() >= before + 5, "samples")
            ack = await board.command(sf.OP_STOP)
            return [f for f in board.deframer.frames if f.kind in (sf.SAMPLES, sf.ACK)], board.samples(), ack

    frames, batches, ack = asyncio.run(main())
    second = [i for i, frame in enumerate(frames) if frame.kind == sf.ACK][1]
    run_of = [i > second for i, frame in enumerate(frames) if frame.kind == sf.SAMPLES]
    for run in (False, True):
        index, _, values = joined([b for b, of in zip(batches, run_of, strict=True) if of == run])
        assert np.array_equal(index, np.arange(len(index)))
        assert np.array_equal(values, np.load(RECORDINGS["anyskin"].path)[: len(index)])
    assert ack.numbers == [len(index)]
    truth = read_truth(tmp_path / "truth.bin")
    assert set(truth["run"]) == {1, 2}
    assert (truth["run"] == 2).sum() == len(index)


def test_rate_tare_led_and_refusals(binary, tmp_path):
    streams = [motion_imu(), grasp_force(), recorded_stream(RECORDINGS["smartwheel-forces"])]

    async def main():
        async with running(binary, tmp_path, streams) as (firmware, board):

            async def status(op, args=b""):
                ack = await board.command(op, args)
                assert bool(ack.text) == bool(ack.status)
                return ack.status

            assert await status(sf.OP_RATE, struct.pack("<BI", 0, 500_000)) == 0
            assert await status(sf.OP_RATE, struct.pack("<BI", 9, 500_000)) == 2
            assert await status(sf.OP_RATE, struct.pack("<BI", 0, 1)) == 2
            assert await status(sf.OP_RATE, b"\0") == 2
            assert await status(99) == 1
            await board.command(sf.OP_HELLO)
            await board.until(lambda: len(board.hellos()) == 6, "HELLO")
            assert board.hellos()[3].rate_mhz == 500_000
            assert await status(sf.OP_LED, bytes([255, 128, 1, 2])) == 0
            assert (await firmware.command("led")).startswith("255 128 1 2 shows ")
            assert await status(sf.OP_TARE, b"\0") == 3
            assert await status(sf.OP_TARE, b"\x07") == 2
            await board.command(sf.OP_START)
            assert await status(sf.OP_RATE, struct.pack("<BI", 0, 100_000)) == 3
            await board.until(lambda: board.n_samples(2) >= 20, "samples")
            assert await status(sf.OP_TARE, b"\x02") == 0
            n = board.n_samples(2)
            await board.until(lambda: board.n_samples(2) >= n + 20, "samples")
            await board.command(sf.OP_STOP)
            return joined(board.samples(0)), joined(board.samples(2))

    (_, t_us, _), (index, _, values) = asyncio.run(main())
    assert set(np.diff(t_us)) == {2000}
    recording = np.load(RECORDINGS["smartwheel-forces"].path)
    assert np.array_equal(values[0], recording[0])
    zero_rows = [
        k for k in range(len(index)) if np.array_equal(values[-1], recording[index[-1]] - recording[k])
    ]
    assert zero_rows
    assert np.array_equal(values[-5:], recording[index[-5:]] - recording[zero_rows[0]])


def test_the_motion_model_is_seeded_and_physical(plain_binary, tmp_path):
    async def record(seed):
        async with running(plain_binary, tmp_path, [motion_imu(), grasp_force()], seed=seed) as (_, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples(0) >= 1500, "samples")
            await board.command(sf.OP_STOP)
            return joined(board.samples(0))[2][:1500], joined(board.samples(1))[2][:1400]

    first, again, other = (asyncio.run(record(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    scales = np.array([channel.scale for channel in motion_imu().channels])
    imu = first[0] * scales
    assert np.linalg.norm(imu[:, :3], axis=1).mean() == pytest.approx(9.8, abs=1.0)
    assert 0.05 < np.abs(imu[:, 3:6]).mean() < 5.0
    assert np.linalg.norm(imu[:, 6:], axis=1).mean() == pytest.approx(np.hypot(20, 43), rel=0.02)
    assert first[1].max() * 0.001 > 0.5
    assert np.abs(imu).max() < 200.0
