"""How fast ours is, and resampling beside numpy, scipy, pandas and polars; every result is checked first."""

from __future__ import annotations

import importlib.util
import time

import numpy as np

from edgecap.kernels import align_state as at
from edgecap.kernels.resample import box_over, linear_at
from edgecap.model import ClockFit
from edgecap.sim.clock import simulate
from edgecap.sim.links import SCENARIOS
from edgecap.timeline.device_clock import DeviceClock
from edgecap.timeline.fit import to_rig_ns
from edgecap.timeline.replay import rows_from_arrays
from tests.reference import resample as reference

GAP_NS = 5_000_000
CHANNELS = 6


def best_of(repeats, f):
    """Least CPU seconds of one thread."""
    least = float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        f()
        least = min(least, time.thread_time() - start)
    return least


def _verdict(value, limit):
    return "met" if value <= limit else "MISSED"


def kernel_speed():
    print("\nspeed, CPU time, best of 20")
    for name, samples in (("usb-1ms", 1), ("usb-1ms-batch", 10)):
        rows = rows_from_arrays(simulate(SCENARIOS[name], seed=0, seconds=120).arrays())
        out = np.zeros((len(rows), at.OUT_WIDTH), np.int64)
        reads = DeviceClock(seed=0).feed_log(rows, out)
        took = best_of(20, lambda r=rows, o=out: DeviceClock(seed=0).feed_log(r, o))
        n = int((rows[:, at.KIND] == 0).sum()) * samples
        each = [rows[i : i + 1] for i in range(20_000)]

        def read_by_read(each=each):
            clock = DeviceClock(seed=0)
            for row in each:
                clock.feed_rows(row)

        called = best_of(20, read_by_read) / len(each)
        print(
            f"  {samples} sample{'s' * (samples > 1)} a frame: {took / reads * 1e9:.0f} ns per read, "
            f"{took / n * 1e9:.0f} ns per sample ({_verdict(took / n, 50e-9)}: ≤ 50); "
            f"read by read from Python {called * 1e9:.0f} ns ({_verdict(called, 2e-6)}: ≤ 2000)"
        )
    fit = ClockFit(
        ref_tick=10**9, ref_ns=10**15, drift_ppm=42.0, tick_ns=1000,
        u_ns=1, sigma_ns=1.0, epoch=0, locked=True,
    )  # fmt: skip
    ticks = np.arange(10**9, 10**9 + 10**6 * 1000, 1000, dtype=np.int64)
    assert to_rig_ns(fit, ticks[:50]).tolist() == reference.ticks_to_rig(
        ticks[:50].tolist(), 10**9, 10**15, 1000, 42.0 * 1e-6 * 1000
    )
    took = best_of(20, lambda: to_rig_ns(fit, ticks)) / len(ticks)
    print(f"  ticks to rig time: {took * 1e9:.2f} ns per sample")


def _cumulated_box(t_ns, values, start, end):
    """Mean and deviation over windows by running sums, as one would write it in numpy."""
    zero = np.zeros((1, values.shape[1]))
    sums = np.concatenate([zero, np.cumsum(values, axis=0, dtype=float)])
    squares = np.concatenate([zero, np.cumsum(values.astype(float) ** 2, axis=0)])
    a, b = t_ns.searchsorted(start), t_ns.searchsorted(end, "right")
    n = (b - a)[:, None]
    mean = (sums[b] - sums[a]) / n
    return mean, np.sqrt(np.maximum((squares[b] - squares[a]) / n - mean**2, 0.0))


def resampling():
    print(f"\nresampling {CHANNELS} channels of 1 kHz to 30 fps, ns per frame, CPU time, best of 10")
    rng = np.random.default_rng(0)
    n, m = 60_000, 1_790
    t_ns = np.arange(n, dtype=np.int64) * 1_000_000 + rng.integers(0, 200_000, n)
    values = np.cumsum(rng.integers(-50, 50, (n, CHANNELS)), axis=0).astype(np.int16)
    frames = (np.arange(m) * 33_366_667 + 50_000_000).astype(np.int64)
    out, mean, deviation = (np.zeros((m, CHANNELS)) for _ in range(3))
    valid = np.zeros(m, np.bool_)
    after = t_ns.searchsorted(frames)
    nearest = values[np.where(t_ns[after] - frames < frames - t_ns[after - 1], after, after - 1)]

    def linear():
        linear_at(t_ns, values, frames, GAP_NS, out, valid)
        return out

    def box(window_ns):
        box_over(t_ns, values, frames, frames + window_ns, GAP_NS, mean, deviation, valid)
        return np.stack([mean, deviation])

    def interp():
        return np.stack([np.interp(frames, t_ns, values[:, c]) for c in range(CHANNELS)], axis=1)

    # name: (call, what it must equal); ours first, against oracles written from the definitions
    few = 20
    slow = reference.linear_at(t_ns[:2000].tolist(), values[:2000].tolist(), frames[:few].tolist(), GAP_NS)
    np.testing.assert_allclose(linear()[:few], slow, rtol=1e-9)
    rows = {"edgecap linear": (linear, interp())}
    for ms in (10, 33):
        ends = (frames + ms * 1_000_000).tolist()
        slow = reference.box_over(
            t_ns[:2000].tolist(), values[:2000].tolist(), frames[:few].tolist(), ends[:few], GAP_NS
        )
        np.testing.assert_allclose(box(ms * 1_000_000)[:, :few], np.array(slow).swapaxes(0, 1), atol=1e-6)
        expected = np.stack(_cumulated_box(t_ns, values, frames, frames + ms * 1_000_000))
        rows[f"edgecap box {ms} ms"] = (lambda ms=ms: box(ms * 1_000_000), expected)
    rows["numpy.interp"] = (interp, linear().copy())
    rows["numpy running sums 10 ms"] = (
        lambda: np.stack(_cumulated_box(t_ns, values, frames, frames + 10_000_000)),
        box(10_000_000).copy(),
    )
    if importlib.util.find_spec("scipy"):
        from scipy.interpolate import CubicSpline, interp1d

        rows["scipy interp1d"] = (lambda: interp1d(t_ns, values, axis=0)(frames), linear().copy())
        rows["scipy CubicSpline"] = (lambda: CubicSpline(t_ns, values)(frames), None)
        np.testing.assert_allclose(CubicSpline(t_ns, values)(t_ns[:999]), values[:999], atol=1e-6)
    if importlib.util.find_spec("pandas"):
        import pandas

        left, right = pandas.DataFrame({"t": frames}), pandas.DataFrame(values).assign(t=t_ns)

        def merge():
            return pandas.merge_asof(left, right, on="t", direction="nearest").drop(columns="t").to_numpy()

        rows["pandas merge_asof, nearest"] = (merge, nearest)
    if importlib.util.find_spec("polars"):
        import polars

        one = polars.DataFrame({"t": frames}).set_sorted("t")
        two = polars.DataFrame(values).with_columns(t=polars.Series(t_ns)).set_sorted("t")

        def join():
            return one.join_asof(two, on="t", strategy="nearest").drop("t").to_numpy()

        rows["polars join_asof, nearest"] = (join, nearest)
    for name, (f, expected) in rows.items():
        if expected is not None:
            np.testing.assert_allclose(f(), expected, rtol=1e-9, atol=1e-4)
        print(f"  {name:28s} {best_of(10, f) / m * 1e9:8.0f}")
