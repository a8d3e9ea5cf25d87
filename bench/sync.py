"""Lags between streams: edgecap beside what others do, on known motion and on recordings.

    python bench/sync.py [--seeds N]          peers that are installed take part (requirements.txt)

Peers: the plain argmax of the cross-correlation of rotation speeds on a 10 ms grid (numpy), the same with
scipy's correlate and a parabola through the peak, and the twistnsync package (two gyroscopes).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecap.dataset.sync import Intervals, Limits, Signal
from edgecap.dataset.sync_flow import picture_rates
from edgecap.dataset.sync_led import lag_of_led
from edgecap.dataset.sync_rotation import lag_of_gyros, lag_of_rotation
from edgecap.dataset.sync_sources import array_rotation, array_signal, read_arrays
from edgecap.dataset.sync_taps import lag_of_taps
from edgecap.errors import CalibrationError
from edgecap.sim.recordings import SYNC_COMMA2K19, SYNC_TWISTNSYNC
from tests.calibration_events import START_NS, acceleration, blinking, film_of, force, knock_times
from tests.turning_camera import gyroscope, pictures, turning

MS = 1_000_000
GRID_S = 0.01


def middle(intervals: Intervals) -> Signal:
    return Signal((intervals.from_ns + intervals.to_ns) // 2, intervals.values)


def speeds(a: Signal, b: Signal, *, own_starts: bool = False):
    """Rotation speeds on one grid of 10 ms, without their means; `own_starts` for unrelated clocks."""
    origins = (a.t_ns[0], b.t_ns[0]) if own_starts else (min(a.t_ns[0], b.t_ns[0]),) * 2
    lines = []
    for signal, origin in zip((a, b), origins, strict=True):
        t = (signal.t_ns - origin) * 1e-9
        lines.append((t, np.linalg.norm(signal.values - np.median(signal.values, axis=0), axis=1)))
    end = max(t[-1] for t, _ in lines)
    grid = np.arange(0, end, GRID_S)
    sampled = [np.interp(grid, t, v, left=v.mean(), right=v.mean()) for t, v in lines]
    return [s - s.mean() for s in sampled], int(origins[0]) - int(origins[1])


def argmax(a: Signal, b: Signal, **how) -> float:
    (x, y), offset_ns = speeds(a, b, **how)
    surface = np.correlate(x, y, "full")
    return offset_ns + (int(surface.argmax()) - (len(y) - 1)) * GRID_S * 1e9


def scipy_parabola(a: Signal, b: Signal, **how) -> float:
    from scipy.signal import correlate

    (x, y), offset_ns = speeds(a, b, **how)
    surface = correlate(x, y, "full", "fft")
    k = int(surface.argmax())
    before, here, after = surface[k - 1 : k + 2]
    return (
        offset_ns + (k + 0.5 * (before - after) / (before - 2 * here + after) - (len(y) - 1)) * GRID_S * 1e9
    )


def twistnsync(a: Signal, b: Signal, **_) -> float:
    from twistnsync import TimeSync

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        origin_a, origin_b = int(a.t_ns[0]), int(b.t_ns[0])
        sync = TimeSync(a.values, b.values, (a.t_ns - origin_a) * 1e-9, (b.t_ns - origin_b) * 1e-9)
        sync.resample()
        sync.obtain_delay()
    return origin_a - origin_b - float(sync.time_delay) * 1e9


def peers(*, gyros: bool):
    found = {"argmax 10 ms": argmax}
    if importlib.util.find_spec("scipy"):
        found["scipy + parabola"] = scipy_parabola
    if gyros and importlib.util.find_spec("twistnsync"):
        found["twistnsync"] = twistnsync
    return found


class Table:
    """Errors per method, over seeds."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.errors: dict[str, list[float]] = {}
        self.halves: list[float] = []
        self.seconds: dict[str, float] = {}

    def add(self, name: str, truth_ns: float, measure, u_too: bool = False) -> None:
        start = time.perf_counter()
        try:
            found = measure()
        except (CalibrationError, ValueError, IndexError, FloatingPointError) as error:
            print(f"  {self.title}: {name}: {error}")
            return
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        lag = found.lag_ns if u_too else found
        self.errors.setdefault(name, []).append(float(lag - truth_ns))
        if u_too:
            self.halves.append(found.u_ns)

    def show(self) -> None:
        print(f"\n{self.title}")
        heads = ("bias µs", "sd µs", "max µs")
        print(f"  {'method':18} {'n':>3} " + "".join(f"{h:>10}" for h in heads) + "    u µs  inside      ms")
        for name, errors in self.errors.items():
            us = np.array(errors) * 1e-3
            half, inside = "", ""
            if name == "edgecap":
                halves = np.array(self.halves) * 1e-3
                half, inside = f"{np.median(halves):.0f}", f"{(np.abs(us) <= halves).mean() * 100:.0f} %"
            spread = us.std(ddof=1) if len(us) > 1 else 0.0
            ms = self.seconds[name] / len(us) * 1e3
            numbers = "".join(f"{x:10.1f}" for x in (us.mean(), spread, np.abs(us).max()))
            print(f"  {name:18} {len(us):3} {numbers} {half:>7} {inside:>7} {ms:7.1f}")


