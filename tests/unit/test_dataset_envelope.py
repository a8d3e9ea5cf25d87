"""Envelopes show every extreme, whatever the length."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.dataset.envelope import Envelope


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(-50, 1050), max_size=200).map(sorted), st.integers(1, 40), st.integers(0, 2**32))
def test_equals_the_slow_way(times: list[int], bins: int, seed: int):
    rng = np.random.default_rng(seed)
    t = np.array(times, np.int64)
    values = rng.normal(size=(len(t), 2))
    envelope = Envelope(0, 1000, bins, 2)
    for start in range(0, len(t), 7):
        envelope.add(t[start : start + 7], values[start : start + 7])
    for b in range(bins):
        inside = [v for at, v in zip(t, values, strict=True) if int(np.floor(at / (1000 / bins))) == b]
        if inside:
            assert envelope.low[b].tolist() == np.min(inside, axis=0).tolist()
            assert envelope.high[b].tolist() == np.max(inside, axis=0).tolist()
        else:
            assert np.isnan(envelope.low[b]).all()


def test_a_line_has_all_extremes_in_order_of_time():
    envelope = Envelope(0, 1_000_000_000, 10, 1)
    t = np.arange(0, 1_000_000_000, 1_000_000)
    values = np.sin(t[:, None] * 1e-8)
    values[437] = 9.0
    envelope.add(t, values)
    x, y = envelope.line(0)
    assert np.all(np.diff(x) > 0)
    assert y.max() == 9.0
    assert 0.0 < x[0] < x[-1] < 1.0
