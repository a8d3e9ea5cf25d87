"""From known weights on a glove to newtons in a dataset: real firmware, rig, store, command and export."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from edgecap.calibration import ForceChannel, ForceRecord
from edgecap.cli.main import main
from edgecap.clock import now_ns
from edgecap.config import parse_config
from edgecap.daemon.intent import Intent
from edgecap.daemon.rig import Rig
from edgecap.dataset.calibration_map import add_to_map
from edgecap.dataset.mcap_export import export_mcap
from edgecap.model import ChannelInfo, Mark
from edgecap.sim.firmware import FirmwareStream, HostFirmware
from edgecap.source.serial_mcu import SerialSource
from tests.rig_session import config_text, record
from tests.system.test_mcap_export import read

RATE, HELD = 500, 1250  # 2.5 s a weight
LEVELS = (0.0, 2.0, 5.0, 12.0)
GAIN, TARE = 0.004, -150.0


def weights(path: Path) -> FirmwareStream:
    """What a strain amplifier's converter gives while weights lie on the thumb, in counts."""
    rng = np.random.default_rng(3)
    counts = np.repeat(TARE + np.array(LEVELS) / GAIN, HELD)[:, None] * [[1.0, 0.0]] + [[0.0, 40.0]]
    np.save(path, np.rint(counts + rng.normal(0, 2, counts.shape)).astype(np.int16))
    channels = (ChannelInfo("thumb", "count", 1.0, 32768.0), ChannelInfo("index", "count", 1.0, 32768.0))
    return FirmwareStream("force", "force", RATE, channels, file=path)


def test_weights_become_newtons(tmp_path: Path, capsys) -> None:
    out = tmp_path / "calibration.json"
    text = config_text(tmp_path, "%s", task="calibrate")
    stream = weights(tmp_path / "weights.npy")
    glove = SerialSource("left-hand", str(tmp_path / "board"))

    async def both():
        async with HostFirmware([stream], link=tmp_path / "board", loop=False) as board:

            async def marks(rig: Rig) -> None:
                for k, newton in enumerate(LEVELS):
                    while (await board.totals())["force"] < k * HELD:
                        await asyncio.sleep(0.02)
                    mark = Mark(now_ns(), "note", f"thumb {newton:g} N" if newton else "tare", "ctl")
                    assert (await rig.ask(Intent("mark", "ctl", mark.t_ns, mark))).ok
                while (await board.totals())["force"] < len(LEVELS) * HELD:
                    await asyncio.sleep(0.02)

            first = await record(parse_config(text % ""), [glove], tmp_path / "store", marks)
        command = ["calibrate", "force", str(tmp_path / "store"), first.key.session, "--window-s", "0.5"]
        command += ["--stream", "left-hand-force", "--hold-s", "1.5", "--out", str(out)]
        assert await asyncio.to_thread(main, command) == 0
        async with HostFirmware([stream], link=tmp_path / "board", loop=True) as board:

            async def work(_: Rig) -> None:
                while (await board.totals())["force"] < 2 * HELD:
                    await asyncio.sleep(0.02)

            return first, await record(parse_config(text % out), [glove], tmp_path / "store", work)

    first, second = asyncio.run(both())
    assert "force:left-hand-force, version 1" in capsys.readouterr().out
    assert first.manifest["calibration"] == {}
    assert first.report.complete
    assert second.report.complete
    kept = second.manifest["calibration"]["force:left-hand-force"]
    assert kept["session"] == first.key.session
    (channel,) = kept["channels"]
    topics = read(Path(export_mcap(second, tmp_path / "out").path))
    newtons = np.array([x.m.value for x in topics["/left_hand_force/force"]])[:, 0]
    raw = second.stream("left-hand-force").values[:, 0]
    assert len(newtons) == len(raw) >= 2 * HELD
    # a sample's noise of 2 counts is 0.008 N; the levels themselves must be right within the stated bound
    for k, newton in enumerate(LEVELS[:2]):
        level = newtons[k * HELD + 100 : (k + 1) * HELD - 100]
        assert abs(level.mean() - newton) <= channel["u_n"] + 0.002
        assert level.std() < 0.02
    np.testing.assert_allclose(newtons, (raw - channel["tare"]) * channel["gain"], atol=1e-4)
    assert main(["sessions", "show", str(tmp_path / "store"), second.key.session]) == 0
    date = kept["date"][:10]
    assert f"calibrated force:left-hand-force version 1 of {date}" in capsys.readouterr().out
    verdicts = [v for r in second.verdicts for v in r["streams"]]
    assert all(v["state"] != "drift" for v in verdicts)


def test_a_zero_that_has_moved_is_in_the_sessions_verdicts(tmp_path: Path, capsys) -> None:
    """A glove whose thumb reads 0.8 N too little since it was calibrated; the index is as it was."""
    thumb, index = (
        ForceChannel(
            name=name, model="linear", tare=tare, gain=GAIN, u_tare=1.0, u_gain=1e-5, u_n=0.05,
            residual_n=0.01, max_n=10.0, n=6, noise_counts=2.0,
        )
        for name, tare in (("thumb", TARE + 200), ("index", 40.0))
    )  # fmt: skip
    file = tmp_path / "calibration.json"
    date = "2026-11-01T08:00:00+00:00"
    kept = ForceRecord(stream="left-hand-force", channels=(thumb, index), date=date, edgecap="0")
    assert add_to_map(file, kept) == 1
    assert add_to_map(file, kept) == 2
    text = config_text(tmp_path, file, task="fold a towel")

    async def worn():
        stream = weights(tmp_path / "weights.npy")
        async with HostFirmware([stream], link=tmp_path / "board", loop=True) as board:

            async def work(rig: Rig) -> None:
                async with asyncio.timeout(60):
                    while not any(v.state == "drift" for v in rig.session.verdicts):
                        await asyncio.sleep(0.02)

            glove = SerialSource("left-hand", str(board.link))
            return await record(parse_config(text), [glove], tmp_path / "store", work)

    session = asyncio.run(worn())
    assert session.report.complete
    assert session.manifest["calibration"]["force:left-hand-force"]["version"] == 2
    verdict = next(v for r in reversed(session.verdicts) for v in r["streams"] if v["state"] == "drift")
    assert verdict["stream"] == "left-hand-force"
    assert verdict["drift_of"] == "tare of thumb [N], limit 0.3"
    assert abs(verdict["drift"] + 200 * GAIN) < 0.02
    assert main(["sessions", "show", str(tmp_path / "store"), session.key.session]) == 0
    said = capsys.readouterr().out
    assert "calibrated force:left-hand-force version 2 of 2026-11-01" in said
    assert "left-hand-force: departs from its calibration, tare of thumb [N], limit 0.3: -0." in said
