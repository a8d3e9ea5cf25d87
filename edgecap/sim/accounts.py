"""After the faults: where is every sample that the devices truly produced? Truth files against the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.daemon.latecomers import START_AGAIN_S
from edgecap.dataset.recorded import StreamData
from edgecap.dataset.session import RecordedSession, load_session
from edgecap.errors import EdgecapError
from edgecap.ingest.store import Store
from edgecap.model import I64, Gap
from edgecap.sim.firmware import read_truth
from edgecap.sim.recordings import Recording
from edgecap.source.conversation import ACK_LIMIT_S, ACK_TRIES

BOUND_NS = 1_600_000_000
"""A kill may cost half a second until the sync, one open chunk of a second, and a moment to act."""
STATED_NS = 2_600_000_000
"""The gap that states this may be so long: the moment of the kill is known to a second."""
CRASH = "crash"
GAP_SLACK_NS = 5_000_000
"""A gap's ends are known as well as the samples beside it; the clock may not be locked yet."""
REPEATED_NS = int((2 * ACK_TRIES * ACK_LIMIT_S + START_AGAIN_S) * 1e9)
"""A repeated START comes at most this long after the first, even where that was given up in between."""
MOST_VIOLATIONS = 40


@dataclass(frozen=True, slots=True)
class Kill:
    """A daemon's death: it was alive before `before_ns`, and gone after `after_ns` (rig time)."""

    before_ns: int
    after_ns: int


@dataclass(frozen=True, slots=True)
class DeviceTruth:
    """What one board did.

    Attributes:
        name: Of the device, as the rig is configured.
        truth: Its truth file, complete.
        streams: Its streams in the order of their numbers; each with what it replays, if it does.
    """

    name: str
    truth: Path
    streams: Mapping[str, Recording | None]


LONGEST = ("worst_loss_ms", "longest_cut_ms", "longest_gap_ms")


