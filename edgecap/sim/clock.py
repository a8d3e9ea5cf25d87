"""A seeded link between a device's counter and the host, with everything that goes wrong on one.

`simulate` makes the log that `edgecap clock replay` reads, with the truth beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecap.errors import UsageError
from edgecap.sim.links import BAUD, LinkScenario
from edgecap.source.intake import PING_WIRE_BYTES, PONG_WIRE_BYTES

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Rng = np.random.Generator

_GRID_S = 0.01
_DEVICE_START_S = 0.35
"""Time from a reset to the first frame."""
_START_RAW_NS = 4_000_000_000_000
_SAMPLE_HZ = 1000.0
_BAUD_OFF = 0.02
"""Each end's true rate is within ± this of the nominal one."""
_MAX_TAIL_US = 30e3


@dataclass(frozen=True, slots=True)
class LinkLog:
    """A recorded exchange in the arrays of `edgecap clock replay`, one entry per received frame."""

    kind: NDArray[np.uint8]
    arrival_ns: I64
    seq: NDArray[np.uint32]
    t_us: NDArray[np.uint32]
    prev_tx_done_us: NDArray[np.uint32]
    has_prev: NDArray[np.uint8]
    ping_sent_ns: I64
    t2_us: NDArray[np.uint32]
    boot: NDArray[np.uint32]
    truth_ns: I64
    """Rig time at which the device's counter showed `t_us`."""

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All arrays by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def save(self, path: Path) -> None:
        """Write all arrays to an npz file.

        Raises:
            UsageError: If the file cannot be written.
        """
        try:
            with path.open("wb") as file:
                np.savez(file, allow_pickle=False, **self.arrays())
        except OSError as error:
            raise UsageError(f"cannot write {path} ({error.strerror})", fix="give another path") from None

    def on_slewed_clock(self, rng: Rng, *, steps: bool = False) -> LinkLog:
        """The same exchange stamped on another host clock: one that NTP slews by 500 ppm for 10 s a minute.

        With `steps`, one that is also set by up to a second every two minutes (CLOCK_REALTIME). Neither
        reaches CLOCK_MONOTONIC_RAW, which is why the rig clock is that.
        """
        knots = np.arange(-1.0, 7200.0, 10.0)
        slews = np.where(rng.random(len(knots)) < 1 / 6, rng.choice([-500e-6, 500e-6], len(knots)), 0.0)
        shift_ns = np.concatenate([[0.0], np.cumsum(slews[:-1] * 10.0)]) * 1e9
        jumps_ns = np.cumsum(rng.uniform(-1e9, 1e9, 60)) if steps else np.zeros(60)

        def slewed(t_ns: I64) -> I64:
            since_s = (t_ns - _START_RAW_NS) * 1e-9
            shift: F64 = np.interp(since_s, knots, shift_ns)
            shift += np.where(
                since_s >= 120.0, jumps_ns[np.clip(since_s // 120.0 - 1, 0, 59).astype(int)], 0.0
            )
            return t_ns + np.round(shift).astype(np.int64)

        fields = self.arrays() | {
            "arrival_ns": slewed(self.arrival_ns),
            "ping_sent_ns": np.where(self.ping_sent_ns > 0, slewed(self.ping_sent_ns), self.ping_sent_ns),
            "truth_ns": slewed(self.truth_ns),
        }
        return LinkLog(**fields)


class _Crystal:
    """True device seconds as a function of rig seconds, on a fine grid, both ways."""

    def __init__(self, rng: Rng, link: LinkScenario, seconds: float) -> None:
        t = np.arange(-1.0, seconds + 2.0, _GRID_S)
        skew_ppm = rng.uniform(-link.max_skew_ppm, link.max_skew_ppm)
        phase = rng.uniform(0.0, 2.0 * np.pi)
        ppm = skew_ppm + link.drift_ppm * np.sin(2.0 * np.pi * t / link.drift_period_s + phase)
        ppm += link.warm_up_ppm * np.exp(-np.maximum(t, 0.0) / 120.0)
        ppm += link.wander_ppm * np.sqrt(_GRID_S) * np.cumsum(rng.standard_normal(len(t)))
        self.skew_ppm = float(skew_ppm)
        self._rig = t
        steps = 0.5 * (ppm[1:] + ppm[:-1]) * 1e-6 * _GRID_S
        self._device = t + np.concatenate([[0.0], np.cumsum(steps)])

    def device(self, rig_s: F64) -> F64:
        """Device seconds at rig seconds."""
        device_s: F64 = np.interp(rig_s, self._rig, self._device)
        return device_s

    def rig(self, device_s: F64) -> F64:
        """Rig seconds at device seconds."""
        rig_s: F64 = np.interp(device_s, self._device, self._rig)
        return rig_s


@dataclass(frozen=True, slots=True)
class _Span:
    """One uninterrupted run of one device boot against one host clock; times are 'true' seconds."""

    start_s: float
    end_s: float
    boot: int
    counter0: int
    power_up_s: float
    """True time at which the counter showed `counter0`."""
    hidden_s: float
    """True time that the rig clock has not counted so far (suspends)."""
    first_of_boot: bool


def _spans(rng: Rng, link: LinkScenario, seconds: float) -> list[_Span]:
    events: list[tuple[float, str]] = []
    for every, what in ((link.reset_every_s, "reset"), (link.suspend_every_s, "suspend")):
        if every > 0:
            events += [(float(t), what) for t in np.arange(every, seconds, every) + rng.uniform(0.0, 3.0)]
    spans = []
    start, power_up, hidden = 0.0, -0.01, 0.0
    boot, first = int(rng.integers(1, 1 << 31)), True
    # near the wrap, so that every run of more than a few minutes crosses it
    counter0 = int((1 << 32) - rng.integers(5_000_000, int(max(seconds * 0.6, 6.0) * 1e6)))
    for at, what in [*sorted(events), (seconds, "end")]:
        if at - start > 0.5:
            spans.append(_Span(start, at, boot, counter0, power_up, hidden, first))
            first = False
        if what == "reset":
            boot, counter0, first = int(rng.integers(1, 1 << 31)), 0, True
            power_up = at + 0.2
            start = at + _DEVICE_START_S
        elif what == "suspend":
            start = at + link.suspend_s
            hidden += link.suspend_s
    return spans


@dataclass(frozen=True, slots=True)
class _Wire:
    """The link during one span, in true seconds; of a pair the first is of pings, the other of answers."""

    rng: Rng
    link: LinkScenario
    phase_s: float
    """Of the boundaries of USB frames."""
    floors_us: tuple[float, float]
    """Least latency on the host's side."""
    byte_s: tuple[float, float]
    """How long a byte takes on the wire."""

    def to_device(self, sent_s: F64) -> F64:
        """When pings that were sent then have arrived."""
        out = sent_s + self._latency_s(self.floors_us[0], len(sent_s))
        if self.link.ping_waits:
            out = self._next_boundary(out)
        return np.maximum.accumulate(out + PING_WIRE_BYTES * self.byte_s[0]) if len(out) else out

    def to_host(self, ready_s: F64, wire_bytes: I64) -> tuple[F64, F64]:
        """When the one transmitter is done with frames that were ready then, and when they arrive."""
        serial_s = wire_bytes * self.byte_s[1] + 2e-6
        sum_s = np.cumsum(serial_s)
        tx_done_s = sum_s + np.maximum.accumulate(ready_s - (sum_s - serial_s))
        tx_done_s = self._next_boundary(tx_done_s)
        arrival_s = tx_done_s + self._latency_s(self.floors_us[1], len(ready_s))
        if self.link.stall_every_s:
            arrival_s = _stalled(arrival_s, self.link)
        return tx_done_s, np.maximum.accumulate(arrival_s)

    def _latency_s(self, floor_us: float, n: int) -> F64:
        """Host-side latency of n transfers."""
        us = floor_us + self.rng.exponential(self.link.jitter_us, n)
        late = self.rng.random(n) < self.link.tail
        us[late] += np.minimum(200.0 * self.rng.random(int(late.sum())) ** -0.7, _MAX_TAIL_US)
        return us * 1e-6

    def _next_boundary(self, t_s: F64) -> F64:
        frame_s = self.link.usb_frame_us * 1e-6
        return np.ceil((t_s - self.phase_s) / frame_s) * frame_s + self.phase_s if frame_s else t_s


def _ping_times(rng: Rng, link: LinkScenario, span: _Span, seconds: float) -> F64:
    """When pings are sent; a scenario's silence begins after a third of the `seconds` in all."""
    n = int((span.end_s - span.start_s) * link.ping_hz * 1.3) + 4
    steady = np.cumsum(rng.uniform(0.6, 1.4, n) / link.ping_hz)
    if link.burst:
        burst = np.cumsum(rng.uniform(0.6, 1.4, 16) * 0.011)
        steady = np.concatenate([burst, burst[-1] + steady])
    sent = span.start_s + steady
    sent = sent[sent < span.end_s - 0.05]
    if link.ping_silence_s:
        at = seconds / 3.0
        sent = sent[(sent < at) | (sent > at + link.ping_silence_s)]
    return sent


def _one_span(
    rng: Rng,
    link: LinkScenario,
    crystal: _Crystal,
    span: _Span,
    *,
    seconds: float,
    floors_us: tuple[float, float],
    byte_s: tuple[float, float],
) -> dict[str, NDArray[np.generic]]:
    """All frames of one span in order of arrival."""
    wire = _Wire(rng, link, float(rng.uniform(0.0, 1e-3)), floors_us, byte_s)
    up = float(crystal.device(np.array([span.power_up_s]))[0])

    def counter(device_s: F64) -> I64:
        return span.counter0 + np.floor((device_s - up) * 1e6).astype(np.int64)

    # samples on the device's own clock, handed over at the batch's last one
    first = np.ceil((crystal.device(np.array([span.start_s]))[0] - up) * _SAMPLE_HZ)
    last = np.floor((crystal.device(np.array([span.end_s]))[0] - up) * _SAMPLE_HZ)
    n_frames = int((last - first) // link.batch)
    t0_device = up + (first + np.arange(n_frames) * link.batch) / _SAMPLE_HZ
    ready_s = crystal.rig(t0_device + (link.batch - 1) / _SAMPLE_HZ) + rng.uniform(15e-6, 60e-6, n_frames)
    # pings, and when the device answers them
    sent = _ping_times(rng, link, span, seconds)
    t2 = wire.to_device(sent)
    t3 = t2 + rng.uniform(4e-6, 60e-6, len(t2))
    # both go out through one transmitter, in the order in which they are ready
    ready = np.concatenate([ready_s, t3])
    order = np.argsort(ready, kind="stable")
    kind = np.concatenate([np.zeros(n_frames, np.uint8), np.ones(len(t3), np.uint8)])[order]
    pong = kind == 1
    tx_done, arrival = wire.to_host(ready[order], np.where(pong, PONG_WIRE_BYTES, 32 + 18 * link.batch))
    device_t = np.concatenate([t0_device, crystal.device(t3)])[order]
    ping_index = np.concatenate([np.full(n_frames, -1), np.arange(len(t3))])[order]
    tx_counter = counter(crystal.device(tx_done))
    has_prev = np.full(len(order), link.two_step, np.uint8)
    has_prev[rng.random(len(order)) < link.stamp_missing] = 0
    if span.first_of_boot:
        has_prev[:1] = 0
    attributed = np.maximum(ping_index, 0)
    wrong = pong & (rng.random(len(order)) < link.stale)
    attributed[wrong] = np.maximum(attributed[wrong] - rng.integers(1, 20, int(wrong.sum())), 0)
    sent_ns = np.zeros(len(order), np.int64)
    t2_counter = np.zeros(len(order), np.int64)
    if len(sent):
        sent_ns[pong] = _rig_ns(sent[attributed[pong]], span)
        t2_counter[pong] = counter(crystal.device(t2))[ping_index[pong]]
    t_counter = counter(device_t + 1e-12)
    edge: F64 = up + (t_counter - span.counter0).astype(np.float64) * 1e-6
    return {
        "kind": kind,
        "arrival_ns": _rig_ns(arrival, span),
        "t_us": t_counter,
        "prev_tx_done_us": np.concatenate([tx_counter[:1] - 1000, tx_counter[:-1]]),
        "has_prev": has_prev,
        "ping_sent_ns": sent_ns,
        "t2_us": t2_counter,
        "boot": np.full(len(order), span.boot),
        "truth_ns": _rig_ns(crystal.rig(edge), span),
    }


def _rig_ns(true_s: F64, span: _Span) -> I64:
    return _START_RAW_NS + np.round((true_s - span.hidden_s) * 1e9).astype(np.int64)


def _stalled(arrival: F64, link: LinkScenario) -> F64:
    """Hold back what arrives in the stall at the end of each period."""
    into = arrival % link.stall_every_s
    begins = link.stall_every_s - link.stall_s
    return np.where(into > begins, arrival + (link.stall_every_s - into), arrival)


def _disturb(
    rng: Rng, link: LinkScenario, log: dict[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Lose, repeat and swap received frames."""
    n = len(log["kind"])
    index = np.flatnonzero(rng.random(n) >= link.lost)
    arrival = log["arrival_ns"][index].astype(np.int64)
    again = index[rng.random(len(index)) < link.repeated]
    if len(again):
        later = log["arrival_ns"][again].astype(np.int64) + rng.integers(200_000, 30_000_000, len(again))
        index = np.concatenate([index, again])
        arrival = np.concatenate([arrival, later])
        order = np.argsort(arrival, kind="stable")
        index, arrival = index[order], arrival[order]
    swap = np.flatnonzero(rng.random(len(index) - 1) < link.swapped)
    for k in swap:
        # a frame overtaken by the next one arrives with it
        index[k], index[k + 1] = index[k + 1], index[k]
        arrival[k] = arrival[k + 1]
    moved = {name: values[index] for name, values in log.items()}
    moved["arrival_ns"] = np.maximum.accumulate(arrival)
    return moved


def simulate(link: LinkScenario, *, seed: int, seconds: float) -> LinkLog:
    """Simulate `seconds` of a link; the same arguments give the same log."""
    rng = np.random.default_rng(seed)
    spans = _spans(rng, link, seconds)
    crystal = _Crystal(rng, link, seconds + link.suspend_s)
    floors_us = (float(rng.uniform(*link.floor_us)), float(rng.uniform(*link.floor_us)))
    byte_s = (0.0, 0.0)
    if link.uart:
        host, device = (1.0 + rng.uniform(-_BAUD_OFF, _BAUD_OFF, 2)).tolist()
        byte_s = (10.0 / BAUD / host, 10.0 / BAUD / device)
    parts = []
    seq0 = 0
    for span in spans:
        part = _one_span(rng, link, crystal, span, seconds=seconds, floors_us=floors_us, byte_s=byte_s)
        seq0 = 0 if span.first_of_boot else seq0
        part["seq"] = seq0 + np.arange(len(part["kind"]))
        seq0 += len(part["kind"])
        parts.append(_disturb(rng, link, part))
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return LinkLog(
        kind=whole["kind"].astype(np.uint8),
        arrival_ns=whole["arrival_ns"].astype(np.int64),
        seq=_u32(whole["seq"]),
        t_us=_u32(whole["t_us"]),
        prev_tx_done_us=_u32(whole["prev_tx_done_us"]),
        has_prev=whole["has_prev"].astype(np.uint8),
        ping_sent_ns=whole["ping_sent_ns"].astype(np.int64),
        t2_us=_u32(whole["t2_us"]),
        boot=_u32(whole["boot"]),
        truth_ns=whole["truth_ns"].astype(np.int64),
    )


def _u32(values: NDArray[np.generic]) -> NDArray[np.uint32]:
    return (values.astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)
