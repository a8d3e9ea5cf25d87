"""The fleet for Prometheus: one scrape, every rig and stream as labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from edgecap import clock
from edgecap.fleet.attention import ORDER
from edgecap.fleet.board_clock import BoardClock, board_clocks
from edgecap.fleet.roster import RigRow, Roster
from edgecap.model import Verdict

RIG = ("site", "rig")
STREAM = (*RIG, "stream")
DEVICE = (*RIG, "device")


class _Families:
    """Metric families, in the order in which they were made."""

    def __iter__(self) -> Iterator[Metric]:
        return iter(vars(self).values())


class _ClockFamilies(_Families):
    """Quality of boards' clocks, per device; the series of a board are always the same."""

    def __init__(self) -> None:
        def gauge(name: str, text: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"edgecap_clock_{name}", text, labels=DEVICE)

        def counter(name: str, text: str) -> CounterMetricFamily:
            return CounterMetricFamily(f"edgecap_clock_{name}", text, labels=DEVICE)

        self.locked = gauge("locked", "1 while the board's clock is known")
        self.bound = gauge("bound_seconds", "hard half-width of the time bound")
        self.sigma = gauge("sigma_seconds", "standard deviation of the filter, a guess")
        self.skew = gauge("skew_ratio", "oscillator error: rig seconds gained per board second")
        self.slew = gauge("slew_seconds", "last correction of the mapping against its own prediction")
        self.round_trip_p50 = gauge("round_trip_p50_seconds", "of exchanges with the board, median")
        self.round_trip_p99 = gauge("round_trip_p99_seconds", "of exchanges with the board, 99th percentile")
        self.delay_p50 = gauge("excess_delay_p50_seconds", "to the host, beyond the smallest, median")
        self.delay_p99 = gauge(
            "excess_delay_p99_seconds", "to the host, beyond the smallest, 99th percentile"
        )
        self.rejects = counter("rejects", "answers to pings that were not taken")
        self.restarts = counter("restarts", "epochs ended by a crossed band")
        self.resets = counter("resets", "restarts of the board")
        self.lost = counter("lost_frames", "by the jumps of the board's frame numbers")

    def add(self, name: tuple[str, ...], board: BoardClock) -> None:
        self.locked.add_metric(name, float(board.locked))
        self.bound.add_metric(name, board.u_ns / 1e9)
        self.sigma.add_metric(name, board.sigma_ns / 1e9)
        self.skew.add_metric(name, board.skew_ppm / 1e6)
        self.slew.add_metric(name, board.slew_ns / 1e9)
        self.round_trip_p50.add_metric(name, board.rtt_p50_ns / 1e9)
        self.round_trip_p99.add_metric(name, board.rtt_p99_ns / 1e9)
        self.delay_p50.add_metric(name, board.delay_p50_ns / 1e9)
        self.delay_p99.add_metric(name, board.delay_p99_ns / 1e9)
        self.rejects.add_metric(name, board.rejected)
        self.restarts.add_metric(name, board.restarts)
        self.resets.add_metric(name, board.resets)
        self.lost.add_metric(name, board.seq_lost)


class _RigFamilies(_Families):
    """What a rig says of itself as a whole."""

    def __init__(self) -> None:
        def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"edgecap_{name}", text, labels=(*RIG, *labels))

        self.up = gauge("rig_up", "1 unless offline or unreadable")
        self.recording = gauge("rig_recording", "1 while a session runs")
        self.heard = gauge("rig_heard_age_seconds", "since the last status")
        self.wrong = gauge("rig_reasons", "reasons to look at it, by severity", "severity")
        self.waiting = gauge("spool_bytes", "recorded and not yet receipted")
        self.chunks = gauge("spool_chunks", "recorded and not yet receipted")
        self.free = gauge("disk_free_bytes", "on the spool's file system")
        self.left = gauge("disk_left_seconds", "of recording, at its measured rate")
        self.receipt = gauge("receipt_p99_seconds", "from publish to receipt, 99th percentile")
        self.trusted = gauge("wall_clock_trusted", "1 if NTP vouches for the wall clock")
        self.battery = gauge("battery_ratio", "charge, 0 to 1")
        self.heat = gauge("temperature_celsius", "of the processor")
        self.counters = CounterMetricFamily(
            "edgecap_rig_count", "what the rig counts since its start", labels=(*RIG, "what")
        )

    def add(self, row: RigRow, now_ns: int) -> None:
        name, status = (row.site, row.rig), row.status
        self.up.add_metric(name, float(status is not None))
        self.heard.add_metric(name, (now_ns - row.heard_ns) / 1e9)
        why = row.reasons(now_ns)
        for severity in ORDER:
            self.wrong.add_metric((*name, severity), sum(r.severity == severity for r in why))
        if status is None:
            return
        self.recording.add_metric(name, float(status.state == "recording"))
        self.waiting.add_metric(name, status.spool.bytes)
        self.chunks.add_metric(name, status.spool.chunks)
        self.free.add_metric(name, status.spool.free_bytes)
        self.receipt.add_metric(name, status.uplink.receipt_p99_ms / 1e3)
        self.trusted.add_metric(name, float(status.clock.trusted))
        if status.spool.hours_left is not None:
            self.left.add_metric(name, status.spool.hours_left * 3600)
        if status.battery_percent is not None:
            self.battery.add_metric(name, status.battery_percent / 100)
        if status.temperature_c is not None:
            self.heat.add_metric(name, status.temperature_c)
        for what, count in status.counters.items():
            self.counters.add_metric((*name, what), count)


class _StreamFamilies(_Families):
    """What a rig says of each of its streams."""

    def __init__(self) -> None:
        def gauge(name: str, text: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"edgecap_stream_{name}", text, labels=STREAM)

        self.ok = gauge("ok", "1 if the stream's verdict is ok")
        self.rate = gauge("rate_hertz", "measured")
        self.lost = gauge("lost_samples", "in this session")
        self.bound = gauge("clock_bound_seconds", "half-width of the time bound")

    def add(self, name: tuple[str, ...], verdict: Verdict) -> None:
        self.ok.add_metric(name, float(verdict.state == "ok"))
        self.rate.add_metric(name, verdict.rate_hz)
        self.lost.add_metric(name, verdict.lost)
        self.bound.add_metric(name, verdict.u_ns / 1e9)


class FleetCollector:
    """Reads a roster whenever Prometheus asks."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def collect(self) -> Iterator[Metric]:
        """All series of one scrape."""
        now_ns = clock.now_ns()
        rows = self._roster.rows(now_ns)
        rigs, streams, clocks = _RigFamilies(), _StreamFamilies(), _ClockFamilies()
        for row in rows:
            rigs.add(row, now_ns)
            if row.status is not None:
                for device, board in board_clocks(row.status).items():
                    clocks.add((row.site, row.rig, device), board)
                for verdict in row.status.streams:
                    streams.add((row.site, row.rig, verdict.stream), verdict)
        yield from rigs
        yield from streams
        yield from clocks
        yield from self._own(len(rows))

    def _own(self, rigs: int) -> Iterable[Metric]:
        yield GaugeMetricFamily("edgecap_fleet_rigs", "rigs that have spoken to the broker", value=rigs)
        yield CounterMetricFamily(
            "edgecap_fleet_messages", "status and event messages heard", value=self._roster.messages
        )
        yield CounterMetricFamily(
            "edgecap_fleet_messages_refused", "of which no sense could be made", value=self._roster.refused
        )


def exposition(roster: Roster, accept: str = "") -> tuple[bytes, str]:
    """What Prometheus scrapes, and its media type: OpenMetrics for those who `accept` it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector(roster))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type
