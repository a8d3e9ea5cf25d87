"""Other people's ways of turning a device's counter into host time, as causal estimators over one log.

Each is a generator function `peer(log, two_step)` that yields, for every frame in order of arrival, the
estimated offset (host ns minus counter ns) in force for that frame. Written from the published methods,
not from their code. `log` holds unwrapped counters of one boot; with `two_step` a frame's one-way
observation is its predecessor's transmit-complete stamp with the predecessor's arrival.
"""

from __future__ import annotations

import collections
import importlib.util
import itertools
import struct

import numpy as np


class Exchange:
    """A log of one boot with plain Python numbers: host and counter ns relative to the first frame."""

    def __init__(self, log, part=slice(None), wire_least_ns=(0, 0)):
        """Of the entries `part`. A UART's least wire times of ping and pong are known, as they are to us."""
        log = type(log)(**{name: values[part] for name, values in log.arrays().items()})
        ping_least_ns, self.pong_least_ns = wire_least_ns

        def since(values, reference):
            return ((values.astype(np.int64) - reference + (1 << 31)) % (1 << 32) - (1 << 31)) * 1000

        base = log.t_us.astype(np.int64)
        steps = (np.diff(base) + (1 << 31)) % (1 << 32) - (1 << 31)
        self.t = np.concatenate([[0], np.cumsum(steps)]) * 1000
        self.t0, self.host0 = int(base[0]), int(log.arrival_ns[0])
        self.arrival = log.arrival_ns - self.host0
        self.pong = log.kind == 1
        self.sent = log.ping_sent_ns - self.host0 + ping_least_ns
        self.t2 = self.t - ((base - log.t2_us.astype(np.int64)) % (1 << 32)) * 1000
        self.has_prev = log.has_prev == 1
        self.tx_prev = self.t + since(log.prev_tx_done_us, base)
        self.seq = log.seq.astype(np.int64)
        self.truth = log.truth_ns - self.host0
        self.samples = log.kind == 0

    def one_way(self, two_step):
        """Per frame: the (counter, arrival) pair it brings, or None."""
        arrivals = {}
        for i in range(len(self.t)):
            seq = int(self.seq[i])
            pair = (int(self.t[i]), int(self.arrival[i]))
            if two_step:
                pair = None
                if self.has_prev[i] and seq - 1 in arrivals:
                    pair = (int(self.tx_prev[i]), arrivals[seq - 1])
            arrivals.setdefault(seq, int(self.arrival[i]))  # not that of a repetition
            yield pair

    def pings(self, two_step):
        """Per frame: (sent, t2, t_tx, arrival) of the pong that can be completed with it, or None."""
        waiting = None
        for i, pair in enumerate(self.one_way(two_step)):
            done = None
            if two_step and waiting is not None and pair is not None:
                done = (*waiting, *pair)
                waiting = None
            if self.pong[i]:
                if two_step:
                    waiting = (int(self.sent[i]), int(self.t2[i]))
                else:
                    back = int(self.arrival[i]) - self.pong_least_ns
                    done = (int(self.sent[i]), int(self.t2[i]), int(self.t[i]), back)
            yield done


def arrival(x, two_step):
    """Stamp on arrival: what a reader without a clock model does."""
    for i in range(len(x.t)):
        yield float(x.arrival[i] - x.t[i])


def ewma(x, two_step, alpha=0.01):
    """Smoothed arrival offset."""
    offset = None
    for pair in x.one_way(two_step):
        if pair is not None:
            seen = pair[1] - pair[0]
            offset = seen if offset is None else offset + alpha * (seen - offset)
        yield offset if offset is not None else 0.0


def least_squares(x, two_step, window_s=60.0):
    """Line through the last minute's arrivals, refitted twice a second."""
    at, seen = np.empty((2, len(x.t)))
    first = last = 0
    level = slope = base = 0.0
    due = -1e18
    for i, pair in enumerate(x.one_way(two_step)):
        if pair is not None:
            at[last], seen[last] = pair[0], pair[1] - pair[0]
            last += 1
        now = float(x.t[i])
        while first < last and at[first] < now - window_s * 1e9:
            first += 1
        if now >= due and last - first > 10:
            due = now + 0.5e9
            base = now
            slope, level = np.polyfit((at[first:last] - now) * 1e-9, seen[first:last], 1)
        yield level + slope * (now - base) * 1e-9


def lsl(x, two_step, probes=8):
    """The lab streaming layer's way: of each group of probes the midpoint of the shortest round trip."""
    group, offset = [], 0.0
    for done in x.pings(two_step):
        if done is not None:
            sent, t2, t3, back = done
            group.append(((back - sent) - (t3 - t2), ((sent - t2) + (back - t3)) / 2))
            if offset == 0.0:
                offset = group[-1][1]
            if len(group) == probes:
                offset = min(group)[1]
                group = []
        yield offset


