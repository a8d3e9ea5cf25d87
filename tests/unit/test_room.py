"""The hours that fit: measured while recording, kept between sessions, honest about a card that fills."""

from __future__ import annotations

from dataclasses import fields, replace

from edgecap.daemon.room import LEAST_NS, WINDOW_NS, RoomMeter
from edgecap.spool.stats import SpoolStats

S = 1_000_000_000
CARD = replace(
    SpoolStats(**{f.name: 0 for f in fields(SpoolStats)}), free_bytes=8_200_000_000, reserve_bytes=200_000_000
)


def test_hours_follow_the_measured_rate() -> None:
    meter = RoomMeter()
    assert meter.hours_left(CARD) is None, "nothing was recorded yet"
    t_ns, total = 5 * S, 0
    for _ in range(LEAST_NS // S):
        meter.note(t_ns, replace(CARD, appended_bytes_total=total), recording=True)
        assert meter.hours_left(CARD) is None, "too early to say"
        t_ns, total = t_ns + S, total + 1_000_000
    meter.note(t_ns, replace(CARD, appended_bytes_total=total), recording=True)
    assert meter.hours_left(CARD) == 2.2, "8 GB at 1 MB/s"
    for _ in range(WINDOW_NS // S + 1):  # the rate doubles: after a minute only the new one counts
        t_ns, total = t_ns + S, total + 2_000_000
        meter.note(t_ns, replace(CARD, appended_bytes_total=total), recording=True)
    assert meter.hours_left(CARD) == 1.1
    meter.note(t_ns + 900 * S, replace(CARD, appended_bytes_total=total), recording=False)
    assert meter.hours_left(CARD) == 1.1, "between sessions the last rate counts"
    meter.note(t_ns + 901 * S, replace(CARD, appended_bytes_total=total), recording=True)
    assert meter.hours_left(CARD) == 1.1, "the pause is no part of the next session's rate"
    assert meter.hours_left(replace(CARD, free_bytes=207_200_000)) == 0.001
    assert meter.hours_left(replace(CARD, free_bytes=1)) == 0
