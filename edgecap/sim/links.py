"""The simulated links between a device's counter and the host, by name."""

from __future__ import annotations

import msgspec

from edgecap.source.intake import PING_WIRE_BYTES, PONG_WIRE_BYTES
from edgecap.source.serial_port import wire_byte_ns
from edgecap.timeline.device_clock import DeviceClock

BAUD = 1_000_000


class LinkScenario(msgspec.Struct, frozen=True, kw_only=True):
    """What the simulated link is like."""

    about: str
    usb_frame_us: float = 0.0
    """Device-to-host bytes leave only on these boundaries; 0 for none."""
    ping_waits: bool = True
    """Pings wait for a boundary, too."""
    uart: bool = False
    """Serialise at 1 Mbaud both ways, each end at a rate of its own."""
    two_step: bool = True
    stamp_missing: float = 0.0
    """Share of frames without a transmit stamp."""
    floor_us: tuple[float, float] = (20.0, 40.0)
    """Range of the least host-side latency of a leg; drawn per leg and seed."""
    jitter_us: float = 15.0
    tail: float = 0.02
    """Share of transfers with a heavy tail: Pareto from 200 µs, at most 30 ms."""
    max_skew_ppm: float = 100.0
    drift_ppm: float = 3.0
    """Amplitude of the temperature's sine."""
    drift_period_s: float = 600.0
    warm_up_ppm: float = 3.0
    """Exponential warm-up over two minutes."""
    wander_ppm: float = 0.005
    """Random walk of the skew, ppm per root second."""
    batch: int = 1
    """Samples per frame, at 1 kHz."""
    ping_hz: float = 10.0
    burst: bool = True
    lost: float = 0.0
    repeated: float = 0.0
    swapped: float = 0.0
    stale: float = 0.0
    """Share of pongs attributed to an older ping."""
    stall_every_s: float = 0.0
    stall_s: float = 0.4
    ping_silence_s: float = 0.0
    """Pings fail for this long, from a third of the run on."""
    reset_every_s: float = 0.0
    suspend_every_s: float = 0.0
    suspend_s: float = 20.0

    @property
    def wire_least_ns(self) -> tuple[int, int]:
        """Least time of a ping and a pong on the wire, as the daemon reckons it from a UART's rate."""
        byte_ns = wire_byte_ns("/dev/ttyAMA0", BAUD) if self.uart else 0
        return PING_WIRE_BYTES * byte_ns, PONG_WIRE_BYTES * byte_ns

    def clock(self) -> DeviceClock:
        """The estimator as the daemon makes it for such a link."""
        ping_ns, pong_ns = self.wire_least_ns
        return DeviceClock(ping_least_ns=ping_ns, reply_least_ns=pong_ns, seed=0)


_MS = LinkScenario(about="USB full speed, 1 ms frames both ways", usb_frame_us=1000.0)
_but = msgspec.structs.replace

SCENARIOS: dict[str, LinkScenario] = {
    "usb-1ms": _MS,
    "usb-125us": _but(_MS, about="USB high speed, 125 µs microframes both ways", usb_frame_us=125.0),
    "usb-1ms-batch": _but(_MS, about="1 ms frames, ten samples to a frame", batch=10),
    "usb-1ms-prompt": _but(_MS, about="1 ms frames to the host, pings sent at once", ping_waits=False),
    "usb-1ms-one-step": _but(_MS, about="1 ms frames, no transmit stamps", two_step=False),
    "usb-125us-one-step": _but(
        _MS, about="125 µs microframes, no transmit stamps", usb_frame_us=125.0, two_step=False
    ),
    "uart": _but(_MS, about="1 Mbaud UART", usb_frame_us=0.0, uart=True, batch=10),
    "uart-one-step": _but(
        _MS, about="1 Mbaud UART, no transmit stamps", usb_frame_us=0.0, uart=True, batch=10, two_step=False
    ),
    "sparse-stamps": _but(_MS, about="1 ms frames, 70 % of transmit stamps missing", stamp_missing=0.7),
    "slow-beat": _but(_MS, about="samples beat slowly against the USB frames", max_skew_ppm=0.5),
    "no-burst": _but(_MS, about="1 ms frames, no burst of pings at the start", burst=False),
    "one-hertz": _but(_MS, about="1 ms frames, one ping a second", ping_hz=1.0),
    "temperature": _but(
        _MS, about="10 ppm of drift in 100 s", drift_ppm=10.0, drift_period_s=200.0, wander_ppm=0.02
    ),
    "tails": _but(_MS, about="a fifth of the transfers late, up to 30 ms", tail=0.2, jitter_us=60.0),
    "stalls": _but(_MS, about="the host stalls 0.4 s every 7 s", stall_every_s=7.0),
    "losses": _but(
        _MS,
        about="2 % lost, 2 % repeated, 1 % out of order, 5 % of pongs attributed to an old ping",
        lost=0.02,
        repeated=0.02,
        swapped=0.01,
        stale=0.05,
    ),
    "silence": _but(_MS, about="no ping answered for 60 s", ping_silence_s=60.0),
    "resets": _but(_MS, about="the device resets every 45 s", reset_every_s=45.0),
    "suspends": _but(_MS, about="the host suspends every 60 s", suspend_every_s=60.0),
    "everything": _but(
        _MS,
        about="all of it at once",
        usb_frame_us=1000.0,
        drift_ppm=8.0,
        tail=0.1,
        stamp_missing=0.1,
        lost=0.02,
        repeated=0.02,
        swapped=0.01,
        stale=0.05,
        stall_every_s=11.0,
        reset_every_s=97.0,
        suspend_every_s=131.0,
    ),
}