class Account(msgspec.Struct):
    """Sums over a rig; samples."""

    sessions: int = 0
    complete: int = 0
    interrupted: int = 0
    discarded: int = 0
    runs: int = 0
    """STARTs that the devices obeyed."""
    produced: int = 0
    """While somebody was recording: from START to its STOP, or to the kill."""
    stored: int = 0
    gapped: int = 0
    cut_off: int = 0
    """Cost by a kill: inside the gap that its session states for it."""
    worst_loss_ms: float = 0.0
    """Age, at its kill, of the oldest sample that a kill cost."""
    longest_cut_ms: float = 0.0
    """The longest such gap behind a stored sample."""
    compared: int = 0
    """Stored samples compared with the recording that the device replayed."""
    inside: int = 0
    """Stored samples whose true time lies within the published bound."""
    longest_gap_ms: float = 0.0
    violations: list[str] = []

    def join(self, other: Account) -> None:
        """Add another rig's."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            joined = max(mine, theirs) if name in LONGEST else mine + theirs
            setattr(self, name, joined)


@dataclass(slots=True)
class _Span:
    """A session in time; `end_ns` is when it can no longer have produced anything."""

    session: RecordedSession
    open_ns: int
    end_ns: int
    kill: Kill | None
    parts: dict[str, StreamData] = field(default_factory=dict)

    def stream(self, name: str) -> StreamData | None:
        if name not in self.session.infos:
            return None
        if name not in self.parts:
            self.parts[name] = self.session.stream(name)
        return self.parts[name]


class RigAudit:
    """Accounts for every sample of one rig.

    Args:
        store: Where everything must have arrived.
        site, rig: Whose.
        devices: Its boards.
        kills: Every kill of its daemon, in order.
        bound_ns: What a kill may cost.
    """

    def __init__(
        self,
        store: Store,
        site: str,
        rig: str,
        devices: Sequence[DeviceTruth],
        kills: Sequence[Kill],
        bound_ns: int = BOUND_NS,
    ) -> None:
        self.account = Account()
        self._store, self._site, self._rig = store, site, rig
        self._devices, self._kills, self._bound_ns = devices, list(kills), bound_ns
        self._spans: list[_Span] = []

    def run(self) -> Account:
        """Read the store, then each device's truth."""
        self._spans = sorted(self._read_sessions(), key=lambda s: s.open_ns)
        for device in self._devices:
            self._audit_device(device)
        share = self.account.inside / max(1, self.account.stored)
        if self.account.stored and share < 0.999:
            self._violation(f"only {share:.4%} of the times lie within their published bound")
        return self.account

    def _violation(self, text: str) -> None:
        if len(self.account.violations) < MOST_VIOLATIONS:
            self.account.violations.append(f"{self._rig}: {text}")

    # ── sessions ────────────────────────────────────────────────────────────────────────────────────

    def _read_sessions(self) -> Iterator[_Span]:
        account = self.account
        for key in self._store.sessions():
            if (key.site, key.rig) != (self._site, self._rig):
                continue
            try:
                session = load_session(self._store, key)
            except EdgecapError as error:
                self._violation(f"{key.session} cannot be read: {error}")
                continue
            account.sessions += 1
            if not session.report.complete:
                self._violation(f"{key.session} is not whole: {'; '.join(session.report.problems)}")
            if session.outcome == "interrupted":
                account.interrupted += 1
                kill = self._next_kill(session.t0_ns)
                if kill is None:
                    self._violation(f"{key.session} was interrupted, but nobody killed its daemon")
                    continue
                yield _Span(session, session.t0_ns, kill.after_ns, kill)
            else:
                account.complete += session.outcome == "complete"
                account.discarded += session.outcome == "discarded"
                end_ns = int(session.close["t_ns"]) if session.close else session.t1_ns
                yield _Span(session, session.t0_ns, end_ns, None)

    def _next_kill(self, t_ns: int) -> Kill | None:
        return next((k for k in self._kills if k.after_ns >= t_ns), None)

    # ── devices ─────────────────────────────────────────────────────────────────────────────────────

    def _audit_device(self, device: DeviceTruth) -> None:
        rows = read_truth(device.truth)
        runs = [rows[rows["run"] == n] for n in np.unique(rows["run"])]
        by_span: dict[int, list[NDArray[np.void]]] = {}
        for run in runs:
            self.account.runs += 1
            start_ns = int(run["raw_ns"].min())
            number = self._span_at(start_ns)
            if number is None:
                self._audit_orphan(device, run, start_ns)
            else:
                by_span.setdefault(number, []).append(run)
        for number, span in enumerate(self._spans):
            for position, (name, recording) in enumerate(device.streams.items()):
                of_stream = [r[r["stream"] == position] for r in by_span.get(number, [])]
                self._audit_stream(span, f"{device.name}-{name}", recording, of_stream)

    def _span_at(self, t_ns: int) -> int | None:
        """The session during which a device was started."""
        found = None
        for number, span in enumerate(self._spans):
            if span.open_ns <= t_ns <= span.end_ns:
                found = number
        return found

    def _audit_orphan(self, device: DeviceTruth, run: NDArray[np.void], start_ns: int) -> None:
        """A run of which the store knows nothing: no device may be started before the manifest is durable."""
        self._violation(f"{device.name} was started at {start_ns}, no session in the store tells of it")

    def _cut_off(self, what: str, raw_ns: I64, kill: Kill) -> None:
        """Samples inside the gap that states what a kill cost; none may have been too old to be lost."""
        if not len(raw_ns):
            return
        ages = kill.before_ns - raw_ns
        too_old = int(np.count_nonzero(ages > self._bound_ns))
        self.account.produced += len(raw_ns)
        self.account.cut_off += len(raw_ns)
        self.account.worst_loss_ms = max(self.account.worst_loss_ms, round(float(ages.max()) / 1e6, 1))
        if too_old:
            self._violation(
                f"{what}: {too_old} samples older than {self._bound_ns / 1e9} s at the kill at "
                f"{kill.before_ns} are lost, the oldest by {ages.max() / 1e9:.3f} s"
            )

    def _audit_stream(
        self, span: _Span, stream: str, recording: Recording | None, runs: Sequence[NDArray[np.void]]
    ) -> None:
        data = span.stream(stream)
        where = f"{span.session.key.session} {stream}"
        if data is None:
            if any(span.kill is None or (r["raw_ns"] <= span.kill.before_ns).any() for r in runs):
                self._violation(f"{where}: the session does not know this stream")
            return
        if recording is not None:
            self._compare_values(where, data, recording)
        gaps = [g for g in data.gaps if g.stream == stream]
        self._measure_gaps(span, where, data, gaps)
        parts = _parts(data, runs)
        if parts is None:
            self._violation(f"{where}: {len(data.index)} stored samples belong to no run of the device")
            return
        for position, (run, (index, t_ns, u_ns)) in enumerate(zip(runs, parts, strict=True)):
            if len(index) or not _is_repeated(run, runs[position + 1 :]):
                self._audit_run(span, where, run, index, t_ns, u_ns, gaps)
        if span.kill is None and len(runs) == 1 and all(g.lost >= 0 for g in gaps):
            lost = sum(g.lost for g in gaps)
            if len(data.index) + lost != len(runs[0]):
                self._violation(
                    f"{where}: {len(runs[0])} sent, {len(data.index)} stored, {lost} stated as lost"
                )

    def _measure_gaps(self, span: _Span, where: str, data: StreamData, gaps: Sequence[Gap]) -> None:
        """Every killed session states for every stream what that may have cost, and no other session does."""
        account = self.account
        cuts = [g for g in gaps if g.cause == CRASH]
        if len(cuts) != (span.kill is not None):
            self._violation(f"{where}: {len(cuts)} gaps state a crash, outcome {span.session.outcome}")
        for gap in gaps:
            length_ms = round((gap.t1_ns - gap.t0_ns) / 1e6, 1)
            if gap.cause != CRASH:
                account.longest_gap_ms = max(account.longest_gap_ms, length_ms)
            elif len(data.index):
                account.longest_cut_ms = max(account.longest_cut_ms, length_ms)
                if gap.t1_ns - gap.t0_ns > STATED_NS:
                    self._violation(f"{where}: the gap that states a crash has {length_ms} ms")

    def _compare_values(self, where: str, data: StreamData, recording: Recording) -> None:
        expected = np.load(recording.path)
        same: NDArray[np.bool_] = np.all(np.equal(data.values, expected[data.index % len(expected)]), axis=1)
        self.account.compared += len(same)
        if not same.all():
            self._violation(f"{where}: {np.count_nonzero(~same)} stored samples differ from what was sent")

    def _audit_run(
        self,
        span: _Span,
        where: str,
        run: NDArray[np.void],
        index: I64,
        t_ns: I64,
        u_ns: I64,
        gaps: Sequence[Gap],
    ) -> None:
        true_ns = run["raw_ns"].astype(np.int64)
        stored = np.zeros(len(run), np.bool_)
        if len(index):
            if index.max() >= len(run) or np.any(np.diff(index) <= 0):
                self._violation(f"{where}: stored sample numbers are not those of the device, each once")
                return
            stored[index] = True
            self.account.inside += int(np.count_nonzero(np.abs(t_ns - true_ns[index]) <= u_ns))
        self.account.produced += len(index)
        self.account.stored += len(index)
        missing = true_ns[~stored]
        if span.kill is not None:
            missing = missing[missing <= span.kill.before_ns]
        in_gap, in_cut = (
            _inside(missing, [g for g in gaps if (g.cause == CRASH) is cut]) for cut in (False, True)
        )
        gapped = int(np.count_nonzero(in_gap))
        self.account.gapped += gapped
        self.account.produced += gapped
        if span.kill is not None:
            self._cut_off(where, missing[in_cut & ~in_gap], span.kill)
        rest = missing[~in_gap & ~in_cut]
        if len(rest):
            self.account.produced += len(rest)
            self._violation(
                f"{where}: {len(rest)} samples are neither stored nor in a stated gap, "
                f"the first at {rest.min()}, the last at {rest.max()}, outcome {span.session.outcome}"
            )


