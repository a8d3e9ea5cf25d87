"""How long a camera may be silent."""

from __future__ import annotations

import pytest

from edgecap.source.camera_watchdog import MOST_S, Patience


def after(patience: Patience, *times_s: float) -> float:
    """What it allows after frames at these times."""
    return [patience.see(t) for t in times_s][-1]


@pytest.mark.parametrize(
    ("rate_hz", "limit_s"),
    [(120, 0.5), (60, 0.5), (30, 0.5), (25, 0.6), (20, 0.75), (15, 1.0), (5, 1.0), (1, 2.5), (0.2, 12.5)],
)
def test_the_limit_follows_the_frame_rate(rate_hz: float, limit_s: float) -> None:
    assert after(Patience(rate_hz), *(k / rate_hz for k in range(100))) == pytest.approx(limit_s)


def test_late_frames_ask_for_patience_and_are_forgotten() -> None:
    patience = Patience(30)
    assert after(patience, 0.0, 0.033) == 0.5
    assert after(patience, 0.433) == pytest.approx(0.8)
    assert after(patience, 0.933) == MOST_S  # never more than that
    assert 0.5 < after(patience, *(0.933 + k / 30 for k in range(1, 600))) < 1.0
    assert after(patience, *(20.933 + k / 30 for k in range(1, 3000))) == 0.5


def test_an_outage_is_no_pause_but_the_next_process_is_given_time() -> None:
    patience = Patience(30)
    patience.see(0.0)
    patience.begin_anew()
    assert after(patience, 10.0, 10.033) == 0.5
    patience.lose()
    patience.begin_anew()
    assert after(patience, 20.0, 20.033) == MOST_S
