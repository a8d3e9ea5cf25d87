"""Every configured device through its real source: is it there, does it deliver what it describes?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from edgecap.axes import triads
from edgecap.checkup.exam import Exam
from edgecap.checkup.finding import Facts, Finding, fail, failed, none, ok
from edgecap.checkup.pictures import PICTURE_FIX, judge_picture, unseen
from edgecap.clock import now_ns
from edgecap.daemon.devices import twins
from edgecap.daemon.recording import Live, OpenSource, in_one, start_sources, stop_sources
from edgecap.errors import SourceError
from edgecap.model import DeviceEvent, FramePacket, Gap, PictureReport, SampleBlock, Verdict
from edgecap.quality import RATE_TOLERANCE, U_LIMIT_NS, StreamQuality
from edgecap.source.protocol import Source

_FIX = {
    "silent": "check the sensor's wiring and power, and the device's log",
    "waiting": "record for longer (--seconds 5); if nothing comes, check the sensor's wiring",
    "rate": "check the sensor's settings; a slow bus or a busy machine loses samples",
    "gaps": "check cable and bus load; counts per cause are in the device's statistics",
    "saturated": "check the sensor: it reads full scale",
    "clock": "check the link: exchanges with the device take too long or do not come back",
}


@dataclass(slots=True)
class _Sample:
    """What one device delivered."""

    source: OpenSource
    quality: dict[str, StreamQuality]
    n_bytes: int = 0
    taken: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    async def take(self) -> None:
        """Take everything that comes."""
        async for item in self.source.feed:
            if isinstance(item, DeviceEvent):
                if item.kind == "stopped":
                    self.source.live.stopped.set()
                elif self.source.note(item, now_ns()) and item.kind in ("disconnected", "fault"):
                    self.faults.append(item.text or item.kind)
                continue
            self.source.saw(item)
            quality = self.quality.get(item.stream)
            if quality is None:
                continue
            if isinstance(item, Gap):
                quality.see_gap(item)
                continue
            if isinstance(item, PictureReport):
                quality.see_picture(item)
                continue
            if isinstance(item, SampleBlock | FramePacket):
                quality.see(item)
                n, n_bytes = (
                    (1, len(item.data))
                    if isinstance(item, FramePacket)
                    else (len(item.ticks), item.values.nbytes)
                )
                self.taken[item.stream] = self.taken.get(item.stream, 0) + n
                self.n_bytes += n_bytes


async def check_devices(exam: Exam) -> list[Finding]:
    """Open all devices and record from them, without a session; or take the daemon's word."""
    if not exam.sources:
        return [fail("devices", "none is configured", "add a [[serial]], [[iio]] or [[camera]] table")]
    if exam.daemon is not None:
        return _told(exam)
    findings: list[Finding] = []
    async with AsyncExitStack() as stack:
        exam.tell(f"opening {len(exam.sources)} devices")
        found = await asyncio.gather(*(_open(stack, s) for s in exam.sources))
        for source, got in zip(exam.sources, found, strict=True):
            if isinstance(got, SourceError):
                findings.append(failed(f"device {source.name}", got))
        opened = [s for s in found if isinstance(s, OpenSource)]
        if opened:
            findings += await _record(exam, opened)
    return findings


async def _open(stack: AsyncExitStack, source: Source) -> OpenSource | SourceError:
    try:
        feed = await stack.enter_async_context(source.open())
    except SourceError as error:
        return error
    return OpenSource(source.name, feed, Live())


