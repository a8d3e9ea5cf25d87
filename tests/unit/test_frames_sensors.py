"""A stream at a camera's frames equals its definition, whatever is missing from either."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgecap.dataset.frames_sensors import GAP_PERIODS, SensorTrack, Windows
from edgecap.model import ChannelInfo, Gap, StreamInfo
from tests.frames_session import Part, fit_at, store_session
from tests.reference.frames import Beside, beside, stretches
from tests.system.synthetic import RAW0

MS = 1_000_000
KINDS = ("loss", "pause", "reset", "unlocked", "stated", "told", "back", "lone")


def a_stream(dtype: str = "int16", rate_hz: float = 1000.0) -> StreamInfo:
    channels = tuple(ChannelInfo(f"c{k}", "N", 0.5, 10_000.0) for k in range(2))
    return StreamInfo("touch", "force", "hand", rate_hz, dtype, channels)


def random_stream(rng: np.random.Generator, info: StreamInfo, wanted: int):
    """Parts with every kind of flaw between and within them, and gaps that the session's records state."""
    parts, stated, tick, index, epoch = [], [], 0, 0, 0
    period = round(1e9 / info.rate_hz_nominal)
    while sum(len(p.ticks) for p in parts) < wanted:
        n = int(rng.integers(1, 30))
        steps = rng.integers(period * 3 // 4, period * 5 // 4, n)
        if rng.random() < 0.1:
            steps[rng.integers(n)] *= 5
        ticks = tick + np.cumsum(steps)
        kind = KINDS[rng.integers(len(KINDS))] if rng.random() < 0.5 else ""
        before, gaps, offset = tick, [], 0
        if kind == "loss":
            lost = int(rng.integers(1, 12))
            index, ticks = index + lost, ticks + lost * period
            gaps = [Gap(info.name, RAW0 + before, RAW0 + int(ticks[0]), lost, "line")]
        elif kind == "pause":
            ticks = ticks + 10 * period
        elif kind == "reset":
            epoch, index = epoch + 1, int(rng.integers(1000))
        elif kind == "stated":
            gaps = [Gap(info.name, RAW0 + before, RAW0 + int(ticks[0]), 0, "silent")]
        elif kind == "told":
            stated.append(Gap(info.name, RAW0 + int(ticks[0]), RAW0 + int(ticks[-1]), -1, "queue"))
        elif kind == "back":
            offset = -int(rng.integers(1, 20 * period))
        if info.dtype == "float32":
            values = rng.normal(0, 50, (n, 2)).astype(np.float32)
            values[rng.random((n, 2)) < 0.03] = np.nan
        else:
            values = rng.integers(-20_000, 20_000, (n, 2)).astype(np.int16)
        fit = fit_at(offset, epoch=epoch, locked=kind != "unlocked", u_ns=int(rng.integers(1, 10**6)))
        parts.append(Part(index, ticks, values, fit, gaps))
        index, tick = index + n, int(ticks[-1])
    return parts, stated


def random_exposures(rng: np.random.Generator, t_ns: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Frames before, on, between and after the samples; exposures unknown, short, long, to the sample."""
    count = 40
    mid = rng.integers(t_ns[0] - 5 * MS, t_ns[-1] + 5 * MS, count)
    exposure = rng.choice([0, 1, 300_000, 2 * MS, 8 * MS, 21 * MS], count)
    on = rng.random(count) < 0.3
    mid[on] = rng.choice(t_ns, int(on.sum()))
    ends = rng.random(count) < 0.2
    exposure[ends] = 2 * abs(mid[ends] - rng.choice(t_ns, int(ends.sum()))) % (30 * MS)
    order = np.argsort(mid, kind="stable")
    return mid[order].astype(np.int64), exposure[order].astype(np.int64)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rate_hz=st.sampled_from([1000.0, 400.0, 20.0]),
    batch=st.integers(1, 41),
    jumps=st.integers(0, 3),
)
@example(seed=6152, rate_hz=1000.0, batch=1, jumps=0)  # a clock that goes back to where a gap was
def test_rows_equal_their_definition(dtype, seed, rate_hz, batch, jumps):
    rng = np.random.default_rng(seed)
    info = a_stream(dtype, rate_hz)
    parts, stated = random_stream(rng, info, 150)
    samples = [s for part in parts for s in part.samples(info)]
    mid, exposure = random_exposures(rng, [s.t_ns for s in samples])
    locked = rng.random(len(mid)) < 0.9
    for _ in range(jumps):  # the camera's clock goes ahead and back
        a, b = rng.integers(len(mid), size=2)
        mid[[a, b]] = mid[[b, a]]
    with tempfile.TemporaryDirectory() as folder:
        session = store_session(Path(folder), [(info, parts)], gaps=stated)
        track = SensorTrack(session, info)
        rows = [
            track.at(windows(mid[k : k + batch], exposure[k : k + batch], locked[k : k + batch]))
            for k in range(0, len(mid), batch)
        ]
    found = {name: np.concatenate([getattr(r, name) for r in rows]) for name in type(rows[0]).__slots__}
    gaps = [(g.t0_ns, g.t1_ns) for g in [*stated, *(g for p in parts for g in p.gaps)]]
    runs = stretches(samples, gaps)
    max_gap_ns = round(GAP_PERIODS * 1e9 / rate_hz)
    for k in range(len(mid)):
        want = beside(runs, max_gap_ns, int(mid[k]), int(exposure[k])) if locked[k] else None
        same_row({name: values[k] for name, values in found.items()}, want)


def windows(mid: np.ndarray, exposure: np.ndarray, locked: np.ndarray | None = None) -> Windows:
    from_ns = mid - exposure // 2
    locked = np.ones(len(mid), np.bool_) if locked is None else locked
    return Windows(from_ns, mid, from_ns + exposure, exposure > 0, locked)


def same_row(row: dict, want: Beside | None) -> None:
    assert row["valid"] == (want is not None)
    if want is None:
        assert (row["n"], row["u_ns"], row["saturated"]) == (0, 0, 0)
        assert np.isnan([row["linear"], row["mean"], row["deviation"]]).all()
        return
    assert (row["n"], row["u_ns"], row["saturated"]) == (want.n, want.u_ns, want.saturated)
    nothing = [np.nan, np.nan]
    np.testing.assert_allclose(row["linear"], want.linear, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(row["mean"], want.mean or nothing, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(row["deviation"], want.std or nothing, rtol=1e-9, atol=1e-5)


def test_a_lag_is_taken_off_only_when_asked(tmp_path):
    info = a_stream()
    ticks = np.arange(100, dtype=np.int64) * MS
    values = np.repeat(np.arange(100, dtype=np.int16)[:, None], 2, 1)
    session = store_session(tmp_path, [(info, [Part(0, ticks, values, fit_at())])])
    at = windows(np.array([RAW0 + 50 * MS]), np.array([4 * MS]))
    plain, moved = SensorTrack(session, info), SensorTrack(session, info, lag_ns=3_500_000)
    assert plain.at(at).linear[0].tolist() == [25.0, 25.0]
    row = moved.at(at)
    assert row.linear[0].tolist() == [26.75, 26.75]
    assert row.mean[0].tolist() == [26.75, 26.75]
    assert row.n.tolist() == [4]


def test_memory_does_not_grow_with_the_session(tmp_path):
    """200 s at 1 kHz are 9.6 MB of numbers alone; a second on either side of a frame is a hundredth."""
    channels = tuple(ChannelInfo(f"c{k}", "N", 0.5) for k in range(6))
    info = StreamInfo("touch", "force", "hand", 1000.0, "int16", channels)
    values = np.random.default_rng(0).integers(-99, 99, (1000, 6)).astype(np.int16)
    parts = [
        Part(k * 1000, (np.arange(1000, dtype=np.int64) + k * 1000) * MS, values, fit_at())
        for k in range(200)
    ]
    session = store_session(tmp_path, [(info, parts)])
    track = SensorTrack(session, info)
    tracemalloc.start()
    try:
        for second in range(200):
            mid = RAW0 + second * 1000 * MS + np.arange(1, 31) * 33 * MS
            assert track.at(windows(mid, np.full(30, 8 * MS))).valid.all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3e6