def cameras(seeds: int, rms_rad_s: float, seconds: float) -> Table:
    table = Table(f"camera (30 fps pictures) and gyroscope (200 Hz), {seconds:.0f} s at {rms_rad_s} rad/s")
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        body = turning(rng, seconds, rms_rad_s=rms_rad_s)
        late_ns = int(rng.integers(-100 * MS, 100 * MS))
        flow = picture_rates(pictures(rng, body, seconds, late_ns=late_ns, start_ns=START_NS))
        gyro = gyroscope(rng, body, start_ns=START_NS)
        instants = middle(flow)
        table.add("edgecap", late_ns, lambda a=flow, b=gyro: lag_of_rotation(a, b), u_too=True)
        for name, peer in peers(gyros=False).items():
            table.add(name, late_ns, lambda a=instants, b=gyro, p=peer: p(a, b))
    return table


def gyros(seeds: int, seconds: float) -> Table:
    table = Table(f"gyroscopes of 100 and 500 Hz, noise 0.05 rad/s, {seconds:.0f} s at 0.4 rad/s")
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        body = turning(rng, seconds)
        late_ns = int(rng.integers(-300 * MS, 300 * MS))
        a = gyroscope(rng, body, rate_hz=100, noise_rad_s=0.05, start_ns=START_NS + late_ns)
        b = gyroscope(rng, body, rate_hz=500, noise_rad_s=0.05, start_ns=START_NS)
        table.add("edgecap", late_ns, lambda a=a, b=b: lag_of_gyros(a, b), u_too=True)
        for name, peer in peers(gyros=True).items():
            table.add(name, late_ns, lambda a=a, b=b, p=peer: p(a, b))
    return table


def events(seeds: int) -> list[Table]:
    taps, led = Table("12 taps, force 1 kHz and accelerometer 800 Hz"), Table("LED, 480 rows of 30 µs, 25 s")
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        knocks = knock_times(rng, 12)
        late_ns = int(rng.integers(-60 * MS, 60 * MS))
        a, b = force(rng, knocks, late_ns=late_ns), acceleration(rng, knocks)
        taps.add("edgecap", late_ns, lambda a=a, b=b: lag_of_taps(a, b), u_too=True)
        blinks = blinking(rng, 25)
        film = film_of(rng, blinks, exposure_ns=2 * MS, late_ns=late_ns)
        led.add("edgecap", late_ns, lambda f=film, b=blinks: lag_of_led(f, b), u_too=True)
    return [taps, led]


def recordings() -> None:
    arrays = read_arrays(SYNC_COMMA2K19)
    camera, phone = array_rotation(arrays), array_signal(arrays, "b")
    found = lag_of_rotation(camera, phone)
    print("\ncomma2k19: camera orientations (20 Hz) and a phone's gyroscope (104 Hz), windows of 10 s")
    lag, half, sd = (ns / MS for ns in (found.lag_ns, found.u_ns, found.sd_ns))
    print(f"  edgecap            {lag:.2f} ± {half:.2f} ms, sd {sd:.2f} ms")
    for name, peer in peers(gyros=False).items():
        lags = []
        for w in found.windows:
            half = 5_000_000_000
            near = np.abs(camera.from_ns - w.t_ns) < half
            part = Intervals(camera.from_ns[near], camera.to_ns[near], camera.values[near])
            near = np.abs(phone.t_ns - w.t_ns) < half
            lags.append(peer(middle(part), Signal(phone.t_ns[near], phone.values[near])) / MS)
        print(f"  {name:18} mean {np.mean(lags):.2f} ms, sd {np.std(lags, ddof=1):.2f} ms")
    arrays = read_arrays(SYNC_TWISTNSYNC)
    a, b = array_rotation(arrays), array_signal(arrays, "b")
    found = lag_of_gyros(a, b, Limits(max_lag_s=None))
    print("\ntwist-n-sync: two gyroscopes (500 Hz), unrelated clocks; lags less edgecap's")
    parts = ", ".join(f"{(w.lag_ns - found.lag_ns) / 1e3:+.0f}" for w in found.windows)
    print(f"  edgecap            {found.lag_ns} ± {found.u_ns / 1e3:.0f} µs; windows {parts} µs")
    for name, peer in peers(gyros=True).items():
        try:
            lag = peer(a, b, own_starts=True)
        except (ValueError, IndexError) as error:
            print(f"  {name:18} {error}")
            continue
        print(f"  {name:18} {(lag - found.lag_ns) / 1e3:+.0f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    recordings()
    for table in (
        gyros(seeds, 30.0),
        *events(seeds * 5),
        cameras(max(2, seeds // 2), 0.5, 30.0),
        cameras(max(2, seeds // 2), 0.1, 30.0),
    ):
        table.show()


if __name__ == "__main__":
    main()
