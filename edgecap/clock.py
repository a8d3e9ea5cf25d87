"""The one rig clock: CLOCK_MONOTONIC_RAW in int64 ns, qualified by the kernel's boot id."""

from __future__ import annotations

import ctypes
import functools
import time
from pathlib import Path

from edgecap.model import ClockPair

_TIME_ERROR = 5
_STA_UNSYNC = 0x0040


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2)."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_sec", ctypes.c_long),
        ("time_usec", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("pad", ctypes.c_int * 11),
    ]


def now_ns() -> int:
    """Rig time now."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@functools.cache
def boot_id() -> str:
    """The kernel's boot id: rig times are comparable only within one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def read_pair(tries: int = 5) -> ClockPair:
    """Read all host clocks between two RAW readings and keep the narrowest of `tries`.

    The stated times are those of the middle of the bracket; `width_ns` is the bracket's length, so
    each clock was read within ± width_ns / 2 of `raw_ns`. NTP state comes from adjtimex(2).
    """
    best: tuple[int, int, int, int, int] | None = None
    for _ in range(tries):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        mono = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        real = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        width = after - before
        if best is None or width < best[0]:
            best = (width, before + width // 2, mono, boottime, real)
    assert best is not None
    width, raw, mono, boottime, real = best
    timex = _Timex()
    state = _libc().adjtimex(ctypes.byref(timex))
    synced = state not in (-1, _TIME_ERROR) and not timex.status & _STA_UNSYNC
    return ClockPair(
        raw_ns=raw,
        monotonic_ns=mono,
        boottime_ns=boottime,
        realtime_ns=real,
        width_ns=width,
        ntp_synced=synced,
        ntp_max_error_us=int(timex.maxerror),
        ntp_est_error_us=int(timex.esterror),
        ntp_freq_ppm=timex.freq / 65536.0,
    )