async def _record(exam: Exam, opened: Sequence[OpenSource]) -> list[Finding]:
    exam.tell(f"recording for {exam.seconds:g} s, without a session")
    t0_ns = now_ns()
    samples = [_Sample(s, {i.name: StreamQuality(i, t0_ns) for i in s.feed.info}) for s in opened]
    takers = [asyncio.create_task(s.take(), name=f"examine {s.source.name}") for s in samples]
    try:
        problems = await start_sources(opened)
        t1_ns = now_ns()
        before = sum(s.n_bytes for s in samples)
        await asyncio.sleep(exam.seconds)
        t2_ns = now_ns()
        exam.bytes_s = (sum(s.n_bytes for s in samples) - before) / (t2_ns - t1_ns) * 1e9
        verdicts = {s.source.name: [q.verdict(t2_ns) for q in s.quality.values()] for s in samples}
        pictures = {q.info.name: q.picture_state(t2_ns) for s in samples for q in s.quality.values()}
        # Before they stop: a device that is asked for its total has other things to do than pings.
        clocks = [_clock(s.source.name, s.source.statistics()) for s in samples]
        sent = await stop_sources(opened)
    finally:
        for task in takers:
            task.cancel()
        await asyncio.gather(*takers, return_exceptions=True)
    doubles = twins(opened)
    findings = []
    for sample in samples:
        name = sample.source.name
        refused = next((e for e in problems if name in e.what), None)
        if refused is not None:
            findings.append(failed(f"device {name}", refused))
            continue
        findings.append(_device(sample, doubles.get(name, "")))
        for verdict in verdicts[name]:
            findings.append(_stream(verdict, sample, sent, exam.seconds))
            if sample.quality[verdict.stream].info.kind == "video":
                state = pictures[verdict.stream]
                seen = judge_picture(verdict, state) if state is not None else None
                findings.append(seen or unseen(verdict.stream, exam.seconds))
    return findings + [c for c in clocks if c is not None]


def _device(sample: _Sample, double: str) -> Finding:
    infos = sample.source.feed.info
    check = f"device {sample.source.name}"
    if double:
        what, _, fix = double.partition("; ")
        return fail(check, what, fix)
    if sample.faults:
        what, _, fix = in_one(sample.faults, "check its cable and power").partition("; ")
        return fail(check, what, fix)
    who = ", ".join(dict.fromkeys(t for i in infos for t in (i.serial_number, i.firmware) if t))
    streams = f"{len(infos)} stream{'s' if len(infos) != 1 else ''}"
    serial = infos[0].serial_number if infos else ""
    return ok(check, f"{who}: {streams}" if who else streams, serial_number=serial)


def _stream(verdict: Verdict, sample: _Sample, sent: dict[str, int], seconds: float) -> Finding:
    info = sample.quality[verdict.stream].info
    check = f"stream {verdict.stream}"
    nominal = info.rate_hz_nominal
    facts: Facts = {
        "rate_hz": verdict.rate_hz,
        "rate_hz_nominal": nominal,
        "n": verdict.n,
        "lost": verdict.lost,
        "u_us": verdict.u_ns / 1000,
        "sent": sent.get(verdict.stream),
    }
    text = f"{verdict.rate_hz:g} Hz of {nominal:g} Hz, ± {verdict.u_ns / 1000:.0f} µs, {verdict.lost} lost"
    if nominal * seconds < 2 and verdict.state in ("silent", "waiting"):
        return none(check, f"at {nominal:g} Hz too slow to be judged within {seconds:g} s", **facts)
    if verdict.state != "ok" and verdict.state not in PICTURE_FIX:
        fix = _FIX[verdict.state]
        if verdict.state == "clock" and info.clock == "mcu":
            fix = f"see clock {info.device}"
        if any(text.startswith(f"{verdict.stream} is silent: ") for text in sample.faults):
            fix = f"see device {info.device}"
        return fail(check, f"{verdict.state}: {text}", fix, **facts)
    missing = sent.get(verdict.stream, 0) - sample.taken.get(verdict.stream, 0) - verdict.lost
    if missing > max(1, RATE_TOLERANCE * sent.get(verdict.stream, 0)):
        return fail(check, f"{missing} samples are missing without a trace: {text}", _FIX["gaps"], **facts)
    if info.kind in ("imu", "magnetic") and not triads(info):
        names = ", ".join(c.name for c in info.channels)
        text += f"; no axes of a sensor are known by {names} and their units (HELLO in hw/PROTOCOL.md)"
    return ok(check, text, **facts)