def _inside(t_ns: I64, gaps: Sequence[Gap]) -> NDArray[np.bool_]:
    """Which times lie in a gap, or so close to it that they may."""
    found = np.zeros(len(t_ns), np.bool_)
    for gap in gaps:
        found |= (t_ns >= gap.t0_ns - GAP_SLACK_NS) & (t_ns <= gap.t1_ns + GAP_SLACK_NS)
    return found


def _is_repeated(run: NDArray[np.void], later: Sequence[NDArray[np.void]]) -> bool:
    """Whether a START was obeyed, not acknowledged in time, and sent again.

    The rig's count begins with the START that was acknowledged: what the board made before is from before it.
    """
    if not len(run) or not later or not len(later[0]):
        return False
    return int(later[0]["raw_ns"].min() - run["raw_ns"].min()) < REPEATED_NS


def _parts(data: StreamData, runs: Sequence[NDArray[np.void]]) -> list[tuple[I64, I64, I64]] | None:
    """Per run of the device: (index, t_ns, u_ns) of its stored samples; None when some fit no run."""
    none = np.zeros(0, np.int64)
    if not len(data.index):
        return [(none, none, none) for _ in runs]
    if not runs:
        return None
    cuts = [0, *(np.flatnonzero(np.diff(data.index) <= 0) + 1).tolist(), len(data.index)]
    starts_ns = np.array([int(r["raw_ns"].min()) if len(r) else 0 for r in runs], np.int64)
    found: list[tuple[I64, I64, I64]] = [(none, none, none) for _ in runs]
    for a, b in pairwise(cuts):
        # Runs follow one another: a sample belongs to the last run that began before it.
        late = int(np.searchsorted(starts_ns, data.t_ns[a] + GAP_SLACK_NS, side="right")) - 1
        if late < 0 or len(found[late][0]):
            return None
        found[late] = (data.index[a:b], data.t_ns[a:b], data.u_ns[a:b])
    return found
