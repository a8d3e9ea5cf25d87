"""Lag from taps: a force sensor and an accelerometer that feel the same knocks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.sync import F64, LagEstimate, Limits, Signal, Window, combine
from edgecap.errors import CalibrationError
from edgecap.model import I64

MIN_EVENTS = 5
BASELINE_S = 0.03
"""A tap rises from the mean over this long before it, its baseline."""
SETTLED_S = 0.005
"""The baseline ends this long before the threshold is crossed: the edge itself is not in it."""
PEAK_S = 0.02
"""The first peak comes within this long."""
REST_S = 0.15
"""Nothing is a new tap for this long after one."""
NOISE_FACTOR = 10.0
"""A tap rises above this many times the typical deviation, and above `STRONG` of the strongest."""
STRONG = 0.1
LOW, HIGH = 0.2, 0.6
"""The edge is the line through these shares of the first peak; where it starts is the onset."""
FOOT_SHARE = 0.2
"""The foot is extrapolated below 20 %, and pulses differ in shape: this share of the way counts as unsure."""
CLUSTER_S = 0.01
"""Pairs of one lag lie within this much of each other."""
MAX_SD_S = 0.005
"""Wider than this, the events are not the same ones."""
RIVAL_SHARE = 0.8
"""Another lag at which this share as many events pair is as good."""
MIN_SIGMA_NS = 1e3

Bool = NDArray[np.bool_]


def lag_of_taps(a: Signal, b: Signal, limits: Limits | None = None) -> LagEstimate:
    """Lag of a's taps behind b's: onsets are found in both, paired, and their differences combined.

    Raises:
        CalibrationError: too few taps, a rhythm that pairs at several lags, or differences that scatter.
    """
    limits = limits or Limits()
    origin_a, origin_b = _origin(a), _origin(b)
    found = []
    feet_ns = []
    for name, signal, origin_ns in (("first", a, origin_a), ("second", b, origin_b)):
        onsets_s, feet_s = tap_onsets(np.asarray((signal.t_ns - origin_ns) * 1e-9, np.float64), signal.values)
        if len(onsets_s) < MIN_EVENTS:
            raise CalibrationError(
                f"the {name} stream holds {len(onsets_s)} taps, {MIN_EVENTS} are needed",
                fix="knock ten times, sharply, at irregular intervals",
            )
        found.append(onsets_s)
        feet_ns.append(float(np.median(feet_s)) * 1e9)
    offset_ns = origin_a - origin_b
    first, second = pair_events(found[0], found[1], offset_ns * 1e-9, limits)
    at_ns = origin_a + np.rint(found[0][first] * 1e9).astype(np.int64)
    lags_ns = (found[0][first] - found[1][second]) * 1e9
    events = max(len(found[0]), len(found[1]))
    unsure_ns = FOOT_SHARE * math.hypot(*feet_ns)
    return lag_of_events(at_ns, lags_ns, offset_ns, events, "taps", unsure_ns)


def tap_onsets(t_s: F64, values: F64) -> tuple[F64, F64]:
    """When each tap began.

    The distance of the sample from the mean shortly before is a tap if it rises far above the typical one.
    Its onset is where the line through 20 % and 60 % of the first peak, between samples, leaves zero.

    Args:
        t_s: (n,) float64, rising, s.
        values: (n, c) float64; all channels count, each in its own deviation.

    Returns:
        Onsets (k,) float64, s, and how far each lies before the 20 % point, (k,) float64, s.
    """
    period_s = float(np.median(np.diff(t_s)))
    before = max(2, round(BASELINE_S / period_s))
    settled = max(1, round(SETTLED_S / period_s))
    peak = max(2, round(PEAK_S / period_s))
    reach = before + settled
    n = len(t_s)
    if n <= reach + peak:
        return np.zeros(0), np.zeros(0)
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values - values.mean(axis=0), axis=0)])
    # the baseline of sample i is the mean over [i − reach, i − settled)
    base = values.mean(axis=0) + (total[before : n - settled] - total[: n - reach]) / before
    off = values[reach:] - base
    typical = np.median(np.abs(off), axis=0)
    dead = typical <= 1e-12 * np.abs(values).max(axis=0)
    strength = np.sqrt(((off / np.where(dead, 1.0, typical)) ** 2 * ~dead).sum(axis=1))
    if dead.all():
        return np.zeros(0), np.zeros(0)
    threshold = max(NOISE_FACTOR * float(np.median(strength)), STRONG * float(strength.max()))
    onsets: list[float] = []
    feet: list[float] = []
    at = -REST_S
    crossings = np.flatnonzero((strength[1:] >= threshold) & (strength[:-1] < threshold)) + 1
    for k in crossings.tolist():
        i = k + reach
        if t_s[i] - at < REST_S or i + peak >= n:
            continue
        at = float(t_s[i])
        # from here on the baseline stands still
        scale = np.where(dead, np.inf, typical)
        rise = np.sqrt((((values[i - settled : i + peak] - base[k]) / scale) ** 2).sum(axis=1))
        onset = _onset(t_s[i - settled : i + peak], rise, settled)
        if onset is not None:
            onsets.append(onset[0])
            feet.append(onset[1])
    return np.array(onsets), np.array(feet)


def pair_events(
    a_s: F64, b_s: F64, offset_s: float, limits: Limits, allowed: Bool | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which event of a is which of b: the lag at which most of them meet.

    Args:
        a_s, b_s: (n,), (m,) float64, rising times of the events from the streams' origins.
        offset_s: a's origin less b's.
        limits: Of which `max_lag_s` is used.
        allowed: (n, m) bool, pairs that may be one event; all by default.

    Returns:
        Indices into a and b, in step.

    Raises:
        CalibrationError: less than half of the events meet, or they meet as well at another lag.
    """
    lags = a_s[:, None] - b_s[None, :]
    near = np.ones(lags.shape, np.bool_) if allowed is None else allowed.copy()
    if limits.max_lag_s is not None:
        near &= np.abs(lags + offset_s) <= limits.max_lag_s
    candidates = np.sort(lags[near])
    if not len(candidates):
        raise CalibrationError("no event of one stream has one of the other near it", fix="widen --max-lag-s")
    count = np.searchsorted(candidates, candidates + CLUSTER_S, "right") - np.arange(len(candidates))
    best = int(count.argmax())
    common = float(np.median(candidates[best : best + int(count[best])]))
    away = np.abs(candidates + CLUSTER_S / 2 - common) > 2 * CLUSTER_S
    rival = int(np.where(away, count, 0).max())
    if count[best] < max(MIN_EVENTS, 0.5 * min(len(a_s), len(b_s))):
        raise CalibrationError(
            f"only {int(count[best])} of {len(a_s)} and {len(b_s)} events meet at one lag",
            fix="check that both streams saw the same events; widen --max-lag-s or use --any-lag",
        )
    if rival >= RIVAL_SHARE * count[best]:
        raise CalibrationError(
            f"{int(count[best])} events meet at one lag, {rival} at another",
            fix="leave irregular pauses between events, or narrow --max-lag-s",
        )
    off = np.where(near, np.abs(lags - common), np.inf)
    first = np.flatnonzero(off.min(axis=1) <= CLUSTER_S)
    second = off[first].argmin(axis=1)
    mutual = off[:, second].argmin(axis=0) == first
    return first[mutual], second[mutual]