def klipper(x, two_step, decay=1 / 30):
    """Klipper's way: decayed regression of send times on counters, plus the least half round trip seen."""
    least, least_at = None, 0.0
    time_avg = clock_avg = time_var = cov = 0.0
    n, rate, offset_line = 0, 1.0, (0.0, 0.0)
    for i, done in enumerate(x.pings(two_step)):
        if done is not None:
            sent, t2, t3, back = done
            half = ((back - sent) - (t3 - t2)) / 2
            if least is None or half < least + (sent - least_at) * 20e-6:
                least, least_at = half, sent
            if half <= 3 * least or n < 8:
                n += 1
                weight = max(decay, 1.0 / n)
                ds, dt = t2 - clock_avg, sent - time_avg
                clock_avg += weight * ds
                time_avg += weight * dt
                time_var = (1 - weight) * (time_var + ds * ds * weight)
                cov = (1 - weight) * (cov + ds * dt * weight)
                if n > 8 and time_var > 0:
                    rate = cov / time_var
                offset_line = (time_avg + least - clock_avg, clock_avg)
        yield offset_line[0] + (rate - 1.0) * (float(x.t[i]) - offset_line[1])


def hull(x, two_step, window_s=60.0):
    """Convex hull below the arrivals of the last minute: the edge over the middle of the window."""
    best = collections.OrderedDict()
    line, due = (0.0, 0.0, 0.0), -1e18
    for i, pair in enumerate(x.one_way(two_step)):
        if pair is not None:
            bucket = pair[0] // 250_000_000
            seen = pair[1] - pair[0]
            if bucket not in best or seen < best[bucket][1]:
                best[bucket] = (pair[0], seen)
            while best and next(iter(best)) < bucket - int(window_s * 4):
                best.popitem(last=False)
        now = float(x.t[i])
        if now >= due and len(best) > 1:
            due = now + 0.25e9
            line = _edge(sorted(best.values()))
        yield line[0] + line[1] * (now - line[2])


def _edge(points):
    low = []
    for p in points:
        while len(low) > 1 and (low[-1][0] - low[-2][0]) * (p[1] - low[-2][1]) <= (
            low[-1][1] - low[-2][1]
        ) * (p[0] - low[-2][0]):
            low.pop()
        low.append(p)
    middle = (points[0][0] + points[-1][0]) / 2
    for a, b in itertools.pairwise(low):
        if a[0] <= middle <= b[0]:
            slope = (b[1] - a[1]) / (b[0] - a[0])
            return (b[1], slope, b[0])
    return (low[-1][1], 0.0, low[-1][0])


def kalman(x, two_step):
    """Offset and skew filtered from ping midpoints, weighted by the round trip's excess."""
    state, p, at, least = None, None, 0.0, None
    for i, done in enumerate(x.pings(two_step)):
        now = float(x.t[i])
        if done is not None:
            sent, t2, t3, back = done
            trip = (back - sent) - (t3 - t2)
            least = trip if least is None else min(least + 100.0, trip)
            seen = ((sent - t2) + (back - t3)) / 2
            if state is None:
                state, p, at = np.array([seen, 0.0]), np.diag([1e10, 1e9]), now
            dt = (now - at) * 1e-9
            at = now
            f = np.array([[1.0, dt], [0.0, 1.0]])
            state = f @ state
            p = f @ p @ f.T + 400.0 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
            noise = (10e3 + (trip - least) / 2) ** 2
            gain = p[:, 0] / (p[0, 0] + noise)
            state = state + gain * (seen - state[0])
            p = p - np.outer(gain, p[0])
        yield float(state[0] + state[1] * (now - at) * 1e-9) if state is not None else 0.0


def pyxdf_offline(x, two_step, every=50):
    """What pyxdf itself makes of the same exchange as an XDF file; it reads backwards in time, too.

    An offset each five seconds, as LSL's recorder measures it: of `every` probes that of the shortest trip.
    """
    import io

    import pyxdf

    def chunk(tag, content):
        return b"\x04" + struct.pack("<IH", len(content) + 2, tag) + content

    head = (
        "<info><name>b</name><type>b</type><channel_count>1</channel_count><nominal_srate>0</nominal_srate>"
        "<channel_format>int32</channel_format></info>"
    )
    stream = struct.pack("<I", 1)
    out = [b"XDF:", chunk(1, b"<info><version>1.0</version></info>"), chunk(2, stream + head.encode())]
    group = []
    for i, done in enumerate(x.pings(two_step)):
        # pyxdf's stamps are seconds; the counter's start is its zero
        sample = b"\x04" + struct.pack("<I", 1) + b"\x08" + struct.pack("<di", x.t[i] * 1e-9, 0)
        out.append(chunk(3, stream + sample))
        if done is not None:
            sent, t2, t3, back = done
            group.append(((back - sent) - (t3 - t2), t2, ((sent - t2) + (back - t3)) / 2))
            if len(group) == every:
                _, at, offset = min(group)
                out.append(chunk(4, stream + struct.pack("<dd", at * 1e-9, offset * 1e-9)))
                group = []
    out.append(chunk(6, stream + b"<info></info>"))
    (found,), _ = pyxdf.load_xdf(io.BytesIO(b"".join(out)), dejitter_timestamps=False, verbose=False)
    yield from found["time_stamps"] * 1e9 - x.t


PEERS = {
    "arrival stamp": arrival,
    "EWMA": ewma,
    "least squares 60 s": least_squares,
    "LSL-like": lsl,
    "Klipper-like": klipper,
    "one-way hull 60 s": hull,
    "Kalman on pings": kalman,
}
if importlib.util.find_spec("pyxdf") is not None:
    PEERS["pyxdf, afterwards"] = pyxdf_offline
