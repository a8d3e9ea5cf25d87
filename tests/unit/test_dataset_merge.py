"""Many streams become one order of time without holding them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.dataset.merge import Batch, merged


def batch(topic: str, times: list[int]) -> Batch:
    log = np.array(times, np.int64)
    return Batch(topic, log, log + 5, np.arange(len(times)), [f"{topic}{t}".encode() for t in times])


def groups_of(topic: str, times: list[int], size: int):
    return ([batch(topic, times[i : i + size])] for i in range(0, len(times), size))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 10_000), max_size=40).map(sorted), min_size=1, max_size=5),
    st.integers(1, 9),
)
def test_ordered_and_whole(streams: list[list[int]], size: int):
    sources = [groups_of(chr(97 + i), times, size) for i, times in enumerate(streams)]
    out = [m for window in merged(sources) for m in window]
    assert [m.log_ns for m in out] == sorted(t for times in streams for t in times)
    for i, times in enumerate(streams):
        mine = [m for m in out if m.topic == chr(97 + i)]
        assert [m.log_ns for m in mine] == times
        assert all(m.data == f"{m.topic}{m.log_ns}".encode() for m in mine)
        assert all(m.publish_ns == m.log_ns + 5 for m in mine)


def test_holds_one_group_of_each_source():
    read = []

    def source(topic: str, start: int):
        for k in range(100):
            read.append((topic, k))
            yield [batch(topic, [start + k * 10])]

    ahead = 0
    written = 0
    for window in merged([source("a", 0), source("b", 5)]):
        written += len(window)
        ahead = max(ahead, len(read) - written)
    assert written == 200
    assert ahead <= 2


def test_a_group_that_begins_before_the_last_one_ended_loses_nothing():
    out = [m for w in merged([iter([[batch("a", [0, 10, 20])], [batch("a", [19, 30])]])]) for m in w]
    assert [m.log_ns for m in out] == [0, 10, 20, 19, 30]


def test_rows_of_one_size_are_cut_apart():
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    log = np.array([1, 2, 3], np.int64)
    assert Batch("a", log, log, log, rows).data() == [
        b"\0\1\2\3",
        b"\4\5\6\7",
        b"\x08\x09\x0a\x0b",
    ]