def lag_of_events(
    at_ns: I64, lags_ns: F64, offset_ns: int, events: int, what: str, unsure_ns: float = 0.0
) -> LagEstimate:
    """The median lag of paired events, its half-width from the spread of those that are no outliers.

    Args:
        at_ns: (n,) int64, a's times of the events.
        lags_ns: (n,) float64, lags less `offset_ns`.
        offset_ns: Added to the result.
        events: How many there were to pair.
        what: Names them in a refusal.
        unsure_ns: What all of them may have in common, added to the half-width in squares.
    """
    _, _, sd, keep = combine(lags_ns, np.full(len(lags_ns), MIN_SIGMA_NS))
    used = lags_ns[keep]
    if sd * 1e-9 > MAX_SD_S:
        raise CalibrationError(
            f"the lags of {len(used)} {what} scatter by {sd * 1e-6:.1f} ms, more than {MAX_SD_S * 1e3:.0f}",
            fix="sharper and fewer events; check that nothing else moves the sensors",
        )
    _, u, _, _ = combine(used, np.full(len(used), MIN_SIGMA_NS))
    median = float(np.median(used))
    windows = tuple(
        Window(int(t), offset_ns + round(lag), sd, 1.0, abs(lag - median))
        for t, lag in zip(at_ns[keep].tolist(), used.tolist(), strict=True)
    )
    return LagEstimate(
        lag_ns=offset_ns + round(median),
        # a median's deviation is √(π/2) of a mean's
        u_ns=math.ceil(math.hypot(u * math.sqrt(math.pi / 2), unsure_ns)),
        sd_ns=round(sd),
        n=len(used),
        n_rejected=events - len(used),
        r2=None,
        residual=math.sqrt(float(np.mean((used - median) ** 2))),
        windows=windows,
    )


def _origin(signal: Signal) -> int:
    if len(signal.t_ns) < 2:
        raise CalibrationError(f"a stream holds {len(signal.t_ns)} samples only")
    if not (np.diff(signal.t_ns) > 0).all():
        raise CalibrationError("time stamps do not rise", fix="sort the samples and drop duplicates")
    return int(signal.t_ns[0])


def _onset(t_s: F64, rise: F64, crossing: int) -> tuple[float, float] | None:
    """Where the edge to the first peak leaves zero, and how far before 20 %; None if it has no foot."""
    highest = float(rise[crossing:].max())
    top = crossing
    while top + 1 < len(rise) and (rise[top + 1] > rise[top] or rise[top] < 0.5 * highest):
        top += 1
    times = []
    for share in (LOW, HIGH):
        level = share * rise[top]
        i = top
        while i > 0 and rise[i - 1] >= level:
            i -= 1
        if i == 0:
            return None
        part = (level - rise[i - 1]) / (rise[i] - rise[i - 1])
        times.append(t_s[i - 1] + part * (t_s[i] - t_s[i - 1]))
    foot = (times[1] - times[0]) * LOW / (HIGH - LOW)
    return float(times[0] - foot), float(foot)
