"""After a crash the session states what it may have cost: from each last sample to the last sign of life."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgecap import clock
from edgecap.codec.chunk import Chunk, unpack_chunk
from edgecap.codec.records import decode_records
from edgecap.daemon.pulse import BEAT_S, Pulse
from edgecap.daemon.recovery import BEAT_LATE_NS, LOSS_NS, close_interrupted
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.local_store import LocalStore
from edgecap.ingest.session_report import SessionReport
from edgecap.ingest.store import SessionKey
from edgecap.spool import Spool
from tests.chunks import BOOT, SECOND_NS, SessionMaker

STREAMS = {"left-imu": "samples", "head-cam": "video", "head-cam-preview": "event", "right-imu": "samples"}


def crash(path: Path, boot: str, age_ns: int = 60 * SECOND_NS) -> SessionMaker:
    """A spool as a daemon leaves it that died `age_ns` ago: `right-imu` has not delivered yet."""
    maker = SessionMaker(boot=boot, streams=STREAMS)
    maker.t_ns = clock.now_ns() - age_ns - 6 * SECOND_NS
    with Spool.open(path, reserve_bytes=0) as spool:
        spool.append(maker.open())
        for _ in range(2):
            for name in ("left-imu", "head-cam", "head-cam-preview"):
                spool.append(maker.data(name))
        late = {"type": "stream", "t_ns": maker.t_ns, "stream": {"name": "wrist-imu", "kind": "imu"}}
        spool.append(maker.records([late]))
    return maker


def recover(path: Path, pulse: Pulse) -> list[Chunk]:
    with Spool.open(path, reserve_bytes=0) as spool:
        assert close_interrupted(spool, pulse) == ["20260102-030405-abcd"]
        assert close_interrupted(spool, pulse) == []
        return [unpack_chunk(spool.read(e.id)) for e in spool.pending(100)]


def report_on(store: Path, chunks: list[Chunk]) -> SessionReport:
    with LocalStore.open(store, create=True) as opened:
        opened.append(chunks)
        return verify_session(opened, SessionKey("site-a", "rig-01", "20260102-030405-abcd"))


def last_beat(pulse: Pulse, session: str) -> int:
    """Let it beat once or twice; returns when it did at the latest."""

    async def run() -> None:
        pulse.session = session
        task = asyncio.create_task(pulse.run())
        while not pulse.path.exists() or not pulse.path.read_bytes():
            await asyncio.sleep(BEAT_S / 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    return clock.now_ns()


@pytest.mark.parametrize("death", ["kill", "kill just now", "kill without a beat", "power cut"])
def test_what_a_crash_may_have_cost_is_stated(tmp_path: Path, death: str) -> None:
    path = tmp_path / "spool"
    maker = crash(path, BOOT if death == "power cut" else clock.boot_id())
    pulse = Pulse(path)
    appended_ns = clock.now_ns()
    if death.startswith("kill") and death != "kill without a beat":
        beat_ns = last_beat(pulse, "20260102-030405-abcd")
    if death == "kill":  # longer ago than the daemon can have lived on
        boot, session, t_ns = pulse.path.read_text().split()
        beat_ns = int(t_ns) - 30 * SECOND_NS
        pulse.path.write_text(f"{boot} {session} {beat_ns}\n")
    report = report_on(tmp_path / "store", recover(path, pulse))
    now_ns = clock.now_ns()
    assert (report.complete, report.outcome) == (True, "interrupted"), report.problems
    gaps = {s.name: s.gaps for s in report.streams if s.name != "session"}
    assert gaps.pop("head-cam-preview") == []
    ends = {name: [(g.t1_ns, g.lost, g.cause) for g in found] for name, found in gaps.items()}
    end_ns = gaps["left-imu"][0].t1_ns
    assert ends == {n: [(end_ns, -1, "crash")] for n in ("left-imu", "head-cam", "right-imu", "wrist-imu")}
    starts = {s.name: s.t1_ns for s in report.streams if s.chunks}
    opened_ns = next(s.t0_ns for s in report.streams if s.name == "session")
    assert gaps["left-imu"][0].t0_ns == starts["left-imu"]
    assert gaps["right-imu"][0].t0_ns == opened_ns, "from the manifest that names it"
    assert gaps["wrist-imu"][0].t0_ns == maker.t_ns, "from the record that tells of it"
    if death == "kill":
        assert appended_ns <= end_ns <= now_ns, "the newest chunk came after the last beat"
    elif death == "power cut":
        assert 0 <= end_ns - LOSS_NS <= now_ns, "in a boot whose clock cannot be asked any more"
        assert end_ns - LOSS_NS <= appended_ns
    else:
        assert end_ns <= now_ns, "nobody recorded after the recovery had begun"
    if death == "kill just now":
        assert end_ns >= min(beat_ns, now_ns) - 2 * SECOND_NS
    assert any("left-imu: cut off; whatever it delivered in the session's last" in n for n in report.notes), (
        report.notes
    )


def test_streams_are_known_though_all_that_tells_of_them_has_been_delivered(tmp_path: Path) -> None:
    maker = SessionMaker(boot=clock.boot_id(), streams=STREAMS)
    maker.t_ns = clock.now_ns() - 60 * SECOND_NS
    with Spool.open(tmp_path, reserve_bytes=0) as spool:
        spool.append(maker.open())
        spool.sync()
        assert spool.release([entry.id for entry in spool.pending(9)]) == 1
    (closing,) = recover(tmp_path, Pulse(tmp_path))
    gaps = [r["stream"] for r in decode_records(closing.payload) if r["type"] == "gap"]
    assert gaps == ["head-cam", "left-imu", "right-imu"]
    with Spool.open(tmp_path, reserve_bytes=0) as spool:
        assert spool.release([entry.id for entry in spool.pending(9)]) == 1
        spool.close()
    assert not list(tmp_path.glob("*.seg"))


def test_a_sign_of_life_of_something_else_counts_for_nothing(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    boot = clock.boot_id()
    assert pulse.last_ns(boot, "s") is None
    for text in ("", "x", f"{boot} other 5", f"{BOOT} s 5", f"{boot} s", f"{boot} s five", "\xff\xfe"):
        pulse.path.write_text(text, encoding="latin-1")
        assert pulse.last_ns(boot, "s") is None
    pulse.path.write_text(f"{boot} s 5")
    assert pulse.last_ns(boot, "s") == 5
    assert pulse.last_ns(BOOT, "s") is None
    pulse.path.write_text(f"{boot} s {1 << 62}")
    assert (pulse.last_ns(boot, "s") or 0) <= clock.now_ns(), "nothing lives in the future"


def test_a_place_that_cannot_be_written_costs_only_precision(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path / "missing")
    asyncio.run(asyncio.wait_for(pulse.run(), 30))
    assert BEAT_LATE_NS < LOSS_NS