def _clock(name: str, statistics: dict[str, Any]) -> Finding | None:
    """The bound of a board's clock; None for a device that has no clock of its own."""
    clock = statistics.get("clock")
    if not isinstance(clock, dict) or "u_ns" not in clock:
        return None
    check = f"clock {name}"
    u_us, skew_ppm, rtt_us = clock["u_ns"] / 1e3, clock["skew_ppm"], clock["rtt_p50_ns"] / 1e3
    facts: Facts = {"u_us": u_us, "skew_ppm": skew_ppm, "rtt_p50_us": rtt_us, "locked": clock["locked"]}
    if not clock["locked"]:
        text, fix = why_unlocked(clock)
        return fail(check, text, fix, **facts)
    text = f"± {u_us:.0f} µs, oscillator {skew_ppm:+.1f} ppm, answers in {rtt_us:.0f} µs"
    if clock["u_ns"] > U_LIMIT_NS:
        _, fix = why_unlocked(clock)
        return fail(check, f"{text}; more than ± {U_LIMIT_NS / 1e6:g} ms", fix, **facts)
    return ok(check, text, **facts)


def why_unlocked(clock: dict[str, Any]) -> tuple[str, str]:
    """Why a board's clock has no narrow bound, as its counters tell it, and the fix."""
    text = f"not locked after {clock['pongs']} answers to {clock['pings']} pings"
    fix = "check the link; of a new firmware, its PONG (hw/PROTOCOL.md § 2)"
    strange = clock["rejected_unknown"] + clock["rejected_stale"] + clock["rejected_duplicate"]
    if strange > clock["pings"] / 4:
        return f"{strange} answers bear an id that no ping had or awaits: {text}", fix
    if not clock["pongs"] + clock["rejected_impossible"]:
        return f"none of {clock['pings']} pings was answered", fix
    if contradictions := clock["rejected_impossible"] + clock["suspect_frames"]:
        text = f"its counter contradicts itself, {contradictions} times: {text}"
        return text, (
            "all times in its frames (t0_us, t2_us, t3_us, prev_tx_done_us) must be of one counter of µs, "
            "read when hw/PROTOCOL.md says"
        )
    return text, _FIX["clock"]


def _told(exam: Exam) -> list[Finding]:
    """What the daemon that holds the devices says of them."""
    told = exam.told
    if told is None:
        return [none(f"device {s.name}", f"the daemon is running and holds it; {exam.untold}")
                for s in exam.sources]  # fmt: skip
    findings: list[Finding] = []
    for source in exam.sources:
        check, problem = f"device {source.name}", told.problems.get(source.name)
        if problem:
            what, _, fix = problem.partition("; ")
            findings.append(fail(check, what, fix or "check its cable and power"))
        else:
            findings.append(ok(check, "the daemon is running and holds it; it has no complaint"))
        clock = _clock(source.name, told.devices.get(source.name, {}))
        if clock is not None and not problem:
            findings.append(clock)
    for verdict in told.streams:
        text = f"{verdict.rate_hz:g} Hz, ± {verdict.u_ns / 1000:.0f} µs, {verdict.lost} lost in this session"
        facts: Facts = {"rate_hz": verdict.rate_hz, "u_us": verdict.u_ns / 1000, "lost": verdict.lost}
        check = f"stream {verdict.stream}"
        if verdict.state in ("ok", "waiting", *PICTURE_FIX):
            findings.append(ok(check, text, **facts))
        else:
            fix = _FIX.get(verdict.state, "see `edgecap fleet`")
            findings.append(fail(check, f"{verdict.state}: {text}", fix, **facts))
        picture = judge_picture(verdict, verdict.state)
        if picture is not None:
            findings.append(picture)
    if not told.streams:
        findings.append(none("streams", "rates are known only while the daemon records"))
    return findings
