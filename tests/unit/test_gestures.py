import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.source.gestures import Gestures

MS = 1_000_000


def recognise(
    edges: list[tuple[int, bool]], *, until_ms: int = 20_000, **options: bool
) -> list[tuple[str, int]]:
    """Feed edges (at ms) as a daemon would: poll at each deadline; returns kinds and times in ms."""
    gestures, found = Gestures(**options), []
    for t_ms, down in [*edges, (until_ms, None)]:
        while (deadline := gestures.deadline_ns()) is not None and deadline <= t_ms * MS:
            got = gestures.poll(deadline)
            found += got
            assert got or (after := gestures.deadline_ns()) is None or after > deadline
        if down is not None:
            gestures.feed(down, t_ms * MS)
    assert gestures.deadline_ns() is None
    return [(g.kind, g.t_ns // MS) for g in found]


def pulse(at: int, length: int) -> list[tuple[int, bool]]:
    return [(at, True), (at + length, False)]


@pytest.mark.parametrize(
    ("edges", "wanted"),
    [
        (pulse(100, 80), [("press", 100)]),
        (pulse(100, 2900), [("press", 100)]),
        (pulse(100, 3500), [("hold", 100)]),
        (pulse(100, 80) + pulse(400, 80), [("double", 100)]),
        (pulse(100, 80) + pulse(580, 80), [("double", 100)]),  # exactly 400 ms after the release
        (pulse(100, 80) + pulse(581, 80), [("press", 100), ("press", 581)]),
        (pulse(100, 80) + pulse(400, 5000), [("double", 100)]),
        (pulse(100, 80) + pulse(400, 80) + pulse(700, 80), [("double", 100), ("press", 700)]),
        (pulse(100, 5), []),  # a spike
        (pulse(100, 80) + pulse(300, 5), [("press", 100)]),
        (pulse(100, 3500) + pulse(3700, 80), [("hold", 100), ("press", 3700)]),
    ],
)
def test_gesture(edges: list[tuple[int, bool]], wanted: list[tuple[str, int]]) -> None:
    assert recognise(edges) == wanted


def test_bouncing_contacts_make_one_press_at_the_first_edge() -> None:
    bounces = [(100, True), (102, False), (103, True), (107, False), (109, True)]
    release = [(300, False), (301, True), (304, False)]
    assert recognise(bounces + release) == [("press", 100)]


def test_hold_is_told_at_three_seconds_while_still_down() -> None:
    gestures = Gestures()
    gestures.feed(True, 0)
    assert gestures.poll(2999 * MS) == []
    assert gestures.deadline_ns() == 3000 * MS
    assert [g.kind for g in gestures.poll(3000 * MS)] == ["hold"]
    assert gestures.deadline_ns() is None


def test_immediate_press_does_not_wait() -> None:
    gestures = Gestures(immediate=True)
    gestures.feed(True, 100 * MS)
    gestures.feed(False, 180 * MS)
    assert [(g.kind, g.t_ns) for g in gestures.poll(190 * MS)] == [("press", 100 * MS)]
    assert recognise(pulse(100, 80) + pulse(300, 80), immediate=True) == [("press", 100), ("press", 300)]


def test_late_polling_changes_nothing() -> None:
    gestures = Gestures()
    for t_ms, down in pulse(100, 80) + pulse(400, 80) + pulse(5000, 3200) + pulse(9000, 50):
        gestures.feed(down, t_ms * MS)
    assert [g.kind for g in gestures.poll(60_000 * MS)] == ["double", "hold", "press"]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(30, 4500), st.integers(30, 2000)).filter(
            lambda p: p[0] not in (2999, 3000) and not 395 < p[1] < 405
        ),
        max_size=8,
    )
)
def test_clean_presses_are_read_as_a_simple_scan_reads_them(presses: list[tuple[int, int]]) -> None:
    """Each entry: length of a press, then the pause after it (ms)."""
    edges, spans, at = [], [], 1000
    for length, pause in presses:
        edges += pulse(at, length)
        spans.append((at, at + length))
        at += length + pause
    wanted, k = [], 0
    while k < len(spans):
        down, up = spans[k]
        if up - down >= 3000:
            wanted.append(("hold", down))
        elif k + 1 < len(spans) and spans[k + 1][0] - up <= 400:
            wanted.append(("double", down))
            k += 1
        else:
            wanted.append(("press", down))
        k += 1
    assert recognise(edges, until_ms=at + 10_000) == wanted
