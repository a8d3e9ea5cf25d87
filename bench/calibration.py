"""Calibrations on simulated sensors whose truth is known, and on a recording: errors and bounds.

    python bench/calibration.py [--seeds N] [--only force|imu|noise|camera|drift|iio]

`inside` is how often the truth lay within the stated half-width (95 %).
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecap.dataset.allan import allan_curve, noise_figures
from edgecap.dataset.calibrate_camera import calibrate_camera
from edgecap.dataset.calibrate_force import calibrate_channel
from edgecap.dataset.calibrate_imu import fit_poses, fit_six, poses, rest
from edgecap.dataset.charuco import views_of
from edgecap.dataset.imu_records import read_inertial
from edgecap.drift import DriftWatch
from edgecap.model import SampleBlock
from edgecap.sim.recordings import IMU_NILSPOD
from tests.board_pictures import Studio
from tests.unit import test_calibrate_camera as lenses
from tests.unit import test_calibrate_force as fingers
from tests.unit import test_calibrate_imu as imu
from tests.unit import test_drift as drifting


def told(name: str, errors, bounds, unit: str) -> None:
    """One line: bias, deviation and worst of the errors, the median bound, and the share inside."""
    e, u = np.asarray(errors, float).ravel(), np.asarray(bounds, float).ravel()
    inside = f"{np.mean(np.abs(e) <= u):.0%}"
    print(f"{name:<52} bias {e.mean():+9.2g}  sd {e.std():9.2g}  worst {np.abs(e).max():9.2g}  "
          f"u {np.median(u):9.2g} {unit:<6} inside {inside}")  # fmt: skip


def force(seeds: int) -> None:
    for scatter in (0.0, 0.01):
        errors, bounds = [], []
        for seed in range(20 * seeds):
            rng = np.random.default_rng(seed)
            gain, tare = rng.uniform(0.002, 0.02), rng.uniform(-800, 800)
            points = fingers.points_of(
                rng, lambda f, g=gain, t=tare: t + f / g, [0, 2, 5, 10], scatter=scatter
            )
            c = calibrate_channel("thumb", points, "linear", full_counts=0, reference_percent=0)
            errors.append(float(c.newtons(np.array(tare + 10 / gain))) - 10)
            bounds.append(c.u_n)
        told(f"force, linear, 10 N, 4 loads twice, scatter {scatter:.0%}", errors, bounds, "N")
    errors, bounds = [], []
    for seed in range(20 * seeds):
        rng = np.random.default_rng(seed)
        k, exponent = rng.uniform(0.3, 1), rng.uniform(0.6, 1.2)
        counts = functools.partial(fingers.fsr_counts, k=k, exponent=exponent)
        points = fingers.points_of(rng, counts, [0, 0.5, 1, 2, 5, 8], scatter=0.02, repeats=3)
        c = calibrate_channel("thumb", points, "fsr", full_counts=fingers.FULL, reference_percent=0)
        errors.append(float(c.newtons(np.array(counts(8)))) - 8)
        bounds.append(c.u_n)
    told("force, FSR, 8 N, 6 loads thrice, scatter 2 %", errors, bounds, "N")


def inertial(seeds: int) -> None:
    for name, fit, ways in (
        ("six sides", fit_six, lambda _: imu.SIX),
        ("16 poses of any direction", fit_poses, lambda rng: imu.all_ways(rng, 16)),
    ):
        bias, scale, u_bias, u_scale = [], [], [], []
        for seed in range(2 * seeds):
            rng = np.random.default_rng(seed)
            found = fit(poses(imu.signal_of(imu.laid(rng, ways(rng)))), imu.G)
            bias.append(found.bias - imu.BIAS)
            scale.append((found.matrix - imu.MATRIX).ravel())
            u_bias.append(np.full(3, found.u_bias))
            u_scale.append(np.full(9, found.u_matrix))
        told(f"accelerometer bias, {name}", bias, u_bias, "m/s²")
        told(f"accelerometer scale and misalignment, {name}", scale, u_scale, "")
    errors, bounds = [], []
    for seed in range(2 * seeds):
        still = rest(imu.signal_of(imu.laid(np.random.default_rng(seed), [imu.SIX[4]], still_s=60)))
        errors.append(still.mean - imu.GYRO_BIAS)
        bounds.append(still.u)
    told("gyroscope bias, 60 s at rest", errors, bounds, "rad/s")
    signal = read_inertial(IMU_NILSPOD, "nilspod")
    found = fit_six(poses(signal), imu.G)
    before = [np.linalg.norm(p.mean[:3]) - imu.G for p in poses(signal)]
    worst = f"|a| − g by the maker's scale {np.abs(before).max():.3f} m/s² at worst"
    print(f"NilsPod recording: {len(before)} poses, {worst}, calibrated {found.residual:.4f} rms")
    print(f"    bias {found.bias.round(3)} ± {found.u_bias:.3f} m/s²")


def noise(seeds: int) -> None:
    errors, bounds = [], []
    for seed in range(2 * seeds):
        rng = np.random.default_rng(seed)
        values = rng.normal(0, 0.02, 200_000) + np.cumsum(rng.normal(0, 2e-5, 200_000))
        figures = noise_figures(allan_curve(values, 100.0))
        errors.append(figures.white / 0.002 - 1)
        bounds.append(figures.u_white / 0.002)
    told("white noise density, 2000 s at 100 Hz, relative", errors, bounds, "")
    values = np.random.default_rng(0).normal(size=3600 * 1000)
    print(
        f"Allan deviation of an hour at 1 kHz: {1e3 * timed(lambda: allan_curve(values, 1000.0), 3):.0f} ms"
    )


def camera(seeds: int) -> None:
    for lens in (lenses.RADTAN, lenses.WIDE):
        wide = lens is lenses.WIDE
        errors, bounds, residuals = [], [], []
        studio = Studio(lens)
        for seed in range(max(2, seeds // 2)):
            rng = np.random.default_rng(seed)
            places = studio.poses(rng, 20, tilt=0.5 if wide else 0.6, spread=1.2 if wide else 1.0)
            shots = [(str(k), studio.shoot(rng, *pose)) for k, pose in enumerate(places)]
            began = time.perf_counter()
            views, size, _ = views_of(studio.board, shots, is_film=False)
            found = calibrate_camera(views, size, lens.model)
            took = time.perf_counter() - began
            errors.append(found.matrix - lens.four)
            bounds.append(found.u_matrix)
            residuals.append(found.residual_px)
        told(f"camera, {lens.model}, 20 views of 640 × 480: f, centre", errors, bounds, "px")
        print(f"    residual {np.mean(residuals):.3f} px; detection and solution {took:.1f} s")


def drift(_: int) -> None:
    calibration = drifting.calibration(drifting.force_record(), drifting.ACCEL, drifting.GYRO)
    for info in (drifting.FORCE, drifting.IMU):
        watch = DriftWatch(info, calibration)
        values = np.zeros((50, len(info.channels)), np.int16)
        ticks, frames, arrival = (
            np.arange(50, dtype=np.int64),
            np.array([50], np.int32),
            np.zeros(1, np.int64),
        )
        blocks = [SampleBlock("s", 50 * k, ticks, values, frames, arrival, drifting.FIT) for k in range(4000)]

        def feed(watch: DriftWatch = watch, blocks: list[SampleBlock] = blocks) -> None:
            for block in blocks:
                watch.see(block)

        per_block_us = 1e6 * timed(feed, 3) / len(blocks)
        print(f"drift watch, {info.name}: {per_block_us:.1f} µs per block, 50 samples × {len(info.channels)}")


def iio(_: int) -> None:
    from edgecap.clock import read_pair
    from edgecap.source.iio_layout import ScanLayout, parse_element
    from edgecap.source.iio_track import IioTrack
    from tests.iio_tree import scans

    names = [f"c{k}" for k in range(7)]
    elements = [parse_element(n, str(k), "le:s16/16>>0", "imu") for k, n in enumerate(names)]
    layout = ScanLayout([*elements, parse_element("timestamp", "7", "le:s64/64>>0", "imu")], "imu")
    track = IioTrack(drifting.IMU, "monotonic", 0)
    track.begin(0)
    pair = read_pair()
    data = [scans(pair.monotonic_ns - 10**10 + (20 * k + np.arange(20)) * 10**6) for k in range(400)]

    def take() -> None:
        for part in data:
            ticks, values = layout.decode(part)
            track.add(ticks, values, pair.raw_ns, pair)

    take()
    each = timed(take, 3) / len(data)
    print(f"IIO read of 20 samples × 7 channels to a block with its fit: {1e6 * each:.0f} µs")
    pair_us = 1e6 * timed(read_pair, 200)
    print(f"    at 1 kHz in reads of 20 ms: {each * 50:.2%} of a core, and {pair_us:.0f} µs per clock pair")


def timed(work: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of `times` runs."""
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


ALL = {"force": force, "imu": inertial, "noise": noise, "camera": camera, "drift": drift, "iio": iio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="multiplied where a case is cheap (default 10)")
    parser.add_argument("--only", choices=ALL, help="one part alone")
    args = parser.parse_args()
    for name, part in ALL.items():
        if args.only in (None, name):
            part(args.seeds)


if __name__ == "__main__":
    main()
