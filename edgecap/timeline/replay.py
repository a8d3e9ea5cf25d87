"""Run a recorded exchange through the causal estimator, exactly as the daemon would have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecap.errors import UsageError
from edgecap.kernels import align_state as at
from edgecap.model import I64
from edgecap.npz import read_npz
from edgecap.timeline.device_clock import DeviceClock

COLUMNS: dict[str, tuple[int, str]] = {
    "kind": (at.KIND, "u1"),
    "arrival_ns": (at.ARRIVAL, "i8"),
    "seq": (at.SEQ, "u4"),
    "t_us": (at.T_US, "u4"),
    "prev_tx_done_us": (at.PREV_TX, "u4"),
    "has_prev": (at.HAS_PREV, "u1"),
    "ping_sent_ns": (at.PING_SENT, "i8"),
    "t2_us": (at.T2_US, "u4"),
    "boot": (at.BOOT, "u4"),
}
"""Array name in the log → (column of a row, dtype)."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What was published for the sample frames of a log, in order."""

    t_ns: I64
    u_ns: I64
    epoch: NDArray[np.int32]
    locked: NDArray[np.uint8]
    arrival_ns: I64
    reads: int
    clock: DeviceClock


def read_log(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a log, (n,) each, as `COLUMNS` has them; never unpickles.

    Raises:
        UsageError: If the file is missing or no npz of plain arrays.
    """
    return read_npz(path, fix="write the log with numpy.savez", names=(*COLUMNS, "truth_ns"))


def rows_from_arrays(arrays: Mapping[str, NDArray[np.generic]], name: str = "the log") -> I64:
    """Check the arrays of a log, (n,) each, and lay them out as (n, ROW_WIDTH) int64 rows.

    Raises:
        UsageError: If an array is missing, of another length, not one-dimensional, or does not fit its type.
    """
    missing = [key for key in COLUMNS if key not in arrays]
    if missing:
        raise UsageError(
            f"{name} has no array {missing[0]!r}",
            fix="it needs one array per name, of equal length: " + ", ".join(COLUMNS),
            missing=missing,
        )
    length = -1
    for key, (_, dtype) in COLUMNS.items():
        array = arrays[key]
        if array.ndim != 1:
            raise UsageError(f"array {key!r} of {name} has {array.ndim} dimensions", fix="it needs one")
        if length not in (-1, len(array)):
            raise UsageError(
                f"array {key!r} of {name} has {len(array)} entries, others {length}",
                fix="all arrays need one entry per received frame",
            )
        length = len(array)
        if array.dtype.kind not in "iub":
            raise UsageError(
                f"array {key!r} of {name} is {array.dtype}, not whole numbers", fix=f"store it as {dtype}"
            )
        limits = np.iinfo(dtype)
        if length and (int(array.min()) < limits.min or int(array.max()) > limits.max):
            raise UsageError(f"array {key!r} of {name} does not fit its type", fix=f"store it as {dtype}")
    rows = np.empty((length, at.ROW_WIDTH), np.int64)
    for key, (column, _) in COLUMNS.items():
        rows[:, column] = arrays[key]
    if length and int(rows[:, at.KIND].max()) > at.KIND_OTHER:
        raise UsageError(
            f"array 'kind' of {name} holds {int(rows[:, at.KIND].max())}", fix="0 samples, 1 pong"
        )
    return rows


def replay(rows: I64, clock: DeviceClock) -> Replay:
    """Feed all rows, (n, ROW_WIDTH), read by read (rows of equal arrival), and keep what was published."""
    out = np.zeros((len(rows), at.OUT_WIDTH), np.int64)
    reads = clock.feed_log(rows, out)
    samples = rows[:, at.KIND] == at.KIND_SAMPLES
    kept = out[samples]
    return Replay(
        t_ns=kept[:, at.OUT_T_NS].copy(),
        u_ns=kept[:, at.OUT_U_NS].copy(),
        epoch=kept[:, at.OUT_EPOCH].astype(np.int32),
        locked=kept[:, at.OUT_LOCKED].astype(np.uint8),
        arrival_ns=rows[samples, at.ARRIVAL],
        reads=reads,
        clock=clock,
    )


def save_replay(result: Replay, path: Path) -> None:
    """Write t_ns, u_ns, epoch and locked, one entry per sample frame.

    Raises:
        UsageError: If the file cannot be written.
    """
    try:
        with path.open("wb") as file:
            np.savez(file, t_ns=result.t_ns, u_ns=result.u_ns, epoch=result.epoch, locked=result.locked)
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror})", fix="give another --out") from None


def summarise(
    rows: I64, result: Replay, truth_ns: NDArray[np.generic] | None = None
) -> dict[str, float | None]:
    """Figures of a replay; bounds are of locked frames, errors (where the truth is known) after 10 s.

    Raises:
        UsageError: If `truth_ns` is not one whole number per frame.
    """
    locked = result.locked == 1
    since_s = (result.arrival_ns - rows[0, at.ARRIVAL]) * 1e-9 if len(rows) else np.zeros(0)
    bounds_us = result.u_ns[locked] * 1e-3
    quality = result.clock.quality()
    summary: dict[str, float | None] = {
        "frames": len(rows),
        "sample_frames": len(result.t_ns),
        "reads": result.reads,
        "seconds": float(rows[-1, at.ARRIVAL] - rows[0, at.ARRIVAL]) * 1e-9 if len(rows) else 0.0,
        "u_p50_us": _quantile(bounds_us, 50),
        "u_p99_us": _quantile(bounds_us, 99),
        "locked_share": float(locked.mean()) if len(locked) else 0.0,
        "lock_s": float(since_s[np.argmax(locked)]) if locked.any() else None,
        "relock_s_max": _longest_lock_s(result),
        "epochs": quality.epoch + 1,
        "resets": quality.resets,
        "restarts": quality.restarts,
        "rejects": quality.rejected_impossible,
        "suspect_frames": quality.suspect_frames,
        "pongs": quality.pongs,
        "two_step": quality.two_step,
        "skew_ppm": quality.skew_ppm,
        "rtt_p50_us": quality.rtt_p50_ns * 1e-3,
        "rtt_p99_us": quality.rtt_p99_ns * 1e-3,
        "delay_p50_us": quality.delay_p50_ns * 1e-3,
        "delay_p99_us": quality.delay_p99_ns * 1e-3,
        "seq_lost": quality.seq_lost,
        "repeated": quality.repeated,
        "reordered": quality.reordered,
    }
    if truth_ns is None:
        return summary
    if truth_ns.shape != (len(rows),) or truth_ns.dtype.kind not in "iu":
        raise UsageError("array 'truth_ns' is not one whole number per frame", fix="store it as i8")
    error_ns = np.abs(result.t_ns - truth_ns[rows[:, at.KIND] == at.KIND_SAMPLES].astype(np.int64))
    settled_us = error_ns[locked & (since_s > 10.0)] * 1e-3
    first_us = error_ns[locked & (since_s <= 1.0)] * 1e-3
    summary |= {
        "error_p50_us": _quantile(settled_us, 50),
        "error_p99_us": _quantile(settled_us, 99),
        "error_first_second_p99_us": _quantile(first_us, 99),
        "inside_bound": float((error_ns <= result.u_ns).mean()) if len(error_ns) else 1.0,
    }
    return summary


def _quantile(values: NDArray[np.floating], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None


def _longest_lock_s(result: Replay) -> float | None:
    """Longest time from an epoch's first sample frame to its first locked one; None if one never locks."""
    longest = 0.0
    for epoch in np.unique(result.epoch):
        part = result.epoch == epoch
        locked = result.locked[part] == 1
        if not locked.any():
            return None
        arrival_ns = result.arrival_ns[part]
        longest = max(longest, float(arrival_ns[np.argmax(locked)] - arrival_ns[0]) * 1e-9)
    return longest
