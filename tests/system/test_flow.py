"""The whole flow: firmware on a pty → daemon → mosquitto → ingest → store, one process each."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from edgecap import topics
from edgecap.daemon.recovery import LOSS_NS
from edgecap.dataset.mcap_export import export_mcap
from edgecap.dataset.session import RecordedSession, load_session
from edgecap.ingest.store import open_store
from edgecap.sim.firmware import grasp_force, motion_imu, read_truth, recorded_stream
from edgecap.sim.proof import prove_samples
from edgecap.sim.recordings import RECORDINGS
from tests.system.site import RIG, SITE, Site

pytestmark = pytest.mark.timeout(180)
CAMERA = '[[camera]]\nbackend = "synthetic"\nname = "head-cam"\nwidth = 320\nheight = 240\n'


def on_a_site(out: Path, body: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with Site(out) as site:
            await body(site)

    asyncio.run(run())


async def record(site: Site, samples: int) -> str:
    """Press, wait for samples of the glove, press; returns the session."""
    glove = site.devices["glove"]
    session = await site.start_session(glove)
    await site.samples("glove-tactile", samples)
    await glove.press(100)
    await site.until_state("idle")
    return session


GLOVE = {"tactile": "anyskin", "wrench": "smartwheel-forces", "gyro": "gopro-gyro"}
"""Streams of the glove, in the order of their numbers, and the recording that each replays."""


async def replaying_glove(site: Site, **options: Any) -> None:
    streams = [recorded_stream(RECORDINGS[recording], name=name) for name, recording in GLOVE.items()]
    await site.add_device("glove", streams, **options)


def test_every_sample_arrives_identical_and_in_time(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await replaying_glove(site, skew_ppm=70.0, start_us=2**32 - 3_000_000)
        site.add_section(CAMERA)
        (site.out / "calibration.json").write_text('{"sync:head-cam:glove-gyro": {"lag_ns": 1500000}}')
        site.add_section(f'[calibration]\nfile = "{site.out}/calibration.json"')
        await site.start_ingest()
        await site.start_daemon()
        session = await record(site, 300)
        report = await site.until_complete(session)
        sent = await site.devices["glove"].totals()
        stored = load_session(open_store(str(site.store)), site.key(session))
        for name, recording in GLOVE.items():
            proof = prove_samples(
                stored,
                f"glove-{name}",
                sent=sent[name],
                recording=RECORDINGS[recording],
                truth=site.out / "truth-glove.bin",
            )
            assert proof.holds, proof.problem()
        assert {s.name: s.device_sent for s in report.streams if s.name.startswith("glove")} == {
            f"glove-{k}": n for k, n in sent.items()
        }
        frames = list(stored.frames("head-cam"))
        assert [f.index for f in frames] == list(range(len(frames)))
        # Sensors bracket video, so that every frame has samples on both sides.
        tactile = stored.stream("glove-tactile")
        assert tactile.t_ns[0] < frames[0].t_ns
        assert frames[-1].t_ns < tactile.t_ns[-1]
        assert stored.manifest["task"] == "fold a towel"
        assert stored.manifest["consent"] == "c-1"
        assert stored.manifest["calibration"] == {"sync:head-cam:glove-gyro": {"lag_ns": 1500000}}
        assert len(stored.pairs) >= 3
        check_export(site, stored, sent)
        assert await site.stop_daemon() == 0
        await site.until("offline", lambda: site.status == {"state": "offline"})

    on_a_site(tmp_path, body)


def check_export(site: Site, stored: RecordedSession, sent: dict[str, int]) -> None:
    """The MCAP holds what the firmware sent: every count bit by bit, every time within its bound."""
    export = export_mcap(stored, site.out / "export")
    rows = read_truth(site.out / "truth-glove.bin")
    rows = rows[rows["run"] == rows["run"].max()]
    for number, (name, recording) in enumerate(GLOVE.items()):
        kind = "imu" if name == "gyro" else "channels"
        assert export.messages[f"/glove_{name}/{kind}"] == sent[name]
        with Path(export.path).open("rb") as file:
            reader = make_reader(file, decoder_factories=[DecoderFactory()])
            blocks = [m.decoded_message for m in reader.iter_decoded_messages(topics=[f"/glove_{name}/raw"])]
        counts = np.concatenate(
            [np.reshape(b.counts_int or b.counts_float, (-1, b.channels)) for b in blocks]
        )
        index = np.concatenate([b.index + np.arange(len(b.t_rig_ns)) for b in blocks])
        expected = np.load(RECORDINGS[recording].path)
        np.testing.assert_array_equal(counts.astype(expected.dtype), expected[index % len(expected)])
        np.testing.assert_array_equal(index, np.arange(sent[name]))
        t_ns = np.concatenate([np.array(b.t_rig_ns) for b in blocks])
        u_ns = np.concatenate([np.full(len(b.t_rig_ns), b.u_ns) for b in blocks])
        true_ns = rows["raw_ns"][rows["stream"] == number]
        assert np.mean(np.abs(t_ns - true_ns[index]) <= u_ns) >= 0.999
    assert export.messages["/head_cam/video"] == len(list(stored.frames("head-cam")))


def test_marks_discards_and_commands(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await replaying_glove(site)
        await site.start_ingest()
        await site.start_daemon()
        glove = site.devices["glove"]
        # Marked by a double press, then held for three seconds: discarded.
        session = await site.start_session(glove)
        await glove.press(80, 80)
        await site.until("marked", lambda: any(e["kind"] == "mark" for e in site.events))
        await glove.command("down")  # once it has come up: the mark is told while it is still down
        await site.until_state("idle")
        await glove.command("up")
        report = await site.until_complete(session)
        assert report.outcome == "discarded"
        stored = load_session(open_store(str(site.store)), site.key(session))
        assert [m.kind for m in stored.marks] == ["went-wrong"]
        # The release after the hold starts nothing.
        code, out = await ctl(site, "status")
        assert (code, out.splitlines()[0]) == (0, "idle")
        assert "room: " in out
        code, out = await ctl(site, "start", "stack cups")
        assert code == 0, out
        assert (await ctl(site, "start"))[0] == 1
        assert (await ctl(site, "mark", "all good", "--kind", "recovered"))[0] == 0
        code, out = await ctl(site, "mark", "--kind", "recoverd")
        assert (code, "did you mean recovered?" in out) == (2, True), out
        wrong = {"id": "1", "cmd": "mark", "args": {"kind": "recoverd"}}  # from another program than ours
        await site.link.publish(topics.topic(SITE, RIG, topics.CMD), json.dumps(wrong).encode(), qos=1)
        await site.until(
            "refused", lambda: any(a["message"].startswith("refused mark") for a in site.answers)
        )
        await site.samples("glove-tactile", 50)
        code, out = await ctl(site, "stop")
        assert code == 0
        second = out.split()[-1]
        await site.until_complete(second)
        stored = load_session(open_store(str(site.store)), site.key(second))
        assert stored.manifest["task"] == "stack cups"
        assert [(m.kind, m.text, m.by) for m in stored.marks] == [("recovered", "all good", "ctl")]
        code, out = await ctl(site, "stop")
        assert code == 1
        assert "no session is recording" in out
        code, out = await ctl(site, "start", rig="rig-10")
        assert code == 1
        assert "did you mean rig-01" in out

    on_a_site(tmp_path, body)


async def ctl(site: Site, *args: str, rig: str = "rig-01") -> tuple[int, str]:
    """Run `edgecap ctl`; returns its exit code and what it said."""
    return await cli("ctl", rig, *args, "--broker", site.broker.url)


async def cli(*args: str) -> tuple[int, str]:
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edgecap",
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode().strip()


def test_kill_minus_nine_loses_no_more_than_the_stated_bound(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await replaying_glove(site)
        await site.start_daemon()  # no ingest yet: everything must survive in the spool
        session = await site.start_session(site.devices["glove"])
        await site.samples("glove-tactile", 500)
        await site.stop_daemon(signal.SIGKILL)
        alive_ns = int((site.out / "spool" / "pulse").read_text().split()[2])
        await site.devices["glove"].totals()
        truth = read_truth(site.out / "truth-glove.bin")
        true_ns = truth["raw_ns"][truth["stream"] == list(GLOVE).index("tactile")]
        await site.start_ingest()
        await site.start_daemon()
        report = await site.until_complete(session)
        assert report.outcome == "interrupted"
        stored = load_session(open_store(str(site.store)), site.key(session)).stream("glove-tactile")
        np.testing.assert_array_equal(stored.index, np.arange(len(stored.index)))
        # Stated: what is older than this when the daemon was last at work is safe.
        safe = int((true_ns < alive_ns - LOSS_NS).sum())
        assert len(stored.index) >= safe > 200
        session = await record(site, 100)
        assert (await site.until_complete(session)).outcome == "complete"

    on_a_site(tmp_path, body)


def test_faults_of_the_line_become_gaps_and_nothing_else(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await site.add_device("glove", [motion_imu("imu", rate_hz=500), grasp_force("tactile")], seed=3)
        await site.start_ingest()
        await site.start_daemon()
        glove = site.devices["glove"]
        session = await site.start_session(glove)
        for fault in ("garbage 500", "corrupt 3", "drop 5", "garbage 2000"):
            before = (await glove.totals())["tactile"]
            await glove.command(fault)
            await site.samples("glove-tactile", before + 300)
        await glove.press(100)
        await site.until_state("idle")
        report = await site.until_complete(session)
        sent = await glove.totals()
        stored = load_session(open_store(str(site.store)), site.key(session))
        rows = read_truth(site.out / "truth-glove.bin")
        for number, name in enumerate(("imu", "tactile")):
            data = stored.stream(f"glove-{name}")
            lost = sum(g.lost for g in stored.gaps if g.stream == f"glove-{name}")
            assert lost > 0
            assert len(data.index) + lost == sent[name]
            true_ns = rows["raw_ns"][(rows["stream"] == number) & (rows["run"] == rows["run"].max())]
            inside = np.abs(data.t_ns - true_ns[data.index]) <= data.u_ns
            assert inside.mean() >= 0.999
        assert report.complete

    on_a_site(tmp_path, body)


def test_a_dead_broker_and_a_late_ingest_cost_nothing(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await replaying_glove(site)
        await site.start_daemon()
        session = await record(site, 100)
        assert site.status["spool"]["chunks"] > 0
        await site.until("held", lambda: "nobody listens" in site.status["uplink"]["held"])
        code, out = await cli("fleet", "--once", "--broker", site.broker.url)
        assert (code, "rig-01" in out, "nobody listens" in out) == (1, True, True), out
        await site.start_ingest()
        await site.until_complete(session)
        await site.until("delivered", lambda: site.status["spool"]["chunks"] == 0)

    on_a_site(tmp_path, body)


def test_a_glove_that_comes_late_is_recorded_from_then_on(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        await replaying_glove(site)
        await site.add_device("wrist", [motion_imu()])
        await site.start_ingest()
        await site.start_daemon()
        glove = site.devices["glove"]
        await glove.command("unplug 4000")
        await site.until("unplugged", lambda: any(e["kind"] == "disconnected" for e in site.events))
        code, out = await ctl(site, "start")
        assert code == 0, out
        session = out.split()[-1]
        await site.samples("glove-tactile", 100)
        code, out = await ctl(site, "stop")
        assert code == 0, out
        report = await site.until_complete(session)
        sent = await glove.totals()
        stored = {s.name: s.samples for s in report.streams}
        assert stored["glove-tactile"] == sent["tactile"]
        assert stored["wrist-imu"] > stored["glove-tactile"]

    on_a_site(tmp_path, body)
