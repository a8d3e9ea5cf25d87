"""What a serial source promises, against the real firmware behind a pty."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap.clock import now_ns
from edgecap.errors import SourceError
from edgecap.model import DeviceEvent
from edgecap.sim.firmware import (
    HostFirmware,
    read_truth,
    recorded_stream,
)
from edgecap.sim.recordings import RECORDINGS
from edgecap.source.serial_mcu import SerialSource
from edgecap.timeline.fit import to_rig_ns
from tests.contract.board_taker import TWO, Taker, joined, recording


def test_descriptors_become_stream_infos(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path, *TWO, serial_number="glove-7") as taker:
            imu, force = taker.feed.info
            assert (imu.name, imu.kind, imu.device, imu.dtype) == ("hand-imu", "imu", "hand", "int16")
            assert (imu.rate_hz_nominal, imu.serial_number, imu.tick_ns) == (1000.0, "glove-7", 1000)
            assert imu.firmware.startswith("edgecap-fw")
            assert [c.name for c in force.channels] == [f"taxel_{i}" for i in range(10)]
            assert (force.channels[0].unit, force.channels[0].scale) == ("N", 0.001)

    asyncio.run(run())


@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_values_are_bit_identical_to_the_recording(tmp_path: Path, name: str) -> None:
    stream = recorded_stream(RECORDINGS[name], name="sensor", rate_hz=1000.0)

    async def run() -> None:
        async with recording(tmp_path, stream, start_us=2**32 - 300_000) as taker:
            await taker.feed.start()
            await taker.until_samples(700)
            taker.assert_accounted(await taker.stop())
            assert taker.planned_gaps() == []
            index, ticks, values = joined(taker, "hand-sensor")
            truth = np.load(RECORDINGS[name].path)
            assert values.dtype == truth.dtype
            wanted = truth[index % len(truth)]
            assert values.tobytes() == np.ascontiguousarray(wanted).tobytes()
            assert (np.diff(ticks) == 1000 * np.diff(index)).all()  # across the counter's wrap

    asyncio.run(run())


def test_rig_time_is_within_the_published_bound(tmp_path: Path) -> None:
    truth_path = tmp_path / "truth"

    async def run() -> Taker:
        options: dict[str, Any] = {"truth": truth_path, "skew_ppm": 41.0, "start_us": 2**32 - 2_000_000}
        async with recording(tmp_path, *TWO, **options) as taker:
            await taker.feed.start()
            await taker.until_samples(4000)
            taker.assert_accounted(await taker.stop())
        return taker

    taker = asyncio.run(run())
    truth = read_truth(truth_path)
    inside = total = 0
    for number, info in enumerate(taker.feed.info):
        true_ns = {int(r["index"]): int(r["raw_ns"]) for r in truth[truth["stream"] == number]}
        for block in taker.blocks(info.name):
            if block.fit.locked:
                t_ns = to_rig_ns(block.fit, block.ticks)
                error = np.abs(t_ns - [true_ns[block.index + k] for k in range(len(t_ns))])
                inside += int((error <= block.fit.u_ns).sum())
                total += len(error)
    assert total > 6000
    assert inside / total >= 0.999


def test_start_anew_counts_anew(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            for _ in range(2):
                taker.items.clear()
                await taker.feed.start()
                await taker.until_samples(100)
                sent = await taker.stop()
                taker.assert_accounted(sent)
                assert sent == {f"hand-{s}": n for s, n in (await taker.device.totals()).items()}
                assert taker.planned_gaps() == []
            await taker.feed.start()
            with pytest.raises(SourceError, match="already sampling"):
                await taker.feed.start()

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["garbage 3000", "corrupt 7", "drop 9", "corrupt 1", "drop 1"])
def test_a_bad_line_costs_exactly_what_is_stated(tmp_path: Path, fault: str) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.feed.start()
            for _ in range(4):
                await taker.until_samples(60)
                await taker.device.command(fault)
            await taker.until_samples(200)
            taker.assert_accounted(await taker.stop())
            # A board that a busy machine holds up for a second is silent: that is stated, and costs nothing.
            assert {g.cause for g in taker.planned_gaps() if g.lost} <= {"line"}
            found = taker.feed.statistics()
            bad = found.bad_crc + found.bad_cobs + found.too_long + found.too_short
            if fault.startswith("drop"):
                assert taker.planned_gaps()
                assert bad == 0
            else:
                assert bad > 0
            assert found.unknown_type == found.bad_version == found.resets == 0

    asyncio.run(run())


def test_loss_at_the_very_end_is_stated(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.feed.start()
            await taker.until_samples(60)
            await taker.device.command("silence imu 100000")  # its total stands still; no frame of it follows
            await taker.device.command("drop 3")
            sent = await taker.stop()
            taker.assert_accounted(sent)

    asyncio.run(run())


def test_overrun_in_the_device_is_told_from_loss_on_the_line(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.feed.start()
            await taker.until_samples(60)
            await taker.device.command("stall 1500")
            await taker.until(lambda: any(g.cause == "overrun" for g in taker.gaps()))
            await taker.until_samples(60)
            taker.assert_accounted(await taker.stop())
            assert {g.cause for g in taker.gaps()} == {"overrun"}
            assert any("overran" in e.text for e in taker.events("fault"))
            for gap in taker.gaps():
                assert abs((gap.t1_ns - gap.t0_ns) / 1e6 - gap.lost - 1) < 2

    asyncio.run(run())


def test_a_silent_sensor_is_told_once_and_becomes_a_gap(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.feed.start()
            await taker.until_samples(60)
            await taker.device.command("silence force 1600")
            await taker.until(lambda: taker.planned_gaps("force"))
            await taker.until_samples(50)
            taker.assert_accounted(await taker.stop())
            (gap,) = taker.planned_gaps()
            assert (gap.stream, gap.cause, gap.lost) == ("hand-force", "silent", 0)
            assert gap.t1_ns - gap.t0_ns > 1.5e9
            assert [e.text for e in taker.events("fault")].count("hand-force is silent") == 1

    asyncio.run(run())


def test_reset_is_survived_with_a_new_epoch(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.feed.start()
            await taker.until_samples(200)
            before = now_ns()
            await taker.device.command("reset")
            await taker.until(lambda: len(taker.planned_gaps()) == 2)
            await taker.until_samples(200)
            sent = await taker.stop()
            assert len(taker.events("reset")) == 1
            for stream, count in sent.items():
                (gap,) = taker.planned_gaps(stream)
                assert (gap.cause, gap.lost) == ("reset", -1)
                assert gap.t1_ns > before
                epochs = [b.fit.epoch for b in taker.blocks(stream)]
                assert epochs == sorted(epochs)
                assert len(set(epochs)) == 2
                index, _, _ = joined(taker, stream)
                assert (np.diff(index) == 1).all()
                assert count == len(index)
            assert taker.feed.statistics().resets == 1

    asyncio.run(run())


def test_a_reset_whose_hello_is_lost_is_noticed_all_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.feed.start()
            await taker.until_samples(100)
            await taker.device.command("drop 4")
            await taker.device.command("reset")
            await taker.until(lambda: {g.cause for g in taker.gaps()} & {"reset"})
            await taker.until_samples(100)
            await taker.stop()
            assert {g.stream for g in taker.gaps() if g.cause == "reset"} == {"hand-imu", "hand-force"}

    asyncio.run(run())


def test_unplugged_and_plugged_in_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.feed.start()
            await taker.until_samples(100)
            await taker.device.command("unplug 1500")
            await taker.until(lambda: taker.events("connected"))
            await taker.until(lambda: taker.gaps("imu") and taker.gaps("force"))
            await taker.until_samples(100)
            sent = await taker.stop()
            assert len(taker.events("disconnected")) == 1
            assert {g.cause for g in taker.gaps()} <= {"unplugged", "overrun"}
            assert taker.feed.statistics().reconnects == 1
            assert taker.feed.statistics().resets == 0
            taker.assert_accounted(sent)

    asyncio.run(run())


def test_unplugged_and_without_power(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            taker.feed.set_led((0, 158, 115))
            await taker.feed.set_rate("hand-imu", 500.0)
            await taker.feed.start()
            await taker.until_samples(100)
            await taker.device.command("unplug 300")
            await taker.device.command("reset")
            await taker.until(lambda: len(taker.planned_gaps()) == 2)
            await taker.until_samples(100)
            await taker.stop()
            events = [e for e in taker.items if isinstance(e, DeviceEvent) and "overran" not in e.text]
            kinds = [e.kind for e in events]
            assert kinds.count("led-on") == 2  # set, and set again after the reset
            assert [kind for kind in kinds if kind not in ("log", "led-on")] == [
                "disconnected",
                "reset",
                "connected",
                "stopped",
            ]
            assert {(g.cause, g.lost) for g in taker.planned_gaps()} == {("unplugged", -1)}
            steps = np.diff(taker.blocks("hand-imu")[-1].ticks)
            assert set(steps.tolist()) <= {2000}  # the rate that was set holds again

    asyncio.run(run())


def test_a_sensor_that_dies_while_idle_is_told_of_to_whoever_opens_the_device(tmp_path: Path) -> None:
    async def run() -> None:
        async with HostFirmware(TWO, link=tmp_path / "mcu") as device:
            await device.command("silence force 600000")
            async with SerialSource("hand", device.port).open() as feed:
                taker = Taker(feed, device)
                task = asyncio.create_task(taker.take())
                await taker.until(lambda: taker.events("fault"))
                fault = taker.events("fault")[0]
                assert (fault.sensor, fault.text) == ("hand-force", "hand-force: sensor gives no data")
                await device.command("silence force 0")
                await taker.until(lambda: any(e.sensor == "hand-force" for e in taker.events("log")))
            await asyncio.wait_for(task, 60)

    asyncio.run(run())


def test_one_that_was_never_started_says_stopped_all_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            assert await taker.stop() == {}  # nobody waits for its last word in vain

    asyncio.run(run())


def test_stopping_while_unplugged_states_the_loss(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.feed.start()
            await taker.until_samples(100)
            await taker.device.command("unplug 60000")
            await taker.until(lambda: taker.events("disconnected"))
            assert await taker.stop() == {}
            assert [(g.cause, g.lost) for g in taker.planned_gaps()] == [("unplugged", -1)] * 2
            with pytest.raises(SourceError, match="is disconnected; plug it in again"):
                await taker.feed.start()

    asyncio.run(run())


def test_buttons_come_in_rig_time(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.until(lambda: True)
            before = now_ns()
            await taker.device.press(80)
            await taker.until(lambda: taker.events("button-up"))
            (down,), (up,) = taker.events("button-down"), taker.events("button-up")
            assert before - 1e6 < down.t_ns < up.t_ns < now_ns() + 1e6
            assert up.t_ns - down.t_ns > 50e6

    asyncio.run(run())


def test_a_button_is_known_to_be_down_only_as_far_as_its_board_has_spoken(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.device.command("down")
            await taker.until(lambda: taker.events("button-down"))
            (down,) = taker.events("button-down")
            async with asyncio.timeout(60):
                while taker.feed.told_ns < down.t_ns + 300_000_000:  # it answers pings
                    await asyncio.sleep(0.01)
                os.kill(taker.device.pid, signal.SIGSTOP)
                stopped_ns = now_ns()
                while now_ns() < stopped_ns + 500_000_000:
                    await asyncio.sleep(0.01)
            told_ns = taker.feed.told_ns
            os.kill(taker.device.pid, signal.SIGCONT)
            assert told_ns < stopped_ns + 100_000_000

    asyncio.run(run())


def test_commands(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            feed = taker.feed
            feed.set_led((0, 158, 115), 1)
            await feed.set_rate("hand-imu", 200.0)
            assert feed.info[0].rate_hz_nominal == 200.0
            with pytest.raises(
                SourceError, match="has no stream 'hand-gps'; its streams are: hand-imu, hand-force"
            ):
                await feed.set_rate("hand-gps", 200.0)
            with pytest.raises(SourceError, match="refused set_rate: rate outside"):
                await feed.set_rate("hand-imu", 20_000.0)
            await feed.start()
            await taker.until_samples(50)
            sent = await feed.stop()
            assert sent["hand-force"] > 4 * sent["hand-imu"]

    asyncio.run(run())


def test_a_slow_reader_loses_the_oldest_samples_and_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with HostFirmware(TWO, link=tmp_path / "mcu") as device:
            async with SerialSource("hand", device.port, max_items=8).open() as feed:
                await feed.start()
                async with asyncio.timeout(60):
                    while feed.statistics().queue_dropped < 10:  # nobody reads: no event
                        await asyncio.sleep(0.01)
                sent = await feed.stop()
                taker = Taker(feed, device)
            await asyncio.wait_for(taker.take(), 60)
            assert {g.cause for g in taker.planned_gaps()} == {"queue"}
            taker.assert_accounted(sent)

    asyncio.run(run())


def test_rates_of_the_configuration_are_the_boards_own_from_then_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with HostFirmware(TWO, link=tmp_path / "mcu") as device:
            async with SerialSource("hand", device.port, rates={"imu": 250.0}).open() as feed:
                assert [i.rate_hz_nominal for i in feed.info] == [250.0, TWO[1].rate_hz]
            for rates, reason in (
                ({"gps": 10.0}, "has no stream 'hand-gps'; its streams are: hand-imu, hand-force"),
                ({"imu": 20_000.0}, "refused set_rate: rate outside"),
            ):
                with pytest.raises(SourceError, match=reason):
                    async with SerialSource("hand", device.port, rates=rates).open():
                        pass

    asyncio.run(run())
