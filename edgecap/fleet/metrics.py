"""The fleet for Prometheus: one scrape, every rig and stream as labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from edgecap import clock
from edgecap.fleet.attention import ORDER
from edgecap.fleet.board_clock import BoardClock, board_clocks
from edgecap.fleet.roster import Roster

RIG = ("site", "rig")
STREAM = (*RIG, "stream")
DEVICE = (*RIG, "device")


class _ClockFamilies:
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

    def __iter__(self) -> Iterator[Metric]:
        return iter(vars(self).values())


class FleetCollector:
    """Reads a roster whenever Prometheus asks."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def collect(self) -> Iterator[Metric]:
        """All series of one scrape."""
        now_ns = clock.now_ns()
        rows = self._roster.rows(now_ns)
        up = GaugeMetricFamily("edgecap_rig_up", "1 unless offline or unreadable", labels=RIG)
        recording = GaugeMetricFamily("edgecap_rig_recording", "1 while a session runs", labels=RIG)
        heard = GaugeMetricFamily("edgecap_rig_heard_age_seconds", "since the last status", labels=RIG)
        wrong = GaugeMetricFamily(
            "edgecap_rig_reasons", "reasons to look at it, by severity", labels=(*RIG, "severity")
        )
        waiting = GaugeMetricFamily("edgecap_spool_bytes", "recorded and not yet receipted", labels=RIG)
        chunks = GaugeMetricFamily("edgecap_spool_chunks", "recorded and not yet receipted", labels=RIG)
        free = GaugeMetricFamily("edgecap_disk_free_bytes", "on the spool's file system", labels=RIG)
        left = GaugeMetricFamily(
            "edgecap_disk_left_seconds", "of recording, at its measured rate", labels=RIG
        )
        receipt = GaugeMetricFamily(
            "edgecap_receipt_p99_seconds", "from publish to receipt, 99th percentile", labels=RIG
        )
        trusted = GaugeMetricFamily(
            "edgecap_wall_clock_trusted", "1 if NTP vouches for the wall clock", labels=RIG
        )
        battery = GaugeMetricFamily("edgecap_battery_ratio", "charge, 0 to 1", labels=RIG)
        heat = GaugeMetricFamily("edgecap_temperature_celsius", "of the processor", labels=RIG)
        counters = CounterMetricFamily(
            "edgecap_rig_count", "what the rig counts since its start", labels=(*RIG, "what")
        )
        ok = GaugeMetricFamily("edgecap_stream_ok", "1 if the stream's verdict is ok", labels=STREAM)
        rate = GaugeMetricFamily("edgecap_stream_rate_hertz", "measured", labels=STREAM)
        lost = GaugeMetricFamily("edgecap_stream_lost_samples", "in this session", labels=STREAM)
        bound = GaugeMetricFamily(
            "edgecap_stream_clock_bound_seconds", "half-width of the time bound", labels=STREAM
        )
        clocks = _ClockFamilies()
        for row in rows:
            name = (row.site, row.rig)
            status = row.status
            up.add_metric(name, float(status is not None))
            heard.add_metric(name, (now_ns - row.heard_ns) / 1e9)
            why = row.reasons(now_ns)
            for severity in ORDER:
                wrong.add_metric((*name, severity), sum(r.severity == severity for r in why))
            if status is None:
                continue
            recording.add_metric(name, float(status.state == "recording"))
            waiting.add_metric(name, status.spool.bytes)
            chunks.add_metric(name, status.spool.chunks)
            free.add_metric(name, status.spool.free_bytes)
            receipt.add_metric(name, status.uplink.receipt_p99_ms / 1e3)
            trusted.add_metric(name, float(status.clock.trusted))
            for gauge, value in (
                (left, None if status.spool.hours_left is None else status.spool.hours_left * 3600),
                (battery, None if status.battery_percent is None else status.battery_percent / 100),
                (heat, status.temperature_c),
            ):
                if value is not None:
                    gauge.add_metric(name, value)
            for what, count in status.counters.items():
                counters.add_metric((*name, what), count)
            for device, board in board_clocks(status).items():
                clocks.add((*name, device), board)
            for v in status.streams:
                labels = (*name, v.stream)
                ok.add_metric(labels, float(v.state == "ok"))
                rate.add_metric(labels, v.rate_hz)
                lost.add_metric(labels, v.lost)
                bound.add_metric(labels, v.u_ns / 1e9)
        yield from (up, recording, heard, wrong, waiting, chunks, free, left, receipt, trusted, battery)
        yield from (heat, counters, ok, rate, lost, bound)
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
