"""What an IIO source promises, on a scripted sysfs and device-node tree: the lowest seam there is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from edgecap.errors import SourceError
from edgecap.source import iio
from edgecap.source.iio_device import Wanted
from edgecap.timeline.fit import to_rig_ns
from tests.contract.iio_taker import LATENCY, MS, PERIOD, opened, run
from tests.iio_tree import host_ns, iio_tree, scans


def test_set_up_and_exact_samples(tmp_path: Path) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            async with opened(tree, Wanted("icm42688", 100.0), lag_ns=1_500_000) as taker:
                assert tree.read("current_timestamp_clock") == "monotonic_raw"
                assert tree.read("sampling_frequency") == "100"
                assert tree.read("buffer/length") == "200"
                assert tree.read("buffer/watermark") == "2"
                assert tree.read("scan_elements/in_timestamp_en") == "1"
                assert tree.read("buffer/enable") == "0"
                (info,) = taker.feed.info
                assert (info.name, info.kind, info.clock, info.dtype) == ("head-imu", "imu", "raw", "int16")
                assert (info.rate_hz_nominal, info.lag_ns, info.tick_ns) == (100.0, 1_500_000, 1)
                names = [c.name for c in info.channels]
                assert names == [f"{s}_{a}" for s in ("accel", "gyro") for a in "xyz"] + ["temperature"]
                assert [c.unit for c in info.channels[::3]] == ["m/s^2", "rad/s", "degC"]
                temperature = info.channels[6]
                # the kernel's own example: (0 + 3312) × 7.548309 milli-°C = 25 °C
                assert temperature.offset * temperature.scale == pytest.approx(25.0, abs=1e-3)
                await taker.feed.start()
                assert tree.read("buffer/enable") == "1"
                first = host_ns() - 40 * 10 * MS
                t_ns = first + 10 * MS * np.arange(40)
                tree.feed(scans(t_ns[:15]))
                await taker.until(lambda: taker.samples() == 15)
                tree.feed(scans(t_ns[15:], 15))
                await taker.until(lambda: taker.samples() == 40)
                assert await taker.feed.stop() == {}
                await taker.until(lambda: taker.events("stopped"))
                assert tree.read("buffer/enable") == "0"
                assert taker.gaps == []
                np.testing.assert_array_equal(np.concatenate([b.ticks for b in taker.blocks]), t_ns)
                values = np.concatenate([b.values for b in taker.blocks])
                k = np.arange(40)
                wanted = [k, k + 10, k + 20, -k, -k - 10, -k - 20, k + 100]
                np.testing.assert_array_equal(values, np.stack(wanted, 1))
                assert values.dtype == np.int16
                assert [b.index for b in taker.blocks] == [0, 15]
                for block in taker.blocks:
                    # MONOTONIC_RAW is rig time: only the declared latency and the readings' width are left
                    np.testing.assert_array_equal(to_rig_ns(block.fit, block.ticks), block.ticks)
                    assert LATENCY < block.fit.u_ns < LATENCY + 100_000
                    assert block.arrival_ns[0] > block.ticks[-1]
                counts = taker.feed.statistics()
                assert (counts.samples, counts.stray_bytes, counts.torn_bytes) == (40, 0, 0)

    run(scenario)


def test_scans_torn_across_reads_and_what_came_before_the_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            async with opened(tree) as taker:
                tree.feed(scans(np.arange(3)))  # of an earlier capture
                await taker.feed.start()
                t_ns = host_ns() - PERIOD * np.arange(10)[::-1]
                data = scans(t_ns)
                for at in range(0, len(data), 7):
                    tree.feed(data[at : at + 7])
                    reads = taker.feed.statistics().reads
                    async with asyncio.timeout(30):
                        while taker.feed.statistics().reads == reads and at + 7 < len(data):
                            await asyncio.sleep(0)
                await taker.until(lambda: taker.samples() == 10)
                np.testing.assert_array_equal(np.concatenate([b.ticks for b in taker.blocks]), t_ns)
                assert taker.feed.statistics().stray_bytes == 3 * 24
                await taker.feed.stop()

    run(scenario)


@pytest.mark.parametrize(
    ("domain", "clock"), [("monotonic", time.CLOCK_MONOTONIC), ("boottime", time.CLOCK_BOOTTIME)]
)
def test_other_host_clocks_map_to_rig_time_within_the_bound(tmp_path: Path, domain: str, clock: int) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            async with opened(tree, Wanted("icm42688", 200.0, clock=domain)) as taker:  # type: ignore[arg-type]
                assert tree.read("current_timestamp_clock") == domain
                assert taker.feed.info[0].clock == domain
                await taker.feed.start()
                truth: list[tuple[int, int]] = []
                ticks: list[int] = []
                for _ in range(20):
                    before, tick, after = host_ns(), host_ns(clock), host_ns()
                    truth.append((before, after))  # far apart where another process came between
                    ticks.append(tick)
                    tree.feed(scans(np.array([tick])))
                    await taker.until(lambda: taker.samples() == len(ticks))
                for block in taker.blocks:
                    at = ticks.index(int(block.ticks[0]))
                    t_ns, u_ns = int(to_rig_ns(block.fit, block.ticks)[0]), block.fit.u_ns
                    assert truth[at][0] - u_ns <= t_ns <= truth[at][1] + u_ns
                await taker.feed.stop()

    run(scenario)


def test_lost_samples_are_counted_by_the_stamps(tmp_path: Path) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            async with opened(tree) as taker:
                await taker.feed.start()
                start = host_ns() - 200 * PERIOD
                # the sensor's oscillator is 3 % fast; the hole of 31 periods must be counted by its true rate
                true = PERIOD * 97 // 100
                t_ns = start + true * np.arange(160)
                kept = np.r_[t_ns[:60], t_ns[91:]]
                for part in np.array_split(kept, 8):
                    tree.feed(scans(part))
                    seen = taker.samples()
                    await taker.until(lambda seen=seen: taker.samples() > seen)
                await taker.until(lambda: taker.samples() == len(kept))
                (gap,) = taker.gaps
                assert (gap.stream, gap.cause, gap.lost) == ("head-imu", "overrun", 31)
                assert (gap.t0_ns, gap.t1_ns) == (t_ns[59], t_ns[91])
                indices = np.concatenate([b.index + np.arange(len(b.ticks)) for b in taker.blocks])
                np.testing.assert_array_equal(indices, np.r_[np.arange(60), np.arange(91, 160)])
                await taker.feed.stop()

    run(scenario)


def test_stamps_that_contradict_themselves_widen_the_bound(tmp_path: Path) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            async with opened(tree) as taker:
                await taker.feed.start()
                now = host_ns()
                t_ns = now - 60 * PERIOD + PERIOD * np.arange(50)
                t_ns[20:] += 700_000  # an interrupt served late: the batch after it is shifted
                tree.feed(scans(t_ns))
                await taker.until(lambda: taker.samples() == 50)
                assert taker.blocks[-1].fit.u_ns >= LATENCY + 700_000
                ahead = host_ns() + 30 * MS  # cannot be: it was read before
                tree.feed(scans(np.array([ahead]), 50))
                await taker.until(lambda: taker.samples() == 51)
                last = taker.blocks[-1]
                assert int(last.ticks[0]) - last.fit.u_ns <= int(last.arrival_ns[0])
                await taker.feed.stop()

    run(scenario)


def test_stamps_that_go_back_start_an_epoch_and_lose_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            async with opened(tree) as taker:
                await taker.feed.start()
                start = host_ns() - 100 * PERIOD
                t_ns = start + PERIOD * np.r_[np.arange(10), np.arange(5, 15)]
                tree.feed(scans(t_ns))
                await taker.until(lambda: taker.samples() == 20)
                assert [(b.index, len(b.ticks), b.fit.epoch) for b in taker.blocks] == [
                    (0, 10, 0),
                    (10, 10, 1),
                ]
                assert taker.feed.statistics().backward == 1
                await taker.feed.stop()

    run(scenario)


def test_unplugged_and_back_under_another_number(tmp_path: Path) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            async with opened(tree) as taker:
                await taker.feed.start()
                t_ns = host_ns() - 10 * PERIOD + PERIOD * np.arange(10)
                tree.feed(scans(t_ns) + b"\x01\x02\x03")
                await taker.until(lambda: taker.samples() == 10)
                tree.unplug()
                await taker.until(lambda: taker.events("disconnected"))
                with pytest.raises(SourceError, match="already sampling"):
                    await taker.feed.start()
                tree.number = 3
                tree.plug()
                await taker.until(lambda: taker.events("connected"))
                assert tree.read("buffer/enable") == "1"
                while host_ns() - 5 * PERIOD <= t_ns[-1]:
                    await asyncio.sleep(0.001)
                later = host_ns() - 5 * PERIOD + PERIOD * np.arange(5)
                tree.feed(scans(later, 10))
                await taker.until(lambda: taker.samples() == 15)
                (gap,) = taker.gaps
                assert (gap.cause, gap.lost, gap.t0_ns, gap.t1_ns) == ("unplugged", -1, t_ns[-1], later[0])
                assert taker.blocks[-1].index == 10
                counts = taker.feed.statistics()
                assert (counts.reconnects, counts.torn_bytes) == (1, 3)
                await taker.feed.stop()

    run(scenario)


def test_unplugged_until_the_end_and_back_with_other_channels(tmp_path: Path) -> None:
    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            async with opened(tree) as taker:
                await taker.feed.start()
                t_ns = host_ns() - 4 * PERIOD + PERIOD * np.arange(4)
                tree.feed(scans(t_ns))
                await taker.until(lambda: taker.samples() == 4)
                tree.unplug()
                await taker.until(lambda: taker.events("disconnected"))
                tree.plug()
                tree.write("in_accel_scale", "0.001")
                await taker.until(lambda: taker.events("fault"))
                assert "came back with other channels" in taker.events("fault")[0]
                await taker.feed.stop()
                await taker.until(lambda: taker.events("stopped"))
                (gap,) = taker.gaps
                assert (gap.cause, gap.lost, gap.t0_ns) == ("unplugged", -1, t_ns[-1])
                with pytest.raises(SourceError, match="disconnected; plug it in again"):
                    await taker.feed.start()

    run(scenario)


def test_silence_is_told_once_and_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iio, "WATCH_S", 0.02)

    async def scenario() -> None:
        with iio_tree(tmp_path) as tree:
            async with opened(tree) as taker:
                await taker.feed.start()
                tree.feed(scans(host_ns() - 2 * PERIOD + PERIOD * np.arange(2)))
                await taker.until(lambda: taker.events("fault"))
                assert taker.events("fault") == ["head-imu is silent"]
                tree.feed(scans(np.array([host_ns()]), 2))
                await taker.until(lambda: taker.gaps)
                assert taker.gaps[0].cause == "silent"
                assert taker.gaps[0].lost >= 150
                await taker.feed.stop()

    run(scenario)
