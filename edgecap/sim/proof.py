"""Compares a stored session, sample by sample, with what the devices truly measured and when."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.session import RecordedSession
from edgecap.sim.firmware import read_truth
from edgecap.sim.recordings import Recording

INSIDE_SHARE = 0.999
"""The published bound must hold for at least this share of the samples."""


class StreamProof(msgspec.Struct, frozen=True):
    """What was found for one stream."""

    stream: str
    sent: int
    stored: int
    values_identical: bool
    inside_bound: float
    """Share of samples whose true time lies within the published bound; 1 where no truth is known."""
    error_us_p99: float
    error_us_max: float
    bound_us_max: float

    @property
    def holds(self) -> bool:
        return self.sent == self.stored and self.values_identical and self.inside_bound >= INSIDE_SHARE

    def problem(self) -> str:
        """What does not hold, in words; empty when everything does."""
        if self.sent != self.stored:
            return f"{self.stream}: {self.sent} sent, {self.stored} stored"
        if not self.values_identical:
            return f"{self.stream}: stored values differ from the recording's"
        if self.inside_bound < INSIDE_SHARE:
            return f"{self.stream}: only {self.inside_bound:.2%} of the times lie within their bound"
        return ""


def prove_samples(
    session: RecordedSession, stream: str, *, sent: int, recording: Recording, truth: Path
) -> StreamProof:
    """Check every stored sample of a stream that replayed `recording` in a loop.

    Args:
        session: The stored session.
        stream: One of its sample streams.
        sent: Samples that the device produced since its START.
        recording: What it replayed, from the first sample at index 0.
        truth: The device's truth file.
    """
    data = session.stream(stream)
    expected = np.load(recording.path)
    identical = bool(np.array_equal(data.values, expected[data.index % len(expected)]))
    error_ns = data.t_ns - _true_ns(truth, stream.removeprefix(f"{data.info.device}-"), session, data.index)
    magnitude_us = np.abs(error_ns) / 1000
    return StreamProof(
        stream=stream,
        sent=sent,
        stored=len(data.index),
        values_identical=identical,
        inside_bound=float(np.mean(np.abs(error_ns) <= data.u_ns)) if len(error_ns) else 0.0,
        error_us_p99=round(float(np.percentile(magnitude_us, 99)), 1) if len(error_ns) else 0.0,
        error_us_max=round(float(magnitude_us.max(initial=0)), 1),
        bound_us_max=round(float(data.u_ns.max(initial=0)) / 1000, 1),
    )


def _true_ns(truth: Path, name: str, session: RecordedSession, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """True rig time of each sample in the device's latest run, matched by the sample's number."""
    device = truth.stem.removeprefix("truth-")
    numbers = [i.name.removeprefix(f"{device}-") for i in session.infos.values() if i.device == device]
    rows = read_truth(truth)
    rows = rows[(rows["run"] == rows["run"].max()) & (rows["stream"] == numbers.index(name))]
    found = np.full(
        int(max(index.max(initial=0), rows["index"].max(initial=0))) + 1, np.iinfo(np.int64).min // 2
    )
    found[rows["index"]] = rows["raw_ns"]
    return found[index]


def clip_pts_ns(path: Path) -> NDArray[np.int64]:
    """(n,) presentation times of a clip's frames, in order, rounded to nanoseconds."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        base = stream.time_base
        assert base is not None
        pts = sorted(int(p.pts) for p in container.demux(stream) if p.pts is not None)
    return np.array([round(p * base * 1_000_000_000) for p in pts], np.int64)


def prove_frames(
    session: RecordedSession, stream: str, *, sent: int, pts_ns: NDArray[np.int64]
) -> StreamProof:
    """Check every stored frame of a camera that plays a clip whose frames come at `pts_ns`, in a loop.

    A played clip has no other truth than its own frame times, so the spacing is what can be compared.
    """
    frames = list(session.frames(stream))
    tick = np.array([f.tick for f in frames], np.int64)
    index = np.array([f.index for f in frames], np.int64)
    loops, step = np.divmod(index, len(pts_ns))
    length_ns = int(pts_ns[-1] - pts_ns[0]) + round(float(np.median(np.diff(pts_ns))))
    due = pts_ns[step] - pts_ns[0] + loops * length_ns
    error_ns = (tick - tick[0]) - (due - due[0]) if frames else np.zeros(0, np.int64)
    u_ns = max((f.u_ns for f in frames), default=0)
    whole = bool(np.array_equal(index, np.arange(len(index)) + (index[0] if len(index) else 0)))
    # A loop's seam may round differently by a frame's rounding error.
    inside = np.abs(error_ns) <= np.maximum(u_ns, 1000)
    return StreamProof(
        stream=stream,
        sent=sent,
        stored=len(frames),
        values_identical=whole,
        inside_bound=float(inside.mean()) if frames else 0.0,
        error_us_p99=round(float(np.percentile(np.abs(error_ns), 99)) / 1000, 1) if frames else 0.0,
        error_us_max=round(float(np.abs(error_ns).max(initial=0)) / 1000, 1),
        bound_us_max=round(u_ns / 1000, 1),
    )
