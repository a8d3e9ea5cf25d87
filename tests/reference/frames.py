"""Slow oracle of a stream beside a frame, from the definitions in docs/FRAMES.md."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise


@dataclass
class Sample:
    t_ns: int
    index: int
    epoch: int
    locked: bool
    u_ns: int
    values: tuple[float, ...]
    full: tuple[bool, ...] = ()


@dataclass
class Beside:
    n: int
    u_ns: int
    saturated: int
    linear: list[float]
    mean: list[float] | None
    std: list[float] | None


def stretches(samples, gaps):
    """Runs of samples with nothing missing between neighbours; `gaps` are (t0_ns, t1_ns)."""
    found, before = [], None
    for sample in samples:
        if not sample.locked:
            before = None
            continue
        whole = (
            before is not None
            and sample.index == before.index + 1
            and sample.epoch == before.epoch
            and sample.t_ns > before.t_ns
            and not any(t0 < sample.t_ns and t1 > before.t_ns for t0, t1 in gaps)
        )
        if not whole:
            found.append([])
        found[-1].append(sample)
        before = sample
    return found


def beside(runs, max_gap_ns, mid_ns, exposure_ns):
    """What a row holds, or None where the stream is not valid; `exposure_ns` is 0 where unknown."""
    from_ns = mid_ns - exposure_ns // 2
    to_ns = from_ns + exposure_ns
    for run in runs:
        low = [k for k, s in enumerate(run) if s.t_ns <= from_ns]
        high = [k for k, s in enumerate(run) if s.t_ns >= to_ns]
        if not low or not high:
            continue
        support = run[low[-1] : high[0] + 1]
        if any(b.t_ns - a.t_ns > max_gap_ns for a, b in pairwise(support)):
            continue
        return _row(support, from_ns, mid_ns, to_ns, exposure_ns)
    return None


def _row(support, from_ns, mid_ns, to_ns, exposure_ns):
    channels = range(len(support[0].values))
    a = [s for s in support if s.t_ns <= mid_ns][-1]
    b = next(s for s in support if s.t_ns >= mid_ns)
    w = (mid_ns - a.t_ns) / (b.t_ns - a.t_ns) if b is not a else 0.0
    linear = [a.values[c] + w * (b.values[c] - a.values[c]) if w else a.values[c] for c in channels]
    inside = [s for s in support if from_ns <= s.t_ns <= to_ns] if exposure_ns else []
    mean = std = None
    if inside:
        mean = [math.fsum(s.values[c] for s in inside) / len(inside) for c in channels]
        std = [
            math.sqrt(math.fsum((s.values[c] - mean[c]) ** 2 for s in inside) / len(inside)) for c in channels
        ]
    return Beside(
        n=len(inside),
        u_ns=max(s.u_ns for s in support),
        saturated=sum(any(s.full[c] for s in support) for c in channels),
        linear=linear,
        mean=mean,
        std=std,
    )
